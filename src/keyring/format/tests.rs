#![allow(clippy::unwrap_used)]

use super::header::CHECKSUM_LEN;
use super::slot::BLOB_LEN_MAX;
use super::*;
use crate::ids::{DataKeyId, SlotKeyId, StoreId};
use crate::keyring::KeyState;
use crate::keyring::body::{HoldRecord, KeptSlotKey, Keyspace};
use crate::keyring::fuzz::{fixed, seal, store_key, stored};
use crate::keyring::wrap::Wrap;
use crate::secret::{DataKey, SlotKey};
use crate::tags::Unknown;
use crate::vectors::{array, bytes};
use wincode::config::Configuration;

/// Made by `tests/vectors/make.py` from `docs/FORMAT.md` alone.
const GOLDEN: &[u8] = include_bytes!("../../../tests/vectors/keyring-v2.bin");

fn golden() -> Image {
    Image::parse(stored(GOLDEN.to_vec())).unwrap()
}

/// Parses and authenticates; returns the first refusal.
fn refusal(image: &[u8]) -> Option<ErrorKind> {
    let body = Image::parse(stored(image.to_vec())).and_then(|i| i.authenticate(&store_key()));
    body.err().map(|error| error.kind())
}

/// With a right checksum, as somebody who edits a keyring would give it.
fn resum(image: &mut [u8]) {
    let at = image.len() - CHECKSUM_LEN;
    let sum = Sha256::digest(&image[..at]);
    image[at..].copy_from_slice(&sum);
}

#[test]
fn the_golden_keyring_reads_and_writes_the_same() {
    let image = golden();
    assert_eq!(image.fixed.store_id, StoreId::from_bytes(array("/inputs/store_id")));
    assert_eq!(image.fixed.generation, 3);
    assert_eq!(image.slots.len(), 2);
    assert_eq!(image.slots[1].key_uri, "hcvault://vault:8200/transit/keys/app");
    assert_eq!(image.slots[1].key_version, "7");
    assert_eq!((image.slots[0].context_version, image.slots[1].context_version), (1, 2));
    let body = image.authenticate(&store_key()).unwrap();
    assert_eq!(body.keys.len(), 3);
    assert_eq!(encode(&image.fixed, &image.slots, &body, &store_key()).unwrap(), GOLDEN);
    crate::keyring::fuzz::open(GOLDEN).unwrap();
}

#[test]
fn a_known_wrapped_data_key() {
    let body = golden().authenticate(&store_key()).unwrap();
    let record = &body.keys[0];
    let id = StoreId::from_bytes(array("/inputs/store_id"));
    assert_eq!(record.id, array("/inputs/dek_id"));
    assert_eq!(record.wrap.commitment, array("/wrap/commitment"));
    assert_eq!(record.wrap.sealed[..], bytes("/wrap/wrapped"));
    assert_eq!(*record.unwrap(id, &store_key()).unwrap().bytes().unwrap(), array("/inputs/dek"));
}

#[test]
fn a_record_is_bound_to_its_place() {
    let body = golden().authenticate(&store_key()).unwrap();
    let id = golden().fixed.store_id;
    let edits: [fn(&mut crate::keyring::body::KeyRecord); 6] = [
        |record| record.id[0] ^= 1,
        |record| record.store_key_id[0] ^= 1,
        |record| record.created_ns += 1,
        |record| record.wrap.salt[31] ^= 1,
        |record| record.wrap.commitment[0] ^= 1,
        |record| record.wrap.sealed[47] ^= 1,
    ];
    for edit in edits {
        let mut record = body.keys[0].clone();
        edit(&mut record);
        let refused = record.unwrap(id, &store_key()).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::KeyringCorrupt);
    }
    assert!(body.keys[0].unwrap(StoreId::default(), &store_key()).is_err());
}

