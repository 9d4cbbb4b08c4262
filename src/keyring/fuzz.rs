//! Keyrings under a fixed store key, for fuzzing, and large ones, for benchmarks.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::body::{Body, KeyRecord, Keyspace, Settings};
use super::format::{Fixed, Image, assemble, decode_slots, encode};
use super::storage::{KeyringStorage, MemoryStorage, StoredImage};
use super::{KeyState, Keyring, Options};
use crate::error::Result;
use crate::header::FileKind;
use crate::ids::{StoreId, StoreKeyId};
use crate::kms::{Deadline, KeyUri, Kms, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey};
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

/// Decodes an archive of the audit trail of the store of [`fixed`].
pub(crate) fn audit(bytes: &[u8]) -> Result<()> {
    super::audit::fuzz(bytes, fixed().store_id)
}

fn options() -> Options {
    Options { background: false, ..Options::default() }
}

fn base() -> Result<(Arc<dyn Kms>, Keyring)> {
    let kms: Arc<dyn Kms> = Bare::from_uri("fuzz:k")?;
    let keyring = Keyring::create(MemoryStorage::new(), kms.clone(), options())?;
    keyring.keyspaces().create("other")?;
    keyring.keys().rotate()?;
    keyring.holds().register("hold", &[keyring.keys().active_id()?])?;
    Ok((kms, keyring))
}

/// Opens a real keyring whose body was changed: each change is 10 bytes, what, which, and a
/// number. Whoever holds the keys can write such a keyring, and so can a fault of ours.
pub(crate) fn changed(changes: &[u8]) -> Result<()> {
    /// The one that is changed, made once: most of an input's time went there.
    static BASE: LazyLock<(Arc<dyn Kms>, Keyring)> = LazyLock::new(|| {
        // OK because nothing fails in memory.
        base().expect("a keyring in memory")
    });
    let (kms, keyring) = &*BASE;
    let (bytes, generation) = {
        let snapshot = keyring.inner.vault.load();
        let (image, mut body) = (&snapshot.image, snapshot.body.clone());
        for change in changes.chunks_exact(10).take(32) {
            let (which, number) = change[1..].split_at(1);
            change_body(
                &mut body,
                change[0],
                which[0],
                u64::from_le_bytes(number.try_into().expect("8")),
            );
        }
        let mut fixed = image.fixed.clone();
        if let [.., low, high] = changes[..changes.len() % 10] {
            fixed.written_ns = u64::from_le_bytes([low, high, 0, 0, 0, 0, high, low]);
        }
        let key = &snapshot.unlocked()?.store_key;
        (encode(&fixed, &image.slots, &body, key)?, fixed.generation)
    };
    let storage = MemoryStorage::new();
    storage.commit(&bytes, generation, None)?;
    let keyring = Keyring::open(storage, kms.clone(), options())?;
    drop(keyring.status());
    drop(keyring.keyspaces().list());
    drop(keyring.holds().list());
    drop(keyring.maintain());
    drop(keyring.encryptor(FileKind::Table));
    drop(keyring.keys().rotate());
    drop(keyring.keys().rotate_store_key());
    drop(keyring.maintain());
    drop(keyring.audit().events());
    keyring.reload()
}

fn change_body(body: &mut Body, what: u8, which: u8, number: u64) {
    let which = usize::from(which);
    let count = body.keys.len();
    let key = &mut body.keys[which % count];
    match what % 16 {
        0 => key.created_ns = number,
        1 => key.retired_ns = number,
        2 => key.retire_after_ns = number,
        3 => key.destroyed_ns = number,
        4 => key.encrypted_bytes = number,
        5 => key.exposed = number & 1 == 1,
        6 => key.keyspace = number as u32 % 4,
        7 => {
            key.state =
                [KeyState::Active, KeyState::DecryptOnly, KeyState::Retiring, KeyState::Destroyed]
                    [number as usize % 4];
        }
        8 => key.destroy(number),
        9 => body.keyspaces[which % 2].clock_rebased_ns = number,
        10 => body.keyspaces[which % 2].active = body.keys[number as usize % count].id,
        11 => body.revoked_ns = number,
        12 => {
            let settings = Settings {
                rotation_period: Duration::from_nanos(number),
                rotation_bytes: Some(number.rotate_left(7)),
                ..Settings::default()
            };
            body.settings.set(&settings);
        }
        13 => body.holds.iter_mut().for_each(|hold| hold.created_ns = number),
        14 => body.location[which % 16] = number as u8,
        _ => key.id[which % 16] ^= number as u8,
    }
}

