//! How a new file takes an old one's place, whatever somebody does meanwhile who works
//! past the library: nothing is removed that is not proven to be one of the two.

use std::io;
use std::path::{Path, PathBuf};

use super::Skipped;
use crate::error::{Error, ErrorKind, Result};
use crate::names::exchange_name;
use crate::vfs::{FileStat, Rename, Vfs};

/// A file and its successor.
pub(super) struct Pair<'a> {
    vfs: &'a dyn Vfs,
    path: &'a Path,
    old: &'a FileStat,
    new: FileStat,
    /// Where the successor waits, and then the old file. It names both.
    aside: PathBuf,
}

impl<'a> Pair<'a> {
    pub(super) fn new(vfs: &'a dyn Vfs, path: &'a Path, old: &'a FileStat, new: FileStat) -> Self {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let aside = path.with_file_name(exchange_name(name, old, &new));
        Self { vfs, path, old, new, aside }
    }

    pub(super) fn new_file(&self) -> FileStat {
        self.new
    }

    pub(super) fn aside(&self) -> &Path {
        &self.aside
    }

    /// Exchanges the two. `excluded` says that nobody else can touch the old file now, so
    /// that a plain rename does, where there is no exchange.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io); [`ForeignFile`](ErrorKind::ForeignFile) if a third file came
    /// in between, which is left aside.
    pub(super) fn exchange(
        &self,
        successor: &Path,
        excluded: bool,
    ) -> Result<std::result::Result<(), Skipped>> {
        // From here to the end what is aside may be anybody's: its name has to tell.
        self.vfs.rename(successor, &self.aside, Rename::Replace).map_err(|e| self.fail(e))?;
        self.exchange_aside(excluded)
    }

    /// The same for another name of the old file, which becomes one of the new file that has
    /// the name `successor` for good.
    ///
    /// # Errors
    /// Those of [`exchange`](Self::exchange).
    pub(super) fn relink(
        &self,
        successor: &Path,
        excluded: bool,
    ) -> Result<std::result::Result<(), Skipped>> {
        match self.vfs.stat(self.path) {
            Ok(now) if same_content(self.old, &now) => {}
            Ok(_) => return Ok(Err(Skipped::Changed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err(Skipped::Gone));
            }
            Err(error) => return Err(self.fail(error)),
        }
        self.vfs.hard_link(successor, &self.aside).map_err(|e| self.fail(e))?;
        let linked = self.vfs.stat(&self.aside);
        if !linked.as_ref().is_ok_and(|linked| same_content(&self.new, linked)) {
            // Whoever works past the library replaced the successor just before. That file keeps
            // its own name.
            self.vfs.remove(&self.aside).map_err(|e| self.fail(e))?;
            return linked.map(|_| Err(Skipped::Changed)).map_err(|e| self.fail(e));
        }
        self.exchange_aside(excluded)
    }

    fn exchange_aside(&self, excluded: bool) -> Result<std::result::Result<(), Skipped>> {
        let why = match self.vfs.rename(&self.aside, self.path, Rename::Exchange) {
            Ok(()) => return self.settle(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err(Skipped::Gone)),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                if excluded {
                    let renamed = self.vfs.rename(&self.aside, self.path, Rename::Replace);
                    return renamed.map(Ok).map_err(|e| self.fail(e));
                }
                Ok(Err(Skipped::NoExchange))
            }
            Err(error) => Err(self.fail(error)),
        };
        // The first error is the one to tell; what stays the next run looks at.
        let _ = self.remove_new();
        why
    }

    /// The successor is in place. Whoever works past the library may have replaced the old
    /// file just before.
    fn settle(&self) -> Result<std::result::Result<(), Skipped>> {
        let aside = self.vfs.stat(&self.aside);
        if aside.as_ref().is_ok_and(|aside| same_content(self.old, aside)) {
            return Ok(Ok(()));
        }
        let exchange = || {
            let exchanged = self.vfs.rename(&self.aside, self.path, Rename::Exchange);
            exchanged.map_err(|e| self.fail(e))
        };
        exchange()?;
        aside.map_err(|e| self.fail(e))?;
        if !self.remove_new()? {
            // The successor was replaced too: that file is the newest.
            exchange()?;
            let what = "the file was replaced twice while it was re-encrypted";
            return Err(Error::new(ErrorKind::ForeignFile, what).with_path(&self.aside));
        }
        Ok(Err(Skipped::Changed))
    }

    /// Removes what is aside if it is the successor; false if it is another file.
    fn remove_new(&self) -> Result<bool> {
        let aside = self.vfs.stat(&self.aside).map_err(|e| self.fail(e))?;
        if !same_content(&self.new, &aside) {
            return Ok(false);
        }
        self.vfs.remove(&self.aside).map(|()| true).map_err(|e| self.fail(e))
    }

    /// Removes the old file, after an exchange that succeeded.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    pub(super) fn remove_old(&self) -> Result<()> {
        match self.vfs.remove(&self.aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.fail(error)),
            _ => Ok(()),
        }
    }

    fn fail(&self, source: io::Error) -> Error {
        Error::io("the new file cannot take the old one's place", source).with_path(self.path)
    }
}

/// Whether two looks saw one content of one file. Its mode and the number of its names may
/// change.
pub(super) fn same_content(one: &FileStat, other: &FileStat) -> bool {
    let content =
        |stat: &FileStat| (stat.kind, stat.device, stat.inode, stat.len, stat.modified_ns);
    content(one) == content(other)
}
