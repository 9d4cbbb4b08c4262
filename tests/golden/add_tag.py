#!/usr/bin/env python3
"""Adds a setting that no version knows to a store's keyring, as a newer version would.

    add_tag.py DIR KEY_FILE NUMBER TEXT

The tag is not critical: whoever does not know it has to keep it. Shares no code with the
library, which cannot write what it does not know.
"""

import hashlib
import hmac
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import reader  # noqa: E402


def main(directory, key_file, number, text):
    path = Path(directory) / "KEYRING"
    data = path.read_bytes()
    keyring = reader.Keyring(data, key_file)
    assert int(number) > max(keyring.body["settings"]), "entries are in the order of their numbers"
    slots_len, body_len = struct.unpack_from("<II", data, 12)
    body = data[128 + slots_len : 128 + slots_len + body_len]
    known = 8 + sum(11 + len(value) for value in keyring.body["settings"].values())
    entry = struct.pack("<HBQ", int(number), 0, len(text)) + text.encode()
    count = len(keyring.body["settings"]) + 1
    body = struct.pack("<Q", count) + body[8:known] + entry + body[known:]
    head = data[:16] + struct.pack("<I", len(body)) + data[20 : 128 + slots_len]
    ids = keyring.store_id + keyring.store_key_id
    mac_key, _, _ = reader.derive(keyring.unlock(key_file), b"atrest.v1.ring", ids)
    signed = head + body + hmac.digest(mac_key, head + body, "sha256")
    path.write_bytes(signed + hashlib.sha256(signed).digest())


main(*sys.argv[1:])
