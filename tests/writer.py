#!/usr/bin/env python3
"""Writes a random store with nothing but `docs/FORMAT.md`, as `tests/reader.py` reads one.

    writer.py DIR --seed N     makes DIR/data and its keys; all of it follows from the seed

It writes what the text allows and the library would not: other costs of Argon2id, context versions
of before and to come, tags and features that nobody knows yet, states that take years to reach.
`tests/mutations.py` then says what has to be read of it, and what refused.
"""

import argparse
import hashlib
import hmac
import json
import os
import random
import struct
from pathlib import Path

import reader
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from reader import BODY, DESTROYED, FILE_MAGIC, KEYRING_MAGIC, SLOT, derive, message_nonce, wrap_info

NOW = 1_700_000_000 * 10**9
DAY = 86_400 * 10**9
ZEROS = bytes(16)


# Section 6, encoding.
def encode(kind, value):
    if isinstance(kind, int):
        assert len(value) == kind
        return value
    if isinstance(kind, tuple):
        return b"".join(encode(field, value[name]) for name, field in kind)
    if kind in ("u8", "u16", "u32", "u64", "i64"):
        return value.to_bytes(int(kind[1:]) // 8, "little", signed=kind[0] == "i")
    if isinstance(kind, list):
        return struct.pack("<Q", len(value)) + b"".join(encode(kind[0], element) for element in value)
    # A text that is no UTF-8 is written too: to be refused.
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def tag(number, value, critical=False):
    return {"tag": number, "flags": int(critical), "value": value}


# Section 6, wrapping a key.
def wrap(rng, label, parent, store_id, key_id, by_id, created, key):
    salt = rng.randbytes(32)
    info = wrap_info(store_id, key_id, by_id, created, salt)
    wrap_key, nonce, commitment = derive(parent, label, info)
    return salt + commitment + AESGCM(wrap_key).encrypt(nonce, key, info)


# Section 7.
def seal(rng, parent, context, slot_key):
    salt = rng.randbytes(32)
    key, nonce, _ = derive(parent, b"atrest.v1.cmek", context + salt)
    return salt + AESGCM(key).encrypt(nonce, slot_key, context + salt)


class Draft:
    """A keyring with its keys, which can be written as it is or with anything changed."""

    def __init__(self, store_id, store_key_id, store_key):
        self.store_id, self.store_key_id, self.store_key = store_id, store_key_id, store_key
        self.version, self.header_len, self.zero, self.reserved = 2, 128, 0, bytes(16)
        self.incompatible = self.compatible = 0
        self.generation, self.written, self.previous = 1, NOW, bytes(32)
        self.slots, self.body, self.keys = [], {}, {}
        self.after_slots = self.after_body = b""

    @classmethod
    def of(cls, data, keyring):
        """What a reader opened."""
        draft = cls(keyring.store_id, keyring.store_key_id, keyring.found)
        draft.compatible = int.from_bytes(data[24:28], "little")
        draft.generation, draft.written, draft.previous = keyring.generation, keyring.written, data[80:112]
        draft.slots, draft.body, draft.keys = keyring.slots, keyring.body, keyring.keys
        return draft

    def image(self):
        slots = encode([SLOT], self.slots) + self.after_slots
        body = encode(BODY, self.body) + self.after_body
        head = struct.pack("<HHIIIII", self.version, self.header_len, len(slots), len(body), self.incompatible,
                           self.compatible, self.zero)
        head += struct.pack("<QQ", self.generation, self.written) + self.store_id + self.store_key_id + self.previous
        return self.sealed(KEYRING_MAGIC + head + self.reserved + slots + body)

    def sealed(self, data):
        """With MAC and checksum."""
        mac_key, _, _ = derive(self.store_key, b"atrest.v1.ring", self.store_id + self.store_key_id)
        data += hmac.digest(mac_key, data, "sha256")
        return data + hashlib.sha256(data).digest()

    def wrap(self, rng, label, parent, key_id, by_id, created, key):
        return wrap(rng, label, parent, self.store_id, key_id, by_id, created, key)

    def add_slot(self, rng, name, uri, blob_of, version="", context=2, tags=()):
        slot_key, key_id = rng.randbytes(32), rng.randbytes(16)
        blob = blob_of(self.store_id + key_id + struct.pack("<H", context), slot_key)
        store_key = self.wrap(rng, b"atrest.v1.slot", slot_key, self.store_key_id, key_id, 0, self.store_key)
        kept = self.wrap(rng, b"atrest.v1.keep", self.store_key, key_id, self.store_key_id, 0, slot_key)
        self.slots.append({"name": name, "uri": uri, "version": version, "created": NOW, "context": context,
                           "key_id": key_id, "blob": blob, "store_key": store_key, "tags": list(tags)})
        self.body.setdefault("slot_keys", []).append({"id": key_id, "wrap": kept})

    def add_key(self, rng, keyspace, state, created):
        key, key_id = rng.randbytes(32), rng.randbytes(16)
        gone = state == DESTROYED
        wrapped = self.wrap(rng, b"atrest.v1.wrap", self.store_key, key_id, self.store_key_id, created, key)
        self.body.setdefault("keys", []).append({
            "id": key_id, "store_key_id": self.store_key_id, "keyspace": keyspace, "state": state,
            "exposed": rng.randrange(2), "created": created, "retired": 0 if state == 1 else created + DAY,
            "retire_after": NOW + 7 * DAY if state == 4 else 0, "destroyed": created + 2 * DAY if gone else 0,
            "bytes": rng.randrange(1 << 50), "wrap": bytes(112) if gone else wrapped,
        })
        # The key of a destroyed one too: to show that its files are refused.
        self.keys[key_id] = key
        return key_id


# Sections 2 to 5.
def header(dek, store_id, key_id, suite, chunk_log2, kind, file_id, salt, **odd):
    """With `odd` fields as a test wants them: all else is right, commitment and checksum included."""
    head = bytearray(FILE_MAGIC + struct.pack("<HHBBBBII", odd.get("version", 1), odd.get("header_len", 4096), suite,
                                             chunk_log2, kind, odd.get("zero", 0), odd.get("incompatible", 0),
                                             odd.get("compatible", 0)))
    head += struct.pack("<Q", NOW) + store_id + key_id + file_id + odd.get("reserved", ZEROS) + salt
    key, nonce, commitment = derive(dek, b"atrest.v1.file", bytes(head))
    head += commitment
    head += hashlib.sha256(head).digest()[:16]
    return bytes(head) + odd.get("tail", b"").ljust(3920, b"\0"), key, nonce


def message(key, nonce, index, plain, aad):
    return AESGCM(key).encrypt(message_nonce(nonce, index), plain, aad)


def stream(key, nonce, plain):
    return Cipher(algorithms.AES(key), modes.CTR(nonce[:8] + bytes(8))).encryptor().update(plain)


def chunks(key, nonce, plain, chunk_len):
    body = b""
    for section in range(0, len(plain), chunk_len << 16):
        of = plain[section : section + (chunk_len << 16)]
        sealed = [message(key, nonce, (section + at) // chunk_len, of[at : at + chunk_len], b"")
                  for at in range(0, len(of), chunk_len)]
        body += b"".join(chunk[:-16] for chunk in sealed) + b"".join(chunk[-16:] for chunk in sealed)
    return body + message(key, nonce, 2**32 - 1, b"", struct.pack("<Q", len(plain)))


def log(key, nonce, frames):
    return b"".join(struct.pack(">I", len(frame)) + message(key, nonce, index, frame, struct.pack(">I", len(frame)))
                    for index, frame in enumerate(frames))


# A random store.
LENGTHS = (0, 1, 15, 16, 17, 4080, 4095, 4096, 4097, 8192, 12_287, 65_536, 65_537, 100_000)
NAME = "ab c-/é漢Z\N{GRINNING FACE}"


def some_name(rng):
    return "".join(rng.choice(NAME) for _ in range(rng.randrange(1, 40)))


def some_tags(rng):
    numbers = sorted(rng.sample(range(900, 65536), rng.choice((0, 0, 1, 3))))
    return [tag(number, rng.randbytes(rng.randrange(40))) for number in numbers]


def customers(rng, directory, variable):
    """The customer's keys, and how to open each."""
    path = directory / "cmek.key"
    path.write_bytes(rng.randbytes(rng.choice((48, 56, 64))))
    path.chmod(0o600)
    return [reader.KeyFile(path), reader.Variable(variable, os.environ[variable]), reader.Passphrase("Schlüssel 7 ")]


def blob_of(rng, customer):
    if not isinstance(customer, reader.Passphrase):
        return lambda context, slot_key: seal(rng, customer.parent(), context, slot_key)
    lanes = rng.randrange(1, 5)
    costs, salt = (8 * lanes + rng.randrange(60), rng.randrange(1, 4), lanes), rng.randbytes(16)
    head = struct.pack("<III", *costs) + salt
    return lambda context, slot_key: head + seal(rng, customer.parent(costs, salt), context, slot_key)


def random_settings(rng):
    settings = [tag(1, struct.pack("<Q", rng.choice((1, 10**9, 30 * DAY, (1 << 64) - 1))))] if rng.random() < 0.8 else []
    if rng.random() < 0.5:
        settings.append(tag(2, struct.pack("<Q", rng.choice((0, 1, 1 << 40)))))
    if rng.random() < 0.5:
        settings.append(tag(3, b""))
    which = rng.randrange(4)
    if which == 0:
        settings.append(tag(4, b"", critical=True))
    elif which == 1:
        settings.append(tag(5, bytes(sorted(rng.sample(range(1, 6), rng.randrange(1, 5)))), critical=True))
    return settings + some_tags(rng)


def homes(rng, active, body):
    """K27: where the keyspace had which active key; says nothing if it begins with another."""
    others = rng.randbytes(32 * rng.randrange(4))
    return [tag(1, rng.choice((body["location"] + active, rng.randbytes(32))) + others)]


def random_keyring(rng, keys):
    draft = Draft(rng.randbytes(16), rng.randbytes(16), rng.randbytes(32))
    draft.generation, draft.written = rng.randrange(1, 1 << 40), NOW + rng.randrange(DAY)
    draft.previous, draft.compatible = rng.randbytes(32), rng.choice((0, rng.getrandbits(32)))
    shown = [(key.uri, blob_of(rng, key)) for key in keys]
    # Of a service that nobody gives a key of.
    shown.append(("hcvault://vault:8200/transit/keys/app?ca=/é", lambda *_: rng.randbytes(rng.randrange(500))))
    first = rng.randrange(3)
    order = [shown[first]] + rng.sample(shown, rng.randrange(4))
    for number, (uri, of) in enumerate(order):
        name = f"{some_name(rng)}{number}"
        version, context = rng.choice(("", "7", "v é")), rng.choice((0, 1, 2, 2, 65535))
        draft.add_slot(rng, name, uri, of, version, context, some_tags(rng))
    spaces = rng.randrange(1, 4)
    body = draft.body
    body.update(settings=random_settings(rng), location=rng.choice((ZEROS, rng.randbytes(16))), revoked=0)
    body.update(keyspaces=[], keys=[], directories=[], holds=[], archived=0, chain=bytes(32), events=[])
    for space in range(spaces):
        for age in range(rng.randrange(5), 0, -1):
            draft.add_key(rng, space, rng.choice((2, 2, DESTROYED, 4)), NOW - age * 30 * DAY)
        # One without an active key was shredded.
        shredded = space > 0 and rng.random() < 0.3
        active = ZEROS if shredded else draft.add_key(rng, space, 1, NOW)
        body["keyspaces"].append({"name": f"{some_name(rng)}{space}", "active": active, "rebased": rng.choice((0, NOW)),
                                  "tags": rng.choice(([], homes(rng, active, body))) + some_tags(rng)})
    ids = [key["id"] for key in body["keys"]]
    for number in range(rng.choice((0, 1, 3))):
        held = rng.sample(ids, rng.randrange(len(ids) + 1)) + rng.choice(([], [rng.randbytes(16)]))
        body["holds"].append({"name": f"{some_name(rng)}{number}", "created": NOW, "keys": held})
    body["directories"] = [b"/mnt/" + rng.randbytes(5).replace(b"/", b"_").replace(b"\0", b"_")
                           for _ in range(rng.choice((0, 0, 1, 2)))]
    return draft


def random_event(rng, draft):
    return {"at": NOW + rng.randrange(DAY), "generation": rng.randrange(1, draft.generation + 1),
            "what": rng.choice((*range(1, 23), 250)), "store_key_id": rng.choice((draft.store_key_id, rng.randbytes(16))),
            "detail": some_name(rng)}


def write_audit(rng, draft, directory):
    """Archives, and the events since."""
    number, chain = 0, bytes(32)
    for _ in range(rng.choice((0, 0, 1, 3))):
        events, before, first = [random_event(rng, draft) for _ in range(rng.randrange(1, 9))], chain, number
        for event in events:
            chain, number = reader.chain_on(chain, number, event), number + 1
        data = bytes.fromhex("89415452410d0a1a") + draft.store_id + struct.pack("<Q", first) + before
        (directory / f"KEYRING.audit.{chain.hex()}").write_bytes(data + encode([reader.EVENT], events))
    draft.body.update(archived=number, chain=chain, events=[random_event(rng, draft) for _ in range(rng.randrange(6))])


def random_file(rng, draft):
    """Bytes of a file, and what it was made from."""
    suite, kind = rng.randrange(1, 4), rng.randrange(1, 6)
    chunk_log2 = rng.randrange(12, 17) if suite == 2 else 0
    key_id = rng.choice(list(draft.keys))
    file_id = rng.choice((ZEROS, struct.pack("<QQ", rng.randrange(1 << 32), 0), rng.randbytes(16)))
    frames = [rng.randbytes(rng.choice(LENGTHS[1:])) for _ in range(rng.randrange(6))]
    plain = b"".join(frames) if suite == 3 else rng.randbytes(rng.choice(LENGTHS))
    odd = {"compatible": rng.getrandbits(32)} if rng.random() < 0.3 else {}
    about = {"suite": suite, "chunk_log2": chunk_log2, "kind": kind, "key_id": key_id, "file_id": file_id, "plain": plain,
             "frames": frames, "salt": rng.randbytes(32), "odd": odd}
    return write_file(draft, about), about


def write_file(draft, about, **odd):
    dek, suite = draft.keys[about["key_id"]], about["suite"]
    head, key, nonce = header(dek, odd.pop("store_id", draft.store_id), about["key_id"], odd.pop("suite", suite),
                              odd.pop("chunk_log2", about["chunk_log2"]), odd.pop("kind", about["kind"]),
                              about["file_id"], about["salt"], **{**about["odd"], **odd})
    if suite == 1:
        return head + stream(key, nonce, about["plain"])
    if suite == 2:
        return head + chunks(key, nonce, about["plain"], 1 << about["chunk_log2"])
    return head + log(key, nonce, about["frames"])


def random_store(rng, directory, variable, files=8):
    """The keys, the keyring, and files by their names with what they were made from."""
    data = directory / "data"
    data.mkdir(parents=True)
    keys = customers(rng, directory, variable)
    draft = random_keyring(rng, keys)
    write_audit(rng, draft, data)
    (data / "KEYRING").write_bytes(draft.image())
    written = {}
    for number in range(files):
        name = f"{number:06}.sst"
        image, written[name] = random_file(rng, draft)
        (data / name).write_bytes(image)
    return keys, draft, written


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--variable", required=True, help="an environment variable with 64 hexadecimal digits")
    arguments = parser.parse_args()
    keys, _, files = random_store(random.Random(arguments.seed), arguments.dir, arguments.variable)
    said = {key.uri: getattr(key, "value", getattr(key, "text", b"").decode()) for key in keys}
    print(json.dumps({"keys": said, "files": {name: len(about["plain"]) for name, about in files.items()}}))


if __name__ == "__main__":
    os.umask(0o077)
    main()
