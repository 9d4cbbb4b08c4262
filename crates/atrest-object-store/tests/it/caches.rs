//! Disk caches: below the encrypting store they hold ciphertext, above it plaintext.
// SlateDB means to replace this cache by its mirror, which reads the manifests that go through
// it, and so cannot stand below.
#![allow(deprecated)]

use std::path::Path as FilePath;
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use slatedb::cached_object_store::CachedObjectStore;
use slatedb::config::{FlushOptions, FlushType, ObjectStoreCacheOptions, Settings};
use slatedb::{Db, WriteBatch};

use crate::support::Keys;

/// In every record.
pub(crate) const MARK: &[u8] = b"Lovelace";
const RECORDS: u32 = 2_000;

fn record(number: u32) -> (String, String) {
    (format!("customer-{number:08}"), format!("Ada Lovelace {number}, of some {}", number * 7))
}

async fn fill(db: &Db) {
    let mut batch = WriteBatch::new();
    for number in 0..RECORDS {
        let (key, value) = record(number);
        batch.put(key, value);
    }
    db.write(batch).await.unwrap();
    db.flush_with_options(FlushOptions { flush_type: FlushType::MemTable }).await.unwrap();
}

async fn check(db: &Db) {
    for number in (0..RECORDS).step_by(17) {
        let (key, value) = record(number);
        assert_eq!(db.get(key).await.unwrap().unwrap(), value);
    }
}

async fn open(store: Arc<dyn ObjectStore>, settings: Settings) -> Db {
    let settings =
        Settings { compactor_options: None, garbage_collector_options: None, ..settings };
    // Each read goes to the store, or to the cache on the disk.
    let builder = Db::builder("db", store).with_settings(settings);
    builder.with_db_cache_disabled().build().await.unwrap()
}

/// Bytes below `dir`, and how often the mark stands there.
pub(crate) fn search(dir: &FilePath) -> (usize, usize) {
    let (mut bytes, mut marks) = (0, 0);
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let (more_bytes, more_marks) = if path.is_dir() {
            search(&path)
        } else {
            let content = std::fs::read(&path).unwrap();
            let found = content.windows(MARK.len()).filter(|window| *window == MARK);
            (content.len(), found.count())
        };
        bytes += more_bytes;
        marks += more_marks;
    }
    (bytes, marks)
}

#[tokio::test]
async fn a_disk_cache_below_the_encrypting_store_holds_ciphertext_and_serves() {
    for keys in Keys::both() {
        let dir = tempfile::tempdir().unwrap();
        let raw = Arc::new(InMemory::new());
        let cached = || async {
            let cache = CachedObjectStore::builder(dir.path(), raw.clone());
            let cache = cache.with_part_size_bytes(64 << 10).with_cache_on_flush(true);
            Arc::new(keys.store(cache.build().await.unwrap()))
        };
        let db = open(cached().await, Settings::default()).await;
        fill(&db).await;
        check(&db).await;
        db.close().await.unwrap();
        let (bytes, marks) = search(dir.path());
        assert!(bytes > 50 * RECORDS as usize, "{bytes} bytes in the cache");
        assert_eq!(marks, 0);

        // What the store below does not have any more comes from the cache.
        let objects: Vec<_> = raw.list(None).try_collect().await.unwrap();
        let tables = objects.iter().filter(|object| object.location.as_ref().contains("compacted"));
        for table in tables.collect::<Vec<_>>() {
            raw.delete(&table.location).await.unwrap();
        }
        let db = open(cached().await, Settings::default()).await;
        check(&db).await;
        // And not without the customer's key.
        keys.keyring.access().revoke().unwrap();
        assert!(db.get(record(3).0).await.is_err());
    }
}

/// The search finds what it looks for, and the engine's own setting is the wrong place.
#[tokio::test]
async fn a_disk_cache_above_the_encrypting_store_holds_plaintext() {
    let keys = Keys::authenticated();
    let dir = tempfile::tempdir().unwrap();
    let object_store_cache_options = ObjectStoreCacheOptions {
        root_folder: Some(dir.path().to_owned()),
        cache_on_flush: true,
        ..ObjectStoreCacheOptions::default()
    };
    let settings = Settings { object_store_cache_options, ..Settings::default() };
    let db = open(Arc::new(keys.store(Arc::new(InMemory::new()))), settings).await;
    fill(&db).await;
    check(&db).await;
    db.close().await.unwrap();
    let (_, marks) = search(dir.path());
    assert!(marks > 1_000, "{marks}");
}
