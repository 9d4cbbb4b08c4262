//! Where a store is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::keyring::{DirectoryStorage, KeyringStorage};
use crate::vfs::{OsVfs, Vfs};

/// Where a store is: its keyring, and the file system of its files. A path names a
/// directory of the operating system that holds both; a [`DirectoryStorage`] may name
/// another file system, or a mirror.
pub struct StorePlace {
    pub(super) storage: Box<dyn KeyringStorage>,
    pub(super) vfs: Arc<dyn Vfs>,
}

impl StorePlace {
    /// A keyring in `storage`, files in `vfs`.
    pub fn new(storage: impl KeyringStorage + 'static, vfs: Arc<dyn Vfs>) -> Self {
        Self { storage: Box::new(storage), vfs }
    }
}

impl fmt::Debug for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorePlace").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl From<DirectoryStorage> for StorePlace {
    fn from(storage: DirectoryStorage) -> Self {
        let vfs = storage.file_system().clone();
        Self::new(storage, vfs)
    }
}

impl From<PathBuf> for StorePlace {
    fn from(dir: PathBuf) -> Self {
        Self::new(DirectoryStorage::new(dir), Arc::new(OsVfs))
    }
}

impl From<&PathBuf> for StorePlace {
    fn from(dir: &PathBuf) -> Self {
        dir.clone().into()
    }
}

impl From<&Path> for StorePlace {
    fn from(dir: &Path) -> Self {
        dir.to_owned().into()
    }
}

impl From<&str> for StorePlace {
    fn from(dir: &str) -> Self {
        PathBuf::from(dir).into()
    }
}
