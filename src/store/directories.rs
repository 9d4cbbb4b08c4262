//! The directories that hold a store's files: where to look before a data key is
//! destroyed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Keyring;

/// The directories that hold a store's files.
#[derive(Debug)]
pub struct Directories {
    keyring: Keyring,
    /// Changes when a directory is taken off the list.
    serial: AtomicU64,
}

impl Directories {
    pub(super) fn new(keyring: Keyring) -> Self {
        Self { keyring, serial: AtomicU64::new(0) }
    }

    /// The directories that hold the store's files, each with all below it: the keyring's
    /// own, and those registered. None contains another.
    pub fn list(&self) -> Vec<PathBuf> {
        let (own, registered) = self.keyring.roots();
        let registered = registered.iter().map(|path| path_of(path).to_owned());
        let mut all: Vec<_> = own.into_iter().chain(registered).collect();
        all.sort_unstable();
        // Sorted, a directory stands right before all below it.
        all.dedup_by(|below, above| below.starts_with(above));
        all
    }

    /// Adds a directory of the store's files, for good. Does nothing if it is below one
    /// that is known. `EncryptedFs` does this by itself when a file is first created in
    /// one; a store with many may name their common parent first.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a relative path; those of
    /// [`Keys::rotate`](crate::keyring::Keys::rotate).
    pub fn register(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        if !dir.is_absolute() {
            let what = "expected the absolute path of a directory";
            return Err(Error::new(ErrorKind::InvalidArgument, what).with_path(dir));
        }
        if self.list().iter().any(|known| dir.starts_with(known)) {
            return Ok(());
        }
        self.keyring.edit_roots(|directories| {
            let bytes = dir.as_os_str().as_bytes().to_vec();
            if directories.contains(&bytes) {
                return Ok(false);
            }
            directories.retain(|other| !path_of(other).starts_with(dir));
            directories.push(bytes);
            Ok(true)
        })
    }

    /// Takes a directory off the list. It **MUST** hold no file of the store: data keys
    /// may be destroyed that its files need.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if it is not on the list; those of
    /// [`Keys::rotate`](crate::keyring::Keys::rotate).
    pub fn unregister(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let result = self.keyring.edit_roots(|directories| {
            let before = directories.len();
            directories.retain(|other| path_of(other) != dir);
            if directories.len() == before {
                let what = "the directory is not registered";
                return Err(Error::new(ErrorKind::InvalidArgument, what).with_path(dir));
            }
            Ok(true)
        });
        self.serial.fetch_add(1, Ordering::Release);
        result
    }

    /// What was true of the directories stays true while this number does.
    pub(super) fn serial(&self) -> u64 {
        self.serial.load(Ordering::Acquire)
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
