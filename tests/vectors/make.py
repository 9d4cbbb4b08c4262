#!/usr/bin/env python3
"""Makes `keyring-v2.bin`, suite 2 of `format-v1.json` and the fuzz seeds, from docs/FORMAT.md alone.

The library has to read these bytes and to write the same ones again. Needs the package
`cryptography`. Run from the repository's root.
"""

import hashlib
import hmac
import json
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HERE = Path(__file__).parent
SEEDS = HERE.parent.parent / "fuzz" / "seeds"
VECTORS = json.loads((HERE / "format-v1.json").read_text())
INPUTS = {k: v for k, v in VECTORS["inputs"].items()}
STORE_ID = bytes.fromhex(INPUTS["store_id"])
STORE_KEY_ID = bytes(range(0xD0, 0xE0))
SLOT_KEYS = {bytes(range(0x20, 0x30)): b"\x61" * 32, bytes(range(0x30, 0x40)): b"\x62" * 32}
STORE_KEY = bytes.fromhex(INPUTS["kek_for_wrap"])
CREATED = INPUTS["created_ns"]
DAY = 86_400 * 10**9


def derive(parent, label, info):
    out, block = b"", b""
    for i in (1, 2, 3):
        block = hmac.new(parent, block + label.ljust(16, b"\0") + info + bytes([i]), "sha256").digest()
        out += block
    return out[:32], out[32:44], out[44:76]


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def tags(*entries):
    """Tagged entries: number, flags, value."""
    out = struct.pack("<Q", len(entries))
    for number, flags, value in entries:
        out += struct.pack("<HBQ", number, flags, len(value)) + value
    return out


def wrap(label, parent, by_id, key, key_id, created, salt):
    info = STORE_ID + key_id + by_id + struct.pack("<Q", created) + b"\1" + bytes(23) + salt
    wrap_key, nonce, commitment = derive(parent, label, info)
    return salt + commitment + AESGCM(wrap_key).encrypt(nonce, key, info)


def slot(name, uri, version, created, context_version, slot_key_id, blob):
    salt = hashlib.sha256(b"slot" + slot_key_id).digest()
    store_key = wrap(b"atrest.v1.slot", SLOT_KEYS[slot_key_id], slot_key_id, STORE_KEY, STORE_KEY_ID, 0, salt)
    return (string(name) + string(uri) + string(version) + struct.pack("<QH", created, context_version) + slot_key_id
            + struct.pack("<Q", len(blob)) + blob + store_key + tags())


def kept_slot_key(slot_key_id):
    salt = hashlib.sha256(b"keep" + slot_key_id).digest()
    return slot_key_id + wrap(b"atrest.v1.keep", STORE_KEY, STORE_KEY_ID, SLOT_KEYS[slot_key_id], slot_key_id, 0, salt)


def record(key, key_id, keyspace, state, created, retired, destroyed, count, salt):
    wrapped = wrap(b"atrest.v1.wrap", STORE_KEY, STORE_KEY_ID, key, key_id, created, salt)
    if state == 3:
        wrapped = bytes(112)
    return (key_id + STORE_KEY_ID + struct.pack("<IBBQQQQQ", keyspace, state, 0, created, retired, 0, destroyed, count)
            + wrapped)


def local_blob(cmek, slot_key_id, context_version, salt):
    """A wrapped slot key of the provider `file:`, for a key file of id 32 x 0x01."""
    parent = hmac.new(b"\1" * 32, cmek, "sha256").digest()
    info = STORE_ID + slot_key_id + struct.pack("<H", context_version) + salt
    key, nonce, _ = derive(parent, b"atrest.v1.cmek", info)
    return salt + AESGCM(key).encrypt(nonce, SLOT_KEYS[slot_key_id], info)


def image(slots, body, generation=3):
    fixed = (b"\x89ATRK\r\n\x1a" + struct.pack("<HHIIIII", 2, 128, len(slots), len(body), 0, 0, 0)
             + struct.pack("<QQ", generation, CREATED + DAY) + STORE_ID + STORE_KEY_ID + b"\x77" * 32 + bytes(16))
    assert len(fixed) == 128
    data = fixed + slots + body
    mac_key, _, _ = derive(STORE_KEY, b"atrest.v1.ring", STORE_ID + STORE_KEY_ID)
    data += hmac.new(mac_key, data, "sha256").digest()
    return data + hashlib.sha256(data).digest()


def message(key, nonce, index, plaintext, aad):
    nonce = bytes(a ^ b for a, b in zip(nonce, bytes(4) + struct.pack(">Q", index)))
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def header(kind):
    prefix = bytes.fromhex(VECTORS[kind]["header_prefix"])
    head = prefix + derive(bytes.fromhex(INPUTS["dek"]), b"atrest.v1.file", prefix)[2]
    return (head + hashlib.sha256(head).digest()[:16]).ljust(4096, b"\0")


def chunked(key, nonce, plain, chunk_len):
    """A body of suite 2 of fewer than 2^16 chunks."""
    sealed = [message(key, nonce, k, plain[at : at + chunk_len], b"")
              for k, at in enumerate(range(0, len(plain), chunk_len))]
    end = message(key, nonce, 2**32 - 1, b"", struct.pack("<Q", len(plain)))
    return b"".join(c[:-16] for c in sealed) + b"".join(c[-16:] for c in sealed) + end


