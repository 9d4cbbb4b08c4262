#!/usr/bin/env python3
"""Says what a reader has to read and what it has to refuse, by `docs/FORMAT.md` alone.

    mutations.py OUT --seed N --variable NAME              of a store that `tests/writer.py` makes
    mutations.py OUT --seed N --of DIR --key-file PATH     of a store that the library wrote

Changes keyrings and files in every way the text speaks of, and in random ones: most of them with
the right checksum, MAC and commitment, as if the holder of the keys had made them, so that the
rules behind those are reached. Writes OUT/cases.json: for each image what `tests/reader.py` makes
of it. The library has to say the same.
"""

import argparse
import copy
import hashlib
import json
import os
import random
import struct
from pathlib import Path

import reader
import writer
from reader import DESTROYED, FILE_MAGIC, KEYRING_MAGIC, Refused
from writer import NOW, ZEROS, tag

STATES = {1: "active", 2: "decrypt-only", 3: "destroyed", 4: "retiring"}
EVENTS = {
    1: "created", 2: "store-key-rotated", 3: "cmek-replaced", 4: "slot-added", 5: "slot-removed", 6: "slot-rewrapped",
    7: "data-key-rotated", 8: "enabled", 9: "disabled", 10: "revoked", 11: "restored", 12: "access",
    13: "data-key-destroyed", 14: "keyspace-created", 15: "keyspace-shredded", 16: "store-shredded", 20: "recovered",
    21: "upkeep-failed", 22: "moved",
}


def lower(uri):
    """A URI as it is written: its scheme in lower case."""
    scheme, rest = uri.split(":", 1)
    return f"{scheme.lower()}:{rest}"


def shown(keyring):
    """A keyring as the library shows it."""
    spaces = keyring.body["keyspaces"]
    number = {tag: int.from_bytes(value, "little") for tag, value in keyring.settings.items() if tag in (1, 2)}
    return {
        "store_id": keyring.store_id.hex(),
        "store_key_id": keyring.store_key_id.hex(),
        "generation": keyring.generation,
        "written_ns": keyring.written,
        "slots": [{"name": slot["name"], "key_uri": lower(slot["uri"]), "key_version": slot["version"],
                   "created_ns": slot["created"]} for slot in keyring.slots],
        "settings": {
            "rotation_period_ns": number.get(1),
            "rotation_bytes": number.get(2) or None,
            "plaintext": "allow" if 3 in keyring.settings else "require",
            "authenticated": list(range(1, 6)) if 4 in keyring.settings else list(keyring.settings.get(5, b"")),
        },
        "keyspaces": [[space["name"], space["active"].hex() if any(space["active"]) else None] for space in spaces],
        "data_keys": [{
            "id": key["id"].hex(), "keyspace": spaces[key["keyspace"]]["name"], "state": STATES[key["state"]],
            "exposed": key["exposed"] == 1, "created_ns": key["created"], "retired_ns": key["retired"] or None,
            "retire_after_ns": key["retire_after"] or None, "destroyed_ns": key["destroyed"] or None,
            "encrypted_bytes": key["bytes"],
        } for key in keyring.body["keys"]],
        "holds": [{"name": hold["name"], "created_ns": hold["created"], "keys": [key.hex() for key in hold["keys"]]}
                  for hold in keyring.body["holds"]],
        "directories": sorted(path.hex() for path in keyring.body["directories"]),
    }


def shown_events(events):
    return [{"number": number, "at_ns": event["at"], "generation": event["generation"],
             "what": EVENTS.get(event["what"], "unknown"), "store_key_id": event["store_key_id"].hex(),
             "detail": event["detail"]} for number, event in enumerate(events)]


def judge(work):
    try:
        return work()
    except Refused as refused:
        return {"refused": refused.kind}


def judge_keyring(image, customers, revoked):
    return judge(lambda: {"opens": shown(reader.Keyring(image, customers, revoked))})


def judge_file(image, keyring, expect=None):
    def read():
        file = reader.File(image, keyring, expect)
        said = {"len": len(file.plain), "sha256": hashlib.sha256(file.plain).hexdigest(), "suite": file.suite}
        if file.suite == 3:
            said |= {"frames": len(file.frames), "torn": file.torn}
        return said

    return judge(read)


def flipped(rng, data, low=0, high=None):
    data, at = bytearray(data), rng.randrange(low, high or len(data))
    data[at] ^= 1 << rng.randrange(8)
    return bytes(data), at


