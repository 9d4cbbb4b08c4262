//! SlateDB's compaction, steered: tables that nothing else would rewrite lose their old
//! data keys.
//!
//! `ATREST_SLATE_MONTHS` sets how many months the test under load lives through; 150 take
//! some minutes.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use atrest::keyring::{DirectoryStorage, Grace, KeyState, KeyringStorage, MemoryStorage, Options};
use atrest::kms::generate_key_file;
use atrest::store::StalePolicy;
use atrest::{DataKeyId, Keyring};
use atrest_object_store::{EncryptedStore, SteeredCompaction, slatedb_file_kind};
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use slatedb::compactor::{
    CompactionRequest, CompactionScheduler, CompactionSchedulerSupplier, CompactionSpec,
    CompactorStateView, SizeTieredCompactionSchedulerSupplier,
};
use slatedb::config::{
    CheckpointOptions, CheckpointScope, CompactionWorkerOptions, CompactorOptions, FlushOptions,
    FlushType, GarbageCollectorDirectoryOptions, GarbageCollectorOptions, Settings,
};
use slatedb::{CompactorBuilder, Db};

use crate::support::{header, key_file};
use atrest_testkit::ManualClock;

const AGE_MAX: Duration = Duration::from_secs(90 * 86_400);
const RECORDS: usize = 300;
/// Polls in which everything a test waits for happens, many times over.
const POLLS_MAX: u64 = 3000;

/// Counts what a scheduler is asked and proposes.
#[derive(Clone)]
struct Watched {
    inner: Arc<dyn CompactionSchedulerSupplier>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    polls: AtomicU64,
    /// The last poll at which something was under way.
    busy_at: AtomicU64,
    proposed: AtomicU64,
}

struct Watcher(Box<dyn CompactionScheduler + Send + Sync>, Arc<Seen>);

impl CompactionSchedulerSupplier for Watched {
    fn compaction_scheduler(
        &self,
        options: &CompactorOptions,
    ) -> Box<dyn CompactionScheduler + Send + Sync> {
        Box::new(Watcher(self.inner.compaction_scheduler(options), self.seen.clone()))
    }
}

impl CompactionScheduler for Watcher {
    fn propose(&self, state: &CompactorStateView) -> Vec<CompactionSpec> {
        let specs = self.0.propose(state);
        let poll = self.1.polls.fetch_add(1, Ordering::SeqCst) + 1;
        let mut all = state.compactions().into_iter().flat_map(|all| all.recent_compactions());
        if !specs.is_empty() || all.any(|compaction| compaction.active()) {
            self.1.busy_at.store(poll, Ordering::SeqCst);
        }
        self.1.proposed.fetch_add(specs.len() as u64, Ordering::SeqCst);
        specs
    }

    fn validate(
        &self,
        state: &CompactorStateView,
        s: &CompactionSpec,
    ) -> Result<(), slatedb::Error> {
        self.0.validate(state, s)
    }

    fn generate(
        &self,
        state: &CompactorStateView,
        request: &CompactionRequest,
    ) -> Result<Vec<CompactionSpec>, slatedb::Error> {
        self.0.generate(state, request)
    }
}

impl Seen {
    async fn polls(&self, count: u64) {
        let end = self.polls.load(Ordering::SeqCst) + count;
        while self.polls.load(Ordering::SeqCst) < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until nothing happened in 20 polls.
    async fn quiet(&self) {
        let start = self.polls.load(Ordering::SeqCst);
        loop {
            self.polls(5).await;
            let poll = self.polls.load(Ordering::SeqCst);
            assert!(poll < start + POLLS_MAX, "it never rests");
            if poll > self.busy_at.load(Ordering::SeqCst).max(start) + 20 {
                return;
            }
        }
    }
}

struct Engine {
    place: Place,
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    keyring: Keyring,
    raw: Arc<dyn ObjectStore>,
    store: EncryptedStore,
    seen: Arc<Seen>,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Disk,
    Memory,
}

impl Engine {
    fn new(place: Place) -> Self {
        let dir = tempfile::tempdir().unwrap();
        generate_key_file(dir.path().join("cmek.key")).unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let clock = ManualClock::new();
        let mut options = Options::default();
        options.clock = clock.clone();
        options.background = false;
        // Nobody checks while a month passes.
        options.access.unreachable_grace = Grace::Forever;
        options.access.view_grace = Grace::Forever;
        let (raw, storage): (Arc<dyn ObjectStore>, Box<dyn KeyringStorage>) = match place {
            Place::Disk => {
                let raw = LocalFileSystem::new_with_prefix(&data).unwrap();
                (Arc::new(raw), Box::new(DirectoryStorage::new(&data)))
            }
            Place::Memory => (Arc::new(InMemory::new()), Box::new(MemoryStorage::new())),
        };
        let storage: Arc<dyn KeyringStorage> = storage.into();
        let keyring = Keyring::create(storage, key_file(&dir), options).unwrap();
        let store = EncryptedStore::new(raw.clone(), keyring.clone());
        let store = store.with_file_kind(slatedb_file_kind);
        Self { place, dir, clock, keyring, raw, store, seen: Arc::default() }
    }

