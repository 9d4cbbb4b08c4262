//! Keyrings under a fixed store key, for fuzzing, and large ones, for benchmarks.

use std::sync::Arc;

use super::body::KeyRecord;
use super::format::{Fixed, Image, assemble, decode_slots, encode};
use super::storage::{MemoryStorage, StoredImage};
use super::{KeyState, Keyring, Options};
use crate::error::Result;
use crate::ids::{StoreId, StoreKeyId};
use crate::kms::Kms;
use crate::secret::{DataKey, StoreKey};

/// The store key of the known answers.
pub(crate) fn store_key() -> StoreKey {
    let mut key = StoreKey::zeroed();
    key.bytes_mut().fill(0x55);
    key
}

/// Decodes slots; good ones are encoded to the same bytes again.
pub(crate) fn slots(bytes: &[u8]) -> Result<()> {
    let slots = decode_slots(bytes)?;
    let image = Image::parse(stored(assemble(&fixed(), bytes, &[], &store_key())?))?;
    assert_eq!(image.slots, slots);
    Ok(())
}

/// Opens an image: good ones are encoded to the same bytes again.
pub(crate) fn open(bytes: &[u8]) -> Result<()> {
    let image = Image::parse(stored(bytes.to_vec()))?;
    let body = image.authenticate(&store_key())?;
    let again = encode(&image.fixed, &image.slots, &body, &store_key())?;
    // Compatible features that this version does not know are not kept.
    let compatible = 24..28;
    assert_eq!(again[..compatible.start], bytes[..compatible.start]);
    if bytes[compatible.clone()] == [0; 4] {
        assert_eq!(again, bytes);
    }
    for slot in &image.slots {
        let top = (image.fixed.store_key_id, &store_key());
        drop(body.slot_key(&slot.slot_key_id, image.fixed.store_id, top)?);
    }
    for record in body.keys.iter().filter(|record| record.state != KeyState::Destroyed) {
        drop(record.unwrap(image.fixed.store_id, &store_key())?);
    }
    Ok(())
}

/// An image of arbitrary slots and body, under a right MAC: what a mutation cannot reach.
pub(crate) fn seal(slots: &[u8], body: &[u8]) -> Result<Vec<u8>> {
    assemble(&fixed(), slots, body, &store_key())
}

/// The image of a keyring with `count` data keys, all but one of them decrypt-only.
///
/// # Errors
/// Those of [`Keyring::create`].
#[cfg_attr(not(feature = "danger-internals"), allow(dead_code, unreachable_pub))]
pub fn many_keys(kms: Arc<dyn Kms>, count: usize) -> Result<Vec<u8>> {
    let keyring = Keyring::create(MemoryStorage::new(), kms, Options::default())?;
    let snapshot = keyring.inner.vault.load();
    let (image, mut body) = (&snapshot.image, snapshot.body.clone());
    let store_key = &snapshot.unlocked()?.store_key;
    let (store_id, store_key_id) = (image.fixed.store_id, image.fixed.store_key_id);
    for created_ns in 1..count as u64 {
        let key = DataKey::random()?;
        let mut record = KeyRecord::new(&key, 0, created_ns, store_id, (store_key_id, store_key))?;
        (record.state, record.retired_ns) = (KeyState::DecryptOnly, created_ns + 1);
        body.keys.push(record);
    }
    encode(&image.fixed, &image.slots, &body, store_key)
}

pub(crate) fn fixed() -> Fixed {
    Fixed {
        generation: 3,
        written_ns: 1_700_000_000_000_000_000,
        store_id: StoreId::from_bytes(std::array::from_fn(|i| 0xa0 + i as u8)),
        store_key_id: StoreKeyId::from_bytes(std::array::from_fn(|i| 0xd0 + i as u8)),
        previous_mac: [0x77; 32],
    }
}

pub(crate) fn stored(bytes: Vec<u8>) -> StoredImage {
    StoredImage { bytes, version: String::new() }
}
