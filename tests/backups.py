#!/usr/bin/env python3
"""Reads and writes chains of backups with nothing but section 13 of `docs/FORMAT.md`.

    backups.py OUT --seed N                             writes a random chain into OUT/chain
    backups.py OUT --seed N --of DIR --key-file PATH    takes a chain that the library wrote

Then changes manifests and copies as the holder of the chain's keys could, and writes
OUT/cases.json: for each changed chain what this reader makes of it. The library has to say the
same.
"""

import argparse
import copy
import hashlib
import json
import os
import random
import re
import struct
from pathlib import Path

import mutations
import reader
import writer
from reader import TAG, Refused, refuse
from writer import NOW, ZEROS, encode, tag

BROKEN = "broken backup"
LABEL = b"atrest backup 1\n"
COPY = (("name", 16), ("physical", "u64"), ("len", "u64"), ("stream", "u64"), ("sha256", 32), ("identity", 32),
        ("number", "u64"))
FILE = (("path", "bytes"), ("what", "u8"), ("suite", "u8"), ("chunk_log2", "u8"), ("kind", "u8"), ("keyspace", "u32"),
        ("file_id", 16), ("mode", "u32"), ("modified", "i64"), ("inode", "u64"), ("copy", COPY))
DIRECTORY = (("path", "bytes"), ("mode", "u32"))
LACK = (("path", "bytes"), ("why", "u8"), ("here", "u64"), ("missing", "u64"))
MANIFEST = (("chain_id", 16), ("number", "u64"), ("before", 32), ("time", "u64"), ("source_id", 16),
            ("source_generation", "u64"), ("settings", [TAG]), ("keyspaces", ["string"]), ("directories", [DIRECTORY]),
            ("files", [FILE]), ("lacks", [LACK]))
MAGIC = b"ATRBACK\2"
NO_COPY = {"name": ZEROS, "physical": 0, "len": 0, "stream": 0, "sha256": bytes(32), "identity": bytes(32), "number": 0}
NAME = "backup[.]((?!000000)[0-9]{6}|[1-9][0-9]{6,})"
EMPTY, PLAIN, ENCRYPTED = 0, 1, 2


def broken(unless, detail):
    refuse(unless, BROKEN, detail)


