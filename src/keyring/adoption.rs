//! Putting a store under a customer's key, and taking it back.

use std::sync::Arc;

use super::DEFAULT_SLOT;
use super::audit::AuditKind;
use super::client::Client;
use super::slots::{Slots, describe};
use crate::error::Result;
use crate::kms::Kms;

impl Slots<'_> {
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
    /// [`Keys::rotate_store_key`](super::Keys::rotate_store_key). The store is then as it was, except
    /// as said there.
    pub fn disable_cmek(&self, local: Arc<dyn Kms>) -> Result<()> {
        self.replace_all_slots(local, AuditKind::Disabled)
    }

    fn replace_all_slots(&self, kms: Arc<dyn Kms>, what: AuditKind) -> Result<()> {
        let kms = Client::new(kms);
        self.0.inner.check_not_denied()?;
        let deadline = self.0.inner.customers.deadline();
        let mut writer = self.0.inner.writer();
        self.0.inner.commit(&mut writer, |draft| {
            draft.slots = vec![draft.wrapped_by(&kms, DEFAULT_SLOT, deadline)?];
            draft.replace_store_key()?;
            draft.rotate_all_data_keys()?;
            draft.record(what, describe(&draft.slots[0]));
            Ok(true)
        })?;
        self.0.inner.customers.replace_all(kms);
        self.0.inner.forget_older()
    }
}
