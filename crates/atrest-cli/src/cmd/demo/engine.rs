//! The engine of the demonstration: SlateDB, on any object store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atrest::ErrorKind;
use atrest_object_store::find_error;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, FlushOptions, FlushType,
    GarbageCollectorDirectoryOptions, GarbageCollectorOptions, ScanOptions, Settings,
    SizeTieredCompactionSchedulerOptions,
};
use slatedb::{Db, WriteBatch};

use super::records;
use crate::failure::{Failure, Result};

/// Where the engine's files lie below the store's directory.
pub(super) const PATH: &str = "db";
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

/// The records the engine holds: for each number the version written last.
pub(super) type Versions = Vec<u32>;

pub(super) fn local(dir: &Path) -> Result<Arc<dyn ObjectStore>> {
    Ok(Arc::new(LocalFileSystem::new_with_prefix(dir).map_err(failed)?))
}

/// Runs one session of the engine. Its threads and all they hold, the keyring's lock
/// among it, are gone when this returns: the next session begins as a new process would.
pub(super) fn session<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| atrest::Error::io("no threads for the engine", e))?;
    runtime.block_on(work)
}

/// Whether the engine rewrites its tables by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Compaction {
    On,
    Off,
}

/// Opens the engine with its removal of old files at work.
pub(super) async fn open(store: Arc<dyn ObjectStore>, compaction: Compaction) -> Result<Db> {
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
    let settings = Settings {
        l0_sst_size_bytes: TABLE_BYTES,
        manifest_poll_interval: TICK,
        max_unflushed_bytes: 16 * TABLE_BYTES,
        l0_max_ssts: UNCOMPACTED_MAX,
        l0_max_ssts_per_key: UNCOMPACTED_MAX,
        compactor_options: (compaction == Compaction::On).then_some(compactor),
        garbage_collector_options: Some(collector),
        ..Settings::default()
    };
    Db::builder(PATH, store).with_settings(settings).build().await.map_err(failed)
}

/// Opens the engine for reading back: nothing is compacted or removed.
pub(super) async fn open_quiet(store: Arc<dyn ObjectStore>) -> Result<Db> {
    let settings = Settings {
        compactor_options: None,
        garbage_collector_options: None,
        ..Settings::default()
    };
    Db::builder(PATH, store).with_settings(settings).build().await.map_err(failed)
}

/// Writes the next version of each of these records. Returns the bytes of keys and
/// values.
pub(super) async fn write(
    db: &Db,
    versions: &mut Versions,
    numbers: impl Iterator<Item = u64>,
    wrote: impl Fn(u64),
) -> Result<u64> {
    let mut batch = WriteBatch::new();
    let (mut in_batch, mut bytes) = (0, 0);
    let mut value = String::new();
    for number in numbers {
        let index = number as usize;
        if versions.len() <= index {
            versions.resize(index + 1, 0);
        }
        versions[index] += 1;
        records::value(number, versions[index], &mut value);
        let key = records::key(number);
        bytes += (key.len() + value.len()) as u64;
        batch.put(key, &value);
        in_batch += 1;
        if in_batch == BATCH_LEN {
            db.write(std::mem::take(&mut batch)).await.map_err(failed)?;
            wrote(in_batch as u64);
            in_batch = 0;
        }
    }
    if in_batch > 0 {
        db.write(batch).await.map_err(failed)?;
        wrote(in_batch as u64);
    }
    Ok(bytes)
}

/// Makes all that was written durable, in tables.
pub(super) async fn flush(db: &Db) -> Result<()> {
    let options = FlushOptions { flush_type: FlushType::MemTable };
    db.flush_with_options(options).await.map_err(failed)
}

pub(super) async fn close(db: Db) -> Result<()> {
    db.close().await.map_err(failed)
}

/// What reading everything back gave.
#[derive(Default)]
pub(super) struct Verified {
    /// Records that are as they were written last.
    pub(super) good: u64,
    /// Records that are not, or that nobody wrote.
    pub(super) bad: u64,
}

/// Reads every record and compares it.
pub(super) async fn verify(db: &Db, versions: &Versions, read: impl Fn(u64)) -> Result<Verified> {
    let options = ScanOptions::default().with_read_ahead_bytes(1 << 20);
    let mut records = db.scan_with_options(.., &options).await.map_err(failed)?;
    let mut verified = Verified::default();
    let mut expected = String::new();
    while let Some(record) = records.next().await.map_err(failed)? {
        let number = records::number(&record.key);
        let version = number.and_then(|number| versions.get(number as usize));
        let as_written = match (number, version) {
            (Some(number), Some(version)) => {
                records::value(number, *version, &mut expected);
                record.value == expected.as_bytes()
            }
            _ => false,
        };
        *(if as_written { &mut verified.good } else { &mut verified.bad }) += 1;
        read(1);
    }
    Ok(verified)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    let kind = find_error(&error).map_or(ErrorKind::Io(std::io::ErrorKind::Other), |e| e.kind());
    atrest::Error::new(kind, "the engine failed").with_source(error).into()
}
