//! What else RocksDB's users do: column families, checkpoints, backups, ingested tables.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use atrest::kms::{KeyFile, generate_key_file};
use atrest::{Header, Store};
use rocksdb::backup::{BackupEngine, BackupEngineOptions, RestoreOptions};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamilyDescriptor, DB, Options, SstFileWriter, WriteBatch};
use tempfile::TempDir;

use crate::support::options;

/// In every value.
const KNOWN: &str = "sings in the deep";

fn place() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    generate_key_file(dir.path().join("cmek.key")).unwrap();
    let kms = Arc::new(KeyFile::new(dir.path().join("cmek.key")).unwrap());
    fs::create_dir(dir.path().join("data")).unwrap();
    let store = Store::create(dir.path().join("data"), kms, atrest::Options::default()).unwrap();
    (dir, store)
}

fn key(number: u32) -> String {
    format!("whale-{number:06}")
}

fn value(number: u32) -> String {
    format!("number {number} {KNOWN}")
}

fn put(db: &DB, numbers: std::ops::Range<u32>) {
    for number in numbers {
        db.put(key(number), value(number)).unwrap();
    }
}

#[track_caller]
fn has(db: &DB, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let found = db.get(key(number)).unwrap();
        assert_eq!(found.as_deref(), Some(value(number).as_bytes()), "{number}");
    }
}

/// How many files are below, each encrypted and with nothing to read in it.
fn assert_encrypted(dir: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += assert_encrypted(&path);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        if bytes.is_empty() && path.file_name().unwrap() == "LOCK" {
            continue;
        }
        let header = Header::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(header.suite.is_authenticated(), "{}", path.display());
        for word in [KNOWN, "whale-0", "rocksdb.", "leveldb."] {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "{word} stands in {}", path.display());
        }
        count += 1;
    }
    count
}

#[test]
fn checkpoints_backups_and_ingested_tables() {
    let (dir, store) = place();
    let path = |name: &str| dir.path().join("data").join(name);
    let env = atrest_rocksdb_env::env(&store);
    let db = DB::open(&options(&env), path("db")).unwrap();
    put(&db, 0..500);
    db.flush().unwrap();
    put(&db, 500..1000);
    Checkpoint::new(&db).unwrap().create_checkpoint(path("copy")).unwrap();
    let backups = BackupEngineOptions::new(path("backup")).unwrap();
    let mut backups = BackupEngine::open(&backups, &env).unwrap();
    backups.create_new_backup_flush(&db, true).unwrap();
    backups.verify_backup(1).unwrap();
    backups
        .restore_from_latest_backup(path("restored"), path("restored"), &RestoreOptions::default())
        .unwrap();

    let options = options(&env);
    fs::create_dir(path("outside")).unwrap();
    let mut table = SstFileWriter::create(&options);
    table.open(path("outside/0.sst")).unwrap();
    for number in 950..1100 {
        table.put(key(number), value(number)).unwrap();
    }
    table.finish().unwrap();
    db.ingest_external_file(vec![path("outside/0.sst")]).unwrap();
    has(&db, 0..1100);
    drop(db);
    for copy in ["copy", "restored"] {
        let db = DB::open(&options, path(copy)).unwrap();
        has(&db, 0..1000);
        assert_eq!(db.get(key(1000)).unwrap(), None);
    }
    for written in ["db", "copy", "restored", "backup", "outside"] {
        assert!(assert_encrypted(&path(written)) > 0, "{written}");
    }
}

#[test]
fn column_families_blobs_and_recycled_logs() {
    let (dir, store) = place();
    let path = dir.path().join("data/db");
    let env = atrest_rocksdb_env::env(&store);
    let mut options = options(&env);
    options.create_missing_column_families(true);
    options.set_recycle_log_file_num(2);
    options.set_write_buffer_size(64 << 10);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(30);
    options.set_use_direct_reads(true);
    options.set_use_direct_io_for_flush_and_compaction(true);
    let families = || {
        ["default", "north", "south"].map(|name| ColumnFamilyDescriptor::new(name, options.clone()))
    };
    for life in 0..3 {
        let db = DB::open_cf_descriptors(&options, &path, families()).unwrap();
        for name in ["north", "south"] {
            let family = db.cf_handle(name).unwrap();
            for number in 0..life * 1000 {
                let found = db.get_cf(family, key(number)).unwrap();
                assert_eq!(found.as_deref(), Some(format!("{name} {}", value(number)).as_bytes()));
            }
            for start in (life * 1000..(life + 1) * 1000).step_by(10) {
                let mut batch = WriteBatch::default();
                for number in start..start + 10 {
                    batch.put_cf(family, key(number), format!("{name} {}", value(number)));
                }
                db.write(batch).unwrap();
            }
        }
        put(&db, life * 100..(life + 1) * 100);
        has(&db, 0..(life + 1) * 100);
    }
    let blobs = fs::read_dir(&path)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".blob"));
    assert!(blobs.count() > 0);
    assert!(assert_encrypted(&path) > 10);
}

