//! What a store knows of its files, and is told when they come, go and move.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::directories::Directories;
use super::ledger::{FileRecord, Ledger, Owner, Place, Token};
use super::moves::Moves;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Keyring;
use crate::vfs::{EntryKind, Vfs};

/// Names directories in one way, and keeps what is known of the files in them. One for
/// each open keyring.
#[derive(Debug)]
pub(crate) struct Places {
    keyring: Keyring,
    vfs: Arc<dyn Vfs>,
    directories: Directories,
    /// Which files are under which key.
    ledger: Ledger,
    moves: Moves,
    /// Held by the one re-encryption under way.
    reencrypting: Mutex<()>,
    /// Canonical paths of directories, by their absolute ones.
    known: RwLock<HashMap<PathBuf, Arc<Directory>>>,
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
        Self {
            directories: Directories::new(keyring.clone()),
            keyring,
            vfs,
            ledger: Ledger::default(),
            moves: Moves::default(),
            reencrypting: Mutex::new(()),
            known: RwLock::default(),
        }
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    pub(crate) fn directories(&self) -> &Directories {
        &self.directories
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(crate) fn moves(&self) -> &Moves {
        &self.moves
    }

    /// Keeps other re-encryptions out.
    ///
    /// # Errors
    /// [`ReadOnly`](ErrorKind::ReadOnly), [`KeyringBusy`](ErrorKind::KeyringBusy).
    pub(super) fn reencrypting(&self) -> Result<MutexGuard<'_, ()>> {
        self.keyring.check_writable()?;
        self.reencrypting.try_lock().map_err(|_| {
            Error::new(ErrorKind::KeyringBusy, "another thread is re-encrypting the store")
        })
    }

    /// `None` where there is no such directory: then no file can be there.
    pub(crate) fn place(&self, path: &Path) -> Option<Place> {
        let dir = self.directory(path)?;
        Some(self.ledger.place(&dir, path.file_name()?.as_encoded_bytes()))
    }

    /// Makes sure that scans of the store come by `path`, before a file gets that name:
    /// the first file in a directory that the keyring does not know costs a commit.
    ///
    /// # Errors
    /// Those of [`Directories::register`].
    pub(crate) fn cover(&self, path: &Path) -> Result<()> {
        // A path without a directory: what follows fails for a better reason.
        let Some(dir) = self.lookup(path) else { return Ok(()) };
        let serial = self.directories.serial() + 1;
        if dir.covered.load(Ordering::Relaxed) != serial {
            self.directories.register(&dir.canonical)?;
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
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = known.get(parent) {
            return Some(directory.clone());
        }
        drop(known);
        let canonical: Arc<Path> = self.vfs.canonical(parent).ok()?.into();
        let directory = Arc::new(Directory { canonical, covered: AtomicU64::new(0) });
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        Some(known.entry(parent.into()).or_insert(directory).clone())
    }

    /// An empty file was created.
    pub(crate) fn created(&self, path: &Path) -> Option<Token> {
        let record = FileRecord { owner: Owner::Torn, bytes: 0, created_ns: 0 };
        self.place(path).map(|place| self.ledger.created(place, record))
    }

    /// The file of a token was finished.
    pub(crate) fn finished(&self, token: Option<Token>, record: FileRecord) {
        if let Some(token) = token {
            self.ledger.finished(token, record);
        }
    }

    pub(crate) fn removed(&self, path: &Path) {
        if let Some(place) = self.place(path) {
            self.ledger.removed(place);
        }
    }

    pub(crate) fn renamed(&self, from: &Path, to: &Path) {
        let (Some(old), Some(new)) = (self.place(from), self.place(to)) else { return };
        if self.ledger.renamed(old, new) {
            return;
        }
        if self.vfs.stat(to).is_ok_and(|stat| stat.kind == EntryKind::Directory) {
            // All places below have changed.
            self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
            self.ledger.lose_track();
        }
    }

    pub(crate) fn linked(&self, from: &Path, to: &Path) {
        if let (Some(from), Some(to)) = (self.place(from), self.place(to)) {
            self.ledger.linked(from, to);
        }
    }
}