# Keyrings. Each edit is of a draft, which is then written with a right MAC and checksum.
def slot_edits(rng):
    """By what they do, changes of a list of slots."""
    long, critical = "n" * 257, tag(9, b"x", critical=True)
    texts = {"empty": "", "of 256 bytes": "n" * 256, "of 257 bytes": long, "with a line feed": "a\nb",
             "with U+0085": "a\x85b", "with U+007F": "a\x7fb", "of 256 bytes in 128 letters": "é" * 128,
             "of 258 bytes in 129 letters": "é" * 129, "that is no UTF-8": b"\xff\xfe", "with a blank": "a b",
             "with U+00A0": "a\xa0b"}
    uris = {"empty": "", "without a scheme": "/etc/key", "with a blank": "file:///a b", "with a tab": "file:///a\tb",
            "of 2048 bytes": "x:" + "y" * 2046, "of 2049 bytes": "x:" + "y" * 2047, "with a scheme of digits": "7z:/x",
            "with an empty rest": "zz:", "with an empty scheme": ":x", "with an odd scheme": "a+b.c-d:x",
            "with a scheme of other letters": "fïle:///a", "with an upper-case scheme": "ZZ:x"}
    lists = {"too many": [tag(number, b"") for number in range(257)], "as many as may be":
             [tag(number, b"") for number in range(256)], "twice": [tag(9, b""), tag(9, b"")],
             "descending": [tag(9, b""), tag(8, b"")], "critical": [critical], "with another flag":
             [{"tag": 9, "flags": 2, "value": b""}], "too long": [tag(9, bytes((1 << 20) + 1))]}
    for what, text in texts.items():
        yield f"a slot's name {what}", lambda draft, text=text: draft.slots[-1].update(name=text)
        yield f"a CMEK's version {what}", lambda draft, text=text: draft.slots[-1].update(version=text)
        yield f"a keyspace's name {what}", lambda draft, text=text: draft.body["keyspaces"][-1].update(name=text)
        yield f"a hold's name {what}", lambda draft, text=text: draft.body["holds"].append(
            {"name": text, "created": 1, "keys": []})
    for what, uri in uris.items():
        yield f"a URI {what}", lambda draft, uri=uri: add_stranger(rng, draft, uri=uri)
    for what, entries in lists.items():
        yield f"tags of a slot {what}", lambda draft, e=entries: draft.slots[-1].update(tags=e)
        yield f"tags of a keyspace {what}", lambda draft, e=entries: draft.body["keyspaces"][-1].update(tags=e)
        yield f"settings {what}", lambda draft, e=entries: draft.body.update(settings=e)
    for what, part in (("scheme", 0), ("rest", 2)):
        def change(draft, part=part):
            for slot in draft.slots:
                parts = list(slot["uri"].partition(":"))
                parts[part] = parts[part].upper()
                slot["uri"] = "".join(parts)

        yield f"the {what} of each URI in upper case", change
    yield "no slot", lambda draft: (draft.slots.clear(), draft.body["slot_keys"].clear())
    for count in (64, 65):
        yield f"{count} slots", lambda draft, count=count: [
            add_stranger(rng, draft, name=f"more {number}") for number in range(count - len(draft.slots))]
    yield "two slots of one name", lambda draft: add_stranger(rng, draft, name=draft.slots[0]["name"])
    yield "two slots of one key id", lambda draft: (
        add_stranger(rng, draft), draft.slots[-1].update(key_id=draft.slots[0]["key_id"]),
        draft.body["slot_keys"][-1].update(id=draft.slots[0]["key_id"]))
    for length in (16384, 16385):
        yield f"a wrapped slot key of {length} bytes", lambda draft, length=length: add_stranger(
            rng, draft, blob=bytes(length))
    yield "another context version", lambda draft: [slot.update(context=slot["context"] ^ 1) for slot in draft.slots]
    yield "a changed wrapped slot key", lambda draft: [
        slot.update(blob=flipped(rng, slot["blob"] or b"\0")[0]) for slot in draft.slots]
    yield "a shorter wrapped slot key", lambda draft: [slot.update(blob=slot["blob"][:-1]) for slot in draft.slots]
    yield "a changed wrap of the store key", lambda draft: [
        slot.update(store_key=flipped(rng, slot["store_key"])[0]) for slot in draft.slots]
    yield "costs of Argon2id above the bound", lambda draft: set_costs(draft, (1 << 20) + 1, 1, 1)
    yield "more passes than may be", lambda draft: set_costs(draft, 64, 17, 1)
    yield "more lanes than may be", lambda draft: set_costs(draft, 512, 1, 17)
    yield "less memory than Argon2id has", lambda draft: set_costs(draft, 7, 1, 1)
    yield "no pass", lambda draft: set_costs(draft, 64, 0, 1)
    for number in (0, -1):
        yield f"another key id in slot {number}", lambda draft, n=number: draft.slots[n].update(key_id=b"\7" * 16)
    yield "bytes behind the slots", lambda draft: setattr(draft, "after_slots", b"\0")
    yield "bytes behind the body", lambda draft: setattr(draft, "after_body", b"\0")
    yield "kept slot keys in another order", lambda draft: (
        add_stranger(rng, draft), draft.body["slot_keys"].reverse())
    yield "a kept slot key missing", lambda draft: draft.body["slot_keys"].pop()
    yield "a kept slot key that does not unwrap", lambda draft: draft.body["slot_keys"][0].update(wrap=bytes(112))


