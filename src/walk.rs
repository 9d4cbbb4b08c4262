//! The one walk over a directory and all below it.
//!
//! Symbolic links are not followed but told, and so is a directory that has a keyring of
//! its own: what is in there belongs to another store.

use std::io;
use std::path::Path;

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
    /// A symbolic link. What it leads to is not met.
    Link,
    /// A socket, device or pipe.
    Other,
    /// One of the keyring's own files or directories. Nothing in it is met.
    Own,
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
                    Err(error) => return Err(cannot_list(&entry.path, error)),
                };
                if below.iter().any(|entry| entry.path.file_name() == Some(KEYRING_FILE.as_ref())) {
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

/// What was listed is removed, or replaced by what is no directory.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// An error for whoever does not want to meet it.
pub(crate) fn nested(dir: &Path) -> Error {
    let what = "expected one store, found a store or a backup inside of it";
    Error::new(ErrorKind::InvalidArgument, what).with_path(dir)
}

#[cfg(test)]
mod tests;
