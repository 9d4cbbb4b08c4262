//! The wrapped key as stored: format 1 byte, IV 12, tag 16, ciphertext 32.

use atrest::kms::{KmsError, WrapContext};

use crate::fail::integrity;

const FORMAT: u8 = 1;
pub(super) const IV_LEN: usize = 12;
pub(super) const TAG_LEN: usize = 16;
const KEY_LEN: usize = 32;
const BLOB_LEN: usize = 1 + IV_LEN + TAG_LEN + KEY_LEN;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub iv: [u8; IV_LEN],
    pub tag: [u8; TAG_LEN],
    pub ciphertext: [u8; KEY_LEN],
}

impl Blob {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, KmsError> {
        let parts = || {
            let rest = bytes.strip_prefix(&[FORMAT])?;
            let (iv, rest) = rest.split_first_chunk()?;
            let (tag, rest) = rest.split_first_chunk()?;
            Some(Self { iv: *iv, tag: *tag, ciphertext: rest.try_into().ok()? })
        };
        parts().ok_or_else(|| {
            integrity(format!("expected a KMIP blob of {BLOB_LEN} bytes, found {}", bytes.len()))
        })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [&[FORMAT], &self.iv[..], &self.tag, &self.ciphertext].concat()
    }
}

/// What is authenticated beside the key: the format and the context.
pub(super) fn aad(context: &WrapContext) -> [u8; 35] {
    let mut aad = [FORMAT; 35];
    aad[1..].copy_from_slice(&context.to_bytes());
    aad
}
