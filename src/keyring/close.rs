//! The end of a keyring's use: the byte counts since the last commit are kept.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Inner, Keyring};
use crate::error::{ErrorKind, Result};

impl Keyring {
    /// Ends this handle and commits how much was encrypted since the last commit, so that
    /// the number in a data key's record is exact after it. One commit if anything was
    /// encrypted, none otherwise, and none of a keyring that was opened read-only or whose
    /// keys are withdrawn. Other handles go on.
    ///
    /// Dropping the last handle does the same for a keyring in a local directory, but
    /// cannot say that it failed; for one in an object store, where it would have to wait
    /// for the network, it does nothing. Files that are being written have to be finished
    /// or dropped before.
    ///
    /// # Errors
    /// Those of a commit: [`Io`](ErrorKind::Io), [`Poisoned`](ErrorKind::Poisoned),
    /// [`KeyringConflict`](ErrorKind::KeyringConflict). Only the counts are lost then.
    pub fn close(self) -> Result<()> {
        let kept = self.inner.keep_counts();
        // Another writer withdrew access for all.
        self.inner.deliver();
        kept
    }
}

impl Inner {
    fn keep_counts(&self) -> Result<()> {
        if !self.writable || self.snapshot.load().unlocked.is_none() {
            return Ok(());
        }
        match self.commit(&mut self.writer(), |draft| Ok(draft.counted)) {
            // Withdrawn meanwhile: without a key there is nothing to commit with.
            Err(error) if error.kind() == ErrorKind::CmekRevoked => Ok(()),
            other => other,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let local = self.storage.location().directory.is_some();
        if local && self.process == crate::process::id() && !std::thread::panicking() {
            // Best effort: whoever wants to know calls `close`. A panic of the storage must
            // not become one of the drop.
            drop(catch_unwind(AssertUnwindSafe(|| self.keep_counts())));
        }
    }
}
