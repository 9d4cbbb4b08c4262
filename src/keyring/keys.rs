//! The store's own keys: rotating them by hand, and how they rotate by themselves.

use super::audit::AuditKind;
use super::{Keyring, Settings};
use crate::error::Result;
use crate::ids::{DataKeyId, StoreKeyId};

/// The store key and the data keys of an open keyring.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a>(pub(super) &'a Keyring);

impl Keys<'_> {
    /// Most data keys of a keyring that are not destroyed. Where there are as many, rotations
    /// fail until old ones are [retired](crate::store::Renewal::retire).
    pub const LIVE_MAX: usize = super::body::LIVE_MAX;

    /// The id of the data key that a file created now gets.
    ///
    /// # Errors
    /// [`CmekRevoked`](crate::ErrorKind::CmekRevoked).
    pub fn active_id(&self) -> Result<DataKeyId> {
        Ok(self.0.inner.vault.load().active(0)?.id)
    }

    /// Starts a new data key. Returns its id.
    ///
    /// # Errors
    /// [`ReadOnly`](crate::ErrorKind::ReadOnly), [`CmekRevoked`](crate::ErrorKind::CmekRevoked),
    /// [`Kms`](crate::ErrorKind::Kms) while it is unclear whether access to the customer's key is
    /// left, [`Poisoned`](crate::ErrorKind::Poisoned), [`Io`](crate::ErrorKind::Io). The old key then
    /// stays active.
    pub fn rotate(&self) -> Result<DataKeyId> {
        let inner = &self.0.inner;
        inner.check_may_rotate()?;
        let mut writer = inner.writer();
        let before = self.active_id()?;
        inner.commit(&mut writer, |draft| {
            // After a conflict: another writer's new key is as new as ours would be.
            let due = draft.body.keyspaces[0].active == *before.as_bytes();
            if due {
                draft.rotate_data_key(0)?;
            }
            Ok(due)
        })?;
        self.active_id()
    }

    /// Replaces the store key and every slot key, wraps every data key by the new store key,
    /// and starts new data keys: what somebody kept of the old keys opens nothing written from
    /// then on. Older images of the keyring, which hold the old keys, are removed.
    ///
    /// # Errors
    /// Those of [`rotate`](Self::rotate);
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) where a
    /// [mirror](super::DirectoryStorage::with_mirror) would keep the old keys; and
    /// [`Kms`](crate::ErrorKind::Kms): every slot's key service has to wrap a new slot key. The old
    /// store key then stays. If only the removal of the older images failed, the error is
    /// [`Io`](crate::ErrorKind::Io) and the new key is in place; the next opening for writing
    /// tries the removal again.
    pub fn rotate_store_key(&self) -> Result<StoreKeyId> {
        let inner = &self.0.inner;
        inner.check_may_rotate()?;
        let mut writer = inner.writer();
        let deadline = inner.customers.deadline();
        inner.commit(&mut writer, |draft| {
            draft.renew_slot_keys(&inner.customers, deadline)?;
            draft.replace_store_key()?;
            draft.rotate_all_data_keys()?;
            draft.record(AuditKind::StoreKeyRotated, "");
            Ok(true)
        })?;
        inner.forget_older()?;
        Ok(inner.vault.load().image.fixed.store_key_id)
    }

    /// Replaces the store's settings.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a rotation period below
    /// [`Settings::ROTATION_PERIOD_MIN`]; those of [`rotate`](Self::rotate).
    pub fn configure(&self, settings: &Settings) -> Result<()> {
        settings.check()?;
        let inner = &self.0.inner;
        inner.commit(&mut inner.writer(), |draft| {
            let before = draft.body.settings.clone();
            draft.body.settings.set(settings);
            Ok(draft.body.settings != before)
        })?;
        inner.watch.alarm.ring();
        Ok(())
    }
}
