//! raft-engine, plain and encrypted, with its own settings: one group, entries of 1 KiB.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::Integrity;
use atrest_raft_engine::EncryptedFileSystem;
use protobuf::well_known_types::BytesValue;
use raft_engine::env::{DefaultFileSystem, FileSystem};
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::Row;
use crate::adapters::{KINDS, Operation, Subject, Work, compare, random, store};
use crate::measure::Effort;

const GROUP: u64 = 1;
const ENTRY_LEN: usize = 1 << 10;
/// Entries that there are to read, and to find when the engine is opened.
const ENTRIES: u64 = 20_000;

const OPERATIONS: [Operation; 4] = [
    Operation { name: "append", units: 200 },
    Operation { name: "append-synced", units: 20 },
    Operation { name: "read", units: 200 },
    Operation { name: "open", units: ENTRIES },
];

struct Entry;

impl MessageExt for Entry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        u64::from_le_bytes(*entry.value.first_chunk().unwrap())
    }
}

fn open<F: FileSystem>(dir: &Path, files: &Arc<F>) -> Engine<F> {
    let config = Config {
        dir: dir.to_str().unwrap().to_owned(),
        target_file_size: ReadableSize::mb(16),
        ..Config::default()
    };
    Engine::open_with_file_system(config, files.clone()).unwrap()
}

fn append<F: FileSystem>(engine: &Engine<F>, index: u64, sync: bool) {
    let mut entry = BytesValue::new();
    entry.value = index.to_le_bytes().to_vec();
    let mut state = index + 1;
    while entry.value.len() < ENTRY_LEN {
        entry.value.extend(random(&mut state).to_le_bytes());
    }
    let mut batch = LogBatch::default();
    batch.add_entries::<Entry>(GROUP, &[entry]).unwrap();
    engine.write(&mut batch, sync).unwrap();
}

/// One engine that is measured, with a second directory that grows.
struct Raft<F: FileSystem> {
    files: Arc<F>,
    dir: PathBuf,
    read: Engine<F>,
    grown: Engine<F>,
}

impl<F: FileSystem> Raft<F> {
    fn new(dir: PathBuf, files: F) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        let files = Arc::new(files);
        for name in ["read", "opened"] {
            let engine = open(&dir.join(name), &files);
            (0..ENTRIES).for_each(|index| append(&engine, index, false));
            engine.sync().unwrap();
        }
        let (read, grown) = (open(&dir.join("read"), &files), open(&dir.join("grown"), &files));
        Self { files, dir, read, grown }
    }
}

impl<F: FileSystem> Subject for Raft<F> {
    fn work(&self, operation: Operation) -> Work<'_> {
        let next = || self.grown.last_index(GROUP).map_or(0, |index| index + 1);
        match operation.name {
            "append" | "append-synced" => Box::new(move || {
                let first = next();
                let sync = operation.name != "append";
                (first..first + operation.units).for_each(|index| append(&self.grown, index, sync));
            }),
            "read" => {
                let mut state = 1;
                Box::new(move || {
                    for _ in 0..operation.units {
                        let index = random(&mut state) % ENTRIES;
                        let entry = self.read.get_entry::<Entry>(GROUP, index).unwrap();
                        assert_eq!(black_box(entry).unwrap().value.len(), ENTRY_LEN);
                    }
                })
            }
            // And one entry more, for which the last log of before moves.
            "open" => Box::new(move || {
                let engine = open(&self.dir.join("opened"), &self.files);
                let last = engine.last_index(GROUP).unwrap();
                assert!(last + 1 >= ENTRIES);
                append(&engine, last + 1, false);
            }),
            _ => unreachable!("no operation named {}", operation.name),
        }
    }
}

/// Every operation, encrypted against plain.
///
/// # Panics
/// When the temporary directory cannot be written.
pub fn rows(effort: Effort, progress: impl FnMut(&str)) -> Vec<Row> {
    let dir = tempfile::tempdir().unwrap();
    let make = |kind: Option<Integrity>| -> Box<dyn Subject> {
        match kind {
            None => Box::new(Raft::new(dir.path().join("plain"), DefaultFileSystem)),
            Some(integrity) => {
                let dir = dir.path().join(integrity.name());
                let store = store(&dir, integrity);
                Box::new(Raft::new(dir, EncryptedFileSystem::new(&store)))
            }
        }
    };
    compare(effort, "raft-engine", &OPERATIONS, &KINDS, make, progress)
}
