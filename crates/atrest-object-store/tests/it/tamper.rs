//! A SlateDB database of authenticated objects, with one bit changed somewhere.

use std::sync::Arc;
use std::time::Duration;

use atrest::Keyring;
use atrest_object_store::{EncryptedStore, slatedb_file_kind};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use slatedb::Db;
use slatedb::config::{FlushOptions, FlushType, Settings};

use crate::support::{Keys, read};

const RECORDS: usize = 300;

fn key(n: usize) -> String {
    format!("customer-{n:06}")
}

fn value(n: usize) -> String {
    format!("record {n}, {}", "x".repeat(n % 300))
}

async fn open(raw: Arc<InMemory>, keyring: &Keyring) -> Result<Db, slatedb::Error> {
    let store = EncryptedStore::new(raw, keyring.clone()).with_file_kind(slatedb_file_kind);
    let settings = Settings {
        compactor_options: None,
        garbage_collector_options: None,
        ..Settings::default()
    };
    let builder = Db::builder("db", Arc::new(store)).with_settings(settings);
    builder.with_db_cache_disabled().build().await
}

/// All objects of a database with tables and a log.
async fn database(keyring: &Keyring) -> Vec<(Path, Bytes)> {
    let raw = Arc::new(InMemory::new());
    let db = open(raw.clone(), keyring).await.unwrap();
    for n in 0..RECORDS {
        db.put(key(n), value(n)).await.unwrap();
        if n == RECORDS / 2 {
            let tables = FlushOptions { flush_type: FlushType::MemTable };
            db.flush_with_options(tables).await.unwrap();
        }
    }
    db.flush().await.unwrap();
    // Not closed, so that its log is read when it is opened again.
    let metas: Vec<_> = raw.list(None).try_collect().await.unwrap();
    let mut objects = Vec::new();
    for meta in metas {
        objects.push((meta.location.clone(), read(&*raw, &meta.location).await.unwrap()));
    }
    drop(db);
    objects
}

/// Whether the whole database was read and is what was written; an error if it says so.
async fn read_all(raw: Arc<InMemory>, keyring: &Keyring) -> Result<(), slatedb::Error> {
    let db = open(raw, keyring).await?;
    let scan = async {
        let mut records = db.scan(..).await?;
        for n in 0..RECORDS {
            let record = records.next().await?.expect("a record is missing, without an error");
            let expected = (key(n), value(n));
            assert!(
                (&*record.key, &*record.value) == (expected.0.as_bytes(), expected.1.as_bytes())
            );
        }
        assert!(records.next().await?.is_none());
        Ok(())
    };
    let scanned = scan.await;
    drop(db.close().await);
    scanned
}

/// Changes `changes` bits, one at a time.
async fn tamper(changes: usize) {
    let keys = Keys::new();
    let objects = database(&keys.keyring).await;
    let directories = ["wal/", "compacted/", "manifest/"];
    for name in directories {
        assert!(objects.iter().any(|(path, _)| path.as_ref().contains(name)), "{name}");
    }
    let (mut state, mut refused) = (0x9e37_79b9_7f4a_7c15_u64, 0);
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..changes {
        let raw = Arc::new(InMemory::new());
        let changed = random(objects.len());
        let (at, bit) = (random(objects[changed].1.len()), random(8));
        for (number, (path, bytes)) in objects.iter().enumerate() {
            let mut bytes = bytes.clone();
            if number == changed {
                let mut own = bytes.to_vec();
                own[at] ^= 1 << bit;
                bytes = own.into();
            }
            raw.put(path, bytes.into()).await.unwrap();
        }
        let path = &objects[changed].0;
        // The object itself is refused, always.
        let store = EncryptedStore::new(raw.clone(), keys.keyring.clone());
        assert!(read(&store, path).await.is_err(), "byte {at}, bit {bit} of {path}");
        // The database is refused, or reads right if it did not need the object.
        let outcome = tokio::time::timeout(Duration::from_secs(300), read_all(raw, &keys.keyring));
        refused += usize::from(outcome.await.expect("an endless retry").is_err());
    }
    assert!(refused > changes / 10, "{refused} of {changes} were met");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_changed_bit_of_a_database_becomes_wrong_data() {
    let (keys, raw) = (Keys::new(), Arc::new(InMemory::new()));
    for (path, bytes) in database(&keys.keyring).await {
        raw.put(&path, bytes.into()).await.unwrap();
    }
    read_all(raw, &keys.keyring).await.unwrap();
    tamper(200).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn no_changed_bit_of_ten_thousand_becomes_wrong_data() {
    tamper(10_000).await;
}
