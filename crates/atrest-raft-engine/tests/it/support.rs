//! One raft group whose entries are the records.

use std::path::Path;
use std::sync::Arc;

use atrest::Store;
use atrest_raft_engine::EncryptedFileSystem;
use atrest_testkit::{Answer, Engine as _};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};

const GROUP: u64 = 7;

/// An entry: its index, then its text.
pub(crate) struct Entry;

impl MessageExt for Entry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        u64::from_le_bytes(*entry.value.first_chunk().unwrap())
    }
}

pub(crate) struct Raft(pub(crate) Engine<EncryptedFileSystem>);

pub(crate) fn config(dir: &Path) -> Config {
    Config {
        dir: dir.to_str().unwrap().to_owned(),
        // Small, so that there are many logs.
        target_file_size: ReadableSize::kb(2),
        purge_threshold: ReadableSize::kb(8),
        enable_log_recycle: false,
        ..Config::default()
    }
}

impl Raft {
    pub(crate) fn with(store: &Store, config: Config) -> Answer<Self> {
        let files = Arc::new(EncryptedFileSystem::new(store));
        // raft-engine's own lock: what another test is just starting as a process has a copy of its
        // descriptor until it runs its program.
        let mut refusals = 0;
        loop {
            match Engine::open_with_file_system(config.clone(), files.clone()) {
                Err(error) if refusals < 1000 && error.to_string().contains("Failed to lock") => {
                    refusals += 1;
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                opened => return Ok(Self(opened?)),
            }
        }
    }

    pub(crate) fn strict(store: &Store, dir: &Path) -> Answer<Self> {
        let recovery_mode = RecoveryMode::AbsoluteConsistency;
        Self::with(store, Config { recovery_mode, ..config(dir) })
    }
}

impl atrest_testkit::Engine for Raft {
    fn open(store: &Store, dir: &Path) -> Answer<Self> {
        Self::with(store, config(dir))
    }

    fn put(&mut self, number: u64, text: &str) -> Answer<()> {
        let mut entry = BytesValue::new();
        entry.value = [&number.to_le_bytes(), text.as_bytes()].concat();
        let mut batch = LogBatch::default();
        batch.add_entries::<Entry>(GROUP, &[entry])?;
        // A value of the group itself, in memory but for the log.
        batch.put(GROUP, b"last".to_vec(), text.as_bytes().to_vec())?;
        self.0.write(&mut batch, true)?;
        Ok(())
    }

    fn get(&self, number: u64) -> Answer<Option<String>> {
        let entry = self.0.get_entry::<Entry>(GROUP, number)?;
        Ok(entry.map(|entry| String::from_utf8(entry.value[8..].to_vec()).unwrap()))
    }

    fn compact(&mut self) -> Answer<()> {
        let purge = self.0.purge_manager();
        purge.must_rewrite_append_queue(None, None);
        purge.must_rewrite_rewrite_queue();
        Ok(())
    }
}

/// So many records, each written and read.
pub(crate) fn put(raft: &mut Raft, numbers: std::ops::Range<u64>) {
    for number in numbers {
        raft.put(number, &text(number)).unwrap();
    }
}

pub(crate) fn text(number: u64) -> String {
    format!("entry {number} and what is in it")
}

pub(crate) fn has(raft: &Raft, count: u64) {
    for number in 0..count {
        assert_eq!(raft.get(number).unwrap(), Some(text(number)));
    }
    assert_eq!(raft.get(count).unwrap(), None);
}
