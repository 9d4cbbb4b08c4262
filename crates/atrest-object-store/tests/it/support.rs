//! What several tests need.

use std::sync::Arc;

use atrest::keyring::{MemoryStorage, Options, PlaintextPolicy};
use atrest::kms::{self, Kms, generate_key_file};
use atrest::{HEADER_LEN, Integrity, Keyring};
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, Result};

use crate::served::EncryptedStore;

/// A keyring in memory, and the directory with its key file.
pub struct Keys {
    pub dir: tempfile::TempDir,
    pub storage: Arc<MemoryStorage>,
    pub keyring: Keyring,
    pub integrity: Integrity,
}

impl Keys {
    /// For confidential objects.
    pub fn new() -> Self {
        Self::with_policy(PlaintextPolicy::Require)
    }

    /// For authenticated objects.
    pub fn authenticated() -> Self {
        Self { integrity: Integrity::Authenticated, ..Self::new() }
    }

    /// For either.
    pub fn both() -> [Self; 2] {
        [Self::new(), Self::authenticated()]
    }

    pub fn with_policy(plaintext: PlaintextPolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        generate_key_file(dir.path().join("cmek.key")).unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let mut options = Options::default();
        options.settings.plaintext = plaintext;
        let keyring = Keyring::create(storage.clone(), key_file(&dir), options).unwrap();
        Self { dir, storage, keyring, integrity: Integrity::Confidential }
    }

    pub fn kms(&self) -> Arc<dyn Kms> {
        key_file(&self.dir)
    }

    pub fn store(&self, inner: impl ObjectStore) -> EncryptedStore {
        EncryptedStore::new(Arc::new(inner), self.keyring.clone()).with_integrity(self.integrity)
    }
}

pub fn key_file(dir: &tempfile::TempDir) -> Arc<dyn Kms> {
    kms::from_uri(&format!("file://{}/cmek.key", dir.path().display())).unwrap()
}

/// An encrypting store of confidential objects over one in memory, and that one.
pub fn in_memory() -> (Keys, EncryptedStore, Arc<InMemory>) {
    over_memory(Keys::new())
}

pub fn over_memory(keys: Keys) -> (Keys, EncryptedStore, Arc<InMemory>) {
    let raw = Arc::new(InMemory::new());
    let store = keys.store(raw.clone());
    (keys, store, raw)
}

/// The same with nothing remembered of what was written.
pub fn cold(keys: &Keys, raw: &Arc<InMemory>) -> EncryptedStore {
    keys.store(raw.clone())
}

/// Bytes that differ at every place.
pub fn pattern(len: usize, seed: u32) -> Bytes {
    (0..len as u32).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

pub async fn read(store: &dyn ObjectStore, path: &Path) -> Result<Bytes> {
    store.get(path).await?.bytes().await
}

pub async fn read_range(
    store: &dyn ObjectStore,
    path: &Path,
    range: impl Into<GetRange>,
) -> Result<Bytes> {
    let options = GetOptions::new().with_range(Some(range));
    store.get_opts(path, options).await?.bytes().await
}

/// The header of an object in the raw store.
pub async fn header(raw: &dyn ObjectStore, path: &Path) -> atrest::Header {
    atrest::Header::parse(&read(raw, path).await.unwrap()[..HEADER_LEN]).unwrap()
}
