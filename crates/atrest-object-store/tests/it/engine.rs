//! SlateDB on an encrypting store over a local directory.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::{DirectoryStorage, Options};
use atrest::kms::{KmsErrorKind, generate_key_file};
use atrest::{DataKeyId, ErrorKind, FileKind, HEADER_LEN, Header, Keyring};
use atrest_object_store::{EncryptedStore, find_error, slatedb_file_kind};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use slatedb::config::{CompactorOptions, FlushOptions, FlushType, Settings};
use slatedb::{CloseReason, Db};

use crate::support::key_file;

const RECORDS: usize = 500;
/// What every record has in it, and no file may.
const MARKS: [&[u8]; 3] = [b"customer-", b"Lovelace", b"@example.org"];

struct Engine {
    dir: tempfile::TempDir,
}

impl Engine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        generate_key_file(dir.path().join("cmek.key")).unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        Self { dir }
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// The keyring's files lie in the directory that the store serves.
    fn keyring(&self) -> atrest::Result<Keyring> {
        let storage = DirectoryStorage::new(self.data());
        Keyring::open_or_create(storage, key_file(&self.dir), Options::default())
    }

    fn store(&self, keyring: Keyring) -> Arc<dyn ObjectStore> {
        let raw = Arc::new(LocalFileSystem::new_with_prefix(self.data()).unwrap());
        Arc::new(EncryptedStore::new(raw, keyring).with_file_kind(slatedb_file_kind))
    }

    async fn open(&self, keyring: Keyring) -> Result<Db, slatedb::Error> {
        let compactor = CompactorOptions {
            poll_interval: Duration::from_millis(20),
            ..CompactorOptions::default()
        };
        let settings = Settings {
            manifest_poll_interval: Duration::from_millis(50),
            compactor_options: Some(compactor),
            ..Settings::default()
        };
        let builder = Db::builder("db", self.store(keyring)).with_settings(settings);
        // Without a cache each read goes to the store.
        builder.with_db_cache_disabled().build().await
    }

    /// The headers of all objects on disk, by the path below the database.
    fn headers(&self) -> HashMap<String, Header> {
        let root = self.data().join("db");
        let files = files(&root).into_iter().filter_map(|path| {
            // Files come and go while the engine works.
            let bytes = std::fs::read(&path).ok()?;
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let header = Header::parse(&bytes);
            // A multipart upload that is under way has a name with `#`.
            if name.contains('#') {
                return None;
            }
            Some((name.clone(), header.unwrap_or_else(|error| panic!("{name}: {error}"))))
        });
        files.collect()
    }
}

fn files(dir: &FilePath) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn key(n: usize) -> String {
    format!("customer-{n:08}")
}

fn value(n: usize, round: usize) -> String {
    format!("Ada Lovelace {n}, round {round}, ada.{n}@example.org, {}", "x".repeat(n % 700))
}

async fn load(db: &Db, round: usize) {
    for n in 0..RECORDS {
        db.put(key(n), value(n, round)).await.unwrap();
    }
    db.flush_with_options(FlushOptions { flush_type: FlushType::MemTable }).await.unwrap();
}

async fn compacted_below(db: &Db, l0_max: usize) {
    while db.manifest().compacted().is_empty() || db.manifest().l0().len() > l0_max {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn verify(db: &Db, round: usize) {
    let mut records = db.scan(..).await.unwrap();
    for n in 0..RECORDS {
        let record = records.next().await.unwrap().unwrap();
        assert_eq!((&*record.key, &*record.value), (key(n).as_bytes(), value(n, round).as_bytes()));
    }
    assert!(records.next().await.unwrap().is_none());
    let n = RECORDS / 2;
    assert_eq!(db.get(key(n)).await.unwrap().unwrap(), value(n, round));
}

/// A guard against retrying for ever, far above what any of this takes.
async fn ends<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(300), work).await.expect("an endless retry")
}

