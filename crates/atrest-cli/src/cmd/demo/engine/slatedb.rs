//! SlateDB, on an encrypting object store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atrest::Keyring;
use atrest_object_store::{EncryptedStore, slatedb_file_kind};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, FlushOptions, FlushType,
    GarbageCollectorDirectoryOptions, GarbageCollectorOptions, ScanOptions, Settings,
    SizeTieredCompactionSchedulerOptions,
};
use slatedb::{Db, WriteBatch};
use tokio::runtime::Runtime;

use super::{Check, Engine, Mode, PATH, Session, Verified, Versions, failed, names, next_version};
use crate::cmd::demo::records;
use crate::failure::Result;

/// Records in one batch.
const BATCH_LEN: usize = 500;
/// A small table, so that a small data set has many of them to compact.
const TABLE_BYTES: usize = 4 << 20;
/// Tables that may wait for compaction. Far above what the demonstration makes while
/// compaction is off.
const UNCOMPACTED_MAX: usize = 4096;
/// How often the engine looks whether there is something to compact or to remove.
const TICK: Duration = Duration::from_millis(200);
/// Tables and logs younger than this are not removed. The engine needs none of them once
/// its manifest does not name them; nothing else reads.
const REMOVE_AGE: Duration = Duration::from_millis(300);
/// The same for manifests, which the engine's own threads read again and again.
const REMOVE_MANIFEST_AGE: Duration = Duration::from_secs(5);

pub(super) struct SlateDb;

impl Engine for SlateDb {
    fn name(&self) -> &'static str {
        "SlateDB"
    }

    fn open(&self, dir: &Path, keyring: Option<&Keyring>, mode: Mode) -> Result<Box<dyn Session>> {
        let local = Arc::new(LocalFileSystem::new_with_prefix(dir).map_err(failed)?);
        let store: Arc<dyn ObjectStore> = match keyring {
            Some(keyring) => {
                let store = EncryptedStore::new(local, keyring.clone());
                Arc::new(store.with_file_kind(slatedb_file_kind))
            }
            None => local,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|e| atrest::Error::io("no threads for the engine", e))?;
        let settings = match mode {
            Mode::Quiet => Settings {
                compactor_options: None,
                garbage_collector_options: None,
                ..Settings::default()
            },
            Mode::Loading | Mode::Compacting => settings(mode),
        };
        let builder = Db::builder(PATH, store).with_settings(settings);
        let db = runtime.block_on(builder.build()).map_err(failed)?;
        Ok(Box::new(Open { db, runtime }))
    }

    fn tables(&self, dir: &Path) -> BTreeSet<PathBuf> {
        names(&dir.join(PATH).join("compacted"), |_| true)
    }

    fn logs(&self, dir: &Path) -> BTreeSet<PathBuf> {
        names(&dir.join(PATH).join("wal"), |_| true)
    }
}

/// With removal of old files at work.
fn settings(mode: Mode) -> Settings {
    let scheduler = SizeTieredCompactionSchedulerOptions {
        min_compaction_sources: 2,
        ..SizeTieredCompactionSchedulerOptions::default()
    };
    let compactor = CompactorOptions {
        poll_interval: TICK,
        commit_compacted_interval: TICK,
        // Nothing reads while this engine compacts.
        checkpoint_lifetime: REMOVE_AGE,
        scheduler_options: scheduler.into(),
        worker: Some(CompactionWorkerOptions {
            compactions_poll_interval: TICK,
            ..CompactionWorkerOptions::default()
        }),
        ..CompactorOptions::default()
    };
    let remove = |min_age| {
        let interval = Some(TICK);
        Some(GarbageCollectorDirectoryOptions { interval, min_age, dry_run: false })
    };
    let collector = GarbageCollectorOptions {
        manifest_options: remove(REMOVE_MANIFEST_AGE),
        wal_options: remove(REMOVE_AGE),
        wal_fence_options: None,
        compacted_options: remove(REMOVE_AGE),
        compactions_options: remove(REMOVE_MANIFEST_AGE),
        detach_options: None,
        // A local directory has no conditional overwrite, and no second process is here.
        boundary_files_enabled: false,
        ..GarbageCollectorOptions::default()
    };
    Settings {
        l0_sst_size_bytes: TABLE_BYTES,
        manifest_poll_interval: TICK,
        max_unflushed_bytes: 16 * TABLE_BYTES,
        l0_max_ssts: UNCOMPACTED_MAX,
        l0_max_ssts_per_key: UNCOMPACTED_MAX,
        compactor_options: (mode == Mode::Compacting).then_some(compactor),
        garbage_collector_options: Some(collector),
        ..Settings::default()
    }
}

/// Its threads and all they hold, the keyring's lock among it, are gone when it is closed: the
/// next session begins as a new process would.
struct Open {
    db: Db,
    runtime: Runtime,
}

impl Session for Open {
    fn write(
        &mut self,
        versions: &mut Versions,
        numbers: &mut dyn Iterator<Item = u64>,
        wrote: &dyn Fn(u64),
    ) -> Result<u64> {
        let (mut bytes, mut value) = (0, String::new());
        loop {
            let mut batch = WriteBatch::new();
            let mut count = 0;
            for number in numbers.take(BATCH_LEN) {
                let key = next_version(versions, number, &mut value);
                bytes += (key.len() + value.len()) as u64;
                batch.put(key, &value);
                count += 1;
            }
            if count == 0 {
                return Ok(bytes);
            }
            self.runtime.block_on(self.db.write(batch)).map_err(failed)?;
            wrote(count);
        }
    }

    fn flush(&mut self) -> Result<()> {
        let options = FlushOptions { flush_type: FlushType::MemTable };
        self.runtime.block_on(self.db.flush_with_options(options)).map_err(failed)
    }

    fn verify(&self, versions: &Versions, read: &dyn Fn(u64)) -> Result<Verified> {
        self.runtime.block_on(async {
            let options = ScanOptions::default().with_read_ahead_bytes(1 << 20);
            let mut all = self.db.scan_with_options(.., &options).await.map_err(failed)?;
            let mut check = Check::new(versions);
            while let Some(record) = all.next().await.map_err(failed)? {
                check.add(records::number(&record.key), &record.value);
                read(1);
            }
            Ok(check.verified)
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.runtime.block_on(self.db.close()).map_err(failed)
    }
}
