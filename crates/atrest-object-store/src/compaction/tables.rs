//! What is known of the tables in a manifest: the header of each.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use atrest::classify::Contents;
use atrest::store::{StaleJudge, StaleReason};
use atrest::{HEADER_LEN, Integrity};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use slatedb::manifest::SsTableId;
use slatedb::{PathResolver, VersionedManifest};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::v0_14::{check_start, first_of};

/// Headers read at the same time.
const LOOKS_MAX: usize = 64;
/// Polls after which a compaction that fails again and again is tried, as a power of two.
const PAUSE_LOG2_MAX: u32 = 10;

struct Known {
    what: Contents,
    /// The poll at which the header was read.
    seen: u64,
}

/// A table whose rewriting failed.
struct Pause {
    failures: u32,
    until: u64,
}

/// The tables of the last manifest.
pub(super) struct Tables {
    inner: Arc<dyn ObjectStore>,
    /// Of new tables.
    integrity: Integrity,
    known: HashMap<SsTableId, Known>,
    paused: HashMap<SsTableId, Pause>,
    /// Ended by drop.
    looks: JoinSet<(SsTableId, Option<Contents>)>,
    looking: HashSet<SsTableId>,
    poll: u64,
}

impl Tables {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, integrity: Integrity) -> Self {
        Self {
            inner,
            integrity,
            known: HashMap::new(),
            paused: HashMap::new(),
            looks: JoinSet::new(),
            looking: HashSet::new(),
            poll: 0,
        }
    }

    /// Takes in what was read since the last poll, forgets tables that are gone, and begins
    /// to read the headers of new ones.
    pub(super) fn keep_up(&mut self, path: &Path, manifest: &VersionedManifest) {
        self.poll += 1;
        while let Some(look) = self.looks.try_join_next() {
            // A look that panicked stays in `looking`: nothing is known of its table.
            let Ok((table, what)) = look else { continue };
            self.looking.remove(&table);
            match what {
                Some(what) => drop(self.known.insert(table, Known { what, seen: self.poll })),
                // To be read again.
                None => drop(self.known.remove(&table)),
            }
        }
        let tables: HashSet<_> = manifest.all_sst_views().map(|view| view.sst.id).collect();
        self.known.retain(|table, _| tables.contains(table));
        self.paused.retain(|table, _| tables.contains(table));
        let unknown = tables.iter().filter(|table| !self.known.contains_key(table));
        let unknown: Vec<_> = unknown.copied().collect();
        self.look_again(path, manifest, &unknown);
    }

    /// Begins to read headers, as many as may be read at the same time.
    pub(super) fn look_again(
        &mut self,
        path: &Path,
        manifest: &VersionedManifest,
        tables: &[SsTableId],
    ) {
        // A compactor polls inside of a runtime.
        let Ok(runtime) = Handle::try_current() else { return };
        let free = LOOKS_MAX.saturating_sub(self.looks.len());
        if tables.is_empty() || free == 0 {
            return;
        }
        let paths = PathResolver::new(path.clone(), manifest);
        let wanted: Vec<_> = tables.iter().filter(|table| !self.looking.contains(table)).collect();
        for table in wanted.into_iter().take(free).copied() {
            self.looking.insert(table);
            let (inner, location) = (self.inner.clone(), paths.sst_path(&table));
            let look = async move { (table, look(&*inner, &location).await) };
            self.looks.spawn_on(look, &runtime);
        }
    }

    /// When the data key of a table was created, nanoseconds since the Unix epoch, if the
    /// table is stale and a compaction mends that.
    pub(super) fn stale(&self, table: SsTableId, judge: &StaleJudge) -> Option<u64> {
        if self.paused.get(&table).is_some_and(|pause| self.poll < pause.until) {
            return None;
        }
        match &self.known.get(&table)?.what {
            Contents::Encrypted(header) => {
                let (reason, key_created_ns) = judge.header(header)?;
                // A compaction mends that only if new tables are authenticated.
                let mended =
                    reason != StaleReason::WeakSuite || self.integrity == Integrity::Authenticated;
                mended.then_some(key_created_ns)
            }
            Contents::Plaintext | Contents::Empty | Contents::Unwritten => {
                judge.plaintext().then_some(0)
            }
            // Nothing that a compaction could read.
            _ => None,
        }
    }

    /// Whether the header of one of them, at least, was read just now.
    pub(super) fn are_fresh(&self, tables: &[SsTableId]) -> bool {
        let seen = tables.iter().filter_map(|table| Some(self.known.get(table)?.seen));
        seen.max().is_some_and(|seen| seen == self.poll)
    }

    /// After a compaction of these tables ended: those that are still there wait for the
    /// next try.
    pub(super) fn settle(&mut self, tables: &[SsTableId]) {
        for table in tables.iter().filter(|table| self.known.contains_key(table)) {
            let pause = self.paused.entry(*table).or_insert(Pause { failures: 0, until: 0 });
            pause.failures += 1;
            pause.until = self.poll + (1 << pause.failures.min(PAUSE_LOG2_MAX));
        }
    }
}

/// `None` if it cannot be told now.
async fn look(inner: &dyn ObjectStore, location: &Path) -> Option<Contents> {
    let range = GetRange::Bounded(0..HEADER_LEN as u64);
    let options = GetOptions::new().with_range(Some(range));
    let result = inner.get_opts(location, options).await.ok()?;
    let physical_len = result.meta.size;
    let start = first_of(result, HEADER_LEN).await.ok()?;
    check_start(location, &start, physical_len).ok()?;
    Some(Contents::of(&start))
}

#[cfg(test)]
mod tests;
