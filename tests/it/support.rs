//! What several tests need.

use std::path::Path;
use std::sync::Arc;

use atrest::keyring::{DirectoryStorage, Options};
use atrest::kms::{self, Kms, generate_key_file};
use atrest::{EncryptedFs, Keyring};

/// A fresh directory with a key file beside the store.
pub struct TestStore {
    pub dir: tempfile::TempDir,
}

impl TestStore {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        generate_key_file(dir.path().join("cmek.key")).unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        Self { dir }
    }

    pub fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub fn kms(&self) -> Arc<dyn Kms> {
        key_file(&self.dir.path().join("cmek.key"))
    }

    pub fn storage(&self) -> DirectoryStorage {
        DirectoryStorage::new(self.data())
    }

    pub fn keyring(&self) -> Keyring {
        Keyring::open_or_create(self.storage(), self.kms(), Options::default()).unwrap()
    }

    pub fn fs(&self) -> EncryptedFs {
        EncryptedFs::new(self.keyring())
    }
}

pub fn key_file(path: &Path) -> Arc<dyn Kms> {
    kms::from_uri(&format!("file://{}", path.display())).unwrap()
}
