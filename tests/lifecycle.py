#!/usr/bin/env python3
"""Takes the customer's key from a working engine, and gives it back.

    tests/lifecycle.py ENGINE [--servers DIR] [--no-core]

Starts OpenBao, and ENGINE (`target/release/atrest-lifecycle`): SlateDB encrypted under a key of
that OpenBao, one thread writing and one reading all the time.

0. While both work, the memory that the system would write into a core dump holds no key. Not
   looked at are registers, where a call that runs has its round keys; since it may have more on
   its stack, one of three dumps has to be without.
1. The key is revoked by policy: no read and no write succeeds later than the stated bound, and a
   core dump holds no key. It is given back by policy: all records are there.
2. The server is stopped (SIGSTOP): reads and writes go on for the grace and no longer, and a
   core dump holds no key. It goes on (SIGCONT): so does the engine, with all records.

The keys to look for come from `tests/reader.py`, which knows the format's text alone, and from
the server's administrator. Only an optimised engine leaves no key on its stacks. The engine's
allocator wipes what is freed, since the TLS client does not wipe what the service sent.
"""

import argparse
import base64
import json
import os
import queue
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import reader

ROOT = "root-token-of-the-test"
PT_NOTE = 4
# Milliseconds; the bound is long because it counts every call's deadline.
TIMES = {"CHECK": 1000, "DEADLINE": 4000, "CONFIRM": 1000, "SUSPICION": 8000, "GRACE": 6000, "RECOVERY": 500}


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class OpenBao:
    def __init__(self, program, directory):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.ca = directory / "vault-ca.pem"
        arguments = ["server", "-dev", "-dev-tls", "-dev-no-store-token", f"-dev-tls-cert-dir={directory}"]
        arguments += [f"-dev-root-token-id={ROOT}", f"-dev-listen-address=127.0.0.1:{self.port}"]
        log = (directory / "log").open("w")
        self.process = subprocess.Popen(
            [program, *arguments], cwd=directory, env={"HOME": str(directory)}, stdout=log, stderr=log
        )
        for _ in range(1000):
            assert self.process.poll() is None, (directory / "log").read_text()
            try:
                self.call("GET", "sys/health")
                break
            except (OSError, ssl.SSLError):
                time.sleep(0.05)
        else:
            raise AssertionError("OpenBao does not answer")
        self.call("POST", "sys/mounts/transit", {"type": "transit"})
        self.call("POST", "transit/keys/customer", {})
        self.allow(True)
        token = self.call("POST", "auth/token/create-orphan", {"policies": ["engine"], "no_default_policy": True})
        self.token = token["auth"]["client_token"]
        self.uri = f"hcvault://127.0.0.1:{self.port}/transit/keys/customer?ca={self.ca}"

    def call(self, method, path, body=None):
        context = ssl.create_default_context(cafile=self.ca)
        url = f"https://127.0.0.1:{self.port}/v1/{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"X-Vault-Token": ROOT}, method=method)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def allow(self, yes):
        paths = ["encrypt", "decrypt"] if yes else ["nothing"]
        rules = "\n".join(f'path "transit/{path}/customer" {{ capabilities = ["update"] }}' for path in paths)
        self.call("POST", "sys/policies/acl/engine", {"policy": rules})

    def unwrap(self, blob, context):
        body = {"ciphertext": blob.decode(), "associated_data": base64.b64encode(context).decode()}
        return base64.b64decode(self.call("POST", "transit/decrypt/customer", body)["data"]["plaintext"])


