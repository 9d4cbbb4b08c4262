//! What a store knows of its files, and is told when they come, go and move.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::directories::{Device, Directories, Moving};
use super::ledger::{FileRecord, Ledger, Owner, Place, PlacesIn, Token};
use super::left::{Leaving, Left};
use super::moves::Moves;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Keyring;
use crate::sync::unless_held;
use crate::vfs::{EntryKind, Inode, Vfs, WriteFile, is_os};

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
    left: Left,
    /// Held by the one re-encryption under way.
    reencrypting: Mutex<()>,
    /// Directories that scans of the store come by, under their canonical paths: as strings,
    /// which are compared and hashed at once, and not part by part.
    covered: RwLock<HashMap<OsString, (Covered, PlacesIn)>>,
}

/// Of which directory it was found that scans come by, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Covered {
    /// And which of its mounts.
    device: Device,
    inode: u64,
    /// Of the keyring's directories.
    serial: u64,
}

/// Where a file is about to get a name.
#[derive(Default)]
pub(crate) struct Target {
    place: Option<Place>,
    /// Whether the path leads through a symbolic link, which may lead elsewhere by the time
    /// the file has its name: then its directory has to be covered again.
    pub(crate) linked: bool,
    /// Where the directory was when it was covered; `None` if it was just looked at.
    device: Option<Device>,
    /// Of the keyring's directories when it was covered.
    serial: u64,
}

impl Target {
    /// Whether the file that was created there is in a directory that is covered.
    pub(crate) fn holds(&self, places: &Places, file: &dyn WriteFile) -> bool {
        match self.device {
            Some(device) => {
                places.directories.serial() == self.serial && file.straight_place() == Some(device)
            }
            None => self.stays(places),
        }
    }

    /// Whether the file that has its name now is in the directory that was covered, and that one
    /// still is: it may have been on the list for a rename that failed meanwhile.
    pub(crate) fn stays(&self, places: &Places) -> bool {
        !self.linked && places.directories.serial() == self.serial
    }
}

