//! What a store of files asks of its keyring, and nobody else.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, Weak};

use super::{Keyring, LiveKeys};
use crate::error::{Error, ErrorKind, Result};

/// The files of the one store over a keyring, which tell what keys they are under.
pub(super) type StoreFiles = dyn LiveKeys + Send + Sync;

impl Keyring {
    /// Makes `files` those of the store over this keyring, as long as they are alive.
    ///
    /// # Errors
    /// [`KeyringBusy`](ErrorKind::KeyringBusy) if there are others.
    pub(crate) fn claim(&self, files: Weak<StoreFiles>) -> Result<()> {
        let mut claimed = self.inner.files.lock().unwrap_or_else(PoisonError::into_inner);
        if claimed.as_ref().is_some_and(|others| others.strong_count() > 0) {
            let what = "the keyring belongs to a store that is open already";
            return Err(Error::new(ErrorKind::KeyringBusy, what));
        }
        *claimed = Some(files);
        Ok(())
    }

    /// The files that claimed it.
    pub(super) fn claimant(&self) -> Option<Arc<StoreFiles>> {
        let claimed = self.inner.files.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.as_ref().and_then(Weak::upgrade)
    }

    /// # Errors
    /// [`ReadOnly`](ErrorKind::ReadOnly), [`Poisoned`](ErrorKind::Poisoned) in a forked child.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.inner.check_may_write()
    }

    /// The directory that the keyring is in, and those that are [registered](Self::registered).
    pub(crate) fn roots(&self) -> (Option<PathBuf>, Vec<Vec<u8>>) {
        (self.inner.storage.location().directory, self.registered())
    }

    /// The directories that the store keeps in the keyring's body.
    pub(crate) fn registered(&self) -> Vec<Vec<u8>> {
        self.inner.vault.load().body.directories.clone()
    }

    pub(crate) fn has_registered(&self) -> bool {
        !self.inner.vault.load().body.directories.is_empty()
    }

    /// Where the keyring is, in hexadecimal, as the markers of the store's directories have it.
    pub(crate) fn place(&self) -> String {
        crate::hex::encode(&self.inner.storage.location().id)
    }

    /// Commits what `edit` makes of the store's directories; false from it means that
    /// nothing changed.
    ///
    /// # Errors
    /// Those of `edit` and of a commit.
    pub(crate) fn edit_roots(
        &self,
        mut edit: impl FnMut(&mut Vec<Vec<u8>>) -> Result<bool>,
    ) -> Result<()> {
        self.inner.commit(&mut self.inner.writer(), |draft| edit(&mut draft.body.directories))
    }

    pub(crate) fn is_being_written(&self, header: &crate::Header) -> bool {
        self.inner.vault.handles.is_being_written(&header.prefix)
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.inner.clock.now_ns()
    }
}
