//! How the local providers wrap: AES-256-GCM under a key derived for each blob.
//!
//! `derive(parent, cmek label, context 34 || salt 32)` gives key and nonce; the AAD is
//! the same info. Blob: `salt 32 || ciphertext and tag 48`.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use zeroize::Zeroize;

use super::{KmsError, KmsErrorKind, WrapContext};
use crate::derive::{Purpose, derive};
use crate::secret::{CmekParent, KEY_LEN, SlotKey};

/// Salt, ciphertext and tag.
pub(super) const BLOB_LEN: usize = 32 + KEY_LEN + 16;

pub(super) fn wrap(
    parent: &CmekParent,
    key: &SlotKey,
    context: &WrapContext,
) -> Result<[u8; BLOB_LEN], KmsError> {
    let mut blob = [0; BLOB_LEN];
    crate::random::fill(&mut blob[..32])
        .map_err(|e| KmsError::new(KmsErrorKind::Misconfigured, "no randomness").with_source(e))?;
    let (salt, sealed) = blob.split_at_mut(32);
    let (info, derived) = derived(parent, context, salt);
    let (body, tag_out) = sealed.split_at_mut(KEY_LEN);
    body.copy_from_slice(key.expose());
    let tag = Aes256Gcm::new(derived.key().into())
        .encrypt_inout_detached(derived.nonce().into(), &info, body.into())
        .map_err(|_| KmsError::new(KmsErrorKind::Protocol, "encryption failed"))?;
    tag_out.copy_from_slice(&tag);
    Ok(blob)
}

pub(super) fn unwrap(
    parent: &CmekParent,
    blob: &[u8],
    context: &WrapContext,
) -> Result<SlotKey, KmsError> {
    let refused = |what: &str| KmsError::new(KmsErrorKind::Integrity, what);
    if blob.len() != BLOB_LEN {
        return Err(refused("expected a wrapped key of 80 bytes"));
    }
    let (salt, sealed) = blob.split_at(32);
    let (info, derived) = derived(parent, context, salt);
    let mut key = SlotKey::zeroed();
    key.bytes_mut().copy_from_slice(&sealed[..KEY_LEN]);
    let mut tag = [0; 16];
    tag.copy_from_slice(&sealed[KEY_LEN..]);
    let opened = Aes256Gcm::new(derived.key().into()).decrypt_inout_detached(
        derived.nonce().into(),
        &info,
        key.bytes_mut().as_mut_slice().into(),
        &tag.into(),
    );
    if opened.is_err() {
        key.bytes_mut().zeroize();
        return Err(refused("another key wrapped this slot key, or it was changed"));
    }
    Ok(key)
}

fn derived(
    parent: &CmekParent,
    context: &WrapContext,
    salt: &[u8],
) -> ([u8; 66], crate::derive::Derived) {
    let mut info = [0; 66];
    info[..34].copy_from_slice(&context.to_bytes());
    info[34..].copy_from_slice(salt);
    (info, derive(parent.expose(), Purpose::Cmek, &[&info]))
}