def add_stranger(rng, draft, name="another", uri="zz:nobody", blob=b"blob"):
    draft.add_slot(rng, name, uri, lambda *_: blob)


def set_costs(draft, *costs):
    for slot in draft.slots:
        if slot["uri"] == "passphrase:":
            slot["blob"] = struct.pack("<III", *costs) + slot["blob"][12:]


def body_edits(rng):
    for number in (1, 2):
        for value in (b"", bytes(7), bytes(8), b"\1" + bytes(7), bytes(9)):
            yield f"setting {number} of {value.hex()}", lambda draft, n=number, v=value: draft.body.update(
                settings=[tag(n, v)])
    for number in (3, 4):
        yield f"setting {number} with a value", lambda draft, n=number: draft.body.update(settings=[tag(n, b"x")])
        yield f"setting {number} with other flags", lambda draft, n=number: draft.body.update(
            settings=[tag(n, b"", critical=n == 3)])
    for kinds in (b"", b"\0", b"\1", b"\1\2\3\4", b"\1\2\3\4\5", b"\2\1", b"\1\1", b"\5", b"\6"):
        yield f"kinds {kinds.hex()}", lambda draft, k=kinds: draft.body.update(settings=[tag(5, k, critical=True)])
    yield "tags 4 and 5", lambda draft: draft.body.update(
        settings=[tag(4, b"", critical=True), tag(5, b"\1", critical=True)])
    yield "withdrawn", lambda draft: draft.body.update(revoked=NOW)
    yield "another location", lambda draft: draft.body.update(location=rng.randbytes(16))
    yield "no keyspace", lambda draft: draft.body["keyspaces"].clear()
    # Once in a while is enough for what is so large.
    for count in (65536, 65537) if rng.random() < 0.1 else ():
        yield f"{count} keyspaces", lambda draft, count=count: draft.body["keyspaces"].extend(
            {"name": f"more {number}", "active": ZEROS, "rebased": 0, "tags": []}
            for number in range(count - len(draft.body["keyspaces"])))
    for list_, new in (("keyspaces", {"active": ZEROS, "rebased": 0, "tags": []}), ("holds", {"created": 0, "keys": []})):
        yield f"two {list_} of one name", lambda draft, l=list_, new=new: draft.body[l].extend([{"name": "x", **new}] * 2)
    for path in (b"", b"a", b"/zz", b"/\xff/x"):
        yield f"directory {path}", lambda draft, path=path: draft.body["directories"].append(path)
    yield "an active key that is not there", lambda draft: draft.body["keyspaces"][0].update(active=rng.randbytes(16))
    yield "no active key by its id", lambda draft: draft.body["keyspaces"][0].update(active=ZEROS)
    yield "two active keys", lambda draft: draft.add_key(rng, 0, 1, NOW)
    yield "one key twice", lambda draft: draft.body["keys"].append(draft.body["keys"][0])
    yield "events of tomorrow", lambda draft: draft.body["events"].append(
        {"at": 0, "generation": 0, "what": 255, "store_key_id": ZEROS, "detail": ""})
    yield "an event that is no UTF-8", lambda draft: draft.body["events"].append(
        {"at": 0, "generation": 0, "what": 1, "store_key_id": ZEROS, "detail": b"\xc3"})
    one = {"at": 0, "generation": 0, "what": 1, "store_key_id": ZEROS, "detail": ""}
    for short in (0, 1):
        yield f"2^64 events but {short}", lambda draft, short=short: draft.body.update(
            events=[one, one], archived=(1 << 64) - 2 - short)
    yield "a hold of keys that are not there", lambda draft: draft.body["holds"].append(
        {"name": "h", "created": 0, "keys": [rng.randbytes(16)] * 2})
    for field, values in {
        "state": (0, 1, 2, 3, 4, 5, 255), "exposed": (0, 1, 2), "keyspace": (0, 1, 5, (1 << 32) - 1),
        "retire_after": (0, 1), "retired": (0, 1), "destroyed": (0, 1), "created": (0, NOW + 1),
        "bytes": (0, (1 << 64) - 1), "id": (ZEROS,), "store_key_id": (ZEROS,), "wrap": (bytes(112), b"\1" * 112),
    }.items():
        for value in values:
            def change(draft, field=field, value=value):
                rng.choice(draft.body["keys"])[field] = value

            yield f"a data key's {field} is {value if isinstance(value, int) else 'other'}", change
    for at in (0, 40, 111):
        yield f"a destroyed key with byte {at} of a wrap", lambda draft, at=at: (
            draft.add_key(rng, 0, DESTROYED, NOW),
            draft.body["keys"][-1].update(wrap=bytes(at) + b"\1" + bytes(111 - at)))
    for length in (0, 16, 32, 33, 128, 160):
        yield f"locations of {length} bytes", lambda draft, n=length: draft.body["keyspaces"][0].update(
            tags=[tag(1, rng.randbytes(n))])
    yield "a data key that is wrapped by another store key's id", rewrap_under_another_id


