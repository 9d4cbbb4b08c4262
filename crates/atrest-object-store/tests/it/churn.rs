//! Months of an engine's life in moments: old keys go away, and every record stays.

use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::{DirectoryStorage, Grace, KeyState, Options, RetireOutcome};
use atrest::kms::generate_key_file;
use atrest::store::{Reencrypt, StalePolicy};
use atrest::{Keyring, Store};
use atrest_object_store::{EncryptedStore, slatedb_file_kind};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use slatedb::Db;
use slatedb::config::{
    CompactorOptions, FlushOptions, FlushType, GarbageCollectorDirectoryOptions,
    GarbageCollectorOptions, Settings,
};

use crate::support::{in_memory, key_file, pattern, read};
use atrest_testkit::ManualClock;

/// The policy: no file is older, nor any data key that is left.
const AGE_MAX: Duration = Duration::from_secs(90 * 86_400);
const RECORDS: usize = 400;

/// An engine that compacts and collects garbage all the time.
async fn open(store: Arc<dyn ObjectStore>) -> Db {
    let compactor = CompactorOptions {
        poll_interval: Duration::from_millis(20),
        ..CompactorOptions::default()
    };
    let soon = Some(GarbageCollectorDirectoryOptions {
        interval: Some(Duration::from_millis(50)),
        min_age: Duration::from_millis(300),
        ..GarbageCollectorDirectoryOptions::default()
    });
    let settings = Settings {
        manifest_poll_interval: Duration::from_millis(50),
        compactor_options: Some(compactor),
        garbage_collector_options: Some(GarbageCollectorOptions {
            manifest_options: soon,
            wal_options: soon,
            compacted_options: soon,
            ..GarbageCollectorOptions::default()
        }),
        ..Settings::default()
    };
    let builder = Db::builder("db", store).with_settings(settings);
    builder.with_db_cache_disabled().build().await.unwrap()
}

fn key(group: usize, n: usize) -> String {
    format!("{group:04}-{n:06}")
}

fn value(group: usize, n: usize, month: usize) -> String {
    format!("record {n} of {group} in month {month}, {}", "x".repeat(n % 500))
}

/// Group 0 is written each month; of the others each once, and then lies cold.
async fn load(db: &Db, month: usize) {
    for n in 0..RECORDS {
        db.put(key(0, n), value(0, n, month)).await.unwrap();
        db.put(key(month + 1, n), value(month + 1, n, month)).await.unwrap();
    }
    db.flush_with_options(FlushOptions { flush_type: FlushType::MemTable }).await.unwrap();
}