def chunked_vector():
    vector = VECTORS["gcm4k"]
    head = header("gcm4k")
    key, nonce, commitment = derive(bytes.fromhex(INPUTS["dek"]), b"atrest.v1.file", head[:128])
    assert (key.hex(), nonce.hex(), commitment.hex()) == (vector["key"], vector["nonce12"], vector["commitment"])
    body = chunked(key, nonce, bytes((131 * i + 7) & 255 for i in range(10000)), 4096)
    vector.update(body_len=len(body), body_first32=body[:32].hex(), body_last32=body[-32:].hex(),
                  file_sha256=hashlib.sha256(head + body).hexdigest())
    vector.pop("two_full_chunks_of_zeros_then_empty", None)
    for name, length in (("empty", 0), ("two_full_chunks_of_zeros", 8192)):
        body = chunked(key, nonce, bytes(length), 4096)
        vector[name] = {"body_len": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    (HERE / "format-v1.json").write_text(json.dumps(VECTORS, indent=1) + "\n")


def main():
    chunked_vector()
    slots = struct.pack("<Q", 2)
    near, far = SLOT_KEYS
    # The first slot is as old as context version 1: it keeps what it was wrapped with.
    blob = local_blob(b"\2" * 32, near, 1, b"\3" * 32)
    slots += slot("default", "file:///etc/app/cmek.key", "", CREATED, 1, near, blob)
    slots += slot("west", "hcvault://vault:8200/transit/keys/app", "7", CREATED + 1, 2, far, b"vault:v7:c2VjcmV0")
    one, two = struct.pack("<Q", 1), struct.pack("<Q", 2)
    # The last entry is of a version to come.
    settings = tags((1, 0, struct.pack("<Q", 30 * DAY)), (2, 0, struct.pack("<Q", 1 << 40)), (3, 0, b""),
                    (900, 0, b"later"))
    active = bytes(range(0xC0, 0xD0))
    keyspaces = one + string("default") + active + struct.pack("<Q", 0) + tags()
    dek = bytes.fromhex(INPUTS["dek"])
    salt = bytes(range(0xE0, 0x100))
    keys = struct.pack("<Q", 3)
    keys += record(dek, bytes.fromhex(INPUTS["dek_id"]), 0, 2, CREATED, CREATED + DAY, 0, 12345, salt)
    keys += record(dek, b"\x11" * 16, 0, 3, CREATED, CREATED + 2, CREATED + 3, 99, salt)
    keys += record(b"\x42" * 32, active, 0, 1, CREATED + DAY, 0, 0, 0, salt)
    audit = struct.pack("<Q", 0) + bytes(32) + two
    audit += struct.pack("<QQB", CREATED, 1, 1) + STORE_KEY_ID + string("file:///etc/app/cmek.key")
    audit += struct.pack("<QQB", CREATED + 1, 2, 4) + STORE_KEY_ID + string("west")
    body = settings + b"\x99" * 16 + struct.pack("<Q", 0)
    body += two + kept_slot_key(near) + kept_slot_key(far) + keyspaces + keys
    body += one + string("/mnt/ssd")
    body += one + string("weekly") + struct.pack("<Q", CREATED + 4) + one + bytes.fromhex(INPUTS["dek_id"])
    body += audit
    keyring = image(slots, body)
    (HERE / "keyring-v2.bin").write_bytes(keyring)

    def seed(target, name, data):
        directory = SEEDS / target
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)

    for kind in ("ctr", "gcm4k", "log"):
        seed("header", kind, header(kind))
        seed("file", kind, header(kind) + bytes(range(100)))
    plain = bytes(i * 7 & 255 for i in range(5000))
    key, nonce, _ = derive(dek, b"atrest.v1.file", header("gcm4k")[:128])
    for length in (0, 100, 4096, 5000):
        seed("file", f"gcm4k_{length}", header("gcm4k") + chunked(key, nonce, plain[:length], 4096))
    key, nonce, _ = derive(dek, b"atrest.v1.file", header("log")[:128])
    body = b"".join(struct.pack(">I", n) + message(key, nonce, k, plain[:n], struct.pack(">I", n))
                    for k, n in enumerate((1, 16, 300)))
    seed("file", "log_3", header("log") + body)
    seed("file", "log_torn", header("log") + body[:-1])
    seed("header", "empty", b"")
    seed("header", "torn", header("ctr")[:100])
    seed("header", "age", b"age-encryption.org/v1\n")
    seed("keyring_slots", "two", slots)
    seed("keyring_slots", "none", bytes(8))
    seed("keyring_slots", "huge", b"\xff" * 8)
    critical = tags((5, 1, b"x"))
    seed("keyring_slots", "critical", slots[: -len(tags())] + critical)
    seed("keyring_image", "whole", keyring)
    seed("keyring_image", "parts", struct.pack("<H", len(slots)) + slots + body)
    later = tags((4, 1, b""), (900, 1, b"later")) + body[len(settings):]
    seed("keyring_image", "critical", struct.pack("<H", len(slots)) + slots + later)
    seed("file", "torn", header("ctr")[:4095])
    for suite in range(3):
        commands = bytes([0, 0, 16, 7, 0, 1, 255, 1, 1, 0, 0, 33, 0, 9, 0, 1, 0, 16, 0, 15])
        seed("ranges", f"suite_{suite + 1}", bytes([suite]) + commands)
    seed("ranges", "mixed", bytes([0, 0, 16, 7, 0, 1, 255, 1, 1, 0, 0, 33, 0, 9, 0, 1, 0, 16, 0, 15]))
    seed("ctr", "block_edge", struct.pack("<Q", 15 << 20) + bytes(100))
    seed("ctr", "last_block", struct.pack("<Q", ((1 << 44) - 512) << 20) + bytes(range(256)) * 2)


if __name__ == "__main__":
    main()
