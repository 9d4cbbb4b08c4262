//! The store that is meant, where nothing is opened that would tell another.

use atrest::ErrorKind;
use atrest::keyring::KeyringInfo;

use super::StoreArgs;
use crate::failure::{Failure, Result};

impl StoreArgs {
    /// Whether another store would be refused.
    pub(crate) fn is_pinned(&self) -> bool {
        self.store_id.is_some() || self.anchor.is_some()
    }

    /// Refuses another store than the pinned one, and an older keyring, by what can be read
    /// without a key.
    pub(crate) fn check_pins(&self, info: &KeyringInfo) -> Result<()> {
        let pinned = [self.store_id, self.anchor.map(|anchor| anchor.store_id)];
        if let Some(other) = pinned.into_iter().flatten().find(|id| *id != info.store_id) {
            let what = format!("expected store {other}, found {}", info.store_id);
            return Err(self.at(atrest::Error::new(ErrorKind::IdentityMismatch, what)));
        }
        match self.anchor.map(|anchor| anchor.generation) {
            Some(seen) if info.generation < seen => {
                let found = info.generation;
                let what =
                    format!("expected keyring generation {seen} or a later one, found {found}");
                Err(self.at(atrest::Error::new(ErrorKind::KeyringRolledBack, what)))
            }
            _ => Ok(()),
        }
    }

    /// Refuses pins where a store is made: nobody knows its id before.
    pub(crate) fn refuse_pins(&self) -> Result<()> {
        if !self.is_pinned() {
            return Ok(());
        }
        let what =
            "expected no --store-id and no --anchor for a new store, which gets an id of its own";
        let failure = Failure::new(ErrorKind::InvalidArgument, what);
        Err(failure.advise("leave it out; `atrest status DIR` shows both when the store is made"))
    }
}
