//! The wrapped key as stored.
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 1 | format, 1 |
//! | 1 | 1 | 1 AES-GCM, 2 AES-KEY-WRAP-PAD |
//! | 2 | 12 and 48 | AES-GCM: IV; ciphertext and tag. AAD: bytes 0 and 1, context 34 |
//! | 2 | 80 | AES-KEY-WRAP-PAD: key 32, context 34 and 6 zeros, wrapped |

use atrest::kms::KmsError;

use crate::fail::integrity;

pub(super) const FORMAT: u8 = 1;
pub(super) const GCM: u8 = 1;
pub(super) const KEY_WRAP_PAD: u8 = 2;
pub(super) const IV_LEN: usize = 12;
/// 72 bytes and the 8-byte check value (RFC 5649).
pub(super) const WRAPPED_LEN: usize = 80;
const SEALED_LEN: usize = 48;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blob {
    Gcm { iv: [u8; IV_LEN], sealed: Vec<u8> },
    KeyWrapPad { wrapped: Vec<u8> },
}

impl Blob {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, KmsError> {
        let refused = || integrity(format!("expected a PKCS#11 blob, found {} bytes", bytes.len()));
        match bytes {
            [FORMAT, GCM, rest @ ..] if rest.len() == IV_LEN + SEALED_LEN => {
                let (iv, sealed) = rest.split_first_chunk().ok_or_else(refused)?;
                Ok(Self::Gcm { iv: *iv, sealed: sealed.to_vec() })
            }
            [FORMAT, KEY_WRAP_PAD, wrapped @ ..] if wrapped.len() == WRAPPED_LEN => {
                Ok(Self::KeyWrapPad { wrapped: wrapped.to_vec() })
            }
            _ => Err(refused()),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Gcm { iv, sealed } => [&[FORMAT, GCM], &iv[..], sealed].concat(),
            Self::KeyWrapPad { wrapped } => [&[FORMAT, KEY_WRAP_PAD], &wrapped[..]].concat(),
        }
    }
}

/// What AES-GCM authenticates beside the key.
pub(super) fn aad(context: &[u8; 34]) -> [u8; 36] {
    let mut aad = [0; 36];
    aad[..2].copy_from_slice(&[FORMAT, GCM]);
    aad[2..].copy_from_slice(context);
    aad
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_parses_is_written_the_same(
            head in prop::sample::select(vec![vec![], vec![1], vec![1, 1], vec![1, 2], vec![2, 1]]),
            rest_len in prop::sample::select(vec![0, 1, 59, 60, 61, 79, 80, 81]),
            byte: u8,
        ) {
            let bytes = [head, vec![byte; rest_len]].concat();
            if let Ok(blob) = Blob::parse(&bytes) {
                prop_assert_eq!(blob.to_bytes(), bytes);
            }
        }
    }
}
