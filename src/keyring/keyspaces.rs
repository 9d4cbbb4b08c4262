//! Keyspaces: lines of data keys that rotate together and are destroyed apart, as one for
//! each tenant.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::audit::AuditKind;
use super::commit::Draft;
use super::{KeyState, Keyring, Keyspace};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DataKeyId, StoreId};

/// Keyspaces that are added in one commit: the keyring holds all events of a commit until the
/// next one archives them, and has to stay below its greatest length.
const ADDED_TOGETHER: usize = 4096;

/// Names a keyspace in its store. The default is the one that every store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct KeyspaceId(pub(super) u32);

/// One keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyspaceStatus {
    /// Its number in the store.
    pub id: KeyspaceId,
    /// Its name.
    pub name: String,
    /// Its active data key; `None` after it was shredded.
    pub active: Option<DataKeyId>,
}

/// The keyspaces of an open keyring.
#[derive(Clone, Copy, Debug)]
pub struct Keyspaces<'a>(pub(super) &'a Keyring);

impl Keyspaces<'_> {
    /// All keyspaces, shredded ones too.
    pub fn list(&self) -> Vec<KeyspaceStatus> {
        let snapshot = self.0.inner.vault.load();
        let status = |(index, keyspace): (usize, &Keyspace)| KeyspaceStatus {
            id: id(index),
            name: keyspace.name.clone(),
            active: (keyspace.active != [0; 16]).then(|| DataKeyId::from_bytes(keyspace.active)),
        };
        snapshot.body.keyspaces.iter().enumerate().map(status).collect()
    }

    /// The keyspace of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<KeyspaceId> {
        let snapshot = self.0.inner.vault.load();
        snapshot.body.keyspaces.iter().position(|keyspace| keyspace.name == name).map(id)
    }

    /// Adds a keyspace with a data key of its own, which rotates by the store's settings.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a name that is taken, by a
    /// shredded keyspace too, that is empty, or longer than 256 bytes; those of
    /// [`Keys::rotate`](super::Keys::rotate).
    pub fn create(&self, name: &str) -> Result<KeyspaceId> {
        super::holds::check_name(name)?;
        self.0.inner.check_may_rotate()?;
        let mut writer = self.0.inner.writer();
        let mut index = 0;
        self.0.inner.commit(&mut writer, |draft| {
            if draft.body.keyspaces.iter().any(|keyspace| keyspace.name == name) {
                let what = format!("expected a new keyspace name, found {name}, which is taken");
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            index = add(draft, name)?;
            Ok(true)
        })?;
        Ok(id(index))
    }

    /// The keyspaces of these names, in their order. Those that are not there are added, many
    /// in one commit.
    ///
    /// # Errors
    /// Those of [`create`](Self::create), but for a name that is taken.
    pub(crate) fn find_or_create(&self, names: &[String]) -> Result<Vec<KeyspaceId>> {
        names.iter().try_for_each(|name| super::holds::check_name(name))?;
        self.0.inner.check_may_rotate()?;
        let mut writer = self.0.inner.writer();
        for names in names.chunks(ADDED_TOGETHER) {
            self.0.inner.commit(&mut writer, |draft| {
                let spaces = draft.body.keyspaces.iter();
                let known: HashSet<_> = spaces.map(|keyspace| keyspace.name.clone()).collect();
                for name in names.iter().filter(|name| !known.contains(*name)) {
                    add(draft, name)?;
                }
                Ok(draft.body.keyspaces.len() > known.len())
            })?;
        }
        let snapshot = self.0.inner.vault.load();
        let spaces = snapshot.body.keyspaces.iter().enumerate();
        let ids: HashMap<_, _> = spaces.map(|(at, space)| (space.name.as_str(), id(at))).collect();
        // OK because each is there by now.
        Ok(names.iter().map(|name| ids[name.as_str()]).collect())
    }

    /// Starts a new data key in one keyspace. Returns its id.
    ///
    /// # Errors
    /// As [`Keys::rotate`](super::Keys::rotate);
    /// [`KeyDestroyed`](ErrorKind::KeyDestroyed) for a keyspace that was shredded.
    pub fn rotate(&self, keyspace: KeyspaceId) -> Result<DataKeyId> {
        self.0.inner.check_may_rotate()?;
        let mut writer = self.0.inner.writer();
        let index = keyspace.0 as usize;
        let before = self.0.inner.vault.load().active(index)?.id;
        self.0.inner.commit(&mut writer, |draft| {
            // After a conflict: another writer's new key is as new as ours would be.
            let due = draft.body.keyspaces[index].active == *before.as_bytes();
            if due {
                draft.rotate_data_key(index)?;
            }
            Ok(due)
        })?;
        Ok(self.0.inner.vault.load().active(index)?.id)
    }

    /// Destroys all data keys of one keyspace, and with them the content of all its
    /// files, wherever they are, holds or not; the others stay. Open files of the keyspace
    /// refuse from then on with [`CmekRevoked`](ErrorKind::CmekRevoked); those that another
    /// process has open, once it has [reloaded](super::Keyring::reload), which it does every
    /// [`check_interval`](super::AccessPolicy::check_interval). The store key is replaced, and
    /// older images of the keyring are removed. Nothing brings the content back, but a copy of
    /// an older keyring together with the customer's key.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for an unknown name, for the
    /// keyspace that every store has, and where a
    /// [mirror](super::DirectoryStorage::with_mirror) would keep the keys; those of
    /// [`Keys::rotate`](super::Keys::rotate), but for [`Kms`](ErrorKind::Kms): no key begins.
    pub fn danger_shred(&self, name: &str) -> Result<()> {
        let index = self.find(name).filter(|id| id.0 != 0).ok_or_else(|| {
            let what = format!("expected a keyspace beside the default one, found {name}");
            Error::new(ErrorKind::InvalidArgument, what)
        })?;
        self.shred(AuditKind::KeyspaceShredded, name, |keyspace| keyspace == index.0)
    }

    /// Destroys every data key of the store, and with them the content of all its files.
    /// The keyring stays as a record of it; every other copy beside it is removed. `confirm` **MUST** be the store's own id, so
    /// that no other store is meant. What is said at
    /// [`danger_shred`](Self::danger_shred) holds here.
    ///
    /// # Errors
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch) if the store is another one;
    /// those of [`Keys::rotate`](super::Keys::rotate).
    pub fn danger_shred_store(&self, confirm: StoreId) -> Result<()> {
        if confirm != self.0.store_id() {
            let what = format!("expected store {confirm}, found {}", self.0.store_id());
            return Err(Error::new(ErrorKind::IdentityMismatch, what));
        }
        self.shred(AuditKind::StoreShredded, "", |_| true)?;
        self.0.keys().danger_forget_aside()
    }

    fn shred(&self, what: AuditKind, detail: &str, which: impl Fn(u32) -> bool) -> Result<()> {
        let mut writer = self.0.inner.writer();
        self.0.inner.commit(&mut writer, |draft| {
            let mut any = false;
            for index in 0..draft.body.keys.len() {
                let record = &draft.body.keys[index];
                if record.state != KeyState::Destroyed && which(record.keyspace) {
                    draft.destroy_data_key(index);
                    any = true;
                }
            }
            end_lines(draft, &which);
            if !any {
                return Ok(false);
            }
            draft.replace_store_key()?;
            draft.record(AuditKind::StoreKeyRotated, "");
            draft.record(what, detail);
            Ok(true)
        })?;
        self.0.inner.forget_older()
    }
}

/// Adds a keyspace with a data key of its own. Returns its index.
fn add(draft: &mut Draft, name: &str) -> Result<usize> {
    let index = draft.body.keyspaces.len();
    draft.body.keyspaces.push(Keyspace { name: name.into(), ..Keyspace::default() });
    draft.record(AuditKind::KeyspaceCreated, name);
    draft.rotate_data_key(index)?;
    Ok(index)
}

fn end_lines(draft: &mut Draft, which: &impl Fn(u32) -> bool) {
    for (index, keyspace) in draft.body.keyspaces.iter_mut().enumerate() {
        if which(id(index).0) {
            keyspace.active = [0; 16];
        }
    }
}

fn id(index: usize) -> KeyspaceId {
    // OK because a keyring has at most 65,536 keyspaces.
    KeyspaceId(u32::try_from(index).expect("few keyspaces"))
}

#[cfg(test)]
mod tests;