    fn steered(&self) -> SteeredCompaction {
        SteeredCompaction::new(&self.store, "db", StalePolicy::older_than(AGE_MAX))
    }

    async fn open(&self, scheduler: impl CompactionSchedulerSupplier + 'static) -> Db {
        self.open_with(scheduler, |_| {}).await
    }

    async fn open_with(
        &self,
        scheduler: impl CompactionSchedulerSupplier + 'static,
        change: impl FnOnce(&mut CompactorOptions),
    ) -> Db {
        let soon = Duration::from_millis(20);
        let mut compactor = CompactorOptions {
            poll_interval: soon,
            commit_compacted_interval: soon,
            checkpoint_lifetime: Duration::from_secs(1),
            worker: Some(CompactionWorkerOptions {
                compactions_poll_interval: soon,
                ..CompactionWorkerOptions::default()
            }),
            ..CompactorOptions::default()
        };
        change(&mut compactor);
        let collected = Some(GarbageCollectorDirectoryOptions {
            interval: Some(Duration::from_millis(50)),
            min_age: Duration::from_millis(300),
            ..GarbageCollectorDirectoryOptions::default()
        });
        let settings = Settings {
            manifest_poll_interval: Duration::from_millis(50),
            compactor_options: None,
            garbage_collector_options: Some(GarbageCollectorOptions {
                manifest_options: collected,
                wal_options: collected,
                compacted_options: collected,
                compactions_options: collected,
                // One writer: no other's write can come after its fence is gone.
                wal_fence_options: collected,
                // They take a conditional put, which a local file system does not have;
                // without it manifests are never collected there.
                boundary_files_enabled: self.place == Place::Memory,
                ..GarbageCollectorOptions::default()
            }),
            ..Settings::default()
        };
        let scheduler = Watched { inner: Arc::new(scheduler), seen: self.seen.clone() };
        let store: Arc<dyn ObjectStore> = Arc::new(self.store.clone());
        let compactor = CompactorBuilder::new("db", store.clone())
            .with_options(compactor)
            .with_scheduler_supplier(Arc::new(scheduler));
        let builder = Db::builder("db", store).with_settings(settings);
        let builder = builder.with_compactor_builder(compactor).with_db_cache_disabled();
        builder.build().await.unwrap()
    }

    /// The data keys of the tables in the manifest.
    async fn keys_of_tables(&self, db: &Db) -> HashSet<DataKeyId> {
        let mut keys = HashSet::new();
        for view in db.manifest().all_sst_views() {
            let path = Path::from(format!("db/compacted/{}.sst", view.sst.id.value()));
            keys.insert(header(&*self.raw, &path).await.data_key_id);
        }
        keys
    }

    async fn objects_under(&self, key: DataKeyId) -> Vec<Path> {
        let all: Vec<_> = self.raw.list(Some(&Path::from("db"))).try_collect().await.unwrap();
        let mut found = Vec::new();
        for location in all.into_iter().map(|meta| meta.location) {
            if header(&*self.raw, &location).await.data_key_id == key {
                found.push(location);
            }
        }
        found
    }

