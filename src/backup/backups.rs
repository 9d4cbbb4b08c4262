//! What a store offers about its backups.

use std::path::Path;

use super::{BackupReport, Chain, Snapshot};
use crate::error::Result;
use crate::progress::OnProgress;
use crate::store::Store;

impl Store {
    /// Copies of the store, made while it is in use.
    pub fn backups(&self) -> Backups<'_> {
        Backups(self)
    }
}

/// Copies of an open store.
#[derive(Clone, Copy, Debug)]
pub struct Backups<'a>(&'a Store);

impl Backups<'_> {
    /// The files below `root`, the store's directory, as they are now.
    ///
    /// # Errors
    /// Those of [`Snapshot::take`].
    pub fn snapshot(&self, root: impl AsRef<Path>) -> Result<Snapshot> {
        Snapshot::take(self.0, root)
    }

    /// Adds a backup of the files below `root`, the store's directory, to a chain.
    ///
    /// # Errors
    /// Those of [`Snapshot::take`] and [`Chain::back_up`].
    pub fn add(
        &self,
        chain: &Chain,
        root: impl AsRef<Path>,
        on: OnProgress<'_>,
    ) -> Result<BackupReport> {
        chain.back_up(self.0, &self.snapshot(root)?, on)
    }
}