#[test]
fn a_slot_and_the_store_lead_to_each_other_and_nowhere_else() {
    let image = golden();
    let body = image.authenticate(&store_key()).unwrap();
    let (store_id, id) = (image.fixed.store_id, image.fixed.store_key_id);
    let other_id = crate::StoreKeyId::from_bytes([0; 16]);
    for (slot, byte) in image.slots.iter().zip([0x61, 0x62]) {
        let top = (id, &store_key());
        let slot_key = body.slot_key(&slot.slot_key_id, store_id, top).unwrap();
        assert_eq!(*slot_key.expose(), [byte; 32]);
        assert!(slot.unwrap_store_key(&slot_key, store_id, id).unwrap().same(&store_key()));
        let refused = |slot: &Slot, key: &SlotKey, store_id, id| {
            slot.unwrap_store_key(key, store_id, id).err().unwrap().kind()
        };
        let wrong = ErrorKind::WrongStoreKey;
        assert_eq!(refused(slot, &SlotKey::zeroed(), store_id, id), wrong);
        assert_eq!(refused(slot, &slot_key, StoreId::default(), id), wrong);
        assert_eq!(refused(slot, &slot_key, store_id, other_id), wrong);
        let edits: [fn(&mut Slot); 4] = [
            |slot| slot.slot_key_id[0] ^= 1,
            |slot| slot.store_key.salt[0] ^= 1,
            |slot| slot.store_key.commitment[31] ^= 1,
            |slot| slot.store_key.sealed[0] ^= 1,
        ];
        for edit in edits {
            let mut bad = slot.clone();
            edit(&mut bad);
            assert_eq!(refused(&bad, &slot_key, store_id, id), wrong);
        }
        assert!(body.slot_key(&slot.slot_key_id, StoreId::default(), top).is_err());
        assert!(body.slot_key(&slot.slot_key_id, store_id, (other_id, &store_key())).is_err());
    }
    let [one, two] = &image.slots[..] else { panic!() };
    let top = (id, &store_key());
    let key = body.slot_key(&one.slot_key_id, store_id, top).unwrap();
    assert!(two.unwrap_store_key(&key, store_id, id).is_err());
}

/// A reader must be able to refuse a format of another version whatever it is like, so
/// nothing is looked at before the version but the magic.
#[test]
fn another_version_is_told_before_anything_else_is_looked_at() {
    for version in [0_u16, 1, 3, 0xffff] {
        let mut image = vec![0xa5; 4000];
        image[..8].copy_from_slice(&GOLDEN[..8]);
        image[8..10].copy_from_slice(&version.to_le_bytes());
        assert_eq!(refusal(&image), Some(ErrorKind::UnsupportedVersion), "{version}");
        assert_eq!(refusal(&image[..192]), Some(ErrorKind::UnsupportedVersion), "{version}");
    }
    assert_eq!(GOLDEN[8..10], [2, 0]);
    assert_ne!(header::KEYRING_VERSION, crate::FORMAT_VERSION);
}

#[test]
fn a_generation_without_a_next_is_refused() {
    let image = golden();
    let body = image.authenticate(&store_key()).unwrap();
    let with = |generation| {
        let fixed = Fixed { generation, ..image.fixed.clone() };
        refusal(&encode(&fixed, &image.slots, &body, &store_key()).unwrap())
    };
    for generation in [0, u64::MAX] {
        assert_eq!(with(generation), Some(ErrorKind::KeyringCorrupt));
    }
    for generation in [1, u64::MAX - 1] {
        assert_eq!(with(generation), None);
    }
}

#[test]
fn every_bit_flip_of_a_keyring_is_refused() {
    for bit in 0..8 * GOLDEN.len() {
        let mut bad = GOLDEN.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            8..10 => ErrorKind::UnsupportedVersion,
            _ => ErrorKind::KeyringCorrupt,
        };
        let refused = refusal(&bad).unwrap();
        let len = (12..20).contains(&(bit / 8)) && refused == ErrorKind::KeyringTruncated;
        assert!(refused == expected || len, "bit {bit}: {refused:?}");
        // The same edit under a right checksum, as long as it is not in it.
        if bit / 8 < GOLDEN.len() - CHECKSUM_LEN {
            resum(&mut bad);
            let refused = refusal(&bad).unwrap();
            let expected: &[ErrorKind] = match bit / 8 {
                0..8 | 10..12 | 28..32 | 112..128 => &[ErrorKind::KeyringCorrupt],
                8..10 => &[ErrorKind::UnsupportedVersion],
                12..20 => &[ErrorKind::KeyringCorrupt, ErrorKind::KeyringTruncated],
                20..24 => &[ErrorKind::UnsupportedFeature],
                24..28 | 32..112 => &[ErrorKind::WrongStoreKey],
                // Slots may fail to decode, the body is not decoded before its MAC.
                at if at < golden().parts.body.start => {
                    &[ErrorKind::WrongStoreKey, ErrorKind::KeyringCorrupt]
                }
                _ => &[ErrorKind::WrongStoreKey],
            };
            assert!(expected.contains(&refused), "bit {bit}: {refused:?}");
        }
    }
}

#[test]
fn every_truncation_of_a_keyring_is_refused() {
    for len in 0..GOLDEN.len() {
        assert_eq!(refusal(&GOLDEN[..len]), Some(ErrorKind::KeyringTruncated), "{len} bytes");
    }
    assert_eq!(refusal(&[GOLDEN, b"x"].concat()), Some(ErrorKind::KeyringCorrupt));
}

