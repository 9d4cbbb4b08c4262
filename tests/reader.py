#!/usr/bin/env python3
"""Reads a store with nothing but `docs/FORMAT.md`, hashlib and the package `cryptography`.

    reader.py DIR --key-file PATH            lists the data keys as JSON
    reader.py DIR --key-file PATH FILE ...   decrypts files one after the other to standard output

It is the proof that the format's text suffices: it shares no code with the library.
"""

import argparse
import hashlib
import hmac
import json
import os
import struct
import sys
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FILE_MAGIC = bytes.fromhex("89415452460d0a1a")
KEYRING_MAGIC = bytes.fromhex("894154524b0d0a1a")


class Refused(Exception):
    """What FORMAT.md refuses, by the name it gives."""


def refuse(unless, what):
    if not unless:
        raise Refused(what)


# Section 1.
def derive(parent, label, info):
    label = label.ljust(16, b"\0")
    output, block, counter = b"", b"", 0
    while len(output) < 76:
        counter += 1
        block = hmac.digest(parent, block + label + info + bytes([counter]), "sha256")
        output += block
    return output[:32], output[32:44], output[44:76]


# Section 6, encoding.
class Fields:
    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, length):
        refuse(length <= len(self.data) - self.at, "keyring corrupt: a field is cut off")
        self.at += length
        return self.data[self.at - length : self.at]

    def u8(self):
        return self.raw(1)[0]

    def u16(self):
        return int.from_bytes(self.raw(2), "little")

    def u32(self):
        return int.from_bytes(self.raw(4), "little")

    def u64(self):
        return int.from_bytes(self.raw(8), "little")

    def bytes(self):
        return self.raw(self.u64())

    def string(self):
        return self.bytes().decode("utf-8")

    def list(self, element):
        count = self.u64()
        refuse(count <= len(self.data), "keyring corrupt: a list is too long")
        return [element(self) for _ in range(count)]

    def end(self):
        refuse(self.at == len(self.data), "keyring corrupt: bytes are left over")


# Section 6, tagged entries.
def tags(f, *known):
    entries = f.list(lambda f: (f.u16(), f.u8(), f.bytes()))
    numbers = [number for number, _, _ in entries]
    refuse(len(entries) <= 256 and numbers == sorted(set(numbers)), "keyring corrupt: order of tags")
    refuse(all(flags <= 1 and len(value) <= 1 << 20 for _, flags, value in entries), "keyring corrupt: a tag")
    for number, flags, _ in entries:
        refuse(flags == 0 or number in known, f"unsupported feature: tag {number}")
    return {number: value for number, _, value in entries}


def wrap(f):
    return {"salt": f.raw(32), "commitment": f.raw(32), "sealed": f.raw(48)}


# Section 6, wrapping a key.
def unwrap(label, parent, store_id, key_id, by_id, created, wrapped):
    info = store_id + key_id + by_id + struct.pack("<QB", created, 1) + bytes(23) + wrapped["salt"]
    key, nonce, commitment = derive(parent, label, info)
    if not hmac.compare_digest(commitment, wrapped["commitment"]):
        return None
    try:
        return AESGCM(key).decrypt(nonce, wrapped["sealed"], info)
    except InvalidTag:
        return None


def slot(f):
    names = ("name", "uri", "version", "created", "context", "key_id", "blob", "store_key", "tags")
    head = (f.string(), f.string(), f.string(), f.u64(), f.u16(), f.raw(16), f.bytes())
    return dict(zip(names, head + (wrap(f), tags(f))))


def kept_slot_key(f):
    return {"id": f.raw(16), "wrap": wrap(f)}


def keyspace(f):
    return {"name": f.string(), "active": f.raw(16), "rebased": f.u64(), "tags": tags(f, 1)}