async fn verify(db: &Db, month: usize) {
    let mut records = db.scan(..).await.unwrap();
    for group in 0..=month + 1 {
        for n in 0..RECORDS {
            let record = records.next().await.unwrap().unwrap();
            let written = if group == 0 { month } else { group - 1 };
            assert_eq!(record.key, key(group, n).as_bytes());
            assert_eq!(record.value, value(group, n, written).as_bytes());
        }
    }
    assert!(records.next().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn months_of_an_engine_leave_no_old_key() {
    let months = std::env::var("ATREST_MONTHS").map_or(8, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    generate_key_file(dir.path().join("cmek.key")).unwrap();
    std::fs::create_dir(&data).unwrap();
    let clock = ManualClock::new();
    let mut options = Options::default();
    options.clock = clock.clone();
    options.background = false;
    // Nobody checks while a month passes.
    options.access.unreachable_grace = Grace::Forever;
    options.access.view_grace = Grace::Forever;
    let storage = DirectoryStorage::new(&data);
    let keyring = Keyring::create(storage, key_file(&dir), options).unwrap();
    let raw = Arc::new(LocalFileSystem::new_with_prefix(&data).unwrap());
    let store = EncryptedStore::new(raw, keyring.clone()).with_file_kind(slatedb_file_kind);
    // The same files, for what the object store has no operation for.
    let fs = Store::over(keyring.clone()).unwrap();
    let db = open(Arc::new(store.clone())).await;

    let mut destroyed = 0;
    for month in 0..months {
        load(&db, month).await;
        clock.advance(30 * ManualClock::DAY);
        keyring.maintain().unwrap();
        destroyed += pass(&fs, &store).await;
        verify(&db, month).await;
    }
    // What a reader still held open, and the time of grace of the last keys.
    for _ in 0..4 {
        clock.advance(8 * ManualClock::DAY);
        destroyed += pass(&fs, &store).await;
    }
    verify(&db, months - 1).await;
    db.close().await.unwrap();
    drop(db);

    assert!(destroyed >= months.saturating_sub(5), "{destroyed} of {months} keys");
    let usage = fs.renewal().scan_usage(&|_| {}).unwrap();
    assert!(usage.unknown_keys.is_empty() && usage.unreadable.files == 0, "{usage:?}");
    for key in &usage.keys {
        let dead = key.key.state == KeyState::Destroyed;
        assert!(!dead || key.count.files == 0, "{key:?}");
        let age = Duration::from_nanos(key.age_ns);
        // A key's files are rewritten when it reaches the age; then comes the grace.
        assert!(dead || age <= AGE_MAX + Duration::from_secs(40 * 86_400), "{key:?}");
    }
    // The store's own view agrees.
    let objects = store.usage(None).await.unwrap();
    for key in &usage.keys {
        let seen = objects.keys.get(&key.key.id).map_or(0, |count| count.objects);
        assert_eq!(seen, key.count.files);
    }
    // A new process.
    let db = open(Arc::new(store)).await;
    verify(&db, months - 1).await;
    db.close().await.unwrap();
}

/// Rewrites what compaction leaves cold, and retires; returns the number of keys
/// destroyed.
async fn pass(fs: &Store, store: &EncryptedStore) -> usize {
    let fs = fs.clone();
    let report = tokio::task::spawn_blocking(move || {
        let mut how = Reencrypt::default();
        how.policy = StalePolicy::older_than(AGE_MAX);
        fs.renewal().reencrypt(&how).unwrap()
    });
    let report = report.await.unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    store.retire(atrest::keyring::RETIRE_GRACE).await.unwrap().destroyed().count()
}

#[tokio::test]
async fn objects_keep_their_keys() {
    let (keys, store, raw) = in_memory();
    let (a, b) = (Path::from("a"), Path::from("dir/b"));
    store.put(&a, pattern(100, 1).into()).await.unwrap();
    let old = keys.keyring.keys().active_id().unwrap();
    let new = keys.keyring.keys().rotate().unwrap();
    store.put(&b, pattern(50, 2).into()).await.unwrap();
    raw.put(&Path::from("plain"), pattern(9, 3).into()).await.unwrap();
    raw.put(&Path::from("_atrest/KEYRING"), pattern(9, 3).into()).await.unwrap();
    let usage = store.usage(None).await.unwrap();
    assert_eq!((usage.keys[&old].objects, usage.keys[&old].bytes), (1, 4196));
    assert_eq!((usage.keys[&new].objects, usage.plaintext.objects), (1, 1));
    let below = store.usage(Some(&Path::from("dir"))).await.unwrap();
    assert_eq!(below.keys.into_keys().collect::<Vec<_>>(), [new]);

    // Known by its header, which a look at the whole store forgets.
    read(&store, &a).await.unwrap();
    let outcome = async || store.retire(Duration::ZERO).await.unwrap().keys[0].outcome.clone();
    assert_eq!(outcome().await, RetireOutcome::InUse);
    let mut bytes = read(&*raw, &a).await.unwrap().to_vec();
    bytes[60] ^= 1;
    raw.put(&Path::from("bad"), bytes.into()).await.unwrap();
    assert!(store.retire(Duration::ZERO).await.is_err(), "nobody can tell its key");
    raw.delete(&Path::from("bad")).await.unwrap();
    store.delete(&a).await.unwrap();
    assert!(matches!(outcome().await, RetireOutcome::Retiring { .. }));
    assert_eq!(outcome().await, RetireOutcome::Destroyed);
    assert_eq!(read(&store, &b).await.unwrap(), pattern(50, 2));
}
