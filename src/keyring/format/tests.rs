#![allow(clippy::unwrap_used)]

use super::*;
use crate::ids::DataKeyId;
use crate::keyring::fuzz::{fixed, seal, store_key, stored};
use crate::secret::DataKey;
use crate::vectors::{array, bytes};

/// Made by `tests/vectors/make.py` from `docs/FORMAT.md` alone.
const GOLDEN: &[u8] = include_bytes!("../../../tests/vectors/keyring-v1.bin");

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
    let at = image.len() - MAC_LEN;
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
    assert_eq!(record.wrap_commitment, array("/wrap/commitment"));
    assert_eq!(record.wrapped[..], bytes("/wrap/wrapped"));
    assert_eq!(*record.unwrap(id, &store_key()).unwrap().expose(), array("/inputs/dek"));
}

#[test]
fn a_record_is_bound_to_its_place() {
    let body = golden().authenticate(&store_key()).unwrap();
    let id = golden().fixed.store_id;
    let edits: [fn(&mut crate::keyring::body::KeyRecord); 6] = [
        |record| record.id[0] ^= 1,
        |record| record.store_key_id[0] ^= 1,
        |record| record.created_ns += 1,
        |record| record.wrap_salt[31] ^= 1,
        |record| record.wrap_commitment[0] ^= 1,
        |record| record.wrapped[47] ^= 1,
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
        if bit / 8 < GOLDEN.len() - MAC_LEN {
            resum(&mut bad);
            let refused = refusal(&bad).unwrap();
            let expected: &[ErrorKind] = match bit / 8 {
                0..8 | 10..12 | 28..32 | 112..128 => &[ErrorKind::KeyringCorrupt],
                8..10 => &[ErrorKind::UnsupportedVersion],
                12..20 => &[ErrorKind::KeyringCorrupt, ErrorKind::KeyringTruncated],
                20..24 => &[ErrorKind::UnsupportedFeature],
                24..28 | 32..112 => &[ErrorKind::WrongStoreKey],
                // Slots may fail to decode, the body is not decoded before its MAC.
                at if at < golden().body.start => {
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

#[test]
fn another_store_key_is_refused() {
    let other = StoreKey::from_slice(&[0x56; 32]).unwrap();
    assert_eq!(golden().authenticate(&other).unwrap_err().kind(), ErrorKind::WrongStoreKey);
}

#[test]
fn slots_are_bounded_and_printable() {
    let good = golden().slots[0].clone();
    let encoded =
        |slots: &[Slot]| wincode::config::serialize(slots, Configuration::default()).unwrap();
    assert!(decode_slots(&encoded(std::slice::from_ref(&good))).is_ok());
    let edits: [fn(&mut Slot); 8] = [
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
        (0..count).map(|i| Slot { name: i.to_string(), ..good.clone() }).collect()
    };
    assert!(decode_slots(&encoded(&many(64))).is_ok());
    assert!(decode_slots(&encoded(&many(65))).is_err());
    assert!(decode_slots(&encoded(&[])).is_err());
    assert!(decode_slots(&encoded(&[good.clone(), good.clone()])).is_err());
    let mut huge = (u64::MAX / 64).to_le_bytes().to_vec();
    huge.extend_from_slice(&[0; 100]);
    assert!(decode_slots(&huge).is_err());
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
    let edits: [fn(&mut Body); 11] = [
        |body| body.keyspaces.clear(),
        |body| body.keyspaces[0].active = [0x11; 16],
        |body| body.keyspaces[0].active = [0; 16],
        |body| body.keyspaces[0].name.clear(),
        |body| body.keyspaces.push(body.keyspaces[0].clone()),
        |body| body.keys[0].state = 1,
        |body| body.keys[0].state = 4,
        |body| body.keys[0].exposed = 2,
        |body| body.keys[1].state = 2,
        |body| body.keys[2].keyspace = 1,
        |body| body.keys[1].id = body.keys[0].id,
    ];
    for (index, edit) in edits.iter().enumerate() {
        let mut bad = good.clone();
        edit(&mut bad);
        assert_eq!(refused(&bad), Some(ErrorKind::KeyringCorrupt), "edit {index}");
    }
    let encoded = good.encode().unwrap();
    let bytes = seal(&slots, &[&encoded[..], b"x"].concat()).unwrap();
    assert_eq!(refusal(&bytes), Some(ErrorKind::KeyringCorrupt));
}

#[test]
fn a_random_data_key_wraps_and_unwraps() {
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
}