def data_key(f):
    return {
        "id": f.raw(16),
        "store_key_id": f.raw(16),
        "keyspace": f.u32(),
        "state": f.u8(),
        "exposed": f.u8(),
        "created": f.u64(),
        "retired": f.u64(),
        "retire_after": f.u64(),
        "destroyed": f.u64(),
        "bytes": f.u64(),
        "wrap": wrap(f),
    }


def hold(f):
    return {"name": f.string(), "created": f.u64(), "keys": f.list(lambda f: f.raw(16))}


def event(f):
    return {"at": f.u64(), "generation": f.u64(), "what": f.u8(), "store_key_id": f.raw(16), "detail": f.string()}


def body_of(data):
    f = Fields(data)
    settings = tags(f, 1, 2, 3, 4, 5)
    numbers = [settings.get(tag, bytes(8)) for tag in (1, 2)]
    refuse(all(len(number) == 8 for number in numbers) and settings.get(1) != bytes(8), "keyring corrupt: settings")
    refuse(not settings.get(3) and not settings.get(4), "keyring corrupt: settings")
    kinds = settings.get(5)
    some = kinds is None or (0 < len(kinds) < 5 and list(kinds) == sorted(set(kinds)) and set(kinds) < {1, 2, 3, 4, 5})
    refuse(some and not (kinds and 4 in settings), "keyring corrupt: kinds of authenticated files")
    body = {"settings": settings, "location": f.raw(16), "revoked": f.u64(), "slot_keys": f.list(kept_slot_key)}
    body.update(keyspaces=f.list(keyspace), keys=f.list(data_key))
    body.update(directories=f.list(Fields.bytes), holds=f.list(hold))
    body.update(archived=f.u64(), chain=f.raw(32), events=f.list(event))
    f.end()
    refuse(1 <= len(body["keyspaces"]) <= 65536, "keyring corrupt: keyspaces")
    homes = [keyspace["tags"].get(1, bytes(32)) for keyspace in body["keyspaces"]]
    refuse(all(len(home) in (32, 64, 96, 128) for home in homes), "keyring corrupt: locations")
    refuse(len({key["id"] for key in body["keys"]}) == len(body["keys"]), "keyring corrupt: two ids are one")
    for key in body["keys"]:
        refuse(key["keyspace"] < len(body["keyspaces"]), "keyring corrupt: no such keyspace")
        active = body["keyspaces"][key["keyspace"]]["active"]
        refuse(key["state"] in (1, 2, 3, 4) and (key["state"] == 1) == (active == key["id"]), "keyring corrupt: state")
        refuse(key["exposed"] <= 1, "keyring corrupt: exposed")
        refuse((key["state"] == 4) == (key["retire_after"] != 0), "keyring corrupt: grace")
        refuse((key["state"] == 3) == (key["wrap"]["sealed"] == bytes(48)), "keyring corrupt: wrapped key")
    names = [hold["name"] for hold in body["holds"]]
    refuse(len(set(names)) == len(names) and all(1 <= len(name) <= 256 for name in names), "keyring corrupt: hold")
    refuse(all(path[:1] == b"/" for path in body["directories"]), "keyring corrupt: directory")
    return body


# Section 7.
def unwrap_with_key_file(path, context, blob):
    refuse(os.stat(path).st_mode & 0o077 == 0, "others may read the key file")
    key_file = Path(path).read_bytes()
    refuse(len(key_file) in (48, 56, 64), "a key file has 48, 56 or 64 bytes")
    refuse(len(blob) == 80, "a wrapped slot key has 80 bytes")
    parent = hmac.digest(key_file[:32], key_file[32:], "sha256")
    info = context + blob[:32]
    key, nonce, _ = derive(parent, b"atrest.v1.cmek", info)
    try:
        return AESGCM(key).decrypt(nonce, blob[32:], info)
    except InvalidTag:
        raise Refused("another key wrapped this slot key") from None


