//! Random stores and chains restore to what they were.

use proptest::prelude::*;

use super::*;
use crate::support::store_of;

#[derive(Clone, Debug)]
enum Step {
    Write { name: u8, spec: u8, appends: Vec<u16> },
    Remove(u8),
    Rename(u8, u8),
    Link(u8, u8),
    RotateDataKey,
    RotateStoreKey,
    BackUp,
    Cancelled(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..12_u8;
    prop_oneof![
        6 => (name.clone(), 0..4_u8, prop::collection::vec(0..40_000_u16, 0..4))
            .prop_map(|(name, spec, appends)| Step::Write { name, spec, appends }),
        2 => name.clone().prop_map(Step::Remove),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (name.clone(), name).prop_map(|(from, to)| Step::Link(from, to)),
        1 => Just(Step::RotateDataKey),
        1 => Just(Step::RotateStoreKey),
        3 => Just(Step::BackUp),
        1 => (0..9_u8).prop_map(Step::Cancelled),
    ]
}

fn name(number: u8) -> String {
    match number % 3 {
        0 => format!("{number}"),
        1 => format!("d/{number}"),
        _ => format!("d/e/{number}"),
    }
}

fn spec(number: u8) -> FileSpec {
    match number {
        0 => FileSpec::new(FileKind::Table),
        1 => FileSpec::new(FileKind::Log),
        2 => FileSpec::new(FileKind::Blob).suite(Suite::Aes256GcmChunks).chunk_len(4096),
        _ => FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog),
    }
}

fn run(bench: &Bench, step: &Step, seed: u8) -> Option<BackupReport> {
    let path = |number: u8| bench.store.data().join(name(number));
    match step {
        Step::Write { name: number, spec: kind, appends } => {
            drop(bench.fs.remove(path(*number)));
            let appends: Vec<_> =
                appends.iter().map(|len| pattern(usize::from(*len) + 1, seed)).collect();
            let appends: Vec<&[u8]> = appends.iter().map(Vec::as_slice).collect();
            bench.write(&name(*number), spec(*kind), &appends);
        }
        Step::Remove(number) => drop(bench.fs.remove(path(*number))),
        Step::Rename(from, to) => drop(bench.fs.rename(path(*from), path(*to))),
        Step::Link(from, to) => drop(bench.fs.hard_link(path(*from), path(*to))),
        Step::RotateDataKey => drop(bench.fs.keyring().keys().rotate().unwrap()),
        Step::RotateStoreKey => drop(bench.fs.keyring().keys().rotate_store_key().unwrap()),
        Step::BackUp => return Some(bench.back_up()),
        Step::Cancelled(calls) => {
            let snapshot = Snapshot::take(&store_of(&bench.fs), bench.store.data()).unwrap();
            let left = AtomicU64::new(u64::from(*calls));
            let result = bench.chain().back_up(&store_of(&bench.fs), &snapshot, &|_| match left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            {
                Ok(_) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            });
            return result.ok();
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_chain_restores_to_what_the_store_was(steps in prop::collection::vec(step(), 1..25)) {
        let bench = Bench::new();
        let mut states = Vec::new();
        for (seed, step) in steps.iter().chain([&Step::BackUp]).enumerate() {
            if run(&bench, step, seed as u8).is_some() {
                states.push(bench.contents("data", bench.store.kms()));
            }
        }
        let chain = bench.read_chain().unwrap();
        prop_assert_eq!(chain.list().unwrap().len(), states.len());
        prop_assert_eq!(chain.verify(&go_on).unwrap().problems, []);
        for (number, state) in (1..).zip(&states) {
            let to = format!("restored{number}");
            bench.restore(number, &to).unwrap();
            bench.assert_restored(&to, state);
        }
    }
}
