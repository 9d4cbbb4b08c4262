#!/usr/bin/env python3
"""Which mutants of the core no test notices: `tests/mutants/run.py OUT FILE...`.

Needs `cargo install cargo-mutants` and `pip install tree-sitter tree-sitter-rust`. Weaves the
mutants of the files into a copy of the tree (see weave.py), learns which of them each test
reaches, and runs for each mutant the tests that reach it, the fastest first, until one fails.
OUT gets the copy, and `OUT/result.json` what became of each; `docs/MUTANTS.md` explains those
that survive. A run that was stopped goes on where it was.
"""

import json
import os
import re
import subprocess
import sys
import time

import weave

TIMES_MAX = 10  # A test that takes so much longer than without a mutant hangs.
TIMEOUT_MIN = 20
REACHING_MAX = 400  # Integration tests tried for one mutant: all, if none notices it.


def build(tree, target):
    command = ["cargo", "test", "-p", "atrest", "--lib", "--test", "it", "--no-run",
               "--message-format=json"]
    environment = {**os.environ, "CARGO_TARGET_DIR": target, "CARGO_INCREMENTAL": "0",
                   "CARGO_PROFILE_DEV_DEBUG": "0"}
    done = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    if done.returncode:
        refused, needed = weave.refused_by(done.stdout, tree)
        print(f"the compiler refuses {len(refused)} and wants {len(needed)} constant", flush=True)
        if not refused and not needed:
            sys.exit("it does not build, and no mutant is to blame")
        return (refused, needed), []
    binaries = []
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] in ("atrest", "it"):
            binaries.append(message["executable"])
    return ([], set()), binaries


def run(binary, tests, tree, timeout, **environment):
    """Whether all pass, and how long it took. `None` for a time-out."""
    began = time.monotonic()
    command = [binary, "--exact", "--test-threads=2", *tests]
    try:
        done = subprocess.run(command, cwd=tree, env={**os.environ, **environment}, timeout=timeout,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return done.returncode == 0, time.monotonic() - began
    except subprocess.TimeoutExpired:
        return None, time.monotonic() - began


def tests_of(binary, tree):
    listed = subprocess.run([binary, "--list"], cwd=tree, stdout=subprocess.PIPE, text=True)
    return re.findall(r"^(.*): test$", listed.stdout, re.M)


def reach(binary, tree, out):
    """For each test how long it takes and which mutants it reaches."""
    path = os.path.join(out, f"reach-{os.path.basename(binary).split('-')[0]}.json")
    known = json.load(open(path)) if os.path.exists(path) else {}
    trace = os.path.join(out, "trace")
    for test in tests_of(binary, tree):
        if test in known:
            continue
        open(trace, "w").close()
        passed, took = run(binary, [test], tree, 600, ATREST_MUTANT_TRACE=trace)
        numbers = sorted(set(map(int, open(trace).read().split())))
        known[test] = {"passed": passed, "took": took, "reaches": numbers}
        json.dump(known, open(path, "w"))
    return known


def judge(number, known, binary, tree):
    """One of the tests that notice it, a time-out among them, or `None`."""
    reaching = sorted((test["took"], name) for name, test in known.items()
                      if test["passed"] and number in test["reaches"])
    reaching = reaching[:REACHING_MAX]
    done, together = 0, 4
    while done < len(reaching):
        batch = reaching[done:done + together]
        took = sum(took for took, _ in batch)
        names = [name for _, name in batch]
        passed, _ = run(binary, names, tree, max(TIMEOUT_MIN, took * TIMES_MAX),
                        ATREST_MUTANT=str(number))
        if not passed:
            return f"{'timeout' if passed is None else 'noticed'}: one of {', '.join(names[:8])}"
        done, together = done + together, together * 4
    return None if reaching else "unreached"


def main(out, files):
    out = os.path.abspath(out)
    tree, target = os.path.join(out, "tree"), os.path.join(out, "target")
    os.makedirs(tree, exist_ok=True)
    archive = subprocess.run(["git", "archive", "HEAD"], stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "x", "-C", tree], input=archive.stdout, check=True)
    binaries = []

    def attempt():
        told, built = build(tree, target)
        binaries[:] = built
        return told

    listed, left = weave.weave(tree, files, attempt)
    print(f"{len(listed)} mutants, {len(left)} left to cargo-mutants", flush=True)
    judge_all([mutant["name"] for mutant in listed], left, binaries, tree, out)


def judge_all(names, left, binaries, tree, out):
    """By unit tests first, which are fast; what those do not notice by integration tests."""
    path = os.path.join(out, "result.json")
    result = json.load(open(path)) if os.path.exists(path) else {}
    for number in left:
        result.setdefault(names[number], "left")
    for binary in sorted(binaries):
        kind = os.path.basename(binary).split("-")[0]
        known = reach(binary, tree, out)
        for number, name in enumerate(names):
            found = result.get(name, {})
            if isinstance(found, str) or kind in found:
                continue
            verdict = judge(number, known, binary, tree)
            quiet = verdict in (None, "unreached")
            result[name] = {**found, kind: verdict} if quiet else verdict
            json.dump(result, open(path, "w"), indent=1)
            if quiet:
                print(kind, verdict or "SURVIVES", name, flush=True)
    verdicts = [result[name] for name in names]
    print(f"{len(names)} mutants: {sum(verdict == 'left' for verdict in verdicts)} left to "
          f"cargo-mutants, {sum(isinstance(verdict, dict) for verdict in verdicts)} survive")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