class Keyring:
    def __init__(self, data, key_file):
        refuse(len(data) >= 192, "keyring truncated")
        refuse(data[:8] == KEYRING_MAGIC, "keyring corrupt: magic")
        version, header_len, slots_len, body_len, incompatible, _, zero = struct.unpack_from("<HHIIIII", data, 8)
        refuse(version == 2, f"unsupported version {version}")
        refuse(slots_len <= 1 << 21, "keyring corrupt: slots are too long")
        end = 128 + slots_len + body_len
        refuse(len(data) >= end + 64, "keyring truncated")
        refuse(len(data) == end + 64, "keyring corrupt: bytes follow")
        refuse(hashlib.sha256(data[: end + 32]).digest() == data[end + 32 :], "keyring corrupt: checksum")
        refuse(header_len == 128 and zero == 0 and data[112:128] == bytes(16), "keyring corrupt: reserved bytes")
        refuse(incompatible == 0, f"unsupported feature {incompatible:#x}")
        self.generation, self.written = struct.unpack_from("<QQ", data, 32)
        refuse(0 < self.generation < (1 << 64) - 1, "keyring corrupt: generation")
        self.store_id, self.store_key_id = data[48:64], data[64:80]
        f = Fields(data[128 : 128 + slots_len])
        self.slots = f.list(slot)
        f.end()
        refuse(1 <= len(self.slots) <= 64, "keyring corrupt: slots")
        store_key = self.unlock(key_file)
        mac_key, _, _ = derive(store_key, b"atrest.v1.ring", self.store_id + self.store_key_id)
        mac = hmac.digest(mac_key, data[:end], "sha256")
        refuse(hmac.compare_digest(mac, data[end : end + 32]), "wrong store key")
        self.body = body_of(data[128 + slots_len : end])
        kept = [key["id"] for key in self.body["slot_keys"]]
        refuse(kept == [slot["key_id"] for slot in self.slots], "keyring corrupt: slot keys")
        self.keys = {key["id"]: self.unwrap(store_key, key) for key in self.body["keys"] if key["state"] != 3}
        for candidate, key in zip(self.slots, self.body["slot_keys"]):
            self.check_slot(store_key, candidate, key["wrap"])

    def unlock(self, key_file):
        error = Refused("no slot is a key file's")
        for candidate in self.slots:
            if candidate["uri"].startswith("file:"):
                try:
                    context = self.store_id + candidate["key_id"] + struct.pack("<H", candidate["context"])
                    slot_key = unwrap_with_key_file(key_file, context, candidate["blob"])
                    store_key = self.store_key(slot_key, candidate)
                    refuse(store_key is not None, "wrong store key")
                    return store_key
                except Refused as refused:
                    error = refused
        raise error

    def store_key(self, slot_key, of):
        return unwrap(b"atrest.v1.slot", slot_key, self.store_id, self.store_key_id, of["key_id"], 0, of["store_key"])

    def check_slot(self, store_key, of, wrapped):
        key = unwrap(b"atrest.v1.keep", store_key, self.store_id, of["key_id"], self.store_key_id, 0, wrapped)
        refuse(key is not None, "keyring corrupt: a slot key does not unwrap")
        refuse(self.store_key(key, of) == store_key, "keyring corrupt: a slot leads to another store key")

    def unwrap(self, store_key, record):
        by_id, created = record["store_key_id"], record["created"]
        key = unwrap(b"atrest.v1.wrap", store_key, self.store_id, record["id"], by_id, created, record["wrap"])
        refuse(key is not None, "keyring corrupt: a data key does not unwrap")
        return key


