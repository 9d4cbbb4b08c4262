//! A directory of the library's own among an engine's files. What lies in a store may have
//! been put there by somebody else: a link that leads to another store's directory, or a
//! directory of another user's. Neither is entered, and what is removed is removed from the
//! directory that was looked at, whatever has its name by then.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::names::{NameKind, kind_of};
use crate::vfs::{DirEntry, EntryKind, FileStat, Vfs};

pub(super) struct OwnDir {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    stat: FileStat,
}

impl OwnDir {
    /// Makes sure that the directory is there, and is ours.
    pub(super) fn create(vfs: &Arc<dyn Vfs>, path: PathBuf) -> Result<Self> {
        let made = vfs.create_dir(&path, 0o700);
        made.map_err(|e| Error::io("the directory cannot be created", e).with_path(&path))?;
        match Self::find(vfs, path.clone())? {
            Some(found) => Ok(found),
            None => Err(replaced(&path)),
        }
    }

    /// The directory, if it is there.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) of `NotADirectory` for anything else, a symbolic link among
    /// them, and of `PermissionDenied` for the directory of somebody who is neither this
    /// user nor the owner of the directory around it.
    pub(super) fn find(vfs: &Arc<dyn Vfs>, path: PathBuf) -> Result<Option<Self>> {
        let fail = |e| Error::io("the directory cannot be used", e).with_path(&path);
        let stat = match vfs.stat(&path) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        check_kind(&path, stat.kind)?;
        let around = path.parent().unwrap_or(Path::new("."));
        let around = vfs.canonical(around).and_then(|around| vfs.stat(&around)).map_err(fail)?;
        if let (Some((user, _)), Some((owner, _))) = (stat.owner, around.owner)
            && ![owner, rustix::process::geteuid().as_raw()].contains(&user)
        {
            let kind = ErrorKind::Io(io::ErrorKind::PermissionDenied);
            let what = format!("expected a directory of this user's, found one of user {user}");
            return Err(Error::new(kind, what).with_path(&path));
        }
        Ok(Some(Self { vfs: vfs.clone(), path, stat }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if another directory, or a link, took its place.
    pub(super) fn check(&self) -> Result<()> {
        let stat = self.vfs.stat(&self.path);
        let stat = stat.map_err(|e| Error::io("the directory is lost", e).with_path(&self.path))?;
        let same = stat.kind == self.stat.kind
            && (stat.device, stat.inode) == (self.stat.device, self.stat.inode);
        if same { Ok(()) } else { Err(replaced(&self.path)) }
    }

    pub(super) fn list(&self) -> Result<Vec<DirEntry>> {
        let entries =
            self.vfs.list(&self.path).map_err(|e| crate::walk::cannot_list(&self.path, e))?;
        self.check()?;
        Ok(entries)
    }

    /// Itself, if it is as a restore leaves it that was killed before its first step.
    pub(super) fn untouched(self) -> Result<Self> {
        for entry in self.list()? {
            let name = entry.path.file_name().unwrap_or_default().as_encoded_bytes();
            if !matches!(kind_of(name), Some(NameKind::Lock | NameKind::Unfinished)) {
                let kind = ErrorKind::Io(io::ErrorKind::DirectoryNotEmpty);
                let what = "expected an unfinished restore, found no note of its backup";
                return Err(Error::new(kind, what).with_path(&self.path));
            }
        }
        Ok(self)
    }

    /// Removes a file from this directory itself.
    pub(super) fn remove(&self, name: &OsStr) -> io::Result<()> {
        self.vfs.remove_in(&self.path, &self.stat, name)
    }
}

/// Refuses what is no directory.
pub(super) fn check_kind(path: &Path, kind: EntryKind) -> Result<()> {
    if kind == EntryKind::Directory {
        return Ok(());
    }
    let what = match kind {
        EntryKind::Link => "expected a directory, found a symbolic link",
        _ => "expected a directory, found something else",
    };
    Err(Error::new(ErrorKind::Io(io::ErrorKind::NotADirectory), what).with_path(path))
}

fn replaced(path: &Path) -> Error {
    let kind = ErrorKind::Io(io::ErrorKind::NotADirectory);
    Error::new(kind, "another directory took the place of the library's").with_path(path)
}