def rewrap_under_another_id(draft):
    key = next(key for key in draft.body["keys"] if key["state"] != DESTROYED)
    key["store_key_id"] = b"\7" * 16
    key["wrap"] = draft.wrap(random.Random(1), b"atrest.v1.wrap", draft.store_key, key["id"], b"\7" * 16, key["created"],
                             draft.keys[key["id"]])


def header_edits(rng):
    for name, values in {
        "version": (0, 1, 3), "header_len": (0, 127, 129), "zero": (1,), "reserved": (bytes(15) + b"\1",),
        "incompatible": (1, 1 << 31), "compatible": (1, (1 << 32) - 1), "generation": (0, 1, (1 << 64) - 2, (1 << 64) - 1),
        "written": (0, (1 << 64) - 1), "previous": (bytes(32),), "store_id": (ZEROS,), "store_key_id": (ZEROS,),
    }.items():
        for value in values:
            shown_value = value if isinstance(value, int) else value.hex()
            yield f"{name} {shown_value}", lambda draft, n=name, v=value: setattr(draft, n, v)
    # Of two faults the first by the text is the error.
    for name, value in (("generation", 0), ("generation", (1 << 64) - 1), ("zero", 1), ("version", 3)):
        yield f"an unknown feature and {name} {value}", lambda draft, n=name, v=value: (
            setattr(draft, "incompatible", 2), setattr(draft, n, v))


