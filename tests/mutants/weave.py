"""All mutants of cargo-mutants in one build, each behind a switch.

cargo-mutants builds the tests anew for each of its mutants, which for thousands of them takes
weeks. Here its list is woven into a copy of the sources: where a mutant would be, the code asks
`crate::mutant(N)`, and the variable ATREST_MUTANT says which N it is. Functions lose their `const`
for it, but where a constant needs one. What cannot be woven, as in constants, is left to
cargo-mutants itself and listed.
"""

import json
import os
import re
import subprocess
import sys

import tree_sitter_rust
from tree_sitter import Language, Parser

SWITCH = """
/// Whether this mutant is switched on. Reached ones are told of.
#[doc(hidden)]
#[allow(missing_docs)]
pub fn mutant(number: usize) -> bool {
    use std::io::Write as _;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    static ON: OnceLock<(usize, Option<std::ffi::OsString>)> = OnceLock::new();
    static SEEN: [AtomicBool; 8192] = [const { AtomicBool::new(false) }; 8192];
    let (on, trace) = ON.get_or_init(|| {
        let on = std::env::var("ATREST_MUTANT").ok().and_then(|on| on.parse().ok());
        (on.unwrap_or(usize::MAX), std::env::var_os("ATREST_MUTANT_TRACE"))
    });
    if let Some(trace) = trace
        && !SEEN[number].swap(true, Ordering::Relaxed)
    {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(trace);
        if let Ok(mut file) = file {
            let _ = file.write_all(format!("{number}\\n").as_bytes());
        }
    }
    *on == number
}
"""

CONSTANT = {"const_item", "static_item", "array_type", "const_block", "type_arguments",
            "enum_variant", "let_chain", "macro_invocation"}
PARSER = Parser(Language(tree_sitter_rust.language()))


def is_constant(node):
    while node is not None:
        if node.type in CONSTANT:
            return True
        if node.type == "function_item":
            return False
        if node.type == "array_expression" and node.child_by_field_name("length") is not None:
            return True
        node = node.parent
    return False


def functions(node):
    """All functions, those inside of functions too."""
    if node.type == "function_item":
        yield node
    for child in node.children:
        yield from functions(child)


class File:
    """A source file with its mutants, each at the node that it changes."""

    def __init__(self, text):
        self.text = text
        self.tree = PARSER.parse(text)
        self.constant = []  # Functions that were `const`: name, where that stands, and the whole.
        for function in functions(self.tree.root_node):
            for modifiers in function.children:
                if modifiers.type == "function_modifiers" and b"const" in modifiers.text:
                    start = modifiers.start_byte + modifiers.text.index(b"const")
                    name = function.child_by_field_name("name").text.decode()
                    self.constant.append((name, (start, start + len(b"const ")), function))
        self.lines = [0]
        for line in text.split(b"\n"):
            self.lines.append(self.lines[-1] + len(line) + 1)
        self.edits = {}  # (start, end) of a node: [(kind, number, mutant)]

    def offset(self, at):
        line = self.text[self.lines[at["line"] - 1]:].split(b"\n", 1)[0].decode()
        return self.lines[at["line"] - 1] + len(line[:at["column"] - 1].encode())

    def add(self, number, mutant):
        """Whether it can be woven in."""
        start, end = (self.offset(mutant["span"][side]) for side in ("start", "end"))
        node = self.tree.root_node.descendant_for_byte_range(start, end)
        genre = mutant["genre"]
        if node is None or is_constant(node):
            return False
        if genre == "FnValue":
            while node is not None and node.type != "function_item":
                node = node.parent
            if node is None:
                return False
            result = node.child_by_field_name("return_type")
            if result is not None and b"impl " in result.text:
                return False
            at = node.child_by_field_name("body")
            kind = "value"
        elif genre in ("BinaryOperator", "UnaryOperator"):
            at = node if node.child_count else node.parent
            if at.type not in ("binary_expression", "unary_expression", "compound_assignment_expr"):
                return False
            kind = "operator"
            mutant = {**mutant, "at": (start, end)}
        elif genre == "MatchArm":
            while node is not None and node.type != "match_arm":
                node = node.parent
            if node is None:
                return False
            at = node.child_by_field_name("pattern")
            if at is None or b"let " in at.text:
                return False
            kind = "arm"
        elif genre == "MatchArmGuard":
            at, kind = node, "guard"
            if b"let " in node.text or (node.start_byte, node.end_byte) != (start, end):
                return False
        else:
            return False
        self.edits.setdefault((at.start_byte, at.end_byte), []).append((kind, number, mutant))
        return True

    def keep_const(self, name):
        """Gives functions of this name their `const` back. Returns their mutants, which go."""
        kept = [function for it, _, function in self.constant if it == name]
        self.constant = [it for it in self.constant if it[0] != name]
        gone = []
        for span, edits in self.edits.items():
            if any(it.start_byte <= span[0] and span[1] <= it.end_byte for it in kept):
                gone += [number for _, number, _ in edits]
                edits.clear()
        return gone

    def drop(self, number):
        for edits in self.edits.values():
            edits[:] = [edit for edit in edits if edit[1] != number]

    def woven(self, start=0, end=None, skip=None):
        """The text between, with its edits; those of the node `skip` are made already."""
        end = len(self.text) if end is None else end
        out, at = [], start
        within = lambda span: start <= span[0] and span[1] <= end and span != skip
        nodes = [span for span, edits in self.edits.items() if edits and within(span)]
        dropped = {span for _, span, _ in self.constant if within(span)}
        nodes += dropped
        # The outermost first.
        nodes.sort(key=lambda span: (span[0], -span[1]))
        for span in nodes:
            if span[0] < at:
                continue
            out.append(self.text[at:span[0]])
            if span not in dropped:
                out.append(self.edited(span))
            at = span[1]
        out.append(self.text[at:end])
        return b"".join(out)

    def edited(self, span):
        inner = self.woven(*span, skip=span)
        for kind, number, mutant in self.edits[span]:
            new = mutant["replacement"].encode()
            on = b"crate::mutant(%d)" % number
            if kind == "value":
                inner = inner.replace(b"{", b"{ if %s { return %s; } " % (on, new), 1)
            elif kind == "operator":
                start, end = mutant["at"]
                changed = self.text[span[0]:start] + new + self.text[end:span[1]]
                inner = b"(if %s { %s } else { %s })" % (on, changed, inner)
            elif kind == "guard":
                inner = b"(if %s { %s } else { %s })" % (on, new, inner)
            elif kind == "arm":
                pattern, found, guard = inner.partition(b" if ")
                inner = pattern + b" if !" + on
                if found:
                    inner += b" && (" + guard + b")"
        return inner


