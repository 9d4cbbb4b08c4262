#![allow(clippy::unwrap_used)]

use ulid::Ulid;

use super::*;

fn table(n: u128) -> SsTableId {
    SsTableId::new(Ulid(n))
}

fn l0(n: u128) -> Source {
    Source { id: SourceId::SstView(Ulid(1000 + n)), bytes: 10, tables: vec![table(n)] }
}

fn run(id: u32, tables: &[u128]) -> Source {
    let tables: Vec<_> = tables.iter().map(|n| table(*n)).collect();
    Source { id: SourceId::SortedRun(id), bytes: 10 * tables.len() as u64, tables }
}

/// Level 0: tables 9 (newest), 8, 7; runs 5 and 2.
fn tree(segment: &'static [u8]) -> Tree {
    Tree {
        segment: Bytes::from_static(segment),
        l0: vec![l0(9), l0(8), l0(7)],
        runs: vec![run(5, &[5, 6]), run(2, &[1, 2, 3])],
    }
}

/// The sources and destination chosen if these tables are stale, each under a key as old as
/// its number says.
fn chosen(trees: &[Tree], busy: &Busy, stale: &[u128]) -> Option<CompactionSpec> {
    let is_stale = |id: SsTableId| stale.iter().find(|n| table(**n) == id).map(|n| *n as u64);
    oldest(trees, busy, is_stale)?.spec(trees, busy)
}

fn spec(sources: &[SourceId], destination: u32) -> CompactionSpec {
    CompactionSpec::new(sources.to_vec(), destination)
}

#[test]
fn the_oldest_goes_first_alone_and_in_its_place() {
    let (trees, idle) = ([tree(b"")], Busy::default());
    assert_eq!(chosen(&trees, &idle, &[]), None);
    let (five, two) = (run(5, &[]).id, run(2, &[]).id);
    assert_eq!(chosen(&trees, &idle, &[6]), Some(spec(&[five], 5)));
    assert_eq!(chosen(&trees, &idle, &[6, 3]), Some(spec(&[two], 2)));
    let busy = spec(&[two], 2);
    assert_eq!(chosen(&trees, &Busy::new([&busy].into_iter()), &[6, 3]), Some(spec(&[five], 5)));
    // A destination is busy, too.
    let busy = spec(&[l0(7).id], 5);
    assert_eq!(chosen(&trees, &Busy::new([&busy].into_iter()), &[6]), None);
}

#[test]
fn level_0_keeps_the_order_of_writes() {
    let (trees, idle) = ([tree(b"")], Busy::default());
    let [nine, eight, seven] = [9, 8, 7].map(|n| l0(n).id);
    assert_eq!(chosen(&trees, &idle, &[7]), Some(spec(&[seven], 6)));
    // Never table 8 without the older table 7.
    assert_eq!(chosen(&trees, &idle, &[8]), Some(spec(&[eight, seven], 6)));
    assert_eq!(chosen(&trees, &idle, &[9, 7]), Some(spec(&[nine, eight, seven], 6)));
    // One compaction of level 0 at a time.
    let busy = spec(&[seven], 6);
    assert_eq!(chosen(&trees, &Busy::new([&busy].into_iter()), &[9]), None);
    let mut twice = tree(b"");
    twice.l0.push(l0(8));
    assert_eq!(chosen(&[twice], &idle, &[8]), None, "one view in two places");
}

#[test]
fn a_new_run_is_above_all_of_every_segment() {
    let mut other = tree(b"other");
    other.runs = vec![run(30, &[30])];
    let trees = [tree(b""), other];
    let seven = l0(7).id;
    let elsewhere = CompactionSpec::for_segment("third".into(), vec![l0(40).id], 31);
    let busy = Busy::new([&elsewhere].into_iter());
    assert_eq!(chosen(&trees[..1], &Busy::default(), &[7]), Some(spec(&[seven], 6)));
    assert_eq!(chosen(&trees, &Busy::default(), &[7]).unwrap().destination(), Some(31));
    assert_eq!(chosen(&trees, &busy, &[7]).unwrap().destination(), Some(32));
    let expected = CompactionSpec::for_segment("other".into(), vec![run(30, &[]).id], 30);
    assert_eq!(chosen(&trees, &busy, &[30]), Some(expected));
    let last = spec(&[l0(40).id], u32::MAX);
    let last = Busy::new([&last].into_iter());
    assert_eq!(chosen(&[tree(b"s")], &last, &[7]), None, "no number is left");
    let empty = Tree { runs: Vec::new(), ..tree(b"") };
    assert_eq!(chosen(&[empty], &Busy::default(), &[7]), Some(spec(&[seven], 0)));
}
