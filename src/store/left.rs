//! Files that the library took a name away from, which may have others outside of the store.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::{DataKeyId, StoreId};
use crate::scan::look;
use crate::vfs::{EntryKind, Inode, Vfs};

/// Files that lost a name through the library while they had others which nobody knew.
#[derive(Debug, Default)]
pub(crate) struct Left(Mutex<HashMap<Inode, DataKeyId>>);

/// A file that is about to lose a name.
pub(crate) struct Leaving {
    inode: Inode,
    /// `None` if it has no other name.
    key: Option<DataKeyId>,
}

impl Left {
    /// What will be left of the file at `path` without that name. `names` are those that
    /// are known.
    pub(super) fn look(
        vfs: &dyn Vfs,
        path: &Path,
        store_id: StoreId,
        names: impl FnOnce() -> u64,
    ) -> Option<Leaving> {
        let stat = vfs.stat(path).ok()?;
        if stat.kind != EntryKind::File || stat.inode == 0 {
            return None;
        }
        let inode = (stat.device, stat.inode);
        if stat.links <= 1 {
            return Some(Leaving { inode, key: None });
        }
        if names() >= stat.links {
            return None;
        }
        let (_, what) = look(vfs, path).ok()??;
        let header = what.header().filter(|header| header.store_id == store_id)?;
        Some(Leaving { inode, key: Some(header.data_key_id) })
    }

    /// It has lost it.
    pub(super) fn note(&self, leaving: Leaving) {
        let mut left = self.files();
        match leaving.key {
            Some(key) => left.insert(leaving.inode, key),
            None => left.remove(&leaving.inode),
        };
    }

    pub(super) fn list(&self) -> HashMap<Inode, DataKeyId> {
        self.files().clone()
    }

    /// These are found again in the store, or held.
    pub(super) fn settle(&self, settled: &HashMap<Inode, DataKeyId>) {
        self.files().retain(|inode, key| settled.get(inode) != Some(key));
    }

    fn files(&self) -> MutexGuard<'_, HashMap<Inode, DataKeyId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
