//! Which tables are rewritten next: the rules of SlateDB for a compaction's sources.

use std::collections::HashSet;

use bytes::Bytes;
use slatedb::VersionedManifest;
use slatedb::compactor::{CompactionSpec, SourceId};
use slatedb::manifest::{SortedRun, SsTableId, SsTableView};

/// A run, or a table of level 0.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) id: SourceId,
    pub(super) bytes: u64,
    pub(super) tables: Vec<SsTableId>,
}

impl Source {
    fn table(view: &SsTableView) -> Self {
        let id = SourceId::SstView(view.id);
        Self { id, bytes: view.estimate_size(), tables: vec![view.sst.id] }
    }

    fn run(run: &SortedRun) -> Self {
        let tables = run.sst_views().iter().map(|view| view.sst.id).collect();
        Self { id: SourceId::SortedRun(run.id), bytes: run.estimate_size(), tables }
    }
}

/// One of the database's trees.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// Empty for the tree of a database without segments.
    pub(super) segment: Bytes,
    /// Newest first.
    pub(super) l0: Vec<Source>,
    pub(super) runs: Vec<Source>,
}

impl Tree {
    pub(super) fn all(manifest: &VersionedManifest) -> Vec<Self> {
        let tree = |segment, l0: &mut dyn Iterator<Item = &SsTableView>, runs: &[SortedRun]| Self {
            segment,
            l0: l0.map(Source::table).collect(),
            runs: runs.iter().map(Source::run).collect(),
        };
        let root = tree(Bytes::new(), &mut manifest.l0().iter(), manifest.compacted());
        let segments = manifest.segments().iter().map(|segment| {
            tree(segment.prefix().clone(), &mut segment.l0().iter(), segment.compacted())
        });
        std::iter::once(root).chain(segments).collect()
    }
}

/// What compactions under way, or about to be, work on.
#[derive(Debug, Default)]
pub(super) struct Busy {
    /// Sources and destinations.
    sources: HashSet<SourceId>,
    /// Segments whose level 0 is compacted: one such compaction at a time.
    l0: HashSet<Bytes>,
    destination_max: Option<u32>,
}

impl Busy {
    pub(super) fn new<'a>(specs: impl Iterator<Item = &'a CompactionSpec>) -> Self {
        let mut busy = Self::default();
        for spec in specs {
            busy.sources.extend(spec.sources());
            busy.sources.extend(spec.destination().map(SourceId::SortedRun));
            busy.destination_max = busy.destination_max.max(spec.destination());
            if spec.has_l0_sources() {
                busy.l0.insert(spec.segment().clone());
            }
        }
        busy
    }
}

/// One compaction.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) segment: Bytes,
    pub(super) sources: Vec<SourceId>,
    /// The tables in it for whose sake it is done.
    pub(super) stale: Vec<SsTableId>,
    pub(super) bytes: u64,
    /// Creation of the oldest data key in it.
    key_created_ns: u64,
}

impl Plan {
    /// Of sources that follow each other; `None` if none of their tables is stale.
    fn of(
        segment: &Bytes,
        sources: &[Source],
        stale: &impl Fn(SsTableId) -> Option<u64>,
    ) -> Option<Self> {
        let tables = sources.iter().flat_map(|source| &source.tables);
        let stale: Vec<_> = tables.filter_map(|id| stale(*id).map(|at| (at, *id))).collect();
        Some(Self {
            segment: segment.clone(),
            sources: sources.iter().map(|source| source.id).collect(),
            key_created_ns: stale.iter().map(|(at, _)| *at).min()?,
            stale: stale.into_iter().map(|(_, id)| id).collect(),
            bytes: sources.iter().map(|source| source.bytes).sum(),
        })
    }

    /// The compaction. A run is rewritten in its place; level 0 becomes a run above all
    /// others, of every segment.
    pub(super) fn spec(&self, trees: &[Tree], busy: &Busy) -> Option<CompactionSpec> {
        let run = |source: &SourceId| match source {
            SourceId::SortedRun(id) => Some(*id),
            SourceId::SstView(_) => None,
        };
        let destination = match self.sources.iter().filter_map(run).min() {
            Some(id) => id,
            None => {
                let runs = trees.iter().flat_map(|tree| &tree.runs);
                let highest = runs.filter_map(|source| run(&source.id)).max();
                highest.max(busy.destination_max).map_or(Some(0), |id| id.checked_add(1))?
            }
        };
        let sources = self.sources.clone();
        Some(CompactionSpec::for_segment(self.segment.clone(), sources, destination))
    }
}

/// The plan for the oldest stale table that can be rewritten now. `stale` tells when a
/// stale table's data key was created.
pub(super) fn oldest(
    trees: &[Tree],
    busy: &Busy,
    stale: impl Fn(SsTableId) -> Option<u64>,
) -> Option<Plan> {
    let plans = trees.iter().flat_map(|tree| {
        let runs = tree.runs.iter().filter(|run| !busy.sources.contains(&run.id));
        let runs = runs.map(std::slice::from_ref);
        let of_l0 = level_0(tree, busy, &stale);
        runs.chain(of_l0).filter_map(|sources| Plan::of(&tree.segment, sources, &stale))
    });
    plans.min_by_key(|plan| plan.key_created_ns)
}

/// The tables of level 0 from the newest stale one on: the order of writes has to stay, so
/// no older table may be left above what becomes a run.
fn level_0<'a>(
    tree: &'a Tree,
    busy: &Busy,
    stale: &impl Fn(SsTableId) -> Option<u64>,
) -> Option<&'a [Source]> {
    let is_stale = |table: &Source| table.tables.iter().any(|id| stale(*id).is_some());
    let sources = &tree.l0[tree.l0.iter().position(is_stale)?..];
    // A view in two places, after databases were joined, cannot be told from the other.
    let mut seen = HashSet::new();
    let distinct = sources.iter().all(|table| seen.insert(table.id));
    (distinct && !busy.l0.contains(&tree.segment)).then_some(sources)
}

#[cfg(test)]
mod tests;