    async fn destroyed(&self) -> u64 {
        self.store.retire(atrest::keyring::RETIRE_GRACE).await.unwrap().destroyed().count() as u64
    }
}

fn key(group: usize, n: usize) -> String {
    format!("{group:04}-{n:06}")
}

fn value(group: usize, n: usize, round: usize) -> String {
    format!("record {n} of {group} in round {round}, {}", "x".repeat(n % 500))
}

async fn load(db: &Db, group: usize, round: usize) {
    for n in 0..RECORDS {
        db.put(key(group, n), value(group, n, round)).await.unwrap();
    }
    db.flush_with_options(FlushOptions { flush_type: FlushType::MemTable }).await.unwrap();
}

/// Reads a group whole. A table may go between the moment it was looked up and the read,
/// since the tests keep what was compacted for a second only: then it is read again.
async fn verify(db: &Db, group: usize, round: usize) {
    for _ in 0..100 {
        match group_of(db, group).await {
            Ok(records) => {
                let written: Vec<_> =
                    (0..RECORDS).map(|n| (key(group, n), value(group, n, round))).collect();
                assert!(records == written, "group {group}");
                return;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("group {group} cannot be read");
}

async fn group_of(db: &Db, group: usize) -> Result<Vec<(String, String)>, slatedb::Error> {
    let mut records = db.scan(key(group, 0)..key(group + 1, 0)).await?;
    let mut found = Vec::new();
    while let Some(record) = records.next().await? {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        found.push((text(&record.key), text(&record.value)));
    }
    Ok(found)
}

/// Nine cold groups in runs and two left in level 0, then a key of four months' age.
async fn cold(engine: &Engine, db: &Db) -> DataKeyId {
    for group in 0..9 {
        load(db, group, 0).await;
        engine.seen.quiet().await;
    }
    assert!(!db.manifest().compacted().is_empty() && !db.manifest().l0().is_empty());
    let old = engine.keyring.keys().active_id().unwrap();
    engine.clock.advance(120 * ManualClock::DAY);
    engine.keyring.maintain().unwrap();
    assert_ne!(engine.keyring.keys().active_id().unwrap(), old);
    old
}

#[tokio::test(flavor = "multi_thread")]
async fn cold_tables_lose_their_old_key_and_no_others() {
    let engine = Engine::new(Place::Disk);
    let db = engine.open(engine.steered()).await;
    let old = cold(&engine, &db).await;
    engine.seen.polls(2).await;
    engine.seen.quiet().await;
    let new = engine.keyring.keys().active_id().unwrap();
    assert_eq!(engine.keys_of_tables(&db).await, HashSet::from([new]));
    for group in 0..9 {
        verify(&db, group, 0).await;
    }
    // Rewritten once, and not again.
    let proposed = engine.seen.proposed.load(Ordering::SeqCst);
    engine.seen.polls(50).await;
    assert_eq!(engine.seen.proposed.load(Ordering::SeqCst), proposed);
    // Manifests and logs go as the engine goes on; then so does the key.
    let mut destroyed = 0;
    for round in 1.. {
        load(&db, 9, round).await;
        engine.seen.quiet().await;
        destroyed += engine.destroyed().await;
        if destroyed > 0 {
            break;
        }
        assert!(round < 20, "under the old key: {:?}", engine.objects_under(old).await);
        engine.clock.advance(2 * ManualClock::DAY);
    }
    assert!(!engine.store.usage(None).await.unwrap().keys.contains_key(&old));
    db.close().await.unwrap();
    drop(db);
    let db = engine.open(engine.steered()).await;
    for group in 0..9 {
        verify(&db, group, 0).await;
    }
    db.close().await.unwrap();
}

/// The negative twins: what does not steer leaves the old key where it is.
#[tokio::test(flavor = "multi_thread")]
async fn cold_tables_stay_without_steering() {
    let engine = Engine::new(Place::Disk);
    let db = engine.open(SizeTieredCompactionSchedulerSupplier::new()).await;
    let old = cold(&engine, &db).await;
    engine.seen.polls(100).await;
    assert_eq!(engine.keys_of_tables(&db).await, HashSet::from([old]));
    db.close().await.unwrap();
    drop(db);
    // A move would go on for ever, and change nothing.
    let db = engine.open_with(engine.steered(), |options| options.enable_trivial_move = true).await;
    let proposed = engine.seen.proposed.load(Ordering::SeqCst);
    engine.seen.polls(100).await;
    assert_eq!(engine.seen.proposed.load(Ordering::SeqCst), proposed);
    db.close().await.unwrap();
    drop(db);
    // At one byte a second the second compaction comes in a day.
    let slow = engine.steered().with_bytes_per_second(NonZeroU64::MIN);
    let db = engine.open(slow).await;
    engine.seen.polls(100).await;
    assert_eq!(engine.seen.proposed.load(Ordering::SeqCst), proposed + 1);
    assert_eq!(engine.keys_of_tables(&db).await.len(), 2);
    db.close().await.unwrap();
}

/// A checkpoint keeps its old tables; the live ones are rewritten once all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_keeps_its_tables_and_key() {
    let engine = Engine::new(Place::Memory);
    let db = engine.open(engine.steered()).await;
    let old = cold(&engine, &db).await;
    let checkpoint = CheckpointOptions::default();
    db.create_checkpoint(CheckpointScope::Durable, &checkpoint).await.unwrap();
    engine.seen.polls(2).await;
    engine.seen.quiet().await;
    assert!(!engine.keys_of_tables(&db).await.contains(&old));
    for _ in 0..3 {
        engine.clock.advance(8 * ManualClock::DAY);
        assert_eq!(engine.destroyed().await, 0, "the checkpoint's tables are under it");
    }
    assert!(engine.store.usage(None).await.unwrap().keys.contains_key(&old));
    for group in 0..9 {
        verify(&db, group, 0).await;
    }
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn months_under_load_leave_no_old_key() {
    let months = std::env::var("ATREST_SLATE_MONTHS").map_or(4, |n| n.parse().unwrap());
    for place in [Place::Disk, Place::Memory] {
        live(place, months).await;
    }
}

async fn live(place: Place, months: usize) {
    let start = Instant::now();
    let engine = Engine::new(place);
    let db = engine.open(engine.steered()).await;
    let (mut destroyed, mut created, mut written, mut oldest_days) = (0, 1, 0, 0);
    // Group 0 is written all the time; of the others each in its month, and then lies cold.
    let mut round = 0;
    for month in 0..months {
        load(&db, month + 1, 0).await;
        written += RECORDS;
        let end = engine.seen.polls.load(Ordering::SeqCst) + 60;
        while engine.seen.polls.load(Ordering::SeqCst) < end {
            round += 1;
            load(&db, 0, round).await;
            written += RECORDS;
        }
        engine.clock.advance(30 * ManualClock::DAY);
        engine.keyring.maintain().unwrap();
        created += 1;
        destroyed += engine.destroyed().await;
        verify(&db, 0, round).await;
        verify(&db, 1 + month * 7 % (month + 1), 0).await;
        oldest_days = oldest_days.max(age_days_max(&engine));
    }
    let loaded = start.elapsed();
    // The last ones: what is steered still, and the times of grace.
    for _ in 0..6 {
        for _ in 0..3 {
            round += 1;
            load(&db, 0, round).await;
            engine.seen.quiet().await;
        }
        engine.clock.advance(8 * ManualClock::DAY);
        engine.keyring.maintain().unwrap();
        destroyed += engine.destroyed().await;
    }
    for group in 0..=months {
        verify(&db, group, if group == 0 { round } else { 0 }).await;
    }
    db.close().await.unwrap();
    drop(db);

    let usage = engine.store.usage(None).await.unwrap();
    assert_eq!(
        (usage.plaintext.objects, usage.foreign.objects, usage.unreadable.objects),
        (0, 0, 0)
    );
    let now_ns = atrest::Clock::now_ns(&*engine.clock);
    let keys = engine.keyring.status().data_keys;
    for key in &keys {
        let named = usage.keys.get(&key.id).is_some_and(|count| count.objects > 0);
        let dead = key.state == KeyState::Destroyed;
        assert!(!dead || !named, "a destroyed key is named: {key:?}");
        // Stale at 90 days; then the rewriting, and the grace.
        let age_days = (now_ns - key.created_ns) / DAY_NS;
        let young = age_days <= 90 + 48;
        let left = if dead || young { Vec::new() } else { engine.objects_under(key.id).await };
        assert!(dead || young, "{age_days} days old: {key:?}: {left:?}");
    }
    let known: HashSet<_> = keys.iter().map(|key| key.id).collect();
    assert!(usage.keys.keys().all(|id| known.contains(id)));
    let objects: u64 = usage.keys.values().map(|count| count.objects).sum();
    let bytes: u64 = usage.keys.values().map(|count| count.bytes).sum();
    println!(
        "{}: {months} months in {:.0} s under load, {} data keys created, {destroyed} destroyed, \
         oldest living {} days at the end and {oldest_days} at most; {written} records written \
         ({:.0}/s), {} live and verified; {objects} objects of {bytes} bytes; {} compactions in \
         {} polls",
        engine.store,
        loaded.as_secs_f64(),
        keys.len(),
        age_days_max(&engine),
        written as f64 / loaded.as_secs_f64(),
        (months + 1) * RECORDS,
        engine.seen.proposed.load(Ordering::SeqCst),
        engine.seen.polls.load(Ordering::SeqCst),
    );
    assert!(keys.len() >= created);
    assert!(destroyed >= (months as u64).saturating_sub(4), "{destroyed} of {months} keys");
    drop(engine.dir);
}

const DAY_NS: u64 = 86_400_000_000_000;

/// Age of the oldest data key that is not destroyed.
fn age_days_max(engine: &Engine) -> u64 {
    let now_ns = atrest::Clock::now_ns(&*engine.clock);
    let keys = engine.keyring.status().data_keys;
    let living = keys.iter().filter(|key| key.state != KeyState::Destroyed);
    living.map(|key| (now_ns - key.created_ns) / DAY_NS).max().unwrap()
}
