//! SlateDB's compaction, steered to the tables under old data keys.
//!
//! The engine's own scheduler decides first. What it leaves alone and the policy calls
//! stale is rewritten where it is: one sorted run into itself, or the oldest tables of
//! level 0 into a run of their own. Order and sizes of the runs stay as they were, so the
//! engine's scheduler sees the tree that it built.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use atrest::Keyring;
use atrest::store::{StaleJudge, StalePolicy};
use object_store::path::Path;
use slatedb::compactor::{
    CompactionRequest, CompactionScheduler, CompactionSchedulerSupplier, CompactionSpec,
    CompactionStatus, CompactorStateView, SizeTieredCompactionSchedulerSupplier,
};
use slatedb::config::CompactorOptions;

use crate::EncryptedStore;
use plan::{Busy, Plan, Tree};
use tables::Tables;

mod plan;
mod tables;

/// Makes SlateDB rewrite the tables that a [`StalePolicy`] names, so that old data keys go
/// away without a compaction of everything: a scheduler for
/// [`CompactorBuilder::with_scheduler_supplier`](slatedb::CompactorBuilder::with_scheduler_supplier),
/// around the engine's own.
///
/// What it costs is bounded:
/// - The engine's own compactions come first; none of their sources is touched.
/// - One steered compaction at a time, of one sorted run or of level 0, oldest data key
///   first. Where the compactor may do several at once, it never takes the last free slot.
/// - A run is written again under the newest data key, so by age it is rewritten at most
///   once in each `key_age_max` less the rotation period; with 90 and 30 days, at most once
///   in 60 days, and by then the engine has rewritten most of them itself.
///   [`with_bytes_per_second`](Self::with_bytes_per_second) spreads it out.
/// - A request for the header of each table, once, and again before it is rewritten; 64 at
///   a time, in tasks of the runtime that the compactor runs in.
///
/// A compaction that fails is tried again after twice as many polls each time. Tables that
/// a checkpoint holds stay on disk until it ends, and those of another database, of which
/// this one is a clone, stay there. Only tables are steered: SlateDB replaces manifests and
/// logs itself as it goes on.
///
/// With [`CompactorOptions::enable_trivial_move`] nothing is steered: the engine would move
/// the tables of such a compaction instead of rewriting them.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use atrest::keyring::{MemoryStorage, Options};
/// # use atrest::{Keyring, kms};
/// use atrest::store::StalePolicy;
/// use atrest_object_store::{EncryptedStore, SteeredCompaction, slatedb_file_kind};
/// # use object_store::memory::InMemory;
/// use slatedb::config::{CompactorOptions, Settings};
/// use slatedb::{CompactorBuilder, Db};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let key = dir.path().join("cmek.key");
/// # kms::generate_key_file(&key)?;
/// # let kms = kms::from_uri(&format!("file://{}", key.display()))?;
/// # let keyring = Keyring::open_or_create(MemoryStorage::new(), kms, Options::default())?;
/// # let raw = Arc::new(InMemory::new());
/// let store = EncryptedStore::new(raw, keyring).with_file_kind(slatedb_file_kind);
/// let policy = StalePolicy::older_than(Duration::from_secs(90 * 86_400));
/// let compactor = CompactorBuilder::new("db", Arc::new(store.clone()))
///     .with_options(CompactorOptions::default())
///     .with_scheduler_supplier(Arc::new(SteeredCompaction::new(&store, "db", policy)));
/// let db = Db::builder("db", Arc::new(store))
///     .with_settings(Settings { compactor_options: None, ..Settings::default() })
///     .with_compactor_builder(compactor)
///     .build()
///     .await?;
/// # db.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SteeredCompaction {
    store: EncryptedStore,
    path: Path,
    policy: StalePolicy,
    engine: Arc<dyn CompactionSchedulerSupplier>,
    bytes_per_second: Option<NonZeroU64>,
}

impl SteeredCompaction {
    /// Steers the compaction of the database at `path` in `store`, which is the one that
    /// the database is opened on. The engine's own scheduler is the size-tiered one.
    pub fn new(store: &EncryptedStore, path: impl Into<Path>, policy: StalePolicy) -> Self {
        let engine = Arc::new(SizeTieredCompactionSchedulerSupplier::new());
        Self { store: store.clone(), path: path.into(), policy, engine, bytes_per_second: None }
    }

