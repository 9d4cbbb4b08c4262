//! CMEK slots: several customer's keys, each leading to the same store key.
//!
//! A region is added to a store in use by adding a slot; a break-glass key is a slot
//! whose key is given to no process.

use std::sync::Arc;

use super::audit::AuditKind;
use super::client::Client;
use super::commit::Draft;
use super::customers::CustomerKeys;
use super::format::{SLOTS_MAX, Slot};
use super::{DEFAULT_SLOT, Keyring, KeyringInfo, SlotInfo, unlock};
use crate::error::{Error, ErrorKind, Result};
use crate::kms::{Deadline, Kms, KmsError, KmsErrorKind};
use crate::secret::SlotKey;

/// The CMEK slots of an open keyring.
#[derive(Clone, Copy, Debug)]
pub struct Slots<'a>(pub(super) &'a Keyring);

impl Slots<'_> {
    /// The CMEK slots, in the order in which they were added.
    pub fn list(&self) -> Vec<SlotInfo> {
        KeyringInfo::from(&self.0.inner.vault.load().image).slots
    }

    /// Adds a slot: from now on `kms` opens the store too. Takes effect once an unwrap
    /// proved the new wrapped key.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if a slot of that name, or one with
    /// that key, exists, or there are 64;
    /// those of [`replace`](Self::replace). No slot is added then.
    pub fn add(&self, name: &str, kms: Arc<dyn Kms>) -> Result<()> {
        let kms = Client::new(kms);
        self.0.inner.check_not_denied()?;
        let deadline = self.0.inner.customers.deadline();
        let mut writer = self.0.inner.writer();
        self.0.inner.commit(&mut writer, |draft| {
            if draft.slots.iter().any(|slot| slot.name == name) {
                let what = format!("expected a new name, found the CMEK slot {name:?}");
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            if draft.slots.len() == SLOTS_MAX {
                let what = format!("expected at most {SLOTS_MAX} CMEK slots");
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            no_other_slot_has(draft, name, &kms)?;
            let slot = draft.wrapped_by(&kms, name, deadline)?;
            draft.record(AuditKind::SlotAdded, describe(&slot));
            draft.slots.push(slot);
            Ok(true)
        })?;
        self.0.inner.customers.take(kms);
        Ok(())
    }

    /// Removes a slot, never the last one. Its key opens the store no more; whoever had
    /// it may have kept the store key: [`Keys::rotate_store_key`](super::Keys::rotate_store_key) makes
    /// that worthless for files written from then on. Older images of the keyring, which
    /// that key opens, are removed.
    ///
    /// First the present key's service is asked, as for [`replace`](Self::replace): the next
    /// slot must not stand in for a key that was just revoked.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if there is no such slot or no
    /// other; [`Kms`](ErrorKind::Kms) from the present key; those of [`Keys::rotate`](super::Keys::rotate). The slot then stays. If
    /// only the removal of the older images failed, the error is [`Io`](ErrorKind::Io) and
    /// the slot is gone; the next opening for writing tries the removal again.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.0.inner.check_not_denied()?;
        let mut writer = self.0.inner.writer();
        let mut former = String::new();
        self.0.inner.commit(&mut writer, |draft| {
            let index = draft.slots.iter().position(|slot| slot.name == name);
            let index = index.ok_or_else(|| no_such_slot(name))?;
            if draft.slots.len() == 1 {
                let what = "expected another CMEK slot beside the one to remove";
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            let slot = draft.slots.remove(index);
            draft.record(AuditKind::SlotRemoved, describe(&slot));
            former = slot.key_uri;
            Ok(true)
        })?;
        self.forget(&former);
        self.0.inner.forget_older()
    }

    /// Wraps the slot key anew in one slot, or in all, under the newest version of the
    /// same customer's key. Returns how many slots that were. A slot's old wrapped key is
    /// dropped only after the new one was proven by an unwrap; older images of the
    /// keyring, which hold it, are then removed.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if there is no such slot,
    /// [`WrongStoreKey`](ErrorKind::WrongStoreKey) if the service returns another key;
    /// those of [`Keys::rotate_store_key`](super::Keys::rotate_store_key). All slots are then as they
    /// were.
    pub fn rewrap(&self, name: Option<&str>) -> Result<usize> {
        let deadline = self.0.inner.customers.deadline();
        let mut writer = self.0.inner.writer();
        let mut rewrapped = 0;
        self.0.inner.commit(&mut writer, |draft| {
            let chosen = |slot: &Slot| name.is_none_or(|name| slot.name == name);
            rewrapped = draft.slots.iter().filter(|slot| chosen(slot)).count();
            if let Some(name) = name.filter(|_| rewrapped == 0) {
                return Err(no_such_slot(name));
            }
            for index in 0..draft.slots.len() {
                let slot = &draft.slots[index];
                if !chosen(slot) {
                    continue;
                }
                let kms = self.0.inner.customers.of_uri(&slot.key_uri)?;
                let (store_id, now_ns) = (self.0.inner.store_id, draft.now_ns);
                let (key, slot) = (draft.slot_key(slot)?, &mut draft.slots[index]);
                unlock::rewrap_slot(&kms, slot, store_id, &key, now_ns, deadline)?;
                let detail = describe(slot);
                draft.record(AuditKind::SlotRewrapped, detail);
            }
            Ok(true)
        })?;
        self.0.inner.forget_older()?;
        Ok(rewrapped)
    }

    /// Replaces the customer's key of the slot `default` (or the only slot) by `new`; see
    /// [`replace`](Self::replace).
    ///
    /// # Errors
    /// Those of [`replace`](Self::replace).
    pub fn rotate(&self, new: Arc<dyn Kms>) -> Result<()> {
        let slots = self.list();
        let only = slots.len() == 1;
        let slot = slots.into_iter().find(|slot| only || slot.name == DEFAULT_SLOT);
        let slot = slot.ok_or_else(|| no_such_slot(DEFAULT_SLOT))?;
        self.replace(&slot.name, new)
    }

    /// Replaces the customer's key of a slot by `new`, while the store is in use. The data
    /// keys and the store key stay. The old wrapped copy is dropped only after the new one
    /// was proven by an unwrap; older images of the keyring, which the old key opens, are
    /// then removed.
    ///
    /// First the present key's service is asked, so that a key that was just revoked cannot
    /// be replaced by one that was not; a service that does not answer can be left.
    ///
    /// # Errors
    /// Those of [`Keys::rotate`](super::Keys::rotate);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if there is no such slot or another
    /// has that key; [`Kms`](ErrorKind::Kms) from the present key or the new one;
    /// [`WrongStoreKey`](ErrorKind::WrongStoreKey) if the new key's service returns
    /// another key than it wrapped. The old key then stays, except as in
    /// [`remove`](Self::remove).
    pub fn replace(&self, name: &str, new: Arc<dyn Kms>) -> Result<()> {
        let new = Client::new(new);
        self.0.inner.check_not_denied()?;
        let deadline = self.0.inner.customers.deadline();
        let mut writer = self.0.inner.writer();
        let mut former = String::new();
        self.0.inner.commit(&mut writer, |draft| {
            let index = draft.slots.iter().position(|slot| slot.name == name);
            let index = index.ok_or_else(|| no_such_slot(name))?;
            no_other_slot_has(draft, name, &new)?;
            former.clone_from(&draft.slots[index].key_uri);
            draft.slots[index] = draft.wrapped_by(&new, name, deadline)?;
            let detail = describe(&draft.slots[index]);
            draft.record(AuditKind::CmekReplaced, detail);
            Ok(true)
        })?;
        self.forget(&former);
        self.0.inner.customers.take(new);
        self.0.inner.forget_older()
    }
}

impl Slots<'_> {
    /// Drops a slot's former key unless another slot has it, so that nothing is wrapped by
    /// a key that was replaced.
    fn forget(&self, key_uri: &str) {
        let inner = &self.0.inner;
        if inner.vault.load().image.slots.iter().all(|slot| slot.key_uri != key_uri) {
            inner.customers.drop_uri(key_uri);
        }
    }
}