def length_on_disk(plain_len, chunk_len=1 << 16):
    """Section 4, with the header."""
    return 4096 + plain_len + 16 * -(-plain_len // chunk_len) + 16


def plain_path(path):
    return b"\0" not in path and all(part not in (b"", b".", b"..") for part in path.split(b"/"))


def good_path(path):
    """B3."""
    reserved = (b"KEYRING.", b".atrest-reencrypt-", b".atrest-partial-")
    return plain_path(path) and all(
        part != b"KEYRING" and not part.startswith(reserved) for part in path.split(b"/"))


def ascending(things):
    paths = [thing["path"] for thing in things]
    return paths == sorted(set(paths))


def check_file(manifest, file, settings):
    what, suite, kind, held = file["what"], file["suite"], file["kind"], file["copy"]
    broken(file["mode"] & ~0o777 == 0, "M5")
    broken(what in (EMPTY, PLAIN, ENCRYPTED), "M6")
    if what == ENCRYPTED:
        broken(suite in (1, 2, 3) and 1 <= kind <= 5, "M6")
        broken(12 <= file["chunk_log2"] <= 16 if suite == 2 else file["chunk_log2"] == 0, "M6")
        broken(file["keyspace"] < len(manifest["keyspaces"]) and any(held["identity"]), "M6")
        weak = 4 in settings or kind in settings.get(5, b"")
        broken(suite != 1 or not weak, "M9")
    else:
        zeros = (suite, file["chunk_log2"], kind, file["keyspace"], *file["file_id"], *held["identity"])
        broken(not any(zeros), "M6")
        broken(what == EMPTY or 3 in settings, "M9")
    if what == EMPTY:
        broken(held == NO_COPY, "M7")
        return
    broken(any(held["name"]) and 0 < held["number"] <= manifest["number"], "M7")
    broken(max(held["len"], held["stream"]) <= 1 << 44, "M7")
    broken(held["physical"] == length_on_disk(held["stream"] + 88), "M7")
    frames, rest = divmod(held["stream"] - held["len"], 4)
    if what == ENCRYPTED and suite == 3:
        broken(rest == 0 and 0 <= frames <= held["len"] <= frames << 24, "M7")
    else:
        broken(held["stream"] == held["len"], "M7")


def check_lacks(manifest, files):
    broken(ascending(manifest["lacks"]), "M10")
    for lack in manifest["lacks"]:
        path, file = lack["path"], files.get(lack["path"])
        absolute = lack["why"] == 3
        broken(1 <= lack["why"] <= 6, "M10")
        if absolute:
            broken(path == b"/" or path[:1] == b"/" and plain_path(path[1:]), "M10")
        else:
            broken(good_path(path), "M10")
        if lack["why"] == 2:
            broken(file is not None and file["what"] == ENCRYPTED and file["suite"] in (1, 3), "M10")
        elif lack["why"] == 5:
            broken(file is not None and file["what"] == EMPTY, "M10")
        else:
            broken(file is None, "M10")


def check(manifest, number, chain_id, before):
    broken(manifest["number"] == number > 0 and manifest["chain_id"] == chain_id, "M1")
    broken(manifest["before"] == before, "M1 or B2")
    settings = reader.check_settings(manifest["settings"], BROKEN)
    names = manifest["keyspaces"]
    broken(1 <= len(names) <= 65536 and len(set(names)) == len(names), "M3")
    broken(all(reader.good_name(name) for name in names), "M3")
    directories = {directory["path"]: directory for directory in manifest["directories"]}
    files = {file["path"]: file for file in manifest["files"]}
    for things in (manifest["directories"], manifest["files"]):
        broken(ascending(things) and all(good_path(thing["path"]) for thing in things), "M4")
        for thing in things:
            parent = thing["path"].rpartition(b"/")[0]
            broken(not parent or parent in directories, "M4")
    broken(not directories.keys() & files.keys(), "M4")
    broken(all(directory["mode"] & ~0o3777 == 0 for directory in manifest["directories"]), "M5")
    copies = {}
    for file in manifest["files"]:
        check_file(manifest, file, settings)
        if file["what"] != EMPTY:
            fields = [file["copy"], *(file[name] for name in ("what", "suite", "chunk_log2", "kind", "file_id"))]
            broken(copies.setdefault(file["copy"]["name"], fields) == fields, "M8")
    check_lacks(manifest, files)


class Chain:
    """The files of a chain by their names, in memory."""

    def __init__(self, files, customers):
        broken("BACKUP" in files, "BACKUP is missing")
        refuse(files["BACKUP"][:16] == LABEL, "unsupported version", "BACKUP")
        self.files = files
        self.image = files["KEYRING"]
        self.keyring = reader.Keyring(self.image, customers)

    @classmethod
    def below(cls, directory, customers):
        paths = [path for path in directory.rglob("*") if path.is_file()]
        return cls({str(path.relative_to(directory)): path.read_bytes() for path in paths}, customers)

    def manifests(self):
        numbers = sorted(int(name[7:]) for name in self.files if re.fullmatch(NAME, name))
        broken(numbers == list(range(1, len(numbers) + 1)), "B2")
        before, found = bytes(32), []
        for number in numbers:
            plain = self.open(f"backup.{number:06}", 3, struct.pack("<QQ", number, 0))
            broken(plain[:7] == MAGIC[:7], "magic")
            refuse(plain[7:8] == MAGIC[7:], "unsupported version")
            manifest = reader.decode(MANIFEST, plain[8:], BROKEN)
            check(manifest, number, self.keyring.store_id, before)
            before = hashlib.sha256(plain).digest()
            found.append(manifest)
        return found

    def open(self, name, kind, file_id):
        broken(name in self.files, f"{name} is missing")
        file = reader.File(self.files[name], self.keyring, (kind, file_id))
        refuse(file.suite == 2, "suite too weak")
        return file.plain

    def content(self, file):
        """B4: the plaintext of a file, and its frames if it is a log."""
        if file["what"] == EMPTY:
            return b"", []
        held = file["copy"]
        plain = self.open(f"files/{held['name'].hex()}", 5, held["name"])
        stream, footer = plain[:-88], plain[-88:]
        expected = b"ATRCOPY\1" + struct.pack("<QQ", held["stream"], held["len"]) + held["identity"] + held["sha256"]
        broken(footer == expected and len(stream) == held["stream"], "footer")
        broken(hashlib.sha256(stream).digest() == held["sha256"], "hash of a copy")
        if file["suite"] != 3:
            return stream, []
        frames, at = [], 0
        while at < len(stream):
            length = int.from_bytes(stream[at : at + 4], "little")
            broken(at + 4 <= len(stream) and 0 < length <= 1 << 24 and at + 4 + length <= len(stream), "frame")
            frames.append(stream[at + 4 : at + 4 + length])
            at += 4 + length
        broken(sum(map(len, frames)) == held["len"], "length of a log")
        return b"".join(frames), frames

    def listed(self):
        return [{"number": manifest["number"], "created_ns": manifest["time"],
                 "source_store_id": manifest["source_id"].hex(), "source_generation": manifest["source_generation"],
                 "files": len(manifest["files"]), "bytes": sum(file["copy"]["len"] for file in manifest["files"]),
                 "lacks": len(manifest["lacks"])} for manifest in self.manifests()]

    def restored(self):
        """What a restore of the last backup leaves."""
        manifests = self.manifests()
        broken(manifests, "no backup")
        found = {}
        for file in manifests[-1]["files"]:
            plain, frames = self.content(file)
            about = {"len": len(plain), "sha256": hashlib.sha256(plain).hexdigest(), "mode": file["mode"]}
            if file["what"] == ENCRYPTED:
                about |= {"suite": file["suite"], "kind": file["kind"], "file_id": file["file_id"].hex()}
                about |= {"frames": len(frames)} if file["suite"] == 3 else {}
            found[file["path"].decode()] = about
        return found


# Writing.
def sealed(draft, kind, file_id, plain, chunk_log2=16, salt=None, **odd):
    """A file of suite 2 under the chain's data key."""
    key_id = next(key["id"] for key in draft.body["keys"] if key["state"] == 1)
    about = {"suite": 2, "chunk_log2": chunk_log2, "kind": kind, "key_id": key_id, "file_id": file_id, "plain": plain,
             "frames": [plain], "salt": salt or hashlib.sha256(file_id + plain).digest(), "odd": {}}
    if odd.get("suite", 2) != 2:
        about |= {"suite": odd["suite"], "chunk_log2": 0}
    return writer.write_file(draft, about, **odd)


def put_copy(rng, draft, files, number, stream, plain_len, identity):
    name, digest = rng.randbytes(16), hashlib.sha256(stream).digest()
    footer = b"ATRCOPY\1" + struct.pack("<QQ", len(stream), plain_len) + identity + digest
    image = sealed(draft, 5, name, stream + footer)
    files[f"files/{name.hex()}"] = image
    return {"name": name, "physical": len(image), "len": plain_len, "stream": len(stream), "sha256": digest,
            "identity": identity, "number": number}


def random_entry(rng, draft, files, number, path, settings):
    weak = {1, 2, 3, 4, 5} if 4 in settings else set(settings.get(5, b""))
    what = rng.choice((EMPTY, PLAIN, ENCRYPTED, ENCRYPTED, ENCRYPTED)) if 3 in settings else rng.choice((0, 2, 2))
    entry = {"path": path, "what": what, "suite": 0, "chunk_log2": 0, "kind": 0, "keyspace": 0, "file_id": ZEROS,
             "mode": rng.choice((0o600, 0o640, 0o644)), "modified": rng.choice((-1, NOW, NOW + 7)),
             "inode": rng.randrange(1 << 40), "copy": NO_COPY}
    if what == EMPTY:
        return entry
    plain = rng.randbytes(rng.choice(writer.LENGTHS[1:]))
    if what == PLAIN:
        return entry | {"copy": put_copy(rng, draft, files, number, plain, len(plain), bytes(32))}
    kind = rng.randrange(1, 6)
    suite = rng.randrange(2 if kind in weak else 1, 4)
    stream = plain
    if suite == 3:
        frames = [rng.randbytes(rng.choice(writer.LENGTHS[1:])) for _ in range(rng.randrange(5))]
        plain = b"".join(frames)
        stream = b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)
    held = put_copy(rng, draft, files, number, stream, len(plain), rng.randbytes(32))
    return entry | {"suite": suite, "chunk_log2": rng.randrange(12, 17) if suite == 2 else 0, "kind": kind,
                    "keyspace": rng.randrange(2), "file_id": rng.choice((ZEROS, rng.randbytes(16))), "copy": held}