def mutants(files):
    command = ["cargo", "mutants", "--list", "--json", "-p", "atrest"]
    for file in files:
        command += ["-f", file]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def weave(tree, files, build):
    """Weaves into the copy `tree`; `build` tells the numbers that the compiler refuses."""
    listed = mutants(files)
    left, sources = [], {}
    for number, mutant in enumerate(listed):
        path = mutant["file"]
        if path not in sources:
            sources[path] = File(open(path, "rb").read())
        if not sources[path].add(number, mutant):
            left.append(number)
    library = os.path.join(tree, "src/lib.rs")
    plain = open("src/lib.rs").read()
    while True:
        for path, source in sources.items():
            with open(os.path.join(tree, path), "wb") as out:
                out.write(source.woven())
        with open(library, "w") as out:
            out.write(plain + SWITCH)
        refused, needed = build()
        if not refused and not needed:
            return listed, left
        constant = {name for source in sources.values() for name, _, _ in source.constant}
        if not refused and not needed & constant:
            sys.exit(f"not to be woven: {', '.join(needed)}")
        for name in needed:
            refused += [number for source in sources.values() for number in source.keep_const(name)]
        left += refused
        for number in refused:
            sources[listed[number]["file"]].drop(number)


def refused_by(messages, tree):
    """The mutants at which compiler messages point, and functions that constants need."""
    numbers, needed = set(), set()
    for line in messages.splitlines():
        message = json.loads(line).get("message") or {}
        if message.get("level") != "error":
            continue
        called = re.match(r"cannot call non-const .*`([^`]+)`", message["message"])
        if called:
            needed.add(re.sub(r"::<.*|\(.*", "", called[1]).split("::")[-1])
            continue
        spans = [span for span in message["spans"] if span["is_primary"]]
        for span in spans:
            lines = open(os.path.join(tree, span["file_name"])).read().split("\n")
            near = "\n".join(lines[span["line_start"] - 1:span["line_end"]])
            found = re.findall(r"mutant\((\d+)\)", near)
            row = span["line_start"] - 1
            while not found and row > 0:
                row -= 1
                found = re.findall(r"mutant\((\d+)\)", lines[row])
            numbers.update(map(int, found))
    return sorted(numbers), needed


if __name__ == "__main__":
    sys.exit("this is a part of tests/mutants/run.py")