impl Places {
    pub(super) fn new(keyring: Keyring, vfs: Arc<dyn Vfs>) -> Self {
        Self {
            directories: Directories::new(keyring.clone(), vfs.clone()),
            keyring,
            vfs,
            ledger: Ledger::default(),
            moves: Moves::default(),
            left: Left::default(),
            reencrypting: Mutex::new(()),
            covered: RwLock::default(),
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

    pub(super) fn left(&self) -> &Left {
        &self.left
    }

    /// Asked before a file loses the name `path`; [`unlinked`](Self::unlinked) is told the
    /// answer when it has lost it.
    pub(crate) fn leaving(&self, path: &Path) -> Option<Leaving> {
        let names = || self.place(path).map_or(0, |place| self.ledger.names(place));
        let around = || self.around(path);
        self.left.look(&*self.vfs, path, self.keyring.store_id(), names, around)
    }

    /// Whether the file at `path` has more than these names by running backups alone.
    pub(super) fn is_backups(&self, path: &Path, inode: Inode, names: u64) -> bool {
        self.left.is_backups(&*self.vfs, inode, names, &self.around(path))
    }

    /// The directories above `path` that are the store's.
    fn around(&self, path: &Path) -> Vec<PathBuf> {
        let (roots, dir) = (self.directories.list(), self.directory(path));
        let above = dir.iter().flat_map(|dir| dir.ancestors());
        let own = above.filter(|above| roots.iter().any(|root| above.starts_with(root)));
        own.map(Path::to_owned).collect()
    }

    pub(crate) fn unlinked(&self, leaving: Option<Leaving>) {
        if let Some(leaving) = leaving {
            self.left.note(leaving);
        }
    }

    /// Keeps other re-encryptions out.
    ///
    /// # Errors
    /// [`ReadOnly`](ErrorKind::ReadOnly), [`KeyringBusy`](ErrorKind::KeyringBusy).
    pub(super) fn reencrypting(&self) -> Result<MutexGuard<'_, ()>> {
        self.keyring.check_writable()?;
        unless_held(self.reencrypting.try_lock()).ok_or_else(|| {
            Error::new(ErrorKind::KeyringBusy, "another thread is re-encrypting the store")
        })
    }

    /// `None` where there is no such directory: then no file can be there.
    pub(crate) fn place(&self, path: &Path) -> Option<Place> {
        let dir = self.directory(path)?;
        Some(self.ledger.directory(&dir).place(path.file_name()?.as_encoded_bytes()))
    }

    /// Makes sure that scans of the store come by `path`, before a file gets that name:
    /// the first file in a directory that the keyring does not know costs a commit.
    ///
    /// # Errors
    /// Those of [`Directories::register`].
    pub(crate) fn cover(&self, path: &Path) -> Result<Target> {
        // A path without a directory: what follows fails for a better reason, or one came.
        let again = Target { linked: true, ..Target::default() };
        let Some(dir) = self.directory(path) else { return Ok(again) };
        let names = self.ledger.directory(&dir);
        let place = path.file_name().map(|name| names.place(name.as_encoded_bytes()));
        let serial = self.directories.serial();
        let target = Target { place, linked: path.parent() != Some(&*dir), device: None, serial };
        let Ok(stat) = self.vfs.stat(&dir) else { return Ok(again) };
        let device = (stat.device, self.directories.mount(&dir));
        let now = Covered { device, inode: stat.inode, serial };
        let covered = self.covered.read().unwrap_or_else(PoisonError::into_inner);
        if covered.get(dir.as_os_str()).is_some_and(|(known, _)| *known == now) {
            return Ok(target);
        }
        drop(covered);
        self.directories.cover(&dir, now.device)?;
        self.covered
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(dir.into(), (now, names));
        Ok(target)
    }

    /// Where a file is about to be created, without a question to the system, if its directory
    /// was covered before: the file tells afterwards [whether](Target::holds) that still holds.
    /// Other file systems are asked first: their links need not be the system's.
    pub(crate) fn known(&self, vfs: &dyn Vfs, path: &Path) -> Option<Target> {
        if !is_os(vfs) || !is_os(&*self.vfs) {
            return None;
        }
        let (dir, name) = (path.parent()?, path.file_name()?);
        let covered = self.covered.read().unwrap_or_else(PoisonError::into_inner);
        let (known, names) = covered.get(dir.as_os_str())?;
        let place = Some(names.place(name.as_encoded_bytes()));
        let (device, serial) = (Some(known.device), known.serial);
        let target = Target { place, linked: false, device, serial };
        (serial == self.directories.serial()).then_some(target)
    }

    /// The canonical path of the directory that holds `path`, asked each time: a symbolic
    /// link may lead elsewhere by now.
    pub(crate) fn directory(&self, path: &Path) -> Option<PathBuf> {
        let parent = match path.parent()? {
            parent if parent.as_os_str().is_empty() => Path::new("."),
            parent => parent,
        };
        self.vfs.canonical(parent).ok()
    }

    /// An empty file was created.
    pub(crate) fn created(&self, target: &Target) -> Option<Token> {
        let record = FileRecord { owner: Owner::Torn, bytes: 0, created_ns: 0 };
        target.place.map(|place| self.ledger.created(place, record))
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
            self.ledger.lose_track();
        }
    }

    /// Asked before what is at `from` gets the name `to`, which may be a registered directory,
    /// or hold one.
    ///
    /// # Errors
    /// Those of [`Directories::register`].
    pub(crate) fn moving(&self, from: &Path, to: &Path) -> Result<Moving> {
        let is_file = || self.vfs.stat(from).is_ok_and(|it| it.kind != EntryKind::Directory);
        if !self.keyring.has_registered() || is_file() {
            return Ok(Moving::default());
        }
        let name = |path: &Path| Some(self.directory(path)?.join(path.file_name()?));
        let (Some(from), Some(to)) = (name(from), name(to)) else { return Ok(Moving::default()) };
        self.directories.moving(&from, &to)
    }

    pub(crate) fn linked(&self, from: &Path, to: &Path) {
        if let (Some(from), Some(to)) = (self.place(from), self.place(to)) {
            self.ledger.linked(from, to);
        }
    }
}
