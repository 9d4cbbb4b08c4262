//! Directories of a store that are not below its own.

use std::fs;
use std::path::{Path, PathBuf};

use atrest::names::{NameKind, kind_of};
use atrest::{Error, StoreId};

use super::Opened;
use crate::failure::{Failure, Result};

impl Opened {
    /// The other directories of the store in `dir` that are there, and what is wrong with those
    /// that are not.
    pub(crate) fn elsewhere(&self, dir: &Path) -> Result<(Vec<PathBuf>, Vec<Error>)> {
        let directories = self.store().directories();
        let absent = directories.absent();
        let is_absent = |other: &PathBuf| absent.iter().any(|(absent, _)| absent == other);
        let own = dir.canonicalize().map_err(|e| Failure::io("the directory is lost", dir, e))?;
        // Those below it are no walk's over it: they are not listed otherwise.
        let mut there = directories.list();
        there.retain(|other| *other != own && !is_absent(other));
        Ok((there, absent.into_iter().map(|(_, error)| error).collect()))
    }
}

/// Those of `directories` that are not below `dir`.
pub(crate) fn without(dir: &Path, mut directories: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let own = dir.canonicalize().map_err(|e| Failure::io("the directory is lost", dir, e))?;
    directories.retain(|other| !other.starts_with(&own));
    Ok(directories)
}

/// Whether a directory is what it was when a store registered it, as far as can be told without
/// the store's keyring: it has the store's marker.
pub(crate) fn is_there(dir: &Path, store_id: StoreId) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    let id = store_id.to_string();
    let mut names = entries.flatten().map(|entry| entry.file_name());
    names.any(|name| {
        let name = name.as_encoded_bytes();
        kind_of(name) == Some(NameKind::Marker) && name.ends_with(id.as_bytes())
    })
}
