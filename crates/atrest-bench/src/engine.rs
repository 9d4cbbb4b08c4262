//! A whole engine: SlateDB on a local directory, plain and encrypted, with its own
//! settings. The block cache is switched off, so that a read reaches the store: with it,
//! both would read plaintext from memory and the ratio would say nothing.

use std::hint::black_box;
use std::sync::Arc;

use atrest::keyring::{MemoryStorage, Options};
use atrest::kms::{KeyFile, generate_key_file};
use atrest::{Integrity, Keyring};
use atrest_object_store::EncryptedStore;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use slatedb::{Db, WriteBatch};
use tokio::runtime::Runtime;

use crate::Row;
use crate::measure::{Effort, interleaved};

/// The operations, in the order of the report.
pub const OPERATIONS: [&str; 3] = ["fill", "read", "scan"];

const RECORDS: u64 = 50_000;
const VALUE_LEN: usize = 256;
const READS: u64 = 500;

/// What is measured against plain: what is promised of objects, and its part of a row's name.
pub const KINDS: [(Integrity, &str); 2] =
    [(Integrity::Confidential, ""), (Integrity::Authenticated, "-authenticated")];

/// Stores of the same records: plain (`None`), and one for each of [`KINDS`].
pub struct Engines {
    runtime: Runtime,
    dir: tempfile::TempDir,
    keyring: Keyring,
    databases: Vec<(Option<Integrity>, Db)>,
    fills: std::cell::Cell<u64>,
}

impl Engines {
    /// Fills all.
    ///
    /// # Panics
    /// When the temporary directory cannot be written.
    pub fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        generate_key_file(dir.path().join("cmek.key")).unwrap();
        let kms = Arc::new(KeyFile::new(dir.path().join("cmek.key")).unwrap());
        let keyring = Keyring::create(MemoryStorage::new(), kms, Options::default()).unwrap();
        let open = |kind: Option<Integrity>| {
            let store = store(&dir.path().join(format!("{kind:?}")), kind, &keyring);
            runtime.block_on(async {
                let db = Db::builder("db", store).with_db_cache_disabled().build().await.unwrap();
                fill(&db).await;
                (kind, db)
            })
        };
        let kinds = KINDS.map(|(integrity, _)| Some(integrity));
        let databases = [None].into_iter().chain(kinds).map(open).collect();
        Self { runtime, dir, keyring, databases, fills: 0.into() }
    }

    /// One call of an operation, plain or encrypted.
    ///
    /// # Panics
    /// For an operation that is not in [`OPERATIONS`].
    pub fn operation(&self, operation: &str, kind: Option<Integrity>) -> Box<dyn FnMut() + '_> {
        let (_, db) = self.databases.iter().find(|(one, _)| *one == kind).unwrap();
        match operation {
            "fill" => Box::new(move || self.fill_fresh(kind)),
            "read" => {
                let mut state = 0x9e37_79b9_7f4a_7c15_u64;
                Box::new(move || {
                    self.runtime.block_on(async {
                        for _ in 0..READS {
                            state ^= state << 13;
                            state ^= state >> 7;
                            state ^= state << 17;
                            black_box(db.get(key(state % RECORDS)).await.unwrap().unwrap());
                        }
                    });
                })
            }
            "scan" => Box::new(move || {
                self.runtime.block_on(async {
                    let mut records =
                        db.scan::<std::ops::RangeFrom<Vec<u8>>>(Vec::new()..).await.unwrap();
                    let mut count = 0;
                    while black_box(records.next().await.unwrap()).is_some() {
                        count += 1;
                    }
                    assert_eq!(count, RECORDS);
                });
            }),
            _ => unreachable!("no operation named {operation}"),
        }
    }

    /// Records that one call handles.
    pub fn records(operation: &str) -> u64 {
        if operation == "read" { READS } else { RECORDS }
    }

    /// Fills a new database, flushes it, closes it.
    fn fill_fresh(&self, kind: Option<Integrity>) {
        self.fills.set(self.fills.get() + 1);
        let path = self.dir.path().join(format!("fill-{}", self.fills.get()));
        let store = store(&path, kind, &self.keyring);
        self.runtime.block_on(async {
            let db = Db::builder("db", store).build().await.unwrap();
            fill(&db).await;
            db.close().await.unwrap();
        });
        std::fs::remove_dir_all(&path).unwrap();
    }
}

impl Default for Engines {
    fn default() -> Self {
        Self::new()
    }
}

fn store(
    path: &std::path::Path,
    kind: Option<Integrity>,
    keyring: &Keyring,
) -> Arc<dyn ObjectStore> {
    std::fs::create_dir_all(path).unwrap();
    let raw = Arc::new(LocalFileSystem::new_with_prefix(path).unwrap());
    match kind {
        Some(integrity) => {
            Arc::new(EncryptedStore::new(raw, keyring.clone()).with_integrity(integrity))
        }
        None => raw,
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("user{number:012}").into_bytes()
}

async fn fill(db: &Db) {
    let mut state = 1_u64;
    for start in (0..RECORDS).step_by(1000) {
        let mut batch = WriteBatch::new();
        for number in start..start + 1000 {
            let mut value = Vec::with_capacity(VALUE_LEN);
            while value.len() < VALUE_LEN {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                value.extend_from_slice(&state.to_le_bytes());
            }
            batch.put(key(number), value);
        }
        db.write(batch).await.unwrap();
    }
    db.flush().await.unwrap();
}

/// Every operation, encrypted against plain.
pub fn rows(effort: Effort, mut progress: impl FnMut(&str)) -> Vec<Row> {
    let engines = Engines::new();
    let effort = Effort { pairs: effort.pairs.min(21), ..effort };
    let rows = OPERATIONS.into_iter().flat_map(|operation| KINDS.map(|kind| (operation, kind)));
    rows.map(|(operation, (integrity, suffix))| {
        let name = format!("engine/{operation}{suffix}/plain");
        progress(&name);
        let mut ours = engines.operation(operation, Some(integrity));
        let mut theirs = engines.operation(operation, None);
        let pair = interleaved(effort, &mut *ours, &mut *theirs);
        let rate = |seconds: f64| Engines::records(operation) as f64 / seconds / 1e3;
        Row {
            name,
            unit: "k records/s",
            atrest: rate(pair.a),
            peer: rate(pair.b),
            ratio: pair.b_over_a,
        }
    })
    .collect()
}
