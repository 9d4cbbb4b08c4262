//! The bytes of a keyring. `docs/FORMAT.md` section 6.
//!
//! Slots and body are the bincode format: fixed little-endian integers, u64 lengths. The
//! slots have to be read before any key is known, so they are bounded; the body is decoded
//! only after the MAC verified.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::body::Body;
use super::storage::StoredImage;
use crate::derive::{Purpose, derive};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{StoreKey, scrubbed};

mod header;
mod slot;
#[cfg(test)]
mod tests;

pub(crate) use super::codec::KEYRING_LEN_MAX;
pub(crate) use header::Fixed;
use header::{MAC_LEN, Parts};
use slot::encode_slots;
pub(crate) use slot::{SLOTS_MAX, Slot, decode_slots};

/// A keyring image whose public part is parsed. Nothing in it is trustworthy before
/// [`authenticate`](Self::authenticate) succeeded.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) fixed: Fixed,
    pub(crate) slots: Vec<Slot>,
    pub(crate) stored: StoredImage,
    parts: Parts,
}

impl Image {
    /// Parses the public part.
    pub(crate) fn parse(stored: StoredImage) -> Result<Self> {
        let (fixed, parts) = header::parse(&stored.bytes)?;
        let slots = decode_slots(&stored.bytes[parts.slots.clone()])?;
        Ok(Self { fixed, slots, stored, parts })
    }

    /// Verifies the MAC with the store key, then decodes the body.
    pub(crate) fn authenticate(&self, key: &StoreKey) -> Result<Body> {
        if !self.is_under(key)? {
            return Err(Error::new(
                ErrorKind::WrongStoreKey,
                format!("store key {} does not fit the keyring", self.fixed.store_key_id),
            ));
        }
        let body = Body::decode(&self.stored.bytes[self.parts.body.clone()])?;
        if !body.keeps_keys_of(self.slots.iter().map(|slot| &slot.slot_key_id)) {
            let what = "the keyring's slot keys are not those of its CMEK slots";
            return Err(Error::new(ErrorKind::KeyringCorrupt, what));
        }
        Ok(body)
    }

    /// Whether the store key fits, in constant time.
    pub(crate) fn is_under(&self, key: &StoreKey) -> Result<bool> {
        let mac = mac(key, &self.fixed, &self.stored.bytes[..self.parts.body.end])?;
        Ok(mac.ct_eq(self.mac()).into())
    }

    /// The MAC, which names this very image.
    pub(crate) fn mac(&self) -> &[u8; MAC_LEN] {
        let mac = &self.stored.bytes[self.parts.mac.clone()];
        mac.try_into().expect("32 bytes") // OK because the range has MAC_LEN bytes.
    }
}

/// The bytes of a keyring.
pub(crate) fn encode(
    fixed: &Fixed,
    slots: &[Slot],
    body: &Body,
    key: &StoreKey,
) -> Result<Vec<u8>> {
    assemble(fixed, &encode_slots(slots)?, &body.encode()?, key)
}

/// Puts encoded slots and an encoded body, whatever they hold, into an image with a right
/// MAC and checksum.
pub(super) fn assemble(
    fixed: &Fixed,
    slots: &[u8],
    body: &[u8],
    key: &StoreKey,
) -> Result<Vec<u8>> {
    let mut bytes = header::encode(fixed, slots.len(), body.len())?;
    bytes.extend_from_slice(slots);
    bytes.extend_from_slice(body);
    let mac = mac(key, fixed, &bytes)?;
    bytes.extend_from_slice(&mac);
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}

/// HMAC-SHA256 (RFC 2104) under `derive(store key, ring label, store id || store key id)`.
fn mac(key: &StoreKey, fixed: &Fixed, bytes: &[u8]) -> Result<[u8; MAC_LEN]> {
    let info: [&[u8]; 2] = [fixed.store_id.as_bytes(), fixed.store_key_id.as_bytes()];
    let derived = derive(key.bytes()?, Purpose::Ring, &info);
    Ok(scrubbed(|| {
        // OK because HMAC takes a key of any length.
        let mut hmac = Hmac::<Sha256>::new_from_slice(derived.key()).expect("any length");
        hmac.update(bytes);
        hmac.finalize().into_bytes().into()
    }))
}