def keyring_cases(rng, draft, count):
    """What was done, and the image it gave."""
    whole = draft.image()
    yield "as it is", whole
    for what, edit in (*slot_edits(rng), *body_edits(rng), *header_edits(rng)):
        changed = copy.deepcopy(draft)
        edit(changed)
        yield what, changed.image()
    for length in (0, 1, 8, 191, 192, len(whole) - 1, rng.randrange(len(whole))):
        yield f"cut to {length}", whole[:length]
    yield "longer", whole + b"\0"
    yield "the first half twice", whole[: len(whole) // 2] * 2
    # So is 64 MiB.
    if rng.random() < 0.1:
        yield "longer than any keyring", whole + bytes((1 << 26) - len(whole) + 1)
    for name, at, value in (("slots", 12, (1 << 21) + 1), ("slots", 12, 1 << 21), ("body", 16, (1 << 32) - 1),
                            ("body", 16, 1 << 26), ("both", 12, (1 << 32) - 1)):
        yield f"length of the {name} {value}", whole[:at] + struct.pack("<I", value) + whole[at + 4 :]
    for _ in range(count):
        image, at = flipped(rng, whole)
        yield f"bit at {at}", image
        image, at = flipped(rng, whole[:-32])
        yield f"bit at {at}, with a checksum", image + hashlib.sha256(image).digest()
        image, at = flipped(rng, whole[:-64], 8)
        yield f"bit at {at}, with a MAC", draft.sealed(image)
        at = rng.randrange(128, len(whole) - 64)
        image = whole[:at] + rng.randbytes(1) + whole[at + 1 : -64]
        yield f"byte at {at}, with a MAC", draft.sealed(image)


# Files.
def file_cases(rng, draft, images, keyring, count):
    """What was done, the image it gave, and the kind and file id that are asked for."""
    for name, image in images.items():
        yield f"{name} as it is", image, None
        if image[:8] != FILE_MAGIC or len(image) < 4096:
            continue
        kind, file_id = image[14], image[64:80]
        yield f"{name}, as asked for", image, (kind, file_id)
        yield f"{name}, another id asked for", image, (kind, flipped(rng, file_id)[0])
        yield f"{name}, another kind asked for", image, (kind % 5 + 1, file_id)
        for length in {1, 7, 8, 4095, 4096, 4111, 4112, rng.randrange(len(image)), len(image) - 1}:
            yield f"{name} cut to {length}", image[:length], None
        yield f"{name}, a header that was not written", bytes(4096) + image[4096:], None
        yield f"{name}, half of one", bytes(2048) + image[2048:], None
        yield f"{name}, longer", image + rng.choice((b"\0", bytes(20), rng.randbytes(40))), None
        for _ in range(count):
            changed, at = flipped(rng, image, 0, 4096)
            yield f"{name}, bit at {at}", changed, None
            changed, at = flipped(rng, image, 0, 200)
            yield f"{name}, bit at {at}, with a checksum", with_checksum(changed), None
            changed, at = flipped(rng, image, 8, 128)
            yield f"{name}, bit at {at}, with a commitment", committed(changed, draft), None
            changed, at = flipped(rng, image)
            yield f"{name}, bit at {at}", changed, None
            changed, at = flipped(rng, image, len(image) * 9 // 10)
            yield f"{name}, bit at {at}", changed, None
        for at, values in {8: (0, 2), 10: (0, 0xFF), 12: range(5), 13: (0, 11, 12, 13, 16, 17), 14: range(8), 15: (1,),
                           16: (1,), 20: (1,), 32: (image[32] ^ 1,), 48: (image[48] ^ 1,), 80: (1,), 200: (1,)}.items():
            for value in values:
                changed = image[:at] + bytes([value]) + image[at + 1 :]
                yield f"{name}, byte {at} is {value}", committed(changed, draft), None
        yield from body_cases(rng, name, image, keyring)
    yield "nothing", b"", None
    yield "a keyring", KEYRING_MAGIC + bytes(5000), None
    yield "the first half of a magic", FILE_MAGIC[:4], None
    yield "not quite a magic", FILE_MAGIC[:7] + b"x", None
    yield "text", b"text of before\n", None
    yield "a letter", b"t", None
    for zeros in (1, 7, 8, 4095, 4096, 5000):
        yield f"{zeros} zeros", bytes(zeros), None
        yield f"{zeros} zeros and a letter", bytes(zeros) + b"t", None


def with_checksum(image):
    return image[:160] + hashlib.sha256(image[:160]).digest()[:16] + image[176:]


def committed(image, draft):
    """As if the holder of the data key had written this header."""
    dek = draft.keys.get(image[48:64])
    if dek is None:
        return with_checksum(image)
    commitment = reader.derive(dek, b"atrest.v1.file", image[:128])[2]
    return with_checksum(image[:128] + commitment + image[160:])


def body_cases(rng, name, image, keyring):
    """Chunks and frames that are moved, doubled, left out, or made by who has the key."""
    try:
        file = reader.File(image, keyring)
    except Refused:
        return
    head, body = image[:4096], image[4096:]
    if file.suite == 2:
        chunk_len = 1 << file.chunk_log2
        if len(file.plain) > 2 * chunk_len:
            moved = body[chunk_len : 2 * chunk_len] + body[:chunk_len] + body[2 * chunk_len :]
            yield f"{name}, two chunks changed places", head + moved, None
        for length in (0, len(file.plain) - 1, len(file.plain) + 1):
            end = writer.message(file.key, file.nonce, 2**32 - 1, b"", struct.pack("<Q", length % 2**64))
            yield f"{name} with an end of {length}", head + body[:-16] + end, None
        yield f"{name} without its end", head + body[:-16], None
        yield f"{name} with two ends", head + body + body[-16:], None
    if file.suite == 3:
        def sealed(length, index, frame=b"x", aad=None):
            said = struct.pack(">I", length)
            return said + writer.message(file.key, file.nonce, index, frame, said if aad is None else aad)

        count = len(file.frames)
        yield f"{name} and a frame", head + body + sealed(1, count), None
        yield f"{name} and a frame of another number", head + body + sealed(1, count + 1), None
        yield f"{name} and a frame without its length bound", head + body + sealed(1, count, aad=b""), None
        yield f"{name} and a frame of nothing", head + body + sealed(0, count, b""), None
        yield f"{name} and a frame that is too long", head + body + sealed((1 << 24) + 1, count), None
        yield f"{name} and a frame that is cut", head + body + sealed(1, count)[:-1], None
        for zeros in (1, 4, 19, 20, 21):
            yield f"{name} and {zeros} zeros", head + body + bytes(zeros), None
            yield f"{name}, {zeros} zeros and a frame", head + body + bytes(zeros) + sealed(1, count), None
        if file.frames:
            first = 20 + len(file.frames[0])
            yield f"{name} without its first frame", head + body[first:], None
            yield f"{name} with its first frame twice", head + body[:first] + body, None


def check_kept(before, now):
    """K19: a writer keeps what it does not know. K20: a slot keeps its context version."""
    keyring_tags = [[entry for entry in keyring.body["settings"] if entry["tag"] > 5] for keyring in (before, now)]
    assert keyring_tags[0] == keyring_tags[1], "settings of tomorrow"
    for things in ("slots", "keyspaces"):
        tags = [{thing["name"]: ([entry for entry in thing["tags"] if entry["tag"] > 1], thing.get("context")) for thing in
                 (keyring.slots if things == "slots" else keyring.body[things])} for keyring in (before, now)]
        assert tags[0].items() <= tags[1].items(), f"tags of {things}"
    assert {key["id"] for key in before.body["keys"]} <= {key["id"] for key in now.body["keys"]}
    now.check_commit()


def cases(rng, out, customers, keyring_image, images, count):
    keyring = reader.Keyring(keyring_image, customers)
    draft = writer.Draft.of(keyring_image, keyring)
    said = {"keyrings": [], "files": []}
    (out / "images").mkdir()

    def put(image):
        path = out / "images" / hashlib.sha256(image).hexdigest()[:32]
        path.write_bytes(image)
        return str(path)

    for what, image in keyring_cases(rng, draft, count):
        verdict = judge_keyring(image, customers, False)
        said["keyrings"].append({"what": what, "image": put(image), "revoke": False, "says": verdict})
    for what, image in (("requested", keyring_image), ("requested, of a changed one", keyring_image[:-1] + b"\0")):
        verdict = judge_keyring(image, customers, True)
        said["keyrings"].append({"what": what, "image": put(image), "revoke": True, "says": verdict})
    for what, image, expect in file_cases(rng, draft, images, keyring, count // 8):
        asked = expect and {"kind": expect[0], "id": expect[1].hex()}
        said["files"].append({"what": what, "image": put(image), "expect": asked,
                              "says": judge_file(image, keyring, expect)})
    return said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--variable", help="the environment variable that a random store may be under")
    parser.add_argument("--of", type=Path, help="a store's directory")
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("--before", type=Path, help="an image before: what no version knows has to be there still")
    parser.add_argument("--count", type=int, default=12, help="how many random changes of each sort")
    arguments = parser.parse_args()
    rng, out, data = random.Random(arguments.seed), arguments.out, arguments.of
    if data is None:
        customers, _, _ = writer.random_store(rng, out, arguments.variable)
        # One key alone, or all, in any order.
        customers = rng.sample(customers, rng.choice((1, 2, 3)))
        data = out / "data"
    else:
        out.mkdir(parents=True)
        customers = [reader.KeyFile(arguments.key_file)]
    image = (data / "KEYRING").read_bytes()
    images = {path.name: path.read_bytes() for path in sorted(data.iterdir()) if path.suffix == ".sst"}
    said = {"customers": [{"uri": key.uri, "passphrase": getattr(key, "text", b"").decode(),
                           "variable": getattr(key, "value", "")} for key in customers]}
    try:
        keyring = reader.Keyring(image, customers)
    except Refused as refused:
        # None of the keys is of a slot of this store: that is all there is to say.
        said |= {"keyrings": [{"what": "as it is", "image": str(data / "KEYRING"), "revoke": False,
                               "says": {"refused": refused.kind}}], "files": []}
    else:
        said |= {"events": shown_events(reader.audit(keyring, data)), "data": str(data)}
        if arguments.before:
            check_kept(reader.Keyring(arguments.before.read_bytes(), customers), keyring)
        said |= cases(rng, out, customers, image, images, arguments.count)
    (out / "cases.json").write_text(json.dumps(said))


if __name__ == "__main__":
    os.umask(0o077)
    main()