class Engine:
    def __init__(self, program, directory, bao):
        environment = {name: str(value) for name, value in TIMES.items()}
        environment |= {"VAULT_TOKEN": bao.token, "PATH": os.environ["PATH"], "RUST_BACKTRACE": "1"}
        self.process = subprocess.Popen(
            [program, "run", directory, bao.uri],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.transitions, self.answers = [], queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            said = json.loads(line)
            if "transition" in said:
                transition = said["transition"]
                self.transitions.append(transition)
                say(f"  {transition['from']} -> {transition['to']} ({transition['kms_error']})")
            else:
                self.answers.put(said)

    def ask(self, what):
        print(what, file=self.process.stdin, flush=True)
        return self.answers.get(timeout=300)

    def report(self):
        return self.ask("report")

    def wait_for(self, states, what):
        for _ in range(6000):
            report = self.report()
            if report["access"]["state"] in states:
                return report
            assert self.process.poll() is None, "the engine ended"
            time.sleep(0.02)
        raise AssertionError(f"{what}: the engine stays {report['access']['state']}")

    def works(self):
        """Waits until both threads succeed again."""
        before = self.report()
        for _ in range(6000):
            report = self.report()
            if report["written"] > before["written"] + 3 and report["read"] > before["read"] + 3:
                return report
            time.sleep(0.02)
        raise AssertionError(f"reads and writes do not go on: {report}")

    def verify(self):
        # It writes on meanwhile: at least those that were acknowledged before.
        verified = self.ask("verify")
        assert verified["verified"] == verified["written"] > 0, verified
        say(f"  all {verified['verified']:,} acknowledged records are there")


def round_keys(key):
    """The key expansion of AES-256, FIPS 197 section 5.2."""
    def times(a, b):
        product = 0
        while b:
            product ^= a if b & 1 else 0
            a, b = (a << 1) ^ (0x11B if a & 0x80 else 0), b >> 1
        return product

    def substitute(byte):
        inverse = 1
        for _ in range(254):
            inverse = times(inverse, byte)
        turned = [((inverse << turn) | (inverse >> (8 - turn))) & 0xFF for turn in range(5)]
        return turned[0] ^ turned[1] ^ turned[2] ^ turned[3] ^ turned[4] ^ 0x63

    if not hasattr(round_keys, "box"):
        round_keys.box = bytes(map(substitute, range(256)))
    words = [key[at : at + 4] for at in range(0, 32, 4)]
    constant = 1
    while len(words) < 60:
        word = words[-1]
        if len(words) % 8 == 0:
            word = word[1:] + word[:1]
        if len(words) % 4 == 0:
            word = bytes(round_keys.box[byte] for byte in word)
        if len(words) % 8 == 0:
            word, constant = bytes([word[0] ^ constant]) + word[1:], constant << 1
        words.append(bytes(a ^ b for a, b in zip(word, words[-8])))
    return b"".join(words)


def pieces(name, value):
    return {value[at : at + 16]: name for at in range(0, len(value) - 15, 16)}


def key_pieces(name, key):
    found = pieces(name, key) | pieces(f"{name}, a round key", round_keys(key)[32:])
    for pad in (0x36, 0x5C):
        found |= pieces(f"{name}, padded for HMAC", bytes(byte ^ pad for byte in key))
    return found


def all_keys(directory, bao):
    """What to look for, by 16-byte pieces: every key of the store in every form it may have."""
    class Keyring(reader.Keyring):
        def unlock(self, *_):
            slot = self.slots[0]
            context = self.store_id + slot["key_id"] + slot["context"].to_bytes(2, "little")
            self.found_slot_key = bao.unwrap(slot["blob"], context)
            self.found_store_key = self.store_key(self.found_slot_key, slot)
            return self.found_store_key

    keyring = Keyring((directory / "KEYRING").read_bytes(), None)
    found = key_pieces("the store key", keyring.found_store_key)
    found |= key_pieces("the slot key", keyring.found_slot_key)
    text = base64.b64encode(keyring.found_slot_key)
    for at in range(4):
        # Base64 as the service sends it, wherever a buffer cuts it.
        found |= pieces("the slot key in base64", text[at:])
    for number, key in enumerate(keyring.keys.values()):
        found |= key_pieces(f"data key {number}", key)
    files = 0
    for path in directory.rglob("*"):
        head = b""
        if path.is_file():
            try:
                with path.open("rb") as file:
                    head = file.read(4096)
            except FileNotFoundError:
                continue  # Compacted away.
        if head[:8] == reader.FILE_MAGIC and len(head) == 4096:
            key, _, _ = reader.derive(keyring.keys[head[48:64]], b"atrest.v1.file", head[:128])
            found |= key_pieces("a file key", key)
            files += 1
    return found, files


def blank_registers(core):
    """Overwrites the notes of a core dump: the registers of each thread."""
    with core.open("r+b") as file:
        head = file.read(64)
        assert head[:5] == b"\x7fELF\x02", "expected a 64-bit ELF file"
        at, size, count = struct.unpack_from("<Q14xHH", head, 32)
        file.seek(at)
        table = file.read(size * count)
        notes = 0
        for start in range(0, len(table), size):
            kind, offset, length = struct.unpack_from("<I4xQ16xQ", table, start)
            if kind == PT_NOTE:
                file.seek(offset)
                file.write(bytes(length))
                notes += length
    assert notes, f"expected notes in {core}, found none"


def dump_core(engine, directory, everything=True):
    """The engine's memory and registers, or what the system would dump of its memory alone."""
    core = directory / "core"
    excluded, chosen = ("on", "off") if everything else ("off", "on")
    commands = [f"set dump-excluded-mappings {excluded}", f"set use-coredump-filter {chosen}", f"gcore {core}"]
    arguments = [part for command in commands for part in ("-ex", command)]
    dumped = subprocess.run(
        ["gdb", "-p", str(engine.process.pid), "-batch", *arguments], capture_output=True, text=True, check=False
    )
    assert core.exists(), f"gcore failed: {dumped.stderr[-2000:]}"
    if not everything:
        blank_registers(core)
    return core


def search_core(program, keys, core):
    """Which of the keys are in this dump, by name. It is removed."""
    lines = "\n".join(piece.hex() for piece in keys)
    searched = subprocess.run([program, "search", core], input=lines, capture_output=True, text=True, check=True)
    size = core.stat().st_size
    core.unlink()
    found = {}
    for line in searched.stdout.splitlines():
        piece, count = line.split()
        name = keys[bytes.fromhex(piece)]
        found[name] = found.get(name, 0) + int(count)
    return found, size


def no_key_left(engine, program, keys, directory, everything=True):
    # A key that rests where it is dumped is in each dump, one that a call uses is not.
    for _ in range(1 if everything else 3):
        found, size = search_core(program, keys, dump_core(engine, directory, everything))
        if not found:
            break
    say_none_is_left(keys, found, size)


def say_none_is_left(keys, found, size):
    assert not found, f"keys are left in {size:,} bytes of core: {found}"
    say(f"  none of {len(keys):,} pieces of keys is in {size:,} bytes of core")


def copy_heads(data, directory):
    """What tells all keys of a store, as it is at this moment."""
    for path in data.rglob("*"):
        if path.is_file() and path.name != "KEYRING.lock":
            to = directory / path.relative_to(data)
            to.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("rb") as file:
                    to.write_bytes(file.read() if path.name == "KEYRING" else file.read(4096))
            except FileNotFoundError:
                pass  # Compacted away.


def revoke_and_restore(engine, bao, program, data, scratch, core):
    say("revoking by policy, while two threads read and write")
    engine.works()
    keys, files = all_keys(data, bao)
    if core:
        found, size = search_core(program, keys, dump_core(engine, scratch))
        for kind in ("the store key", "data key 0", "a file key", "a file key, a round key"):
            assert found.get(kind), f"{kind} is not found even before: {found}"
        say(f"  before: {sum(found.values()):,} places in {size:,} bytes of core, keys of {files} files")
        # What the TLS client holds at the moment is in a dump: the slot key as the service sent it.
        ours = {piece: name for piece, name in keys.items() if not name.startswith("the slot key")}
        no_key_left(engine, program, ours, scratch, everything=False)
    bao.allow(False)
    revoked_ns = time.time_ns()
    report = engine.wait_for({"revoked"}, "revoked by policy")
    # Nothing succeeds any more, however often it is tried.
    refused = report["refused"]
    while report["refused"] < refused + 200:
        report = engine.report()
    late_s = (report["last_success_ns"] - revoked_ns) / 1e9
    bound_s = report["access"]["worst_case_s"]
    say(f"  the last success came {late_s:.2f} s after the revocation, the bound is {bound_s:.2f} s")
    assert late_s <= bound_s
    assert report["access"]["kms_error"] == "access denied", report
    if core:
        later, _ = all_keys(data, bao)
        no_key_left(engine, program, keys | later, scratch)
    assert engine.report()["last_success_ns"] == report["last_success_ns"]
    say("giving access back by policy")
    bao.allow(True)
    engine.wait_for({"restored", "active"}, "restored by policy")
    engine.works()
    engine.verify()


def freeze_and_thaw(engine, bao, program, data, scratch, core):
    say("stopping the key service, while two threads read and write")
    keys, _ = all_keys(data, bao)
    bao.process.send_signal(signal.SIGSTOP)
    stopped_ns = time.time_ns()
    try:
        engine.wait_for({"unreachable"}, "service stopped")
        engine.works()
        say("  grace: reads and writes go on")
        report = engine.wait_for({"suspended"}, "grace over")
        refused = report["refused"]
        while report["refused"] < refused + 200:
            report = engine.report()
        late_s = (report["last_success_ns"] - stopped_ns) / 1e9
        bound_s = report["access"]["worst_case_unreachable_s"]
        say(f"  the last success came {late_s:.2f} s after the stop, the bound is {bound_s:.2f} s")
        assert late_s <= bound_s
        if core:
            dumped = dump_core(engine, scratch)
            heads = scratch / "heads"
            copy_heads(data, heads)
    finally:
        bao.process.send_signal(signal.SIGCONT)
    say("the key service goes on")
    if core:
        # It alone tells the keys of the files that were written in the grace.
        later, files = all_keys(heads, bao)
        assert later.keys() - keys.keys(), "no file was written in the grace"
        say_none_is_left(keys | later, *search_core(program, keys | later, dumped))
        say(f"  those of {files} files, with the ones written in the grace")
    engine.wait_for({"restored", "active"}, "service back")
    engine.works()
    engine.verify()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", type=Path)
    parser.add_argument("--servers", type=Path, default=Path(__file__).parent.parent / "target/servers")
    parser.add_argument("--no-core", action="store_true", help="do not look for keys in core dumps")
    arguments = parser.parse_args()
    program, core = arguments.engine.resolve(), not arguments.no_core
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        data, scratch, server = directory / "data", directory / "scratch", directory / "server"
        for path in (data, scratch, server):
            path.mkdir()
        bao = OpenBao((arguments.servers / "bao").resolve(), server)
        engine = None
        try:
            engine = Engine(program, data, bao)
            revoke_and_restore(engine, bao, program, data, scratch, core)
            freeze_and_thaw(engine, bao, program, data, scratch, core)
            print("quit", file=engine.process.stdin, flush=True)
            assert engine.process.wait(timeout=120) == 0
        finally:
            for process in (engine and engine.process, bao.process):
                if process and process.poll() is None:
                    process.kill()
                    process.wait()
    say("done")


if __name__ == "__main__":
    main()
