//! A database whose records are read from its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use atrest::{DataKeyId, Header, Store};
use atrest_testkit::Answer;
use rocksdb::{
    BottommostLevelCompaction, CompactOptions, DB, Env, Options, ReadOptions, WriteOptions,
};

pub(crate) struct Rocks {
    env: Env,
    dir: PathBuf,
    /// None after a failure: RocksDB takes a failed write of its log for the end of that opening.
    db: Mutex<Option<DB>>,
}

pub(crate) fn options(env: &Env) -> Options {
    let mut options = Options::default();
    options.set_env(env);
    options.create_if_missing(true);
    options.set_keep_log_file_num(1);
    options
}

impl Rocks {
    /// Does something with the database, which is opened again after a failure.
    fn with<T>(&self, work: impl FnOnce(&DB) -> Answer<T>) -> Answer<T> {
        let mut slot: MutexGuard<'_, _> = self.db.lock().unwrap();
        let db = match slot.take() {
            Some(db) => db,
            None => DB::open(&options(&self.env), &self.dir)?,
        };
        let done = work(&db)?;
        *slot = Some(db);
        Ok(done)
    }
}

impl atrest_testkit::Engine for Rocks {
    fn open(store: &Store, dir: &Path) -> Answer<Self> {
        let rocks =
            Self { env: atrest_rocksdb_env::env(store), dir: dir.into(), db: Mutex::default() };
        rocks.with(|_| Ok(()))?;
        Ok(rocks)
    }

    fn put(&mut self, number: u64, value: &str) -> Answer<()> {
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        self.with(|db| Ok(db.put_opt(number.to_be_bytes(), value, &durable)?))
    }

    fn get(&self, number: u64) -> Answer<Option<String>> {
        let mut uncached = ReadOptions::default();
        uncached.fill_cache(false);
        self.with(|db| {
            // Out of the memtable.
            db.flush()?;
            let found = db.get_opt(number.to_be_bytes(), &uncached)?;
            Ok(found.map(String::from_utf8).transpose()?)
        })
    }

    fn compact(&mut self) -> Answer<()> {
        self.with(|db| {
            db.flush()?;
            let mut all = CompactOptions::default();
            all.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &all);
            Ok(())
        })?;
        // The manifest and the log of messages are begun anew by the next opening.
        self.db.lock().unwrap().take();
        self.with(|_| Ok(()))
    }

    fn data_key(_: &Store, path: &Path) -> Option<DataKeyId> {
        let name = path.file_name().unwrap().to_str().unwrap();
        // They hold no data, and stay. LOCK is empty.
        let stays = ["IDENTITY", "OPTIONS-", "LOCK"].iter().any(|start| name.starts_with(start));
        let header = Header::parse(&fs::read(path).unwrap());
        assert!(header.is_ok() || name == "LOCK", "{name}: {header:?}");
        (!stays).then(|| header.unwrap().data_key_id)
    }
}
