//! The wrapped key as stored.
//!
//! | length | what |
//! |---|---|
//! | 1 | format, 1 |
//! | 1 | 1 RSA-OAEP-256, 2 A256GCM, 3 RSA-OAEP-256 with a proof |
//! | 1 and its value | length of the key's version, 1 to 64; the version |
//! | 256 to 1024 | RSA-OAEP-256: the wrapped key |
//! | twice that | with a proof: the wrapped key, and the signature of it and its context |
//! | 12, 16, 32 | A256GCM: IV, tag, ciphertext. AAD: format, algorithm, context 34 |
//! | 8 | FNV-1a of the key's name and all before, big-endian |
//!
//! The checksum is no protection. It tells rot, or a blob of another key, from a version
//! that is gone: Azure would answer both with 404, and only the latter is about the key.

use atrest::kms::{KmsError, WrapContext};

use crate::fail::integrity;
use crate::uri::is_segment;

const FORMAT: u8 = 1;
const VERSION_LEN_MAX: usize = 64;
/// Keys of 2048 to 8192 bits.
const RSA_LEN: std::ops::RangeInclusive<usize> = 256..=1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    RsaOaep256,
    A256Gcm,
}

impl Algorithm {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::A256Gcm => "A256GCM",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sealed {
    RsaOaep256(Vec<u8>),
    /// As long as each other, by the same key.
    Proven {
        value: Vec<u8>,
        proof: Vec<u8>,
    },
    A256Gcm {
        iv: [u8; 12],
        tag: [u8; 16],
        ciphertext: [u8; 32],
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub version: String,
    pub sealed: Sealed,
}

impl Blob {
    /// `None` if a part is out of its bounds.
    pub(super) fn new(version: &str, sealed: Sealed) -> Option<Self> {
        let good_version = is_segment(version) && version.len() <= VERSION_LEN_MAX;
        let good_len = match &sealed {
            Sealed::RsaOaep256(value) => RSA_LEN.contains(&value.len()),
            Sealed::Proven { value, proof } => {
                RSA_LEN.contains(&value.len()) && value.len() == proof.len()
            }
            Sealed::A256Gcm { .. } => true,
        };
        (good_version && good_len).then(|| Self { version: version.to_owned(), sealed })
    }

    pub(super) fn parse(bytes: &[u8], key_name: &str) -> Result<Self, KmsError> {
        let parse = || {
            let (bytes, checksum) = bytes.split_last_chunk::<8>()?;
            if u64::from_be_bytes(*checksum) != fnv(key_name, bytes) {
                return None;
            }
            let (&[FORMAT, algorithm, version_len], rest) = bytes.split_first_chunk()? else {
                return None;
            };
            let (version, rest) = rest.split_at_checked(usize::from(version_len))?;
            let sealed = match algorithm {
                1 => Sealed::RsaOaep256(rest.to_vec()),
                2 => {
                    let (iv, rest) = rest.split_first_chunk()?;
                    let (tag, rest) = rest.split_first_chunk()?;
                    Sealed::A256Gcm { iv: *iv, tag: *tag, ciphertext: rest.try_into().ok()? }
                }
                3 => {
                    let (value, proof) = rest.split_at(rest.len() / 2);
                    Sealed::Proven { value: value.to_vec(), proof: proof.to_vec() }
                }
                _ => return None,
            };
            Self::new(std::str::from_utf8(version).ok()?, sealed)
        };
        parse().ok_or_else(|| {
            let found = bytes.len();
            integrity(format!("expected a blob of this Azure key, found {found} other bytes"))
        })
    }

    pub(super) fn to_bytes(&self, key_name: &str) -> Vec<u8> {
        // OK because `new` bounds the version's length.
        let version_len = u8::try_from(self.version.len()).unwrap_or(u8::MAX);
        let algorithm = match &self.sealed {
            Sealed::RsaOaep256(_) => 1,
            Sealed::A256Gcm { .. } => 2,
            Sealed::Proven { .. } => 3,
        };
        let mut bytes = [&[FORMAT, algorithm, version_len], self.version.as_bytes()].concat();
        match &self.sealed {
            Sealed::RsaOaep256(value) => bytes.extend_from_slice(value),
            Sealed::Proven { value, proof } => {
                bytes.extend_from_slice(value);
                bytes.extend_from_slice(proof);
            }
            Sealed::A256Gcm { iv, tag, ciphertext } => {
                bytes.extend_from_slice(iv);
                bytes.extend_from_slice(tag);
                bytes.extend_from_slice(ciphertext);
            }
        }
        let checksum = fnv(key_name, &bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        bytes
    }
}

/// What A256GCM authenticates beside the key.
pub(super) fn aad(context: &WrapContext) -> [u8; 36] {
    let mut aad = [0; 36];
    aad[..2].copy_from_slice(&[FORMAT, 2]);
    aad[2..].copy_from_slice(&context.to_bytes());
    aad
}

/// FNV-1a, 64 bits, of the name, a zero byte and the rest.
fn fnv(key_name: &str, bytes: &[u8]) -> u64 {
    key_name
        .bytes()
        .chain([0])
        .chain(bytes.iter().copied())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_parsed_and_any_change_is_refused(
            version in "[0-9a-f]{1,64}",
            rsa_len in RSA_LEN,
            kind in 0..3,
            flip: prop::sample::Index,
            bit in 0_u32..8,
        ) {
            let sealed = match kind {
                0 => Sealed::A256Gcm { iv: [1; 12], tag: [2; 16], ciphertext: [3; 32] },
                1 => Sealed::Proven { value: vec![4; rsa_len], proof: vec![5; rsa_len] },
                _ => Sealed::RsaOaep256(vec![4; rsa_len]),
            };
            let blob = Blob::new(&version, sealed).expect("in bounds");
            let mut bytes = blob.to_bytes("key");
            prop_assert_eq!(Blob::parse(&bytes, "key").ok(), Some(blob));
            prop_assert!(Blob::parse(&bytes, "another-key").is_err());
            let at = flip.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(Blob::parse(&bytes, "key").is_err());
        }

        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), len: u8) {
            // With a right checksum, so that what is inside is looked at.
            let mut bytes = [&[1, 1 + len % 3, len], &bytes[..]].concat();
            let checksum = fnv("key", &bytes);
            bytes.extend_from_slice(&checksum.to_be_bytes());
            if let Ok(blob) = Blob::parse(&bytes, "key") {
                prop_assert_eq!(blob.to_bytes("key"), bytes);
            }
        }
    }
}
