//! The fixed header of a keyring, and where its parts are. `docs/FORMAT.md` section 6.
//!
//! ```text
//! off  len  field                                 off   len  field
//!   0    8  magic 89 41 54 52 4B 0D 0A 1A          32     8  generation
//!   8    2  keyring version = 2                    40     8  written, ns since the epoch
//!  10    2  header length = 128                    48    16  store id
//!  12    4  length of the slots                    64    16  store key id
//!  16    4  length of the body                     80    32  MAC of the generation before
//!  20    4  incompatible features                 112    16  zero
//!  24    4  compatible features
//!  28    4  zero                             then slots || body || MAC 32 || SHA-256 32
//! ```

use std::ops::Range;

use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Error, ErrorKind, Result};
use crate::header::KEYRING_MAGIC;
use crate::ids::{StoreId, StoreKeyId};
use crate::keyring::codec::KEYRING_LEN_MAX;

/// The version of keyrings that this library writes, and the only one it reads. It is
/// that of no other format: files and backups have their own.
pub(super) const KEYRING_VERSION: u16 = 2;
const HEADER_LEN: usize = 128;
pub(super) const MAC_LEN: usize = 32;
pub(super) const CHECKSUM_LEN: usize = 32;
const TRAILER_LEN: usize = MAC_LEN + CHECKSUM_LEN;
/// Longest encoding of all slots, 2 MiB: 64 slots of a 16 KiB blob each, and as much
/// again for their names and what newer versions say about them.
pub(super) const SLOTS_LEN_MAX: usize = 2 << 20;

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

/// Where the parts of an image are.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) slots: Range<usize>,
    pub(super) body: Range<usize>,
    pub(super) mac: Range<usize>,
}

/// Checks the whole of an image but what needs its store key, and its slots.
pub(super) fn parse(bytes: &[u8]) -> Result<(Fixed, Parts)> {
    if bytes.len() < HEADER_LEN + TRAILER_LEN {
        return Err(truncated(HEADER_LEN + TRAILER_LEN, bytes));
    }
    // OK because RawHeader is unaligned and has exactly HEADER_LEN bytes.
    let raw = RawHeader::ref_from_bytes(&bytes[..HEADER_LEN]).expect("128 bytes");
    if raw.magic != KEYRING_MAGIC {
        return Err(corrupt("the keyring does not begin with its magic bytes"));
    }
    // First of all: nothing behind it is known to mean the same in another version.
    if raw.version.get() != KEYRING_VERSION {
        let found = raw.version.get();
        let what = format!("expected keyring version {KEYRING_VERSION}, found {found}");
        return Err(Error::new(ErrorKind::UnsupportedVersion, what));
    }
    let parts = raw.parts(bytes)?;
    raw.check_reserved()?;
    let fixed = Fixed {
        generation: raw.generation.get(),
        written_ns: raw.written_ns.get(),
        store_id: StoreId::from_bytes(raw.store_id),
        store_key_id: StoreKeyId::from_bytes(raw.store_key_id),
        previous_mac: raw.previous_mac,
    };
    Ok((fixed, parts))
}

impl RawHeader {
    fn parts(&self, bytes: &[u8]) -> Result<Parts> {
        let (slots_len, body_len) = (self.slots_len.get() as usize, self.body_len.get() as usize);
        let len = slots_len.saturating_add(body_len).saturating_add(HEADER_LEN + TRAILER_LEN);
        if slots_len > SLOTS_LEN_MAX || len > KEYRING_LEN_MAX {
            return Err(corrupt("a part of the keyring is longer than allowed"));
        }
        let slots = HEADER_LEN..HEADER_LEN + slots_len;
        let body = slots.end..slots.end + body_len;
        let mac = body.end..body.end + MAC_LEN;
        if bytes.len() < len {
            return Err(truncated(len, bytes));
        }
        if bytes.len() > len {
            return Err(corrupt("bytes follow the end of the keyring"));
        }
        if Sha256::digest(&bytes[..mac.end])[..] != bytes[mac.end..] {
            return Err(corrupt("the keyring's checksum is wrong"));
        }
        Ok(Parts { slots, body, mac })
    }

    fn check_reserved(&self) -> Result<()> {
        if usize::from(self.header_len.get()) != HEADER_LEN
            || self.zero_28.get() != 0
            || self.zero_112 != [0; 16]
        {
            return Err(corrupt("a reserved byte of the keyring is wrong"));
        }
        // The last one is refused so that every generation has a next.
        if matches!(self.generation.get(), 0 | u64::MAX) {
            return Err(corrupt("the keyring's generation is out of range"));
        }
        if self.incompatible.get() != 0 {
            let what = format!("the keyring needs unknown features, bits {:#x}", self.incompatible);
            return Err(Error::new(ErrorKind::UnsupportedFeature, what));
        }
        Ok(())
    }
}

/// The header of an image with these parts.
pub(super) fn encode(fixed: &Fixed, slots_len: usize, body_len: usize) -> Result<Vec<u8>> {
    let too_long = |_| Error::new(ErrorKind::InvalidArgument, "the keyring is too large");
    let raw = RawHeader {
        magic: KEYRING_MAGIC,
        version: KEYRING_VERSION.into(),
        header_len: (HEADER_LEN as u16).into(),
        slots_len: u32::try_from(slots_len).map_err(too_long)?.into(),
        body_len: u32::try_from(body_len).map_err(too_long)?.into(),
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
    let mut bytes = Vec::with_capacity(HEADER_LEN + slots_len + body_len + TRAILER_LEN);
    bytes.extend_from_slice(raw.as_bytes());
    Ok(bytes)
}

fn truncated(expected: usize, bytes: &[u8]) -> Error {
    let found = bytes.len();
    let what = format!("the keyring is truncated: expected {expected} bytes, found {found}");
    Error::new(ErrorKind::KeyringTruncated, what)
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::KeyringCorrupt, what)
}
