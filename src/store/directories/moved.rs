//! Registered directories that get other names, or go.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{Directories, bytes_of, foreign, path_of};
use crate::error::{Error, ErrorKind, Result};
use crate::vfs::EntryKind;

/// Registered directories that get other names.
#[derive(Default)]
pub(crate) struct Moving {
    from: PathBuf,
    to: PathBuf,
    old: Vec<PathBuf>,
    /// Those of the new names that no known directory holds.
    new: Vec<PathBuf>,
    /// Those that are below a known directory, and need no place on the list.
    covered: Vec<PathBuf>,
    /// Whether nothing else that moves is the store's.
    pub(crate) alone: bool,
}

impl Directories {
    /// Removes a directory that holds nothing but the store's marker, and takes it off the list
    /// first: what a crash leaves is empty, and removed by another call.
    ///
    /// # Errors
    /// Those of [`EncryptedFs::remove_dir`](crate::EncryptedFs::remove_dir).
    pub(crate) fn remove(&self, dir: &Path) -> Result<()> {
        let fail = |e| Error::io("the directory cannot be removed", e).with_path(dir);
        let stat = self.vfs.stat(dir).map_err(fail)?;
        if stat.kind != EntryKind::Directory {
            return Err(fail(io::ErrorKind::NotADirectory.into()));
        }
        let dir = self.canonical(dir)?;
        let entries = self.vfs.list(&dir).map_err(fail)?;
        if !entries.iter().all(|entry| self.is_marker(&entry.path)) {
            return Err(fail(io::ErrorKind::DirectoryNotEmpty.into()));
        }
        let registered = self.is_registered(&dir);
        // Where none is mounted a registered directory looks empty.
        let own = if registered { Some(self.check(&dir)?) } else { self.is_own(&dir)? };
        if own == Some(false) {
            return Err(foreign(&dir));
        }
        if registered {
            self.unregister(&dir)?;
        }
        for entry in entries {
            match self.vfs.remove(&entry.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
                _ => {}
            }
        }
        let removed = self.vfs.remove(&dir).map_err(fail);
        if removed.is_err() && registered {
            // Somebody put a file there meanwhile, or it is where a device is mounted.
            self.register(&dir)?;
        }
        removed
    }

    /// Before what is at `from` gets the name `to`, both in canonical directories: puts the
    /// names that registered directories at and below `from` will have on the list, beside those
    /// they have, so that whenever a crash comes none is unknown.
    ///
    /// # Errors
    /// Those of [`register`](Self::register), and of [`absent`](Self::absent).
    pub(in crate::store) fn moving(&self, from: &Path, to: &Path) -> Result<Moving> {
        let mut moving = Moving { from: from.into(), to: to.into(), ..Moving::default() };
        if from == to {
            return Ok(Moving { alone: true, ..moving });
        }
        for known in self.keyring.registered() {
            let known = path_of(&known);
            if known.starts_with(to) && self.vfs.stat(known).is_ok() {
                // An empty place where another one is mounted at times is not to be replaced.
                self.check(known)?;
            }
            let Ok(below) = known.strip_prefix(from) else { continue };
            if !self.check(known)? {
                return Err(foreign(known));
            }
            // An empty path that is joined leaves a slash.
            let new: PathBuf = to.components().chain(below.components()).collect();
            if !self.covers(&new, self.device(known)?)? {
                moving.new.push(new);
            } else if !self.is_registered(&new) {
                moving.covered.push(new);
            }
            moving.old.push(known.into());
        }
        if let (false, Some(above)) = (moving.old.is_empty(), from.parent()) {
            moving.alone = !self.covers(above, self.device(above)?)?;
            if self.vfs.list(to).is_ok_and(|entries| !entries.is_empty()) {
                let fail = io::ErrorKind::DirectoryNotEmpty.into();
                return Err(Error::io("the directory cannot be replaced", fail).with_path(to));
            }
        }
        if !moving.new.is_empty() {
            self.keyring.edit_roots(|directories| {
                directories.extend(moving.new.iter().map(|dir| bytes_of(dir)));
                Ok(true)
            })?;
        }
        Ok(moving)
    }

    /// Takes the old names off the list, or if it was not `done` the new ones.
    ///
    /// # Errors
    /// Those of [`register`](Self::register).
    pub(crate) fn moved(&self, moving: &Moving, done: bool) -> Result<()> {
        if done && !moving.old.is_empty() {
            for dir in [&moving.from, &moving.to].into_iter().filter_map(|path| path.parent()) {
                let synced = self.vfs.sync_dir(dir);
                synced
                    .map_err(|e| Error::io("the directory cannot be synced", e).with_path(dir))?;
            }
        }
        let gone = if done { &moving.old } else { &moving.new };
        if gone.is_empty() {
            return Ok(());
        }
        let covered: &[PathBuf] = if done { &moving.covered } else { &[] };
        // What came along may be what walks pass by.
        let (covered, hidden): (Vec<_>, Vec<_>) = covered.iter().partition(|dir| {
            let device = self.device(dir);
            matches!(device.and_then(|device| self.covers(dir, device)), Ok(true))
        });
        self.keyring.edit_roots(|directories| {
            directories.retain(|dir| !gone.iter().any(|gone| gone == path_of(dir)));
            directories.extend(hidden.iter().map(|dir| bytes_of(dir)));
            Ok(true)
        })?;
        self.serial.fetch_add(1, Ordering::Release);
        covered.iter().for_each(|dir| self.remove_marker(dir));
        // Others may have begun to use one of these names while it was on the list.
        for dir in gone {
            match self.device(dir) {
                Err(error) if error.kind() == ErrorKind::Io(io::ErrorKind::NotFound) => {}
                Ok(device) if self.has_entries(dir)? => self.cover(dir, device)?,
                other => drop(other?),
            }
        }
        Ok(())
    }

    fn has_entries(&self, dir: &Path) -> Result<bool> {
        let fail = |e| Error::io("the directory cannot be listed", e).with_path(dir);
        Ok(!self.vfs.list(dir).map_err(fail)?.is_empty())
    }

    /// Whether a path is that of the store's marker, or of one that is being written.
    fn is_marker(&self, path: &Path) -> bool {
        let (marker, new) = self.marker_names();
        path.file_name().is_some_and(|name| [&*marker, &*new].iter().any(|ours| name == *ours))
    }
}
