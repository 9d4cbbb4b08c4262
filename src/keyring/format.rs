//! The bytes of a keyring. `docs/FORMAT.md` section 6.
//!
//! ```text
//! off  len  fixed header                          off   len  fixed header
//!   0    8  magic 89 41 54 52 4B 0D 0A 1A          32     8  generation
//!   8    2  format version = 1                     40     8  written, ns since the epoch
//!  10    2  header length = 128                    48    16  store id
//!  12    4  length of the slots                    64    16  store key id
//!  16    4  length of the body                     80    32  MAC of the generation before
//!  20    4  incompatible features                 112    16  zero
//!  24    4  compatible features
//!  28    4  zero                             then slots || body || MAC 32 || SHA-256 32
//! ```
//!
//! Slots and body are the bincode format: fixed little-endian integers, u64 lengths. The
//! slots have to be read before any key is known, so they are bounded; the body is decoded
//! only after the MAC verified.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use wincode::config::Configuration;
use wincode::{SchemaRead, SchemaWrite};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::body::Body;
use super::storage::StoredImage;
use crate::derive::{Purpose, derive};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{FORMAT_VERSION, KEYRING_MAGIC};
use crate::ids::{StoreId, StoreKeyId};
use crate::kms::KeyUri;
use crate::secret::{StoreKey, scrubbed};

#[cfg(test)]
mod tests;

const HEADER_LEN: usize = 128;
const MAC_LEN: usize = 32;
const TRAILER_LEN: usize = 64;
/// Longest keyring, 64 MiB: a quarter of a million data keys.
pub(crate) const KEYRING_LEN_MAX: usize = 64 << 20;
/// Longest encoding of all slots, 1 MiB: 64 slots of a 16 KiB blob each.
const SLOTS_LEN_MAX: usize = 1 << 20;
/// Most slots: regions and purposes, not tenants.
pub(crate) const SLOTS_MAX: usize = 64;
/// Longest slot name or key version, in bytes.
pub(crate) const NAME_LEN_MAX: usize = 256;
/// Longest wrapped store key: RSA-4096 gives 512 bytes, services with envelopes a few KiB.
const BLOB_LEN_MAX: usize = 16 << 10;

/// One CMEK slot: the store key, wrapped by one customer's key.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) key_uri: String,
    pub(crate) key_version: String,
    pub(crate) created_ns: u64,
    pub(crate) blob: Vec<u8>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U16,
    header_len: U16,
    slots_len: U32,
    body_len: U32,
    incompatible: U32,
    compatible: U32,
    zero_28: U32,
    generation: U64,
    written_ns: U64,
    store_id: [u8; 16],
    store_key_id: [u8; 16],
    previous_mac: [u8; MAC_LEN],
    zero_112: [u8; 16],
}

/// What the fixed header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) generation: u64,
    pub(crate) written_ns: u64,
    pub(crate) store_id: StoreId,
    pub(crate) store_key_id: StoreKeyId,
    pub(crate) previous_mac: [u8; MAC_LEN],
}

/// A keyring image whose public part is parsed. Nothing in it is trustworthy before
/// [`authenticate`](Self::authenticate) succeeded.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) fixed: Fixed,
    pub(crate) slots: Vec<Slot>,
    pub(crate) stored: StoredImage,
    body: std::ops::Range<usize>,
}

impl Image {
    /// Parses the public part.
    pub(crate) fn parse(stored: StoredImage) -> Result<Self> {
        let bytes = stored.bytes.as_slice();
        let truncated = |expected: usize| {
            Error::new(
                ErrorKind::KeyringTruncated,
                format!(
                    "the keyring is truncated: expected {expected} bytes, found {}",
                    bytes.len()
                ),
            )
        };
        let corrupt = |what: &str| Error::new(ErrorKind::KeyringCorrupt, what);
        if bytes.len() < HEADER_LEN + TRAILER_LEN {
            return Err(truncated(HEADER_LEN + TRAILER_LEN));
        }
        // OK because RawHeader is unaligned and has exactly HEADER_LEN bytes.
        let raw = RawHeader::ref_from_bytes(&bytes[..HEADER_LEN]).expect("128 bytes");
        if raw.magic != KEYRING_MAGIC {
            return Err(corrupt("the keyring does not begin with its magic bytes"));
        }
        if raw.version.get() != FORMAT_VERSION {
            let found = raw.version.get();
            let what = format!("expected keyring version {FORMAT_VERSION}, found {found}");
            return Err(Error::new(ErrorKind::UnsupportedVersion, what));
        }
        let (slots_len, body_len) = (raw.slots_len.get() as usize, raw.body_len.get() as usize);
        if slots_len > SLOTS_LEN_MAX || body_len > KEYRING_LEN_MAX {
            return Err(corrupt("a part of the keyring is longer than allowed"));
        }
        let body = HEADER_LEN + slots_len..HEADER_LEN + slots_len + body_len;
        let len = body.end + TRAILER_LEN;
        if bytes.len() < len {
            return Err(truncated(len));
        }
        if bytes.len() > len {
            return Err(corrupt("bytes follow the end of the keyring"));
        }
        let checked = len - MAC_LEN;
        if Sha256::digest(&bytes[..checked])[..] != bytes[checked..] {
            return Err(corrupt("the keyring's checksum is wrong"));
        }
        if usize::from(raw.header_len.get()) != HEADER_LEN
            || raw.zero_28.get() != 0
            || raw.zero_112 != [0; 16]
        {
            return Err(corrupt("a reserved byte of the keyring is wrong"));
        }
        if raw.incompatible.get() != 0 {
            let what = format!("the keyring needs unknown features, bits {:#x}", raw.incompatible);
            return Err(Error::new(ErrorKind::UnsupportedFeature, what));
        }
        let fixed = Fixed {
            generation: raw.generation.get(),
            written_ns: raw.written_ns.get(),
            store_id: StoreId::from_bytes(raw.store_id),
            store_key_id: StoreKeyId::from_bytes(raw.store_key_id),
            previous_mac: raw.previous_mac,
        };
        let slots = decode_slots(&bytes[HEADER_LEN..body.start])?;
        Ok(Self { fixed, slots, stored, body })
    }