def put_manifest(draft, files, manifest):
    plain = MAGIC + encode(MANIFEST, manifest)
    number = manifest["number"]
    files[f"backup.{number:06}"] = sealed(draft, 3, struct.pack("<QQ", number, 0), plain, 12)
    return hashlib.sha256(plain).digest()


def random_chain(rng, key_file):
    """Its files and the draft of its keyring."""
    draft = writer.Draft(rng.randbytes(16), rng.randbytes(16), rng.randbytes(32))
    customer = reader.KeyFile(key_file)
    draft.add_slot(rng, "default", customer.uri, writer.blob_of(rng, customer))
    active = draft.add_key(rng, 0, 1, NOW)
    space = {"name": "default", "active": active, "rebased": 0, "tags": []}
    draft.body.update(settings=[tag(4, b"", critical=True)], location=ZEROS, revoked=0, keyspaces=[space], directories=[],
                      holds=[], archived=0, chain=bytes(32), events=[])
    files = {"BACKUP": LABEL + b"of another program\n", "KEYRING": draft.image()}
    settings = [entry for entry in writer.random_settings(rng) if entry["tag"] != 1 or any(entry["value"])]
    known = {entry["tag"]: entry["value"] for entry in settings}
    entries, before = {}, bytes(32)
    directories = [b"a", b"a/b", b"d e", "é".encode()]
    for number in range(1, rng.randrange(2, 5)):
        for _ in range(rng.randrange(1, 6)):
            path = rng.choice((b"", b"a/", b"a/b/", "é/".encode())) + b"f%d" % rng.randrange(8)
            entries[path] = random_entry(rng, draft, files, number, path, known)
        # A hard link is one copy under two names.
        whole = [path for path, entry in entries.items() if entry["what"] != EMPTY]
        if whole:
            path = rng.choice(whole)
            entries[b"a/link"] = entries[path] | {"path": b"a/link"}
        lacks = [{"path": b"/elsewhere", "why": 3, "here": 0, "missing": 7}] if rng.random() < 0.5 else []
        manifest = {
            "chain_id": draft.store_id, "number": number, "before": before, "time": NOW + number,
            "source_id": rng.randbytes(16), "source_generation": rng.randrange(1 << 40), "settings": settings,
            "keyspaces": ["default", "tenant é"], "directories": [{"path": path, "mode": 0o750} for path in directories],
            "files": [copy.deepcopy(entries[path]) for path in sorted(entries)], "lacks": lacks,
        }
        before = put_manifest(draft, files, manifest)
    return files, draft


