//! One key of the hierarchy wrapped by another: AES-256-GCM under a key derived for this
//! wrap alone, with a commitment to it. `docs/FORMAT.md` section 6.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use subtle::ConstantTimeEq;
use wincode::{SchemaRead, SchemaWrite};

use crate::derive::{Derived, Purpose, derive};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::StoreId;
use crate::secret::{KEY_LEN, scrubbed};

/// AES-256-GCM, the only way a key is wrapped.
const ALGORITHM: u8 = 1;
/// Store id, wrapped key's id, wrapping key's id, created, algorithm, zeros, salt.
const INFO_LEN: usize = 112;

/// What ties a wrap to its place: it opens nowhere else.
pub(super) struct Place {
    pub(super) purpose: Purpose,
    pub(super) store_id: StoreId,
    /// The key that is wrapped.
    pub(super) key_id: [u8; 16],
    /// The key that wraps it.
    pub(super) by_id: [u8; 16],
    /// When the wrapped key was created; 0 where nothing says so.
    pub(super) created_ns: u64,
}

/// A wrapped key.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct Wrap {
    pub(super) salt: [u8; 32],
    pub(super) commitment: [u8; 32],
    pub(super) sealed: [u8; KEY_LEN + 16],
}

impl Wrap {
    /// What is left of the wrap of a destroyed key.
    pub(super) const ERASED: Self =
        Self { salt: [0; 32], commitment: [0; 32], sealed: [0; KEY_LEN + 16] };

    pub(super) fn is_erased(&self) -> bool {
        *self == Self::ERASED
    }

    /// Wraps `key` by `parent` under a fresh salt.
    pub(super) fn seal(place: &Place, parent: &[u8; KEY_LEN], key: &[u8; KEY_LEN]) -> Result<Self> {
        let mut wrap = Self::ERASED;
        crate::random::fill(&mut wrap.salt)?;
        scrubbed(|| wrap.seal_here(place, parent, key))?;
        Ok(wrap)
    }

    fn seal_here(
        &mut self,
        place: &Place,
        parent: &[u8; KEY_LEN],
        key: &[u8; KEY_LEN],
    ) -> Result<()> {
        let (info, derived) = self.derive(place, parent);
        let (body, tag_out) = self.sealed.split_at_mut(KEY_LEN);
        body.copy_from_slice(key);
        let tag = Aes256Gcm::new(derived.key().into())
            .encrypt_inout_detached(derived.nonce().into(), &info, body.into())
            .map_err(|_| Error::new(ErrorKind::InvalidArgument, "the key cannot be wrapped"))?;
        tag_out.copy_from_slice(&tag);
        self.commitment = *derived.commitment();
        Ok(())
    }

    /// Unwraps into `key`. Returns false, and says no more, if `parent` did not wrap it in
    /// this place; `key` is then worth nothing.
    #[must_use]
    pub(super) fn open(
        &self,
        place: &Place,
        parent: &[u8; KEY_LEN],
        key: &mut [u8; KEY_LEN],
    ) -> bool {
        scrubbed(|| self.open_here(place, parent, key))
    }

    fn open_here(&self, place: &Place, parent: &[u8; KEY_LEN], key: &mut [u8; KEY_LEN]) -> bool {
        let (info, derived) = self.derive(place, parent);
        if !bool::from(derived.commitment().ct_eq(&self.commitment)) {
            return false;
        }
        let (body, tag) = self.sealed.split_at(KEY_LEN);
        key.copy_from_slice(body);
        let mut expected = [0; 16];
        expected.copy_from_slice(tag);
        Aes256Gcm::new(derived.key().into())
            .decrypt_inout_detached(
                derived.nonce().into(),
                &info,
                key.as_mut_slice().into(),
                &expected.into(),
            )
            .is_ok()
    }

    fn derive(&self, place: &Place, parent: &[u8; KEY_LEN]) -> ([u8; INFO_LEN], Derived) {
        let mut info = [0; INFO_LEN];
        info[..16].copy_from_slice(place.store_id.as_bytes());
        info[16..32].copy_from_slice(&place.key_id);
        info[32..48].copy_from_slice(&place.by_id);
        info[48..56].copy_from_slice(&place.created_ns.to_le_bytes());
        info[56] = ALGORITHM;
        info[80..].copy_from_slice(&self.salt);
        (info, derive(parent, place.purpose, &[&info]))
    }
}