    /// Sets the scheduler that decides first.
    #[must_use]
    pub fn with_scheduler(mut self, engine: Arc<dyn CompactionSchedulerSupplier>) -> Self {
        self.engine = engine;
        self
    }

    /// Sets how many bytes of tables are rewritten a second, over time: after a run comes a
    /// pause as long as it should have taken. Default: no limit.
    #[must_use]
    pub fn with_bytes_per_second(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.bytes_per_second = Some(bytes_per_second);
        self
    }
}

impl fmt::Debug for SteeredCompaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteeredCompaction")
            .field("path", &self.path)
            .field("policy", &self.policy)
            .field("bytes_per_second", &self.bytes_per_second)
            .finish_non_exhaustive()
    }
}

impl CompactionSchedulerSupplier for SteeredCompaction {
    fn compaction_scheduler(
        &self,
        options: &CompactorOptions,
    ) -> Box<dyn CompactionScheduler + Send + Sync> {
        Box::new(Steered {
            engine: self.engine.compaction_scheduler(options),
            keyring: self.store.keyring().clone(),
            policy: self.policy.clone(),
            path: self.path.clone(),
            slots: options.max_concurrent_compactions,
            rewrites: !options.enable_trivial_move,
            bytes_per_second: self.bytes_per_second,
            state: Mutex::new(State {
                tables: Tables::new(self.store.inner().clone(), self.store.integrity()),
                current: None,
                not_before: None,
            }),
        })
    }
}

struct Steered {
    engine: Box<dyn CompactionScheduler + Send + Sync>,
    keyring: Keyring,
    policy: StalePolicy,
    path: Path,
    /// Compactions at the same time.
    slots: usize,
    /// Whether a compaction writes new tables.
    rewrites: bool,
    bytes_per_second: Option<NonZeroU64>,
    state: Mutex<State>,
}

struct State {
    tables: Tables,
    /// The steered compaction under way.
    current: Option<(CompactionSpec, Plan)>,
    not_before: Option<Instant>,
}

#[deny(clippy::missing_trait_methods)]
impl CompactionScheduler for Steered {
    fn propose(&self, view: &CompactorStateView) -> Vec<CompactionSpec> {
        let mut specs = self.engine.propose(view);
        specs.extend(self.steer(view, &specs));
        specs
    }

    fn validate(
        &self,
        view: &CompactorStateView,
        spec: &CompactionSpec,
    ) -> Result<(), slatedb::Error> {
        self.engine.validate(view, spec)
    }

    fn generate(
        &self,
        view: &CompactorStateView,
        request: &CompactionRequest,
    ) -> Result<Vec<CompactionSpec>, slatedb::Error> {
        self.engine.generate(view, request)
    }
}

impl Steered {
    fn steer(
        &self,
        view: &CompactorStateView,
        proposed: &[CompactionSpec],
    ) -> Option<CompactionSpec> {
        if !self.rewrites {
            return None;
        }
        let manifest = view.manifest();
        // No code that may panic leaves it half changed.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { tables, current, not_before } = &mut *state;
        tables.keep_up(&self.path, manifest);
        let mut active = Vec::new();
        let mut slots_taken = proposed.len();
        for compaction in view.compactions().iter().flat_map(|all| all.recent_compactions()) {
            if compaction.active() {
                active.push(compaction.spec());
                // One that is compacted waits for its commit, in no slot.
                slots_taken += usize::from(compaction.status() != CompactionStatus::Compacted);
            }
        }
        if let Some((spec, plan)) = current {
            if active.contains(&&*spec) {
                return None;
            }
            tables.settle(&plan.stale);
            *current = None;
        }
        let slots_left = self.slots.saturating_sub(slots_taken);
        if slots_left < self.slots.min(2) || not_before.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let busy = Busy::new(active.iter().copied().chain(proposed));
        let judge: StaleJudge = self.policy.judge(&self.keyring);
        let trees = Tree::all(manifest);
        let plan = plan::oldest(&trees, &busy, |table| tables.stale(table, &judge))?;
        // Whatever rewrote it beneath the engine, re-encryption for one, is seen here.
        if !tables.are_fresh(&plan.stale) {
            tables.look_again(&self.path, manifest, &plan.stale);
            return None;
        }
        let spec = plan.spec(&trees, &busy)?;
        *not_before = self
            .bytes_per_second
            .and_then(|rate| Instant::now().checked_add(Duration::from_secs(plan.bytes / rate)));
        *current = Some((spec.clone(), plan));
        Some(spec)
    }
}