def manifest_edits(rng):
    """By what they do, changes of the last manifest."""
    def files(change):
        def edit(manifest):
            held = [file for file in manifest["files"] if file["what"] == ENCRYPTED]
            change(rng.choice(held or manifest["files"]))
        return edit

    def put(where, **fields):
        return lambda manifest: manifest[where].append(fields)

    yield "as it is", lambda manifest: None
    for field, values in {"number": (0, 9), "before": (bytes(32), b"\1" * 32), "chain_id": (ZEROS,), "time": (0,),
                          "source_id": (ZEROS,), "source_generation": (0,), "keyspaces": ([], ["a", "a"], ["", "b"],
                          ["n" * 256, "b"], ["n" * 257, "b"], ["a\nb", "b"], ["a"]), "directories": ([],),
                          "files": ([],)}.items():
        for value in values:
            yield f"{field} {str(value)[:20]}", lambda manifest, f=field, v=value: manifest.update({f: v})
    for settings in ([], [tag(1, bytes(8))], [tag(4, b"", critical=True)], [tag(5, b"\1", critical=True)], [tag(3, b"")],
                     [tag(900, b"x")], [tag(900, b"x", critical=True)], [tag(3, b""), tag(3, b"")], [tag(1, b"")]):
        yield f"settings {settings}", lambda manifest, s=settings: manifest.update(settings=s)
    for path in (b"", b".", b"a/..", b"/a", b"a//b", b"a/", b"a\0b", b"KEYRING", b"KEYRING.3", b"a/KEYRING.lock", b"KEYRINGS",
                 b".atrest-partial-x", b".atrest-reencrypt-", b".atrest", b"_atrest", b"_atrest/x", b"z", b"a/x/y", b"f0"):
        for where, fields in (("directories", {"mode": 0o700}), ("files", {"what": EMPTY})):
            whole = {"path": path, **fields}
            if where == "files":
                whole = {"path": path, "what": EMPTY, "suite": 0, "chunk_log2": 0, "kind": 0, "keyspace": 0,
                         "file_id": ZEROS, "mode": 0o600, "modified": 0, "inode": 0, "copy": NO_COPY}

            def add(manifest, where=where, whole=whole):
                manifest[where] = sorted(manifest[where] + [whole], key=lambda thing: thing["path"])

            yield f"{where} with {path}", add
    yield "files in another order", lambda manifest: manifest["files"].reverse()
    yield "directories in another order", lambda manifest: manifest["directories"].reverse()
    for mode in (0o777, 0o1777, 0o2700, 0o4700, 0o10644):
        yield f"a file's mode {mode:o}", lambda manifest, m=mode: [at.update(mode=m) for at in manifest["files"][:1]]
        yield f"a directory's mode {mode:o}", lambda manifest, m=mode: [at.update(mode=m) for at in manifest["directories"][:1]]
    for field, values in {"what": (0, 1, 3), "suite": (0, 1, 2, 3, 4), "chunk_log2": (0, 11, 12, 17), "kind": (0, 1, 6),
                          "keyspace": (0, 1, 2), "file_id": (ZEROS, b"\1" * 16), "modified": (-(1 << 63),)}.items():
        for value in values:
            yield f"a file's {field} {value}", files(lambda file, f=field, v=value: file.update({f: v}))
    for field, values in {"name": (ZEROS, b"\1" * 16), "number": (0, 1, 99), "identity": (bytes(32), b"\1" * 32),
                          "sha256": (bytes(32),)}.items():
        for value in values:
            yield f"a copy's {field} {value}", files(lambda file, f=field, v=value: file["copy"].update({f: v}))
    for field in ("physical", "len", "stream"):
        for by in (-1, 1, 4, 1 << 44):
            yield f"a copy's {field} by {by}", files(
                lambda file, f=field, by=by: file["copy"].update({f: max(0, file["copy"][f] + by)}))

    def other_name(manifest):
        held = [file for file in manifest["files"] if file["what"] != EMPTY]
        if held:
            twin = copy.deepcopy(held[0]) | {"path": b"zz"}
            twin["file_id"] = b"\2" * 16 if twin["what"] == ENCRYPTED else ZEROS
            manifest["files"].append(twin)

    yield "one copy of two kinds of file", other_name
    for why in range(8):
        for path in (b"/elsewhere/x", b"z", b"a/../z", b"/", b"/a/../b", b"/a/KEYRING.x/b", b"a/KEYRING.x/b"):
            yield f"a lack of {path} for {why}", lambda manifest, w=why, p=path: manifest.update(
                lacks=[{"path": p, "why": w, "here": 1, "missing": 2}])

        def of_file(manifest, why=why):
            for file in manifest["files"][:1]:
                manifest["lacks"] = [{"path": file["path"], "why": why, "here": 1, "missing": 2}]

        yield f"a lack of a file for {why}", of_file
    yield "lacks in another order", lambda manifest: manifest.update(
        lacks=[{"path": path, "why": 3, "here": 0, "missing": 0} for path in (b"/b", b"/a")])