# Sections 2 to 5.
def decrypt(data, keyring):
    refuse(data, "empty file")
    refuse(data[:8] == FILE_MAGIC[: len(data)], "not encrypted")
    refuse(len(data) >= 4096, "truncated header")
    head, body = data[:4096], data[4096:]
    version, header_len, suite, chunk_log2, kind, zero, incompatible = struct.unpack_from("<HHBBBBI", head, 8)
    refuse(version == 1, f"unsupported version {version}")
    refuse(hashlib.sha256(head[:160]).digest()[:16] == head[160:176], "corrupt header: checksum")
    reserved = bytes([zero]) + head[80:96] + head[176:]
    refuse(header_len == 4096 and not any(reserved), "corrupt header: reserved bytes")
    refuse(incompatible == 0, f"unsupported feature {incompatible:#x}")
    refuse(suite in (1, 2, 3) and 1 <= kind <= 6, "unsupported feature: suite or kind")
    refuse(12 <= chunk_log2 <= 16 if suite == 2 else chunk_log2 == 0, "corrupt header: chunk")
    refuse(kind != 6, "temporary ended")
    refuse(head[48:64] in keyring.keys, f"unknown key {head[48:64].hex()}")
    key, nonce, commitment = derive(keyring.keys[head[48:64]], b"atrest.v1.file", head[:128])
    refuse(hmac.compare_digest(commitment, head[128:160]), "wrong key")
    refuse(head[32:48] == keyring.store_id, "identity mismatch")
    if suite == 1:
        counter = nonce[:8] + bytes(8)
        return Cipher(algorithms.AES(key), modes.CTR(counter)).decryptor().update(body)
    return (chunks if suite == 2 else frames)(body, AESGCM(key), nonce, 1 << chunk_log2)


def message_nonce(nonce, index):
    return bytes(a ^ b for a, b in zip(nonce, bytes(4) + struct.pack(">Q", index)))


def chunks(body, aead, nonce, chunk_len):
    full, rest = divmod(len(body) - 16, chunk_len + 16)
    refuse(len(body) >= 16 and (rest == 0 or rest > 16), "authentication failed: length")
    length = full * chunk_len + max(rest - 16, 0)
    count = full + (rest > 0)

    def opened(index, sealed, aad, what):
        try:
            return aead.decrypt(message_nonce(nonce, index), sealed, aad)
        except InvalidTag:
            raise Refused(f"authentication failed: {what}") from None

    opened(2**32 - 1, body[-16:], struct.pack("<Q", length), "end")
    plain, section = [], 0
    for first in range(0, count, 2**16):
        size = min(2**16 * chunk_len, length - first * chunk_len)
        tags = section + size
        for index in range(first, min(first + 2**16, count)):
            at = section + (index - first) * chunk_len
            tag = tags + (index - first) * 16
            sealed = body[at : min(at + chunk_len, tags)] + body[tag : tag + 16]
            plain.append(opened(index, sealed, b"", f"chunk {index}"))
        section = tags + 2**20
    return b"".join(plain)


def frames(body, aead, nonce, _):
    plain, at, index, torn = b"", 0, 0, None
    while at < len(body):
        length = int.from_bytes(body[at : at + 4], "big")
        end = at + 4 + length + 16
        if at + 4 > len(body):
            torn = "cut"
        elif not any(body[at : at + 20]):
            torn = "zeros"
        elif not 1 <= length <= 1 << 24:
            torn = "length"
        elif end > len(body):
            torn = "cut"
        if torn:
            break
        try:
            plain += aead.decrypt(message_nonce(nonce, index), body[at + 4 : end], body[at : at + 4])
        except InvalidTag:
            torn = "authentication"
            break
        at, index = end, index + 1
    if torn:
        print(f"torn at frame {index}, offset {len(plain)}: {torn}", file=sys.stderr)
    return plain


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--key-file", required=True)
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_intermixed_args()
    keyring = Keyring((arguments.dir / "KEYRING").read_bytes(), arguments.key_file)
    if arguments.files:
        for path in arguments.files:
            sys.stdout.buffer.write(decrypt(path.read_bytes(), keyring))
        return
    keys = [{"id": key["id"].hex(), "state": key["state"], "bytes": key["bytes"]} for key in keyring.body["keys"]]
    said = {"store_id": keyring.store_id.hex(), "generation": keyring.generation, "keys": keys}
    said["settings"] = {tag: value.hex() for tag, value in keyring.body["settings"].items()}
    print(json.dumps(said))


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(f"refused: {refused}")