/// A key that hides nothing: fuzzing needs no cipher for it. One whose name ends with a `!` wraps
/// nothing.
#[cfg_attr(not(feature = "danger-internals"), allow(unreachable_pub))]
#[derive(Debug)]
pub struct Bare(KeyUri);

impl Bare {
    /// That of this name.
    ///
    /// # Errors
    /// Those of [`KeyUri`]'s parser.
    #[cfg_attr(not(feature = "danger-internals"), allow(unreachable_pub))]
    pub fn from_uri(uri: &str) -> std::result::Result<Arc<dyn Kms>, KmsError> {
        Ok(Arc::new(Self(uri.parse()?)))
    }
}

impl Kms for Bare {
    fn key_uri(&self) -> &KeyUri {
        &self.0
    }

    fn wrap(
        &self,
        key: &SlotKey,
        _: &WrapContext,
        _: Deadline,
    ) -> std::result::Result<WrappedKey, KmsError> {
        if self.0.as_str().ends_with('!') {
            return Err(KmsError::new(KmsErrorKind::AccessDenied, "fuzzed"));
        }
        Ok(WrappedKey { key_version: String::new(), blob: key.expose().to_vec() })
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        _: &WrapContext,
        _: Deadline,
    ) -> std::result::Result<SlotKey, KmsError> {
        let refuse = || KmsError::new(KmsErrorKind::Integrity, "fuzzed");
        SlotKey::from_slice(&wrapped.blob).ok_or_else(refuse)
    }
}

/// An image of arbitrary slots and body, under a right MAC: what a mutation cannot reach.
pub(crate) fn seal(slots: &[u8], body: &[u8]) -> Result<Vec<u8>> {
    assemble(&fixed(), slots, body, &store_key())
}

/// The image of a keyring with `count` data keys: an active one for each of `keyspaces`, which
/// are no more, the others decrypt-only.
///
/// # Errors
/// Those of [`Keyring::create`].
#[cfg_attr(not(feature = "danger-internals"), allow(dead_code, unreachable_pub))]
pub fn many_keys(kms: Arc<dyn Kms>, count: usize, keyspaces: usize) -> Result<Vec<u8>> {
    let keyring = Keyring::create(MemoryStorage::new(), kms, Options::default())?;
    let snapshot = keyring.inner.vault.load();
    let (image, mut body) = (&snapshot.image, snapshot.body.clone());
    let store_key = &snapshot.unlocked()?.store_key;
    let (store_id, store_key_id) = (image.fixed.store_id, image.fixed.store_key_id);
    let new = |keyspace: usize, created_ns: u64| {
        let top = (store_key_id, &**store_key);
        KeyRecord::new(&DataKey::random()?, keyspace as u32, created_ns, store_id, top)
    };
    let created_ns = body.keys[0].created_ns;
    for number in 1..keyspaces {
        let record = new(number, created_ns)?;
        let (name, active) = (format!("tenant-{number}"), record.id);
        body.keyspaces.push(Keyspace { name, active, ..Keyspace::default() });
        body.keys.push(record);
    }
    for number in keyspaces..count {
        let mut record = new(number % keyspaces, number as u64)?;
        (record.state, record.retired_ns) = (KeyState::DecryptOnly, number as u64 + 1);
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