def chain_cases(rng, chain, draft):
    """What was done, the chain's changed files, None for one that is gone, and whether to restore."""
    last = len(chain.manifests())
    name = f"backup.{last:06}"
    manifest = chain.manifests()[-1]
    yield "as it is", {}, True
    for what, edit in manifest_edits(rng):
        changed, files = copy.deepcopy(manifest), {}
        edit(changed)
        number = changed["number"]
        put_manifest(draft, files, changed | {"number": last})
        # The name and the file id stay: only what is in it says another number.
        plain = MAGIC + encode(MANIFEST, changed)
        files[name] = sealed(draft, 3, struct.pack("<QQ", last, 0), plain, 12)
        yield what if number == last else f"{what} in its place", files, "copy" in what or "a file's" in what
    plain = MAGIC + encode(MANIFEST, manifest)
    number = struct.pack("<QQ", last, 0)
    for what, odd in {"another version": MAGIC[:7] + b"\3" + plain[8:], "another magic": b"X" + plain[1:],
                      "bytes behind it": plain + b"\0", "cut": plain[:-1], "of nothing": b""}.items():
        yield f"a manifest with {what}", {name: sealed(draft, 3, number, odd, 12)}, False
    yield "a manifest of another kind", {name: sealed(draft, 5, number, plain, 12)}, False
    yield "a manifest of another number", {name: sealed(draft, 3, struct.pack("<QQ", last + 1, 0), plain, 12)}, False
    yield "a manifest of suite 1", {name: sealed(draft, 3, number, plain, 0, suite=1)}, False
    yield "a manifest in larger chunks", {name: sealed(draft, 3, number, plain, 16)}, False
    yield "a changed manifest", {name: mutations.flipped(rng, chain.files[name], 4096)[0]}, False
    yield "no last manifest", {name: None}, True
    yield "no first manifest", {"backup.000001": None}, False
    yield "a stranger's name", {"backup.7": b"x", "backup.0000001": b"x", "backup.": b"x", "backup.x": b"x"}, True
    for label in (None, b"", b"atrest backup 1", b"atrest backup 2\n", LABEL, LABEL + b"x"):
        yield f"BACKUP is {label}", {"BACKUP": label}, False
    held = [file for file in manifest["files"] if file["what"] != EMPTY]
    for file in rng.sample(held, min(3, len(held))):
        path = f"files/{file['copy']['name'].hex()}"
        image, stated = chain.files[path], file["copy"]
        copied = reader.File(image, chain.keyring).plain
        stream, footer = copied[:-88], copied[-88:]
        yield "no copy", {path: None}, True
        yield "a cut copy", {path: image[:-1]}, True
        yield "a changed copy", {path: mutations.flipped(rng, image, 4096)[0]}, True
        yield "a copy of another kind", {path: sealed(draft, 4, stated["name"], copied)}, True
        yield "a copy of another name", {path: sealed(draft, 5, b"\1" * 16, copied)}, True
        for at in (0, 7, 8, 16, 24, 56):
            odd = stream + footer[:at] + bytes([footer[at] ^ 1]) + footer[at + 1 :]
            yield f"a footer changed at {at}", {path: sealed(draft, 5, stated["name"], odd)}, True
        odd = bytes([stream[0] ^ 1]) + stream[1:] if stream else b""
        yield "another stream", {path: sealed(draft, 5, stated["name"], odd + footer)}, True
        if file["suite"] == 3 and stream:
            for length in (0, 1, (1 << 24) + 1, len(stream)):
                # With the hash it then has, in manifest and footer.
                odd = struct.pack("<I", length) + stream[4:]
                changed = copy.deepcopy(manifest)
                digest = hashlib.sha256(odd).digest()
                for other in changed["files"]:
                    if other["copy"]["name"] == stated["name"]:
                        other["copy"]["sha256"] = digest
                files = {path: sealed(draft, 5, stated["name"], odd + footer[:56] + digest)}
                put_manifest(draft, files, changed)
                yield f"a frame of {length} in a copy", files, True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--of", type=Path, help="a chain's directory")
    parser.add_argument("--key-file", type=Path)
    arguments = parser.parse_args()
    rng, out, key_file = random.Random(arguments.seed), arguments.out, arguments.key_file
    out.mkdir(parents=True)
    if arguments.of is None:
        key_file = out / "cmek.key"
        key_file.write_bytes(rng.randbytes(64))
        files, draft = random_chain(rng, key_file)
        chain = Chain(files, [reader.KeyFile(key_file)])
    else:
        chain = Chain.below(arguments.of, [reader.KeyFile(key_file)])
        draft = writer.Draft.of(chain.image, chain.keyring)
    images = out / "images"
    images.mkdir()

    def put(image):
        path = images / hashlib.sha256(image).hexdigest()[:32]
        path.write_bytes(image)
        return str(path)

    said = {"key_file": str(key_file), "files": {name: put(image) for name, image in chain.files.items()}, "cases": []}
    for what, changed, restore in chain_cases(rng, chain, draft):
        files = {name: image for name, image in {**chain.files, **changed}.items() if image is not None}

        def judged(work, files=files):
            return mutations.judge(lambda: {"good": work(Chain(files, [reader.KeyFile(key_file)]))})

        case = {"what": what, "changed": {name: None if image is None else put(image) for name, image in changed.items()},
                "lists": judged(Chain.listed)}
        if restore:
            case["restores"] = judged(Chain.restored)
        said["cases"].append(case)
    (out / "cases.json").write_text(json.dumps(said))


if __name__ == "__main__":
    os.umask(0o077)
    main()
