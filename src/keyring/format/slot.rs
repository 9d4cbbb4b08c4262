//! The CMEK slots of a keyring, which are read before any key is known and so bounded.
//!
//! The customer's key wraps the slot key, the slot key wraps the store key. So a new store
//! key needs no customer's key: whoever has the store open knows the slot keys.

use wincode::config::Configuration;
use wincode::{ReadResult, SchemaRead, SchemaWrite};

use super::header::SLOTS_LEN_MAX;
use crate::decoding::decode_exact;
use crate::derive::Purpose;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{SlotKeyId, StoreId, StoreKeyId};
use crate::keyring::codec::{NAME_LEN_MAX, decode_error, encode_error};
use crate::keyring::wrap::{Place, Wrap};
use crate::kms::{KeyUri, WrapContext, WrappedKey};
use crate::secret::{SlotKey, StoreKey};
use crate::tags::{Refused, Tags};

/// Most slots: regions and purposes, not tenants.
pub(crate) const SLOTS_MAX: usize = 64;
/// Longest wrapped slot key: RSA-4096 gives 512 bytes, services with envelopes a few KiB.
pub(super) const BLOB_LEN_MAX: usize = 16 << 10;

/// One CMEK slot.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) key_uri: String,
    pub(crate) key_version: String,
    pub(crate) created_ns: u64,
    /// The version of the context that the blob is bound to.
    pub(crate) context_version: u16,
    pub(crate) slot_key_id: [u8; 16],
    /// The slot key, wrapped by the customer's key.
    pub(crate) blob: Vec<u8>,
    /// The store key, wrapped by the slot key.
    pub(crate) store_key: Wrap,
    /// What newer versions of this library say about it.
    pub(crate) tags: Tags,
}

impl Slot {
    pub(crate) fn wrapped(&self) -> WrappedKey {
        WrappedKey { key_version: self.key_version.clone(), blob: self.blob.clone() }
    }

    /// What the blob is bound to, now and whatever new slots are bound to.
    pub(crate) fn context(&self, store_id: StoreId) -> WrapContext {
        let slot_key_id = SlotKeyId::from_bytes(self.slot_key_id);
        WrapContext { store_id, slot_key_id, version: self.context_version }
    }

    /// Wraps a store key for this slot.
    pub(crate) fn wrap_store_key(
        &mut self,
        slot_key: &SlotKey,
        store_id: StoreId,
        (id, store_key): (StoreKeyId, &StoreKey),
    ) -> Result<()> {
        let place = self.place(store_id, id);
        self.store_key = Wrap::seal(&place, slot_key.bytes()?, store_key.bytes()?)?;
        Ok(())
    }

    /// The store key, if the slot key is this slot's.
    ///
    /// # Errors
    /// [`WrongStoreKey`](ErrorKind::WrongStoreKey).
    pub(crate) fn unwrap_store_key(
        &self,
        slot_key: &SlotKey,
        store_id: StoreId,
        id: StoreKeyId,
    ) -> Result<StoreKey> {
        let mut key = StoreKey::zeroed();
        if self.store_key.open(&self.place(store_id, id), slot_key.bytes()?, key.bytes_mut()) {
            return Ok(key);
        }
        let what = format!("the key of the CMEK slot {:?} does not give the store key", self.name);
        Err(Error::new(ErrorKind::WrongStoreKey, what))
    }

    fn place(&self, store_id: StoreId, store_key_id: StoreKeyId) -> Place {
        Place {
            purpose: Purpose::Slot,
            store_id,
            key_id: *store_key_id.as_bytes(),
            by_id: self.slot_key_id,
            created_ns: 0,
        }
    }

    fn check(&self) -> Result<(), Refused> {
        if !(1..=NAME_LEN_MAX).contains(&self.name.len()) || self.name.chars().any(char::is_control)
        {
            return Err("a CMEK slot's name is empty, too long or not printable".into());
        }
        // Parsed so that nothing unprintable reaches a terminal before it is authenticated.
        if self.key_uri.parse::<KeyUri>().is_err()
            || self.key_version.len() > NAME_LEN_MAX
            || self.key_version.chars().any(char::is_control)
            || self.blob.len() > BLOB_LEN_MAX
        {
            return Err("a CMEK slot's URI, version or wrapped key is malformed or too long".into());
        }
        self.tags.check(&[])
    }
}

pub(super) fn encode_slots(slots: &[Slot]) -> Result<Vec<u8>> {
    check(slots).map_err(|refused| refused.or(ErrorKind::InvalidArgument))?;
    wincode::config::serialize(slots, Configuration::default()).map_err(encode_error)
}

/// `bytes` has at most [`SLOTS_LEN_MAX`].
pub(crate) fn decode_slots(bytes: &[u8]) -> Result<Vec<Slot>> {
    let slots: ReadResult<Vec<Slot>> = decode_exact!(bytes, 4 * SLOTS_LEN_MAX);
    let mut slots = slots.map_err(decode_error)?;
    check(&slots).map_err(|refused| refused.or(ErrorKind::KeyringCorrupt))?;
    for slot in &mut slots {
        // Schemes are compared without regard to case: from here on all are in lower case.
        let scheme_len = slot.key_uri.find(':').unwrap_or(0);
        slot.key_uri[..scheme_len].make_ascii_lowercase();
    }
    Ok(slots)
}

fn check(slots: &[Slot]) -> Result<(), Refused> {
    if slots.is_empty() || slots.len() > SLOTS_MAX {
        return Err("expected 1 to 64 CMEK slots".into());
    }
    for (index, slot) in slots.iter().enumerate() {
        slot.check()?;
        if slots[..index].iter().any(|other| other.name == slot.name) {
            return Err("two CMEK slots have one name".into());
        }
        if slots[..index].iter().any(|other| other.slot_key_id == slot.slot_key_id) {
            return Err("two CMEK slots have one key".into());
        }
    }
    Ok(())
}