/// Two slots with one key would be one: nobody could tell whose service was asked.
fn no_other_slot_has(draft: &Draft, name: &str, kms: &Client) -> Result<()> {
    let same = |slot: &&Slot| slot.name != name && slot.key_uri == kms.key_uri().as_str();
    match draft.slots.iter().find(same) {
        None => Ok(()),
        Some(slot) => {
            let what = format!("expected another key than that of the CMEK slot {:?}", slot.name);
            Err(Error::new(ErrorKind::InvalidArgument, what))
        }
    }
}

pub(super) fn no_such_slot(name: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the keyring has no CMEK slot named {name:?}"))
}

pub(super) fn describe(slot: &Slot) -> String {
    match slot.key_version.as_str() {
        "" => format!("{} {}", slot.name, slot.key_uri),
        version => format!("{} {} version {version}", slot.name, slot.key_uri),
    }
}

impl Draft {
    /// A slot with a new key, wrapped by `kms` and proven. The draft keeps the key.
    pub(super) fn wrapped_by(
        &mut self,
        kms: &Client,
        name: &str,
        deadline: Deadline,
    ) -> Result<Slot> {
        let store_key = (self.store_key_id, &*self.store_key);
        let (slot, kept) =
            unlock::wrap_slot(kms, name, self.store_id(), store_key, self.now_ns, deadline)?;
        self.body.slot_keys.push(kept);
        Ok(slot)
    }

    /// Gives every slot a new slot key, which needs every slot's key service.
    ///
    /// # Errors
    /// [`Kms`](ErrorKind::Kms): `Misconfigured`, with the slots whose key was not given,
    /// before any service is called.
    pub(super) fn renew_slot_keys(
        &mut self,
        customers: &CustomerKeys,
        deadline: Deadline,
    ) -> Result<()> {
        let given: Vec<_> =
            self.slots.iter().map(|slot| customers.of_uri(&slot.key_uri).ok()).collect();
        let missing = self.slots.iter().zip(&given).filter(|(_, kms)| kms.is_none());
        let missing: Vec<_> =
            missing.map(|(slot, _)| format!("{} {}", slot.name, slot.key_uri)).collect();
        if !missing.is_empty() {
            let what = format!("no key was given for the CMEK slots {}", missing.join(", "));
            return Err(KmsError::new(KmsErrorKind::Misconfigured, what).into());
        }
        for (index, kms) in given.into_iter().flatten().enumerate() {
            let name = self.slots[index].name.clone();
            self.slots[index] = self.wrapped_by(&kms, &name, deadline)?;
        }
        Ok(())
    }

    /// The key of a slot, without asking its key service.
    pub(super) fn slot_key(&self, slot: &Slot) -> Result<SlotKey> {
        let store_key = (self.store_key_id, &*self.store_key);
        self.body.slot_key(&slot.slot_key_id, self.store_id(), store_key)
    }
}
