//! What the accounting is told about files that come, go and move.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Result;
use crate::keyring::Keyring;
use crate::ledger::{FileRecord, Owner, Place, Token};
use crate::vfs::{EntryKind, Vfs};

/// Names directories in one way and keeps the ledger.
#[derive(Debug)]
pub(crate) struct Places {
    keyring: Keyring,
    vfs: Arc<dyn Vfs>,
    /// Canonical paths of directories, by their absolute ones.
    directories: RwLock<HashMap<PathBuf, Arc<Directory>>>,
}

#[derive(Debug)]
struct Directory {
    canonical: Arc<Path>,
    /// The serial of the keyring's directories under which this one was known to be among
    /// them, plus 1; 0 if not.
    covered: AtomicU64,
}

impl Places {
    pub(super) fn new(keyring: Keyring, vfs: Arc<dyn Vfs>) -> Self {
        Self { keyring, vfs, directories: RwLock::default() }
    }

    /// `None` where there is no such directory: then no file can be there.
    pub(crate) fn place(&self, path: &Path) -> Option<Place> {
        let dir = self.directory(path)?;
        Some(self.keyring.ledger().place(&dir, path.file_name()?.as_encoded_bytes()))
    }

    /// Makes sure that scans of the store come by `path`, before a file gets that name:
    /// the first file in a directory that the keyring does not know costs a commit.
    ///
    /// # Errors
    /// Those of [`Keyring::register_directory`].
    pub(super) fn cover(&self, path: &Path) -> Result<()> {
        // A path without a directory: what follows fails for a better reason.
        let Some(dir) = self.lookup(path) else { return Ok(()) };
        let serial = self.keyring.directories_serial() + 1;
        if dir.covered.load(Ordering::Relaxed) != serial {
            self.keyring.register_directory(&dir.canonical)?;
            dir.covered.store(serial, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The canonical path of the directory that holds `path`.
    pub(crate) fn directory(&self, path: &Path) -> Option<Arc<Path>> {
        self.lookup(path).map(|dir| dir.canonical.clone())
    }

    fn lookup(&self, path: &Path) -> Option<Arc<Directory>> {
        let parent = match path.parent()? {
            parent if parent.as_os_str().is_empty() => Path::new("."),
            parent => parent,
        };
        let absolute;
        // Relative paths mean something else when the process changes its directory.
        let parent = if parent.is_absolute() {
            parent
        } else {
            absolute = std::path::absolute(parent).ok()?;
            &absolute
        };
        let known = self.directories.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = known.get(parent) {
            return Some(directory.clone());
        }
        drop(known);
        let canonical: Arc<Path> = self.vfs.canonical(parent).ok()?.into();
        let directory = Arc::new(Directory { canonical, covered: AtomicU64::new(0) });
        let mut known = self.directories.write().unwrap_or_else(PoisonError::into_inner);
        Some(known.entry(parent.into()).or_insert(directory).clone())
    }

    /// An empty file was created.
    pub(super) fn created(&self, path: &Path) -> Option<Token> {
        let record = FileRecord { owner: Owner::Torn, bytes: 0, created_ns: 0 };
        self.place(path).map(|place| self.keyring.ledger().created(place, record))
    }

    /// The file of a token was finished.
    pub(super) fn finished(&self, token: Option<Token>, record: FileRecord) {
        if let Some(token) = token {
            self.keyring.ledger().finished(token, record);
        }
    }

    pub(super) fn removed(&self, path: &Path) {
        if let Some(place) = self.place(path) {
            self.keyring.ledger().removed(place);
        }
    }

    pub(crate) fn renamed(&self, from: &Path, to: &Path) {
        let (Some(old), Some(new)) = (self.place(from), self.place(to)) else { return };
        if self.keyring.ledger().renamed(old, new) {
            return;
        }
        if self.vfs.stat(to).is_ok_and(|stat| stat.kind == EntryKind::Directory) {
            // All places below have changed.
            self.directories.write().unwrap_or_else(PoisonError::into_inner).clear();
            self.keyring.ledger().lose_track();
        }
    }

    pub(super) fn linked(&self, from: &Path, to: &Path) {
        if let (Some(from), Some(to)) = (self.place(from), self.place(to)) {
            self.keyring.ledger().linked(from, to);
        }
    }
}
