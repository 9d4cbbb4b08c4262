//! Crashes and faults between any two operations of a re-encryption, a retirement and a
//! shredding, on file systems that exchange files and on those that cannot.

use crate::support::store_of;
use std::time::Duration;

use atrest::keyring::KeyState;
use atrest::store::{Reencrypt, StalePolicy};
use atrest::{EncryptedFs, Error};

use crate::support::{DIR, ScriptedKms, check_file, in_dir, mem_create, mem_open, write_file};
use atrest_testkit::MemFs;
use atrest_testkit::mem_fs::Op;

const FILES: [&str; 2] = ["one", "two"];

type Change = fn(&EncryptedFs) -> Result<(), Error>;

const CHANGES: [(&str, Change); 3] = [
    ("re-encryption", reencrypt),
    ("retirement", |fs| {
        store_of(fs).renewal().retire(None, Duration::ZERO, &|_| {})?;
        store_of(fs).renewal().retire(None, Duration::ZERO, &|_| {}).map(drop)
    }),
    ("shredding", |fs| fs.keyring().keyspaces().danger_shred("tenant")),
];

fn reencrypt(fs: &EncryptedFs) -> Result<(), Error> {
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    // One after the other, so that each step is the same in each run.
    how.threads = 1;
    let report = store_of(fs).renewal().reencrypt(&how)?;
    report.failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

/// A store with files under two keys that were replaced, a third that is under no file,
/// and a keyspace.
fn base() -> MemFs {
    let mem = MemFs::new(DIR);
    let fs = mem_create(&mem, &ScriptedKms::new(1)).unwrap();
    for file in FILES {
        write_file(&fs, file).unwrap();
        fs.keyring().keys().rotate().unwrap();
    }
    fs.keyring().keyspaces().create("tenant").unwrap();
    fs.keyring().keys().rotate().unwrap();
    drop(fs);
    mem.fork()
}

/// All files are there, no key was destroyed that one of them needs, and the next run
/// brings everything to its end.
fn check(mem: &MemFs) {
    let fs = mem_open(mem, &ScriptedKms::new(1)).unwrap();
    FILES.iter().for_each(|file| check_file(&fs, file));
    let usage = store_of(&fs).renewal().scan_usage(&|_| {}).unwrap();
    for key in &usage.keys {
        assert!(key.key.state != KeyState::Destroyed || key.count.files == 0);
    }
    CHANGES.iter().for_each(|(_, change)| change(&fs).unwrap());
    FILES.iter().for_each(|file| check_file(&fs, file));
    let names: Vec<_> = mem.files().into_keys().filter(|name| !name.starts_with("KEY")).collect();
    assert_eq!(names, FILES);
    let usage = store_of(&fs).renewal().scan_usage(&|_| {}).unwrap();
    // The active key of the default keyspace is left, and nothing else.
    let alive = usage.keys.iter().filter(|key| key.key.state != KeyState::Destroyed);
    assert_eq!(alive.count(), 1);
    drop(fs);
    let fs = mem_open(mem, &ScriptedKms::new(1)).unwrap();
    FILES.iter().for_each(|file| check_file(&fs, file));
}

/// Runs `change` with a fault at each of its operations until one run has none.
fn at_each_step(
    base: &MemFs,
    change: Change,
    fault: fn(&MemFs, usize),
    mut then: impl FnMut(&MemFs),
) -> usize {
    let mut steps = 0;
    loop {
        let mem = base.fork();
        let fs = mem_open(&mem, &ScriptedKms::new(1)).unwrap();
        mem.clear_log();
        fault(&mem, steps);
        let result = change(&fs);
        // An operation whose failure does not matter is no end.
        let done = result.is_ok() && mem.log().len() <= steps;
        drop(fs);
        then(&mem);
        if done {
            return steps;
        }
        steps += 1;
    }
}

/// Each change, and the re-encryption also where files can be exchanged.
fn cases() -> Vec<(&'static str, Change, MemFs)> {
    let mut cases: Vec<_> = CHANGES.iter().map(|(name, change)| (*name, *change, base())).collect();
    let exchanging = base();
    exchanging.with_exchange();
    cases.push(("re-encryption with exchange", reencrypt, exchanging));
    cases
}

#[test]
fn the_exchange_is_used_where_there_is_one() {
    for (name, change, base) in cases() {
        let fs = mem_open(&base, &ScriptedKms::new(1)).unwrap();
        change(&fs).unwrap();
        let log = base.log();
        let exchanges = log.iter().filter(|op| matches!(op, Op::Exchange(..))).count();
        let expected = if name.ends_with("exchange") { FILES.len() } else { 0 };
        assert_eq!(exchanges, expected, "{name}");
        // Durable before the old file goes: a file system may reorder the two.
        for (at, op) in log.iter().enumerate() {
            let Op::Exchange(temporary, _) = op else { continue };
            let after = |wanted: &Op| log[at..].iter().position(|op| op == wanted).unwrap();
            assert!(after(&Op::SyncDir) < after(&Op::Remove(temporary.clone())), "{log:?}");
        }
    }
}

#[test]
fn a_crash_at_any_step_loses_nothing() {
    for (name, change, base) in cases() {
        let mut outcomes = 0;
        let steps = at_each_step(&base, change, MemFs::stop_at, |mem| {
            for (_, after) in mem.crashes() {
                outcomes += 1;
                check(&after);
            }
        });
        assert!(steps > 10 && outcomes > steps, "{name}: {steps} steps, {outcomes} outcomes");
    }
}

#[test]
fn a_failing_operation_loses_nothing() {
    for (name, change, base) in cases() {
        let steps = at_each_step(&base, change, MemFs::fail_at, |mem| check(&mem.fork()));
        assert!(steps > 10, "{name}: {steps} steps");
    }
}

#[test]
fn a_full_disk_leaves_the_old_files() {
    let mem = base();
    let fs = mem_open(&mem, &ScriptedKms::new(1)).unwrap();
    mem.room(Some(5000));
    assert!(reencrypt(&fs).is_err());
    mem.room(None);
    drop(fs);
    assert!(mem.read(&in_dir("two")).is_some());
    check(&mem.fork());
}