/// By the lengths alone: nothing of the kind is allocated.
#[test]
fn parts_that_are_too_long_are_no_truncation() {
    let (slots_max, all_max) = (1_u32 << 21, 1_u32 << 26);
    let with = |slots: u32, body: u32| {
        let mut image = GOLDEN.to_vec();
        image[12..16].copy_from_slice(&slots.to_le_bytes());
        image[16..20].copy_from_slice(&body.to_le_bytes());
        refusal(&image)
    };
    for (slots, body) in [
        (slots_max + 1, 0),
        (u32::MAX, u32::MAX),
        (0, u32::MAX),
        (0, all_max - 192 + 1),
        (slots_max, all_max - 192 - slots_max + 1),
    ] {
        assert_eq!(with(slots, body), Some(ErrorKind::KeyringCorrupt), "{slots} {body}");
    }
    for (slots, body) in [(slots_max, all_max - 192 - slots_max), (0, all_max - 192)] {
        assert_eq!(with(slots, body), Some(ErrorKind::KeyringTruncated), "{slots} {body}");
    }
}

#[test]
fn another_store_key_is_refused() {
    let mut other = StoreKey::zeroed();
    other.bytes_mut().fill(0x56);
    assert_eq!(golden().authenticate(&other).unwrap_err().kind(), ErrorKind::WrongStoreKey);
}

fn too_many_tags() -> crate::tags::Tags {
    let mut tags = crate::tags::Tags::default();
    (0..257).for_each(|number| tags.set_flag(number, Unknown::Keep, true));
    tags
}

#[test]
fn slots_are_bounded_and_printable() {
    let good = golden().slots[0].clone();
    let encoded =
        |slots: &[Slot]| wincode::config::serialize(slots, Configuration::default()).unwrap();
    assert!(decode_slots(&encoded(std::slice::from_ref(&good))).is_ok());
    let edits: [fn(&mut Slot); 9] = [
        |slot| slot.tags = too_many_tags(),
        |slot| slot.name.clear(),
        |slot| slot.name = "x".repeat(257),
        |slot| slot.name = "a\u{1b}[2J".into(),
        |slot| slot.key_uri = "no scheme".into(),
        |slot| slot.key_uri = format!("file:{}", "x".repeat(2044)),
        |slot| slot.key_version = "x".repeat(257),
        |slot| slot.key_version = "\u{7}".into(),
        |slot| slot.blob = vec![0; BLOB_LEN_MAX + 1],
    ];
    for edit in edits {
        let mut bad = good.clone();
        edit(&mut bad);
        let refused = decode_slots(&encoded(&[bad])).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::KeyringCorrupt);
    }
    let many = |count: usize| -> Vec<Slot> {
        let numbered = |i: usize| Slot {
            name: i.to_string(),
            slot_key_id: (i as u128).to_le_bytes(),
            ..good.clone()
        };
        (0..count).map(numbered).collect()
    };
    assert!(decode_slots(&encoded(&many(64))).is_ok());
    assert!(decode_slots(&encoded(&many(65))).is_err());
    assert!(decode_slots(&encoded(&[])).is_err());
    let mut twice = many(2);
    twice[1].slot_key_id = twice[0].slot_key_id;
    assert!(decode_slots(&encoded(&twice)).is_err());
    twice = many(2);
    twice[1].name = twice[0].name.clone();
    assert!(decode_slots(&encoded(&twice)).is_err());
    let mut newer = good.clone();
    newer.tags.set_flag(77, Unknown::Keep, true);
    assert_eq!(decode_slots(&encoded(&[newer.clone()])).unwrap(), [newer.clone()]);
    newer.tags.set_flag(78, Unknown::Refuse, true);
    let refused = decode_slots(&encoded(&[newer])).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnsupportedFeature);
    let mut huge = (u64::MAX / 64).to_le_bytes().to_vec();
    huge.extend_from_slice(&[0; 100]);
    assert!(decode_slots(&huge).is_err());
}

/// Keyspaces whose keys are all destroyed.
fn shredded(count: usize) -> impl Iterator<Item = Keyspace> {
    (0..count).map(|number| Keyspace {
        name: format!("space {number}"),
        active: [0; 16],
        clock_rebased_ns: 0,
        tags: crate::tags::Tags::default(),
    })
}

