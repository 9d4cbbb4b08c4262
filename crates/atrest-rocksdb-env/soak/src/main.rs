//! RocksDB on encrypted files as an engine of `atrest-bench soak --rocksdb`, which starts and kills it.
//!
//! Usage: atrest-rocksdb-soak DIRECTORY SCRATCH CMEK-URI SEED

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atrest::Store;
use atrest::kms::Kms;
use atrest_soak::{Any, Engine, Journal, Life, Wrong, live, options};
use rocksdb::backup::{BackupEngine, BackupEngineOptions, RestoreOptions};
use rocksdb::{
    BottommostLevelCompaction, CompactOptions, DB, Env, Options, ReadOptions, WriteOptions,
};

const RECORDS: u32 = 4000;
const LEN_MAX: usize = 3000;

struct Rocks {
    store: Store,
    env: Env,
    dir: PathBuf,
    /// None after an error, of which RocksDB recovers by being opened again.
    db: Mutex<Option<Arc<DB>>>,
}

impl Rocks {
    fn open(dir: &Path, kms: Arc<dyn Kms>) -> Any<Self> {
        let store = Store::open_or_create(dir, kms, options())?;
        let env = atrest_rocksdb_env::env(&store);
        Ok(Self { store, env, dir: dir.join("db"), db: Mutex::default() })
    }

    fn options(&self) -> Options {
        let mut options = Options::default();
        options.set_env(&self.env);
        options.create_if_missing(true);
        // Small, so that minutes see flushes and compactions.
        options.set_write_buffer_size(1 << 20);
        options.set_target_file_size_base(1 << 20);
        options.set_max_bytes_for_level_base(4 << 20);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(2500);
        options.set_recycle_log_file_num(2);
        options.set_keep_log_file_num(3);
        options
    }

    fn run<T>(&self, work: impl FnOnce(&DB) -> Result<T, rocksdb::Error>) -> Any<T> {
        let db = {
            let mut slot = self.db.lock().unwrap_or_else(PoisonError::into_inner);
            match &*slot {
                Some(db) => db.clone(),
                None => slot.insert(Arc::new(DB::open(&self.options(), &self.dir)?)).clone(),
            }
        };
        work(&db).map_err(|error| {
            let mut slot = self.db.lock().unwrap_or_else(PoisonError::into_inner);
            // The last operation on it closes it.
            if slot.as_ref().is_some_and(|of| Arc::ptr_eq(of, &db)) {
                *slot = None;
            }
            error.into()
        })
    }
}

fn get(db: &DB, key: u32) -> Result<Option<Vec<u8>>, rocksdb::Error> {
    let mut uncached = ReadOptions::default();
    uncached.fill_cache(false);
    db.get_opt(key.to_be_bytes(), &uncached)
}

impl Engine for Rocks {
    fn len_max(&self) -> usize {
        LEN_MAX
    }

    fn put(&self, key: u32, value: &[u8]) -> Any<()> {
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        self.run(|db| db.put_opt(key.to_be_bytes(), value, &durable))
    }

    fn get(&self, key: u32) -> Any<Option<Vec<u8>>> {
        self.run(|db| get(db, key))
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn renew(&self) -> Any<u64> {
        self.run(|db| {
            db.flush()?;
            let mut all = CompactOptions::default();
            all.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &all);
            Ok(())
        })?;
        let retired = self.store.renewal().retire(None, Duration::ZERO, &|_| {})?;
        Ok(retired.destroyed().count() as u64)
    }

    fn back_up(&self, scratch: &Path, journal: &Journal) -> Any<u64> {
        // Known to the store before what is made and removed in it.
        self.store.files().create_dir(scratch)?;
        let [backups, restored] = ["backups", "restored"].map(|name| scratch.join(name));
        if restored.exists() {
            std::fs::remove_dir_all(&restored)?;
        }
        let least = journal.all_acknowledged();
        let mut engine = BackupEngine::open(&BackupEngineOptions::new(&backups)?, &self.env)?;
        self.run(|db| engine.create_new_backup_flush(db, true))?;
        engine.restore_from_latest_backup(&restored, &restored, &RestoreOptions::default())?;
        engine.purge_old_backups(3)?;
        let db = DB::open_for_read_only(&self.options(), &restored, false)?;
        for (key, least) in (0..).zip(&least) {
            let found = get(&db, key)?;
            let judged = journal.judge(key, *least, found.as_deref(), LEN_MAX);
            judged.map_err(|error| Wrong(format!("restored {error}")))?;
        }
        drop(db);
        std::fs::remove_dir_all(&restored)?;
        Ok(least.len() as u64)
    }

    fn close(&self) {
        self.db.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(self.store.clone().close());
    }
}

fn main() -> Any<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [dir, scratch, uri, seed] = <[_; 4]>::try_from(arguments)
        .map_err(|_| "usage: atrest-rocksdb-soak DIRECTORY SCRATCH CMEK-URI SEED")?;
    let text = |word: std::ffi::OsString| word.into_string().map_err(|_| "expected UTF-8");
    let (uri, seed) = (text(uri)?, text(seed)?.parse()?);
    let life = Life { dir: dir.into(), scratch: scratch.into(), uri, seed };
    live(&life, RECORDS, |dir, kms| Ok(Box::new(Rocks::open(dir, kms)?) as Box<dyn Engine>))
}