    /// Verifies the MAC with the store key, then decodes the body.
    pub(crate) fn authenticate(&self, key: &StoreKey) -> Result<Body> {
        if !self.is_under(key) {
            return Err(Error::new(
                ErrorKind::WrongStoreKey,
                format!("store key {} does not fit the keyring", self.fixed.store_key_id),
            ));
        }
        Body::decode(&self.stored.bytes[self.body.clone()])
    }

    /// Whether the store key fits, in constant time.
    pub(crate) fn is_under(&self, key: &StoreKey) -> bool {
        let mac = mac(key, &self.fixed, &self.stored.bytes[..self.body.end]);
        mac.ct_eq(self.mac()).into()
    }

    /// The MAC, which names this very image.
    pub(crate) fn mac(&self) -> &[u8; MAC_LEN] {
        let mac = &self.stored.bytes[self.body.end..self.body.end + MAC_LEN];
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
    let too_long = |_| Error::new(ErrorKind::InvalidArgument, "the keyring is too large");
    let raw = RawHeader {
        magic: KEYRING_MAGIC,
        version: FORMAT_VERSION.into(),
        header_len: (HEADER_LEN as u16).into(),
        slots_len: u32::try_from(slots.len()).map_err(too_long)?.into(),
        body_len: u32::try_from(body.len()).map_err(too_long)?.into(),
        incompatible: 0.into(),
        compatible: 0.into(),
        zero_28: 0.into(),
        generation: fixed.generation.into(),
        written_ns: fixed.written_ns.into(),
        store_id: *fixed.store_id.as_bytes(),
        store_key_id: *fixed.store_key_id.as_bytes(),
        previous_mac: fixed.previous_mac,
        zero_112: [0; 16],
    };
    let mut bytes = Vec::with_capacity(HEADER_LEN + slots.len() + body.len() + TRAILER_LEN);
    bytes.extend_from_slice(raw.as_bytes());
    bytes.extend_from_slice(slots);
    bytes.extend_from_slice(body);
    let mac = mac(key, fixed, &bytes);
    bytes.extend_from_slice(&mac);
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}

/// HMAC-SHA256 (RFC 2104) under `derive(store key, ring label, store id || store key id)`.
fn mac(key: &StoreKey, fixed: &Fixed, bytes: &[u8]) -> [u8; MAC_LEN] {
    let info: [&[u8]; 2] = [fixed.store_id.as_bytes(), fixed.store_key_id.as_bytes()];
    let derived = derive(key.expose(), Purpose::Ring, &info);
    scrubbed(|| {
        // OK because HMAC takes a key of any length.
        let mut hmac = Hmac::<Sha256>::new_from_slice(derived.key()).expect("any length");
        hmac.update(bytes);
        hmac.finalize().into_bytes().into()
    })
}

pub(crate) fn encode_error(error: wincode::WriteError) -> Error {
    Error::new(ErrorKind::InvalidArgument, "the keyring cannot be encoded").with_source(error)
}

pub(crate) fn decode_error(error: wincode::ReadError) -> Error {
    Error::new(ErrorKind::KeyringCorrupt, "the keyring cannot be decoded").with_source(error)
}

fn encode_slots(slots: &[Slot]) -> Result<Vec<u8>> {
    check_slots(slots).map_err(|what| Error::new(ErrorKind::InvalidArgument, what))?;
    wincode::config::serialize(slots, Configuration::default()).map_err(encode_error)
}

/// Bounded: `bytes` has at most [`SLOTS_LEN_MAX`], and no length inside may ask for more
/// memory than four times that.
pub(crate) fn decode_slots(bytes: &[u8]) -> Result<Vec<Slot>> {
    const CONFIG_LIMIT: usize = SLOTS_LEN_MAX * 4;
    let config = Configuration::default().with_preallocation_size_limit::<CONFIG_LIMIT>();
    let slots: Vec<Slot> =
        wincode::config::deserialize_exact(bytes, config).map_err(decode_error)?;
    check_slots(&slots).map_err(|what| Error::new(ErrorKind::KeyringCorrupt, what))?;
    Ok(slots)
}

fn check_slots(slots: &[Slot]) -> Result<(), &'static str> {
    if slots.is_empty() || slots.len() > SLOTS_MAX {
        return Err("expected 1 to 64 CMEK slots");
    }
    for (index, slot) in slots.iter().enumerate() {
        let name_good = (1..=NAME_LEN_MAX).contains(&slot.name.len())
            && !slot.name.chars().any(char::is_control);
        if !name_good || slots[..index].iter().any(|other| other.name == slot.name) {
            return Err("a CMEK slot's name is empty, too long or not unique");
        }
        // Parsed so that nothing unprintable reaches a terminal before it is authenticated.
        if slot.key_uri.parse::<KeyUri>().is_err()
            || slot.key_version.len() > NAME_LEN_MAX
            || slot.key_version.chars().any(char::is_control)
            || slot.blob.len() > BLOB_LEN_MAX
        {
            return Err("a CMEK slot's URI, version or wrapped key is malformed or too long");
        }
    }
    Ok(())
}