#[test]
fn a_body_with_a_broken_invariant_is_refused_under_a_right_mac() {
    let image = golden();
    let good = image.authenticate(&store_key()).unwrap();
    let slots = encode_slots(&image.slots).unwrap();
    let refused = |body: &Body| {
        let bytes = seal(&slots, &body.encode().unwrap()).unwrap();
        refusal(&bytes)
    };
    assert_eq!(refused(&good), None);
    let hold = |name: &str| HoldRecord { name: name.into(), created_ns: 1, keys: Vec::new() };
    let edits: [&dyn Fn(&mut Body); 24] = [
        &|body| body.slot_keys.swap(0, 1),
        &|body| body.slot_keys.truncate(1),
        &|body| body.slot_keys.push(body.slot_keys[0].clone()),
        &|body| body.settings.0 = too_many_tags(),
        &|body| body.settings.0.set_number(1, Unknown::Keep, Some(0)),
        &|body| body.keyspaces.clear(),
        &|body| body.keyspaces[0].active = [0x11; 16],
        &|body| body.keyspaces[0].active = [0; 16],
        &|body| body.keyspaces[0].name.clear(),
        &|body| body.keyspaces[0].name = "x".repeat(257),
        &|body| body.keyspaces.push(body.keyspaces[0].clone()),
        &|body| body.keyspaces.extend(shredded(65_536)),
        &|body| body.holds = vec![hold("")],
        &|body| body.holds = vec![hold(&"x".repeat(257))],
        &|body| body.holds = vec![hold("a"), hold("a")],
        &|body| body.directories = vec![b"relative".to_vec()],
        &|body| body.directories = vec![b"/a".to_vec(), Vec::new()],
        &|body| body.keys[0].state = KeyState::Active,
        &|body| body.keys[0].state = KeyState::Retiring,
        &|body| body.keys[0].retire_after_ns = 7,
        &|body| body.keys[1].state = KeyState::DecryptOnly,
        &|body| body.keys[2].wrap = Wrap::ERASED,
        &|body| body.keys[2].keyspace = 1,
        &|body| body.keys[1].id = body.keys[0].id,
    ];
    for (index, edit) in edits.iter().enumerate() {
        let mut bad = good.clone();
        edit(&mut bad);
        assert_eq!(refused(&bad), Some(ErrorKind::KeyringCorrupt), "edit {index}");
    }
    // As many keyspaces as there may be, and one more, which is told as what it is.
    let mut many = good.clone();
    many.keyspaces.extend(shredded(65_535));
    assert_eq!(refused(&many), None);
    many.keyspaces.extend(shredded(1).map(|space| Keyspace { name: "last".into(), ..space }));
    let bytes = seal(&slots, &many.encode().unwrap()).unwrap();
    let error = Image::parse(stored(bytes)).unwrap().authenticate(&store_key()).unwrap_err();
    assert!(error.to_string().contains("1 to 65536 keyspaces"), "{error}");
    let encoded = good.encode().unwrap();
    let bytes = seal(&slots, &[&encoded[..], b"x"].concat()).unwrap();
    assert_eq!(refusal(&bytes), Some(ErrorKind::KeyringCorrupt));
    // The states of a data key, and whether it may be known, are one byte each.
    let at = encoded.windows(16).position(|id| *id == good.keys[0].id).unwrap();
    for (offset, value) in [(36, 0), (36, 5), (36, 255), (37, 2)] {
        let mut bad = encoded.clone();
        bad[at + offset] = value;
        let bytes = seal(&slots, &bad).unwrap();
        assert_eq!(refusal(&bytes), Some(ErrorKind::KeyringCorrupt), "{offset}: {value}");
    }
}

#[test]
fn an_unknown_entry_is_kept_unless_it_is_critical() {
    let image = golden();
    let good = image.authenticate(&store_key()).unwrap();
    let slots = encode_slots(&image.slots).unwrap();
    let decode = |body: &Body| {
        let bytes = seal(&slots, &body.encode().unwrap()).unwrap();
        Image::parse(stored(bytes)).unwrap().authenticate(&store_key())
    };
    let edits: [fn(&mut Body, Unknown); 2] = [
        |body, unknown| body.settings.0.set_number(500, unknown, Some(1)),
        |body, unknown| body.keyspaces[0].tags.set_flag(500, unknown, true),
    ];
    for edit in edits {
        let mut newer = good.clone();
        edit(&mut newer, Unknown::Keep);
        assert_eq!(decode(&newer).unwrap(), newer);
        edit(&mut newer, Unknown::Refuse);
        assert_eq!(decode(&newer).unwrap_err().kind(), ErrorKind::UnsupportedFeature);
    }
}

#[test]
fn random_keys_wrap_and_unwrap() {
    let fixed = fixed();
    let key = DataKey::random().unwrap();
    let record = crate::keyring::body::KeyRecord::new(
        &key,
        0,
        5,
        fixed.store_id,
        (fixed.store_key_id, &store_key()),
    )
    .unwrap();
    assert_ne!(DataKeyId::from_bytes(record.id), DataKeyId::default());
    assert!(record.unwrap(fixed.store_id, &store_key()).unwrap().same(&key));
    let (id, key) = (SlotKeyId::random().unwrap(), SlotKey::random().unwrap());
    let top = (fixed.store_key_id, &store_key());
    let kept = KeptSlotKey::new((id, &key), fixed.store_id, top).unwrap();
    assert!(kept.unwrap(fixed.store_id, top).unwrap().same(&key));
}