fn data_keys(headers: &HashMap<String, Header>) -> HashMap<DataKeyId, usize> {
    let mut count = HashMap::new();
    for header in headers.values() {
        *count.entry(header.data_key_id).or_default() += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn slatedb_loads_rotates_compacts_and_reopens() {
    let engine = Engine::new();
    let keyring = engine.keyring().unwrap();
    let first = keyring.keys().active_id().unwrap();
    let db = engine.open(keyring.clone()).await.unwrap();
    for round in 0..4 {
        load(&db, round).await;
    }
    compacted_below(&db, 3).await;
    verify(&db, 3).await;
    assert_eq!(data_keys(&engine.headers()).into_keys().collect::<Vec<_>>(), [first]);

    let second = keyring.keys().rotate().unwrap();
    let before = engine.headers();
    for round in 4..12 {
        load(&db, round).await;
    }
    compacted_below(&db, 3).await;
    verify(&db, 11).await;
    db.close().await.unwrap();
    let after = engine.headers();
    for (name, header) in &after {
        let expected = if before.contains_key(name) { first } else { second };
        assert_eq!(header.data_key_id, expected, "{name}");
        assert_eq!(header.kind, slatedb_file_kind(&name.as_str().into()), "{name}");
        assert_ne!(header.kind, FileKind::Other, "{name}");
    }
    let tables = |headers: &HashMap<String, Header>| {
        headers.values().filter(|header| header.kind == FileKind::Table).count()
    };
    assert!(tables(&after) > tables(&before) + 8, "the rounds' tables, and compacted ones");
    drop((db, keyring));

    // A new process: nothing in memory.
    let db = engine.open(engine.keyring().unwrap()).await.unwrap();
    verify(&db, 11).await;
    db.close().await.unwrap();
    for path in files(&engine.data()) {
        let bytes = std::fs::read(&path).unwrap();
        for mark in MARKS {
            assert!(!bytes.windows(mark.len()).any(|window| window == mark), "{}", path.display());
        }
        assert!(bytes.len() >= HEADER_LEN || path.parent().unwrap() == engine.data());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_customers_key_errors_are_clear_and_final() {
    let engine = Engine::new();
    let keyring = engine.keyring().unwrap();
    let db = engine.open(keyring.clone()).await.unwrap();
    load(&db, 0).await;
    verify(&db, 0).await;

    // Withdrawn while the engine runs: reads and writes end with the reason.
    keyring.access().revoke().unwrap();
    let revoked = |error: &slatedb::Error| {
        let found = find_error(error).unwrap_or_else(|| panic!("{error:?}"));
        assert_eq!(found.kind(), ErrorKind::CmekRevoked, "{error:?}");
        assert!(found.to_string().contains("access to the customer's key"), "{found}");
    };
    revoked(&ends(db.get(key(1))).await.unwrap_err());
    let written = ends(async {
        db.put(key(1), "never written").await?;
        db.flush().await
    });
    revoked(&written.await.unwrap_err());
    let reason = db.status().close_reason;
    assert!(!matches!(reason, Some(CloseReason::Clean)), "{reason:?}");
    drop(ends(db.close()).await);
    revoked(&ends(engine.open(keyring.clone())).await.map(drop).unwrap_err());
    // A revocation outlives the process until access is given back.
    keyring.access().restore().unwrap();
    drop((db, keyring));

    // The key file moves away: the store does not open, and says why.
    let (there, away) = (engine.dir.path().join("cmek.key"), engine.dir.path().join("away.key"));
    std::fs::rename(&there, &away).unwrap();
    let error = engine.keyring().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::NotFound), "{error}");
    // It comes back, and all is there.
    std::fs::rename(&away, &there).unwrap();
    let db = engine.open(engine.keyring().unwrap()).await.unwrap();
    verify(&db, 0).await;
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_stores_keyring_and_plaintext_are_refused_at_once() {
    let (engine, other) = (Engine::new(), Engine::new());
    let keyring = engine.keyring().unwrap();
    let db = engine.open(keyring.clone()).await.unwrap();
    load(&db, 0).await;
    db.close().await.unwrap();
    let error = ends(engine.open(other.keyring().unwrap())).await.map(drop).unwrap_err();
    assert_eq!(find_error(&error).unwrap().kind(), ErrorKind::IdentityMismatch, "{error}");
    // A manifest replaced by plaintext.
    let manifests = files(&engine.data().join("db/manifest"));
    for path in &manifests {
        std::fs::write(path, "{}".repeat(4096)).unwrap();
    }
    let error = ends(engine.open(keyring)).await.map(drop).unwrap_err();
    assert_eq!(find_error(&error).unwrap().kind(), ErrorKind::NotEncrypted, "{error}");
}
