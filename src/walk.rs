//! The one walk over a directory and all below it.
//!
//! Symbolic links are not followed but told, and so is a directory that has a keyring of
//! its own: what is in there belongs to another store. One that cannot be listed ends a
//! walk, but for the one that every new ext file system has and only root may list.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::names::{KEYRING_FILE, is_keyring_name};
use crate::vfs::{DirEntry, EntryKind, Vfs};

/// What a walk meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Met {
    /// A regular file.
    File,
    /// A directory, whose entries come next.
    Directory,
    /// A directory with a keyring of its own. Nothing in it is met.
    NestedStore,
    /// A file system's [`lost+found`](PassedBy::lost_found) that this process may not list.
    LostFound,
    /// A symbolic link. What it leads to is not met.
    Link,
    /// A socket, device or pipe.
    Other,
    /// One of the keyring's own files or directories. Nothing in it is met.
    Own,
}

/// Directories that were met and not looked into. Field names are stable: they are the JSON
/// of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PassedBy {
    /// Those with a keyring of their own: other stores.
    #[serde(serialize_with = "crate::shown::paths")]
    pub nested_stores: Vec<PathBuf>,
    /// `lost+found` at the root of a file system that is mounted in the store, of root's and
    /// closed to all others: where a repair of the file system puts files without a name.
    /// Only such a one that this process may not list; it can have put nothing there.
    #[serde(serialize_with = "crate::shown::paths")]
    pub lost_found: Vec<PathBuf>,
}

impl PassedBy {
    pub(crate) fn append(&mut self, mut other: Self) {
        self.nested_stores.append(&mut other.nested_stores);
        self.lost_found.append(&mut other.lost_found);
    }

    /// In order, each once, without those that were looked at as one of the `roots`, below another
    /// one of them.
    pub(crate) fn settle(&mut self, roots: &[PathBuf]) {
        self.nested_stores.retain(|dir| !roots.contains(dir));
        for paths in [&mut self.nested_stores, &mut self.lost_found] {
            paths.sort_unstable();
            paths.dedup();
        }
    }
}

/// Tells `meet` of everything below `root`, in no order. What disappears meanwhile is left
/// out.
///
/// # Errors
/// [`Io`](ErrorKind::Io) if a directory cannot be listed; the first that `meet` returns.
pub fn walk(
    vfs: &dyn Vfs,
    root: &Path,
    meet: &mut dyn FnMut(Met, &DirEntry) -> Result<()>,
) -> Result<()> {
    each(vfs.list(root).map_err(|e| cannot_list(root, e))?, vfs, meet)
}

pub(crate) fn cannot_list(dir: &Path, source: io::Error) -> Error {
    Error::io("the directory cannot be listed", source).with_path(dir)
}

fn each(
    entries: Vec<DirEntry>,
    vfs: &dyn Vfs,
    meet: &mut dyn FnMut(Met, &DirEntry) -> Result<()>,
) -> Result<()> {
    for entry in entries {
        let Some(name) = entry.path.file_name() else { continue };
        let met = match entry.kind {
            _ if is_keyring_name(name.as_encoded_bytes()) => Met::Own,
            EntryKind::File => Met::File,
            EntryKind::Link => Met::Link,
            EntryKind::Other => Met::Other,
            EntryKind::Directory => {
                let below = match vfs.list(&entry.path) {
                    Ok(below) => below,
                    Err(error) if is_gone(&error) => continue,
                    Err(error) if is_denied(&error) && is_lost_found(vfs, &entry.path) => {
                        meet(Met::LostFound, &entry)?;
                        continue;
                    }
                    Err(error) => return Err(cannot_list(&entry.path, error)),
                };
                if below.iter().any(is_keyring) {
                    meet(Met::NestedStore, &entry)?;
                } else {
                    meet(Met::Directory, &entry)?;
                    each(below, vfs, meet)?;
                }
                continue;
            }
        };
        meet(met, &entry)?;
    }
    Ok(())
}

/// Whether an entry tells that its directory is a store's. A directory of that name would hide
/// the files beside it, and holds no keyring.
fn is_keyring(entry: &DirEntry) -> bool {
    entry.kind != EntryKind::Directory && entry.path.file_name() == Some(KEYRING_FILE.as_ref())
}

/// Which directory, of those from `dir` up to and without `root`, a walk over `root` passes by: one
/// with a keyring of its own, or of a name that is the library's. Canonical paths.
pub(crate) fn is_passed_by<'a>(
    vfs: &dyn Vfs,
    root: &Path,
    dir: &'a Path,
) -> Result<Option<&'a Path>> {
    for level in dir.ancestors().take_while(|level| *level != root) {
        let name = level.file_name().unwrap_or_default();
        if is_keyring_name(name.as_encoded_bytes()) {
            return Ok(Some(level));
        }
        match vfs.stat(&level.join(KEYRING_FILE)) {
            Ok(stat) if stat.kind != EntryKind::Directory => return Ok(Some(level)),
            Err(error) if !is_gone(&error) => {
                let what = "whether a keyring is there is unknown";
                return Err(Error::io(what, error).with_path(level));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// What was listed is removed, or replaced by what is no directory.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Whether this is the directory `lost+found` that `mkfs` makes at the root of a file system:
/// root's, and nobody else's to use in any way. By its name alone an engine's own directory
/// that somebody closed by mistake would be taken for one, and the data keys of its files for
/// unused.
pub fn is_lost_found(vfs: &dyn Vfs, dir: &Path) -> bool {
    const ROOT: u32 = 0;
    let at = |path: &Path| vfs.stat(path).ok();
    let is_roots_alone = || {
        at(dir).is_some_and(|stat| {
            stat.kind == EntryKind::Directory
                && stat.owner.is_some_and(|(user, _)| user == ROOT)
                && stat.mode & 0o077 == 0
        })
    };
    let is_in_root_of_file_system = || {
        let Some(Ok(mounted)) = dir.parent().map(|above| vfs.canonical(above)) else {
            return false;
        };
        match mounted.parent() {
            None => true,
            Some(above) => match (at(&mounted), at(above)) {
                (Some(mounted), Some(above)) => mounted.device != above.device,
                _ => false,
            },
        }
    };
    dir.file_name() == Some("lost+found".as_ref())
        && is_roots_alone()
        && is_in_root_of_file_system()
}

/// An error for whoever does not want to meet it.
pub(crate) fn nested(dir: &Path) -> Error {
    let what = "expected one store, found a store or a backup inside of it";
    Error::new(ErrorKind::InvalidArgument, what).with_path(dir)
}

#[cfg(test)]
mod tests;
