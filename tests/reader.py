#!/usr/bin/env python3
"""Reads a store with nothing but `docs/FORMAT.md`, hashlib and the package `cryptography`.

    reader.py DIR --key-file PATH            lists the data keys as JSON
    reader.py DIR --key-file PATH FILE ...   decrypts files one after the other to standard output

It is the proof that the format's text suffices: it shares no code with the library. What it
refuses it names as the text does. `tests/writer.py` writes stores, `tests/backups.py` reads and
writes backups.
"""

import argparse
import hashlib
import hmac
import json
import os
import re
import struct
import sys
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FILE_MAGIC = bytes.fromhex("89415452460d0a1a")
KEYRING_MAGIC = bytes.fromhex("894154524b0d0a1a")
DESTROYED, TEMPORARY = 3, 6


class Refused(Exception):
    """What FORMAT.md refuses: `kind` is the name it gives, `detail` says more."""

    def __init__(self, kind, detail=""):
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


def refuse(unless, kind, detail=""):
    if not unless:
        raise Refused(kind, detail)


# Section 1.
def derive(parent, label, info):
    label = label.ljust(16, b"\0")
    output, block, counter = b"", b"", 0
    while len(output) < 76:
        counter += 1
        block = hmac.digest(parent, block + label + info + bytes([counter]), "sha256")
        output += block
    return output[:32], output[32:44], output[44:76]


# Section 6, encoding. A type is a number of bytes, a name, a list of one type, or the fields of
# a struct: pairs of name and type.
TAG = (("tag", "u16"), ("flags", "u8"), ("value", "bytes"))
SLOT = (
    ("name", "string"), ("uri", "string"), ("version", "string"), ("created", "u64"), ("context", "u16"),
    ("key_id", 16), ("blob", "bytes"), ("store_key", 112), ("tags", [TAG]),
)
KEPT = (("id", 16), ("wrap", 112))
KEYSPACE = (("name", "string"), ("active", 16), ("rebased", "u64"), ("tags", [TAG]))
DATA_KEY = (
    ("id", 16), ("store_key_id", 16), ("keyspace", "u32"), ("state", "u8"), ("exposed", "u8"), ("created", "u64"),
    ("retired", "u64"), ("retire_after", "u64"), ("destroyed", "u64"), ("bytes", "u64"), ("wrap", 112),
)
HOLD = (("name", "string"), ("created", "u64"), ("keys", [16]))
EVENT = (("at", "u64"), ("generation", "u64"), ("what", "u8"), ("store_key_id", 16), ("detail", "string"))
BODY = (
    ("settings", [TAG]), ("location", 16), ("revoked", "u64"), ("slot_keys", [KEPT]), ("keyspaces", [KEYSPACE]),
    ("keys", [DATA_KEY]), ("directories", ["bytes"]), ("holds", [HOLD]), ("archived", "u64"), ("chain", 32),
    ("events", [EVENT]),
)


