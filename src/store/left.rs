//! Files that the library took a name away from, which may have others outside of the store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::{DataKeyId, StoreId};
use crate::names::{NameKind, kind_of, staged_name};
use crate::scan::look;
use crate::vfs::{DirEntry, EntryKind, FileStat, Inode, Vfs};

/// Files that lost a name through the library while they had others which nobody knew.
#[derive(Debug, Default)]
pub(crate) struct Left {
    files: Mutex<HashMap<Inode, DataKeyId>>,
    /// Directories of the links of running backups, as far as they were met.
    stagings: Mutex<Vec<PathBuf>>,
}

/// A file that is about to lose a name.
pub(crate) struct Leaving {
    inode: Inode,
    /// `None` if it has no other name.
    key: Option<DataKeyId>,
}

impl Left {
    /// What will be left of the file at `path` without that name. `names` are those that
    /// are known, `around` the directories in which a backup may have made one for its links.
    ///
    /// A link that a running backup keeps, in this process or another, goes when the backup ends,
    /// and is met by every scan until then: it is no name elsewhere. It is found by the file's
    /// inode, with two questions to the system for each backup, however many links that has.
    /// `around` is listed when a backup is met first, and else once for each key, for the first
    /// file under it that does have a name elsewhere.
    pub(super) fn look(
        &self,
        vfs: &dyn Vfs,
        path: &Path,
        store_id: StoreId,
        names: impl FnOnce() -> u64,
        around: impl FnOnce() -> Vec<PathBuf>,
    ) -> Option<Leaving> {
        let stat = vfs.stat(path).ok()?;
        if stat.kind != EntryKind::File || stat.inode == 0 {
            return None;
        }
        let inode = (stat.device, stat.inode);
        let (mut links, mut key) = (stat.links, None);
        // One is that at `path`.
        let names = if links > 1 { names().max(1) } else { 1 };
        // A backup may let go of it just now.
        let again = || vfs.stat(path).map_or(stat.links, |stat| stat.links);
        if links > names {
            links = links_without(vfs, &self.stagings(), inode).unwrap_or_else(again);
        }
        if links > names {
            let (_, what) = look(vfs, path).ok()??;
            let header = what.header().filter(|header| header.store_id == store_id)?;
            key = Some(header.data_key_id);
            if !self.files().values().any(|known| Some(*known) == key) {
                let stagings = self.find_stagings(vfs, &around());
                links = links_without(vfs, &stagings, inode).unwrap_or_else(again);
            }
        }
        match links {
            0..=1 => Some(Leaving { inode, key: None }),
            _ if links <= names => None,
            _ => Some(Leaving { inode, key }),
        }
    }

    /// Whether a file that has more than these names has them by running backups alone, which may
    /// have made their directories in those `around` it.
    pub(super) fn is_backups(
        &self,
        vfs: &dyn Vfs,
        inode: Inode,
        names: u64,
        around: &[PathBuf],
    ) -> bool {
        let stagings = self.find_stagings(vfs, around);
        links_without(vfs, &stagings, inode).is_some_and(|links| links <= names)
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
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stagings(&self) -> Vec<PathBuf> {
        self.stagings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks for the directories of links anew; forgets those that are gone.
    fn find_stagings(&self, vfs: &dyn Vfs, around: &[PathBuf]) -> Vec<PathBuf> {
        let mut found = self.stagings();
        found.retain(|dir| vfs.stat(dir).is_ok());
        let listed = around.iter().filter_map(|dir| vfs.list(dir).ok()).flatten();
        found.extend(listed.filter(is_staging).map(|entry| entry.path));
        found.sort_unstable();
        found.dedup();
        self.stagings.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&found);
        found
    }
}

fn is_staging(entry: &DirEntry) -> bool {
    let name = entry.path.file_name().unwrap_or_default().as_encoded_bytes();
    entry.kind == EntryKind::Directory && kind_of(name) == Some(NameKind::Staging)
}

/// The links that a file has besides those that backups keep; `None` if none keeps it.
fn links_without(vfs: &dyn Vfs, stagings: &[PathBuf], inode: Inode) -> Option<u64> {
    let kept = |dir: &PathBuf| -> Option<FileStat> {
        let stat = vfs.stat(&dir.join(staged_name(inode.1))).ok()?;
        ((stat.device, stat.inode) == inode).then_some(stat)
    };
    // Links come and go. Those that are there before the number is taken and after it are in it.
    let before: Vec<&PathBuf> = stagings.iter().filter(|dir| kept(dir).is_some()).collect();
    let after: Vec<FileStat> = before.into_iter().filter_map(kept).collect();
    Some(after.first()?.links.saturating_sub(after.len() as u64))
}
