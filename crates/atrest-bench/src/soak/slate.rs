//! SlateDB on encrypted objects in a directory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atrest::Store;
use atrest::keyring::{DirectoryStorage, Keyring};
use atrest::kms::Kms;
use atrest_object_store::{EncryptedStore, slatedb_file_kind};
use atrest_soak::{Any, Engine, Journal, options};
use object_store::local::LocalFileSystem;
use slatedb::Db;
use slatedb::config::{GarbageCollectorDirectoryOptions, GarbageCollectorOptions, Settings};
use tokio::runtime::Runtime;

/// For anything that SlateDB does; it retries by itself meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Slate {
    runtime: Runtime,
    store: Store,
    dir: PathBuf,
    /// None after an error that it does not recover from: opened again by the next operation.
    db: Mutex<Option<Arc<Db>>>,
}

impl Slate {
    pub(super) fn open(dir: &Path, kms: Arc<dyn Kms>) -> Any<Self> {
        let keyring = Keyring::open_or_create(DirectoryStorage::new(dir), kms, options())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(Self { runtime, store: Store::over(keyring)?, dir: dir.into(), db: Mutex::default() })
    }

    fn db(&self) -> Any<Arc<Db>> {
        let mut slot = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = &*slot {
            return Ok(db.clone());
        }
        // Else each attempt would wait for all of its patience.
        self.store.keys().active_id()?;
        let raw = LocalFileSystem::new_with_prefix(&self.dir)?.with_fsync(true);
        let objects = EncryptedStore::new(Arc::new(raw), self.store.keyring().clone());
        let objects = Arc::new(objects.with_file_kind(slatedb_file_kind));
        let soon = |min_age| {
            let interval = Some(Duration::from_secs(5));
            Some(GarbageCollectorDirectoryOptions { interval, min_age, dry_run: false })
        };
        let collector = GarbageCollectorOptions {
            manifest_options: soon(Duration::from_secs(60)),
            wal_options: soon(Duration::from_secs(30)),
            compacted_options: soon(Duration::from_secs(60)),
            compactions_options: soon(Duration::from_secs(60)),
            ..GarbageCollectorOptions::default()
        };
        let settings = Settings {
            flush_interval: Some(Duration::from_millis(5)),
            l0_sst_size_bytes: 1 << 20,
            garbage_collector_options: Some(collector),
            ..Settings::default()
        };
        let builder = Db::builder("db", objects).with_settings(settings).with_db_cache_disabled();
        let opened =
            self.runtime.block_on(async { tokio::time::timeout(PATIENCE, builder.build()).await });
        Ok(slot.insert(Arc::new(opened??)).clone())
    }

    /// Runs an operation; what fails costs the open database, as SlateDB says of most errors.
    fn run<T, F>(&self, work: impl FnOnce(Arc<Db>) -> F) -> Any<T>
    where
        F: Future<Output = Result<T, slatedb::Error>>,
    {
        let db = self.db()?;
        let of = db.clone();
        let done = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, work(of)).await });
        match done {
            Ok(Ok(value)) => Ok(value),
            failed => {
                let error = failed.map_or_else(
                    |late| late.to_string(),
                    |failed| failed.err().map(|error| error.to_string()).unwrap_or_default(),
                );
                self.drop_db(&db);
                Err(error.into())
            }
        }
    }

    fn drop_db(&self, db: &Arc<Db>) {
        let mut slot = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_some_and(|of| Arc::ptr_eq(of, db)) {
            *slot = None;
            // Its tasks are to end before another writer begins.
            drop(self.runtime.block_on(async { tokio::time::timeout(PATIENCE, db.close()).await }));
        }
    }
}

impl Engine for Slate {
    fn len_max(&self) -> usize {
        3_000
    }

    fn put(&self, key: u32, value: &[u8]) -> Any<()> {
        self.run(|db| async move { db.put(key.to_be_bytes(), value).await?.await_durable().await })
    }

    fn get(&self, key: u32) -> Any<Option<Vec<u8>>> {
        let found = self.run(|db| async move { db.get(key.to_be_bytes()).await })?;
        Ok(found.map(|bytes| bytes.to_vec()))
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn renew(&self) -> Any<u64> {
        // SlateDB's own compaction is what brings data under newer keys.
        Ok(0)
    }

    fn back_up(&self, _: &Path, _: &Journal) -> Any<u64> {
        Ok(0)
    }

    fn close(&self) {
        let db = self.db.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(db) = db {
            drop(self.runtime.block_on(async { tokio::time::timeout(PATIENCE, db.close()).await }));
        }
        drop(self.store.clone().close());
    }
}
