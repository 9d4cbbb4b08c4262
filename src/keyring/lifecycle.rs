//! Switching encryption and the customer's key on and off.

use std::sync::{Arc, PoisonError};

use super::audit::AuditKind;
use super::slots::describe;
use super::{DEFAULT_SLOT, Keyring, KeyringStorage, Options, PlaintextPolicy, unlock};
use crate::error::Result;
use crate::ids::StoreKeyId;
use crate::kms::{Deadline, Kms};
use crate::secret::StoreKey;

impl Keyring {
    /// Switches encryption on for a store in use: creates its keyring, under which every
    /// new file is encrypted, while the plaintext files that are there can be read until
    /// they are re-encrypted. As [`create`](Self::create) with
    /// [`PlaintextPolicy::Allow`].
    ///
    /// # Errors
    /// Those of [`create`](Self::create).
    pub fn enable(
        storage: impl KeyringStorage + 'static,
        kms: Arc<dyn Kms>,
        mut options: Options,
    ) -> Result<Self> {
        options.settings.plaintext = PlaintextPolicy::Allow;
        Self::create_as(storage, kms, options, AuditKind::Enabled)
    }

    /// Puts a store with a locally managed key under a customer's key, which gets the only
    /// slot. There are a new store key and new data keys, so that what the local key may
    /// have leaked opens no file written from now on; the old data keys are wrapped anew.
    ///
    /// # Errors
    /// Those of [`disable_cmek`](Self::disable_cmek).
    pub fn enable_cmek(&self, kms: Arc<dyn Kms>) -> Result<()> {
        self.replace_all_slots(kms, AuditKind::Enabled)
    }

    /// Returns a store to a locally managed key, which gets the only slot: the customer's
    /// keys open it no more. There are a new store key and new data keys, and the old data
    /// keys are wrapped anew.
    ///
    /// First the present key's service is asked, so that this is no way around a
    /// revocation.
    ///
    /// # Errors
    /// [`Kms`](crate::ErrorKind::Kms) from the present key or the new one; those of
    /// [`rotate_store_key`](Self::rotate_store_key). The store is then as it was, except
    /// as said there.
    pub fn disable_cmek(&self, local: Arc<dyn Kms>) -> Result<()> {
        self.replace_all_slots(local, AuditKind::Disabled)
    }

    fn replace_all_slots(&self, kms: Arc<dyn Kms>, what: AuditKind) -> Result<()> {
        self.inner.check_not_denied()?;
        let deadline = Deadline::after(self.inner.kms_deadline);
        let mut writer = self.inner.writer();
        self.inner.commit(&mut writer, |draft| {
            let (id, key) = (StoreKeyId::random()?, StoreKey::random()?);
            let context = unlock::context(self.inner.store_id, id);
            let now_ns = draft.now_ns;
            let slot = unlock::wrap_slot(&*kms, DEFAULT_SLOT, &key, &context, now_ns, deadline)?;
            draft.replace_store_key(id, key)?;
            draft.rotate_all_data_keys()?;
            draft.record(what, describe(&slot));
            draft.slots = vec![slot];
            Ok(true)
        })?;
        *self.inner.kms.lock().unwrap_or_else(PoisonError::into_inner) = vec![kms];
        self.inner.storage.forget_kept()
    }
}