class Fields:
    def __init__(self, data, fault):
        self.data, self.at, self.fault = data, 0, fault

    def raw(self, length):
        refuse(length <= len(self.data) - self.at, self.fault, "a field is cut off")
        self.at += length
        return self.data[self.at - length : self.at]

    def read(self, kind):
        if isinstance(kind, int):
            return self.raw(kind)
        if isinstance(kind, tuple):
            return {name: self.read(field) for name, field in kind}
        if kind in ("u8", "u16", "u32", "u64", "i64"):
            return int.from_bytes(self.raw(int(kind[1:]) // 8), "little", signed=kind[0] == "i")
        length = self.read("u64")
        if isinstance(kind, list):
            refuse(length <= len(self.data), self.fault, "a list is too long")
            return [self.read(kind[0]) for _ in range(length)]
        data = self.raw(length)
        try:
            return data.decode("utf-8") if kind == "string" else data
        except UnicodeDecodeError:
            raise Refused(self.fault, "a text is not UTF-8") from None


def decode(kind, data, fault="keyring corrupt"):
    fields = Fields(data, fault)
    value = fields.read(kind)
    refuse(fields.at == len(data), fault, "bytes are left over")
    return value


# Section 6, tagged entries.
def check_tags(entries, known, fault="keyring corrupt"):
    numbers = [entry["tag"] for entry in entries]
    refuse(len(entries) <= 256 and numbers == sorted(set(numbers)), fault, "order of tags")
    refuse(all(entry["flags"] <= 1 and len(entry["value"]) <= 1 << 20 for entry in entries), fault, "a tag")
    for entry in entries:
        refuse(entry["flags"] == 0 or entry["tag"] in known, "unsupported feature", f"tag {entry['tag']}")


def check_settings(entries, fault="keyring corrupt"):
    check_tags(entries, (1, 2, 3, 4, 5), fault)
    settings = {entry["tag"]: entry["value"] for entry in entries}
    numbers = [settings.get(tag, b"\1" + bytes(7)) for tag in (1, 2)]
    refuse(all(len(number) == 8 for number in numbers) and any(numbers[0]), fault, "settings")
    refuse(not settings.get(3) and not settings.get(4), fault, "settings")
    kinds = settings.get(5)
    if kinds is not None:
        refuse(0 < len(kinds) < 5 and list(kinds) == sorted(set(kinds)), fault, "kinds")
        refuse(set(kinds) <= {1, 2, 3, 4, 5} and 4 not in settings, fault, "kinds")
    return settings


# Section 6, wrapping a key.
def wrap_info(store_id, key_id, by_id, created, salt):
    return store_id + key_id + by_id + struct.pack("<QB", created, 1) + bytes(23) + salt


def unwrap(label, parent, store_id, key_id, by_id, created, wrapped):
    info = wrap_info(store_id, key_id, by_id, created, wrapped[:32])
    key, nonce, commitment = derive(parent, label, info)
    if not hmac.compare_digest(commitment, wrapped[32:64]):
        return None
    try:
        return AESGCM(key).decrypt(nonce, wrapped[64:], info)
    except InvalidTag:
        return None


# Section 7.
def unseal(parent, context, sealed):
    refuse(len(sealed) == 80, "key service: integrity", "a sealed slot key has 80 bytes")
    info = context + sealed[:32]
    key, nonce, _ = derive(parent, b"atrest.v1.cmek", info)
    try:
        return AESGCM(key).decrypt(nonce, sealed[32:], info)
    except InvalidTag:
        raise Refused("key service: integrity", "another key wrapped this slot key") from None


def argon2id(passphrase, salt, memory, passes, lanes):
    try:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    except ImportError:
        from argon2.low_level import Type, hash_secret_raw

        return hash_secret_raw(passphrase, salt, passes, memory, lanes, 32, Type.ID, 0x13)
    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    return kdf.derive(passphrase)


class KeyFile:
    def __init__(self, path):
        self.path, self.uri = Path(path), f"file://{path}"

    def parent(self):
        try:
            status = os.stat(self.path)
            data = self.path.read_bytes()
        except FileNotFoundError:
            raise Refused("key service: not found", str(self.path)) from None
        others = 0o077 if status.st_uid else 0o037
        refuse(status.st_mode & others == 0, "key service: misconfigured", "others may read the key file")
        refuse(len(data) in (48, 56, 64), "key service: misconfigured", "a key file has 48, 56 or 64 bytes")
        return hmac.digest(data[:32], data[32:], "sha256")

    def unwrap(self, context, blob):
        return unseal(self.parent(), context, blob)


class Variable:
    def __init__(self, name, value):
        self.uri, self.value = f"env:{name}", value

    def parent(self):
        text = self.value.strip()
        refuse(re.fullmatch("[0-9A-Fa-f]{64}", text), "key service: misconfigured", "64 hexadecimal digits")
        return hmac.digest(b"", bytes.fromhex(text), "sha256")

    def unwrap(self, context, blob):
        return unseal(self.parent(), context, blob)


class Passphrase:
    def __init__(self, text):
        self.uri, self.text = "passphrase:", text.encode()

    def parent(self, costs, salt):
        return argon2id(self.text, salt, *costs)

    def unwrap(self, context, blob):
        refuse(len(blob) == 108, "key service: integrity", "a blob of a passphrase has 108 bytes")
        memory, passes, lanes = costs = struct.unpack("<III", blob[:12])
        refuse(memory <= 1 << 20 and passes <= 16 and lanes <= 16, "key service: integrity", "costs")
        refuse(passes >= 1 and lanes >= 1 and memory >= 8 * lanes, "key service: integrity", "costs")
        return unseal(self.parent(costs, blob[12:28]), context, blob[28:])


CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")
URI = re.compile("[A-Za-z][A-Za-z0-9+.-]*:[^ \0-\x1f\x7f-\x9f]*", re.DOTALL)


def good_name(name):
    return 1 <= len(name.encode()) <= 256 and not CONTROL.search(name)


def check_slots(slots):
    fault = "keyring corrupt"
    refuse(1 <= len(slots) <= 64, fault, "number of slots")
    for slot in slots:
        refuse(good_name(slot["name"]), fault, "name of a slot")
        refuse(URI.fullmatch(slot["uri"]) and len(slot["uri"].encode()) <= 2048, fault, "URI of a slot")
        refuse(not slot["version"] or good_name(slot["version"]), fault, "version of a CMEK")
        refuse(len(slot["blob"]) <= 16384, fault, "wrapped slot key")
    for field in ("name", "key_id"):
        refuse(len({slot[field] for slot in slots}) == len(slots), fault, f"{field} of two slots is one")
    for slot in slots:
        check_tags(slot["tags"], ())


def check_body(body, slots):
    fault = "keyring corrupt"
    check_settings(body["settings"])
    spaces, keys = body["keyspaces"], body["keys"]
    refuse(1 <= len(spaces) <= 65536, fault, "number of keyspaces")
    kept = [key["id"] for key in body["slot_keys"]]
    refuse(kept == [slot["key_id"] for slot in slots], fault, "kept slot keys")
    for things in (spaces, body["holds"]):
        names = [thing["name"] for thing in things]
        refuse(all(1 <= len(name.encode()) <= 256 for name in names), fault, "length of a name")
        refuse(len(set(names)) == len(names), fault, "two names are one")
    refuse(all(path[:1] == b"/" for path in body["directories"]), fault, "directory")
    refuse(body["archived"] + len(body["events"]) < 1 << 64, fault, "number of events")
    refuse(len({key["id"] for key in keys}) == len(keys), fault, "two ids are one")
    active = [[] for _ in spaces]
    for key in keys:
        refuse(key["keyspace"] < len(spaces), fault, "no such keyspace")
        refuse(key["state"] in (1, 2, DESTROYED, 4) and key["exposed"] <= 1, fault, "state")
        refuse((key["state"] == DESTROYED) == (not any(key["wrap"])), fault, "wrapped key")
        refuse((key["state"] == 4) == (key["retire_after"] != 0), fault, "grace")
        if key["state"] == 1:
            active[key["keyspace"]].append(key["id"])
        refuse(key["state"] == 1 or key["id"] != spaces[key["keyspace"]]["active"], fault, "active key")
    for space, ids in zip(spaces, active):
        refuse(ids == [space["active"]] or (not ids and not any(space["active"])), fault, "active key")
        check_tags(space["tags"], (1,))
        homes = [entry["value"] for entry in space["tags"] if entry["tag"] == 1]
        refuse(all(len(home) in (32, 64, 96, 128) for home in homes), fault, "locations")


class Keyring:
    """An image, opened with the customer's keys, in their order; or with a key file's path."""

    def __init__(self, data, customers, revoked=False):
        corrupt = "keyring corrupt"
        refuse(len(data) >= 192, "keyring truncated")
        refuse(data[:8] == KEYRING_MAGIC, corrupt, "magic")
        version, header_len, slots_len, body_len, incompatible, _, zero = struct.unpack_from("<HHIIIII", data, 8)
        refuse(version == 2, "unsupported version", version)
        end = 128 + slots_len + body_len
        refuse(slots_len <= 1 << 21 and end + 64 <= 1 << 26 >= len(data), corrupt, "it is too long")
        refuse(len(data) >= end + 64, "keyring truncated")
        refuse(len(data) == end + 64, corrupt, "bytes follow")
        refuse(hashlib.sha256(data[: end + 32]).digest() == data[end + 32 :], corrupt, "checksum")
        refuse(header_len == 128 and zero == 0 and not any(data[112:128]), corrupt, "reserved bytes")
        self.generation, self.written = struct.unpack_from("<QQ", data, 32)
        refuse(0 < self.generation < (1 << 64) - 1, corrupt, "generation")
        refuse(incompatible == 0, "unsupported feature", f"{incompatible:#x}")
        self.store_id, self.store_key_id = data[48:64], data[64:80]
        self.slots = decode([SLOT], data[128 : 128 + slots_len])
        check_slots(self.slots)
        refuse(not revoked, "CMEK revoked", "KEYRING.revoke")
        store_key = self.unlock(customers, data[:end], data[end : end + 32])
        self.body = decode(BODY, data[128 + slots_len : end])
        check_body(self.body, self.slots)
        refuse(self.body["revoked"] == 0, "CMEK revoked", "on request")
        self.settings = {entry["tag"]: entry["value"] for entry in self.body["settings"]}
        self.keys = {key["id"]: self.unwrap(store_key, key) for key in self.body["keys"] if key["state"] != DESTROYED}
        self.found = store_key

    def pairs(self, customers):
        def of(uri):
            return [(key, slot) for key in customers for slot in self.slots if uri(key.uri) == uri(slot["uri"])]

        def whole(uri):
            scheme, rest = uri.split(":", 1)
            return scheme.lower(), rest

        return of(whole) or of(lambda uri: whole(uri)[0])

    def unlock(self, customers, data, mac):
        if isinstance(customers, (str, Path)):
            customers = [KeyFile(customers)]
        first = None
        for customer, slot in self.pairs(customers):
            context = self.store_id + slot["key_id"] + struct.pack("<H", slot["context"])
            try:
                store_key = self.store_key(customer.unwrap(context, slot["blob"]), slot)
                refuse(store_key is not None, "wrong store key")
                mac_key, _, _ = derive(store_key, b"atrest.v1.ring", self.store_id + self.store_key_id)
                refuse(hmac.compare_digest(hmac.digest(mac_key, data, "sha256"), mac), "wrong store key", "MAC")
                return store_key
            except Refused as refused:
                if refused.kind not in ("key service: integrity", "wrong store key"):
                    raise
                first = first or refused
        raise first or Refused("key service: misconfigured", "no slot is of the scheme of a key given")

    def store_key(self, slot_key, of):
        return unwrap(b"atrest.v1.slot", slot_key, self.store_id, self.store_key_id, of["key_id"], 0, of["store_key"])

    def unwrap(self, store_key, record):
        by_id, created = record["store_key_id"], record["created"]
        key = unwrap(b"atrest.v1.wrap", store_key, self.store_id, record["id"], by_id, created, record["wrap"])
        refuse(key is not None, "keyring corrupt", "a data key does not unwrap")
        return key

    def check_commit(self):
        """K21: each kept slot key leads back to the store key."""
        for slot, kept in zip(self.slots, self.body["slot_keys"]):
            ids = (self.store_id, slot["key_id"], self.store_key_id)
            key = unwrap(b"atrest.v1.keep", self.found, *ids, 0, kept["wrap"])
            refuse(key is not None, "keyring corrupt", "a slot key does not unwrap")
            refuse(self.store_key(key, slot) == self.found, "keyring corrupt", "a slot leads to another store key")


def audit(keyring, directory):
    """Section 9: all events, from the archives on."""
    wrong, events, chain, archived = "authentication failed", [], keyring.body["chain"], keyring.body["archived"]
    while archived:
        path = Path(directory) / f"KEYRING.audit.{chain.hex()}"
        refuse(path.exists(), wrong, "a missing archive")
        data = path.read_bytes()
        refuse(len(data) >= 64 and data[:8] == bytes.fromhex("89415452410d0a1a"), wrong, "archive")
        refuse(data[8:24] == keyring.store_id, wrong, "another store's archive")
        first, before = int.from_bytes(data[24:32], "little"), data[32:64]
        older, last = decode([EVENT], data[64:], wrong), before
        for number, event in enumerate(older, first):
            last = chain_on(last, number, event)
        refuse(last == chain and first + len(older) == archived and older, wrong, "chain of events")
        events, chain, archived = older + events, before, first
    refuse(chain == bytes(32), wrong, "the first archive")
    return events + keyring.body["events"]


def chain_on(before, number, event):
    text = event["detail"].encode()
    head = struct.pack("<QQQB", number, event["at"], event["generation"], event["what"])
    return hashlib.sha256(before + head + event["store_key_id"] + struct.pack("<Q", len(text)) + text).digest()


# Sections 2 to 5.
class File:
    """A file's plaintext, and what its header says; of a log its frames and where it is torn."""

    def __init__(self, data, keyring, expect=None):
        self.suite = self.kind = self.torn = None
        self.frames = []
        refuse(data, "empty file")
        refuse(data[:8] != KEYRING_MAGIC, "foreign file")
        if data[:8] != FILE_MAGIC[: len(data)]:
            refuse(3 in keyring.settings, "not encrypted" if any(data[:4096]) else "truncated header")
            self.plain = data
            return
        refuse(len(data) >= 4096, "truncated header")
        head, body = data[:4096], data[4096:]
        version, header_len, suite, chunk_log2, kind, zero, incompatible = struct.unpack_from("<HHBBBBI", head, 8)
        refuse(version == 1, "unsupported version", version)
        refuse(hashlib.sha256(head[:160]).digest()[:16] == head[160:176], "corrupt header", "checksum")
        refuse(header_len == 4096 and not zero and not any(head[80:96] + head[176:]), "corrupt header", "reserved")
        refuse(incompatible == 0, "unsupported feature", f"{incompatible:#x}")
        refuse(suite in (1, 2, 3), "unsupported feature", "suite")
        refuse(12 <= chunk_log2 <= 16 if suite == 2 else chunk_log2 == 0, "corrupt header", "chunk")
        refuse(1 <= kind <= 6, "unsupported feature", "kind")
        self.suite, self.chunk_log2, self.kind, self.key_id, self.id = suite, chunk_log2, kind, head[48:64], head[64:80]
        refuse(kind != TEMPORARY or head[32:48] != keyring.store_id, "temporary ended")
        if self.key_id not in keyring.keys:
            refuse(head[32:48] == keyring.store_id, "identity mismatch")
            known = any(key["id"] == self.key_id for key in keyring.body["keys"])
            raise Refused("key destroyed" if known else "unknown key", self.key_id.hex())
        self.key, self.nonce, commitment = derive(keyring.keys[self.key_id], b"atrest.v1.file", head[:128])
        refuse(hmac.compare_digest(commitment, head[128:160]), "wrong key")
        refuse(head[32:48] == keyring.store_id, "identity mismatch")
        refuse(expect is None or (self.kind, self.id) == expect, "identity mismatch")
        weak = 4 in keyring.settings or kind in keyring.settings.get(5, b"")
        refuse(suite != 1 or not weak, "suite too weak")
        refuse(len(body) <= 1 << 44, "authentication failed" if suite == 2 else "file too large")
        self.plain = (self.stream, self.chunks, self.log)[suite - 1](body)

    def stream(self, body):
        counter = self.nonce[:8] + bytes(8)
        return Cipher(algorithms.AES(self.key), modes.CTR(counter)).decryptor().update(body)

    def open(self, index, sealed, aad):
        try:
            return AESGCM(self.key).decrypt(message_nonce(self.nonce, index), sealed, aad)
        except InvalidTag:
            return None

    def chunks(self, body):
        wrong, chunk_len = "authentication failed", 1 << self.chunk_log2
        full, rest = divmod(len(body) - 16, chunk_len + 16)
        refuse(len(body) >= 16 and (rest == 0 or rest > 16), wrong, "length")
        length = full * chunk_len + max(rest - 16, 0)
        refuse(self.open(2**32 - 1, body[-16:], struct.pack("<Q", length)) is not None, wrong, "end")
        plain, section, count = [], 0, full + (rest > 0)
        for first in range(0, count, 2**16):
            tags = section + min(2**16 * chunk_len, length - first * chunk_len)
            for index in range(first, min(first + 2**16, count)):
                at = section + (index - first) * chunk_len
                tag = tags + (index - first) * 16
                chunk = self.open(index, body[at : min(at + chunk_len, tags)] + body[tag : tag + 16], b"")
                refuse(chunk is not None, wrong, f"chunk {index}")
                plain.append(chunk)
            section = tags + 2**20
        return b"".join(plain)

    def log(self, body):
        at = 0
        while at < len(body) and not self.torn:
            length = int.from_bytes(body[at : at + 4], "big")
            end = at + 4 + length + 16
            if at + 4 > len(body):
                self.torn = "cut"
            elif length == 0 and not any(body[at : at + 20]):
                self.torn = "zeros"
            elif not 1 <= length <= 1 << 24:
                self.torn = "length"
            elif end > len(body):
                self.torn = "cut"
            else:
                frame = self.open(len(self.frames), body[at + 4 : end], body[at : at + 4])
                if frame is None:
                    self.torn = "authentication"
                else:
                    self.frames.append(frame)
            at = end
        return b"".join(self.frames)


def message_nonce(nonce, index):
    return bytes(a ^ b for a, b in zip(nonce, bytes(4) + struct.pack(">Q", index)))


def decrypt(data, keyring):
    file = File(data, keyring)
    if file.torn:
        print(f"torn at frame {len(file.frames)}, offset {len(file.plain)}: {file.torn}", file=sys.stderr)
    return file.plain


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--key-file", required=True)
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_intermixed_args()
    revoked = os.path.lexists(arguments.dir / "KEYRING.revoke")
    keyring = Keyring((arguments.dir / "KEYRING").read_bytes(), arguments.key_file, revoked)
    keyring.check_commit()
    if arguments.files:
        for path in arguments.files:
            sys.stdout.buffer.write(decrypt(path.read_bytes(), keyring))
        return
    keys = [{"id": key["id"].hex(), "state": key["state"], "bytes": key["bytes"]} for key in keyring.body["keys"]]
    said = {"store_id": keyring.store_id.hex(), "generation": keyring.generation, "keys": keys}
    said["settings"] = {tag: value.hex() for tag, value in keyring.settings.items()}
    print(json.dumps(said))


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(f"refused: {refused}")
