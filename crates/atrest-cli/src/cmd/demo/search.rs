//! Looking for known plaintext in every byte on disk.

use std::fs;
use std::path::Path;

use memchr::memmem;

use super::records::MARKERS;
use crate::failure::{Failure, Result};

/// What was searched and found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) hits: u64,
}

/// Searches every file below `dir`, the keyring's own among them.
pub(super) fn search(dir: &Path) -> Result<Found> {
    let mut found = Found::default();
    let mut directories = vec![dir.to_owned()];
    while let Some(dir) = directories.pop() {
        let fail = |source| Failure::io("the directory cannot be searched", &dir, source);
        for entry in fs::read_dir(&dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let bytes = fs::read(&path)
                .map_err(|source| Failure::io("the file cannot be searched", &path, source))?;
            found.files += 1;
            found.bytes += bytes.len() as u64;
            for marker in MARKERS {
                found.hits += memmem::find_iter(&bytes, marker).count() as u64;
            }
        }
    }
    Ok(found)
}