/// Databases of one store in one program share its keys, and end with the last of them.
#[test]
fn one_store_serves_several_databases() {
    let (dir, store) = place();
    let path = |name: &str| dir.path().join("data").join(name);
    let dbs = ["a", "b"].map(|name| {
        let env = atrest_rocksdb_env::env(&store);
        DB::open(&options(&env), path(name)).unwrap()
    });
    let keys = store.keyring().clone();
    drop(store);
    for db in &dbs {
        put(db, 0..100);
        db.flush().unwrap();
    }
    keys.access().revoke().unwrap();
    for db in &dbs {
        let error = db.put(key(100), value(100)).unwrap_err().to_string();
        assert!(error.contains("cmek-revoked"), "{error}");
    }
    keys.access().restore().unwrap();
    drop(dbs);
    drop(keys);
    // Nothing holds it any more.
    let kms = Arc::new(KeyFile::new(dir.path().join("cmek.key")).unwrap());
    let store = Store::open(dir.path().join("data"), kms, atrest::Options::default()).unwrap();
    let env = atrest_rocksdb_env::env(&store);
    has(&DB::open(&options(&env), path("a")).unwrap(), 0..100);
}

#[test]
fn a_plain_database_and_mapped_files_are_refused() {
    let (dir, store) = place();
    let path = dir.path().join("data/db");
    let mut plain = Options::default();
    plain.create_if_missing(true);
    put(&DB::open(&plain, &path).unwrap(), 0..10);
    let env = atrest_rocksdb_env::env(&store);
    let error = DB::open(&options(&env), &path).unwrap_err().to_string();
    assert!(error.contains("not-encrypted"), "{error}");
    // The search finds what it looks for.
    assert!(std::panic::catch_unwind(|| assert_encrypted(&path)).is_err());
    let mut mapped = options(&env);
    mapped.set_allow_mmap_reads(true);
    assert!(DB::open(&mapped, dir.path().join("data/mapped")).is_err());
}

#[test]
fn a_backup_that_failed_is_followed_by_another() {
    let (dir, store) = place();
    let path = |name: &str| dir.path().join("data").join(name);
    let env = atrest_rocksdb_env::env(&store);
    let db = DB::open(&options(&env), path("db")).unwrap();
    put(&db, 0..10);
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let open =
        || BackupEngine::open(&BackupEngineOptions::new(outside.clone()).unwrap(), &env).unwrap();
    let mut backups = open();
    store.access().revoke().unwrap();
    backups.create_new_backup(&db).unwrap_err();
    store.access().restore().unwrap();
    drop(backups);
    open().create_new_backup(&db).unwrap();
}

/// Directories outside of the store's are the store's to look at, and RocksDB's to remove.
#[test]
fn old_backups_leave_no_directory() {
    let (dir, store) = place();
    let env = atrest_rocksdb_env::env(&store);
    let db = DB::open(&options(&env), dir.path().join("data/db")).unwrap();
    put(&db, 0..10);
    let outside = dir.path().canonicalize().unwrap().join("outside");
    let open =
        || BackupEngine::open(&BackupEngineOptions::new(outside.clone()).unwrap(), &env).unwrap();
    for _ in 0..2 {
        let mut backups = open();
        backups.create_new_backup_flush(&db, true).unwrap();
        assert!(outside.join("private/1").exists());
        backups.purge_old_backups(0).unwrap();
        drop(backups);
        assert!(!outside.join("private/1").exists());
    }
    let known = store.directories().list();
    assert_eq!(known.iter().filter(|known| known.starts_with(&outside)).count(), 1, "{known:?}");
}
