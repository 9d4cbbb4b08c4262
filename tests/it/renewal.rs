//! Accounting, stale files, re-encryption and retirement.

use crate::support::store_of;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use atrest::store::{StalePolicy, StaleReason, Usage};
use atrest::{DataKeyId, EncryptedFs, FileKind, PlaintextPolicy};
use proptest::prelude::*;

use crate::support::{ManualClock, TestStore, options};

mod copies;
mod crash;
mod directories;
pub mod exchange;
mod hidden;
mod killed;
mod links;
mod moved;
mod nested;
mod reencrypt;
mod retire;

pub fn write(fs: &EncryptedFs, path: &Path, data: &[u8]) -> DataKeyId {
    let mut writer = fs.create_new(path, FileKind::Table).unwrap();
    writer.append(data).unwrap();
    writer.finish().unwrap().data_key_id
}

/// The parts of a usage that memory and disk have to agree on.
fn counts(usage: &Usage) -> BTreeMap<String, (u64, u64)> {
    let mut counts = BTreeMap::new();
    for key in &usage.keys {
        counts.insert(key.key.id.to_string(), (key.count.files, key.count.bytes));
    }
    for (name, count) in [
        ("plaintext", usage.plaintext),
        ("torn", usage.torn),
        ("unreadable", usage.unreadable),
        ("foreign", usage.foreign),
    ] {
        counts.insert(name.into(), (count.files, count.bytes));
    }
    counts
}

#[test]
fn usage_counts_every_kind_of_file() {
    let store = TestStore::new();
    let fs = store.fs();
    let data = store.data();
    std::fs::create_dir_all(data.join("deep/er")).unwrap();
    let first = write(&fs, &data.join("a.sst"), &[1; 1000]);
    write(&fs, &data.join("deep/er/b.sst"), &[2; 10]);
    let second = fs.keyring().keys().rotate().unwrap();
    write(&fs, &data.join("c.sst"), &[3; 1]);
    std::fs::write(data.join("plain"), b"plain text").unwrap();
    std::fs::write(data.join("empty"), b"").unwrap();
    std::fs::write(data.join("torn"), &std::fs::read(data.join("a.sst")).unwrap()[..500]).unwrap();
    let mut bad = std::fs::read(data.join("a.sst")).unwrap();
    bad[50] ^= 1;
    std::fs::write(data.join("bad"), bad).unwrap();
    let other = TestStore::new();
    write(&other.fs(), &other.data().join("x"), &[9; 5]);
    std::fs::copy(other.data().join("x"), data.join("foreign")).unwrap();
    std::fs::hard_link(data.join("a.sst"), data.join("linked")).unwrap();
    std::os::unix::fs::symlink(data.join("c.sst"), data.join("symlink")).unwrap();
    std::os::unix::fs::symlink(other.data(), data.join("symlink-dir")).unwrap();

    let progress = std::sync::Mutex::new(0);
    let scanned = store_of(&fs)
        .renewal()
        .scan_usage(&|p| {
            let mut max = progress.lock().unwrap();
            *max = p.files.max(*max);
        })
        .unwrap();
    assert_eq!(scanned.keys.len(), 2);
    let of = |id| scanned.of_key(id).unwrap().count;
    assert_eq!((of(first).files, of(first).bytes), (2, 4096 * 2 + 1010));
    assert_eq!((of(second).files, of(second).bytes), (1, 4097));
    assert_eq!((scanned.plaintext.files, scanned.plaintext.bytes), (1, 10));
    assert_eq!((scanned.torn.files, scanned.torn.bytes), (2, 500));
    assert_eq!((scanned.unreadable.files, scanned.foreign.files), (1, 1));
    assert_eq!(*progress.lock().unwrap(), 9);
    assert!(scanned.of_key(first).unwrap().last_created_ns.is_some());

    assert_eq!(counts(&store_of(&fs).renewal().usage().unwrap()), counts(&scanned));
    // The engine's own list: one file once, missing files left out.
    let live = [data.join("a.sst"), data.join("linked"), data.join("c.sst"), data.join("gone")];
    let live = store_of(&fs).renewal().usage_of(&live, &|_| {}).unwrap();
    assert_eq!(live.of_key(first).unwrap().count.files, 1);
    assert_eq!(live.of_key(second).unwrap().count.files, 1);
}

#[test]
fn a_file_counts_where_it_is_when_it_is_finished() {
    let store = TestStore::new();
    let fs = store.fs();
    let key = fs.keyring().keys().active_id().unwrap();
    let path = |name: &str| store.data().join(name);
    assert_eq!(store_of(&fs).renewal().usage().unwrap().torn.files, 0);
    let mut renamed = fs.create_new(path("renamed.tmp"), FileKind::Table).unwrap();
    let mut removed = fs.create_new(path("removed"), FileKind::Table).unwrap();
    assert_eq!(store_of(&fs).renewal().usage().unwrap().torn.files, 2);
    renamed.append(b"12345").unwrap();
    removed.append(b"1").unwrap();
    renamed.sync().unwrap();
    fs.rename(path("renamed.tmp"), path("renamed")).unwrap();
    fs.remove(path("removed")).unwrap();
    // Takes the removed file's place in memory.
    let other = fs.create_new(path("other"), FileKind::Table).unwrap();
    removed.finish().unwrap();
    renamed.finish().unwrap();
    let usage = store_of(&fs).renewal().usage().unwrap();
    assert_eq!(usage.of_key(key).unwrap().count.files, 1);
    assert_eq!(usage.of_key(key).unwrap().count.bytes, 4101);
    assert_eq!(usage.torn.files, 1);
    other.finish().unwrap();
    assert_eq!(
        counts(&store_of(&fs).renewal().usage().unwrap()),
        counts(&store_of(&fs).renewal().scan_usage(&|_| {}).unwrap())
    );
}

#[derive(Clone, Debug)]
enum Op {
    Create(u8, u16),
    Remove(u8),
    Rename(u8, u8),
    Link(u8, u8),
    Rotate,
    RenameDirectory,
    /// Behind the library's back, seen by the rebuilding.
    PlaintextAndRebuild(u8),
    Rebuild,
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..12_u8;
    prop_oneof![
        6 => (name(), 0..9000_u16).prop_map(|(name, len)| Op::Create(name, len)),
        3 => name().prop_map(Op::Remove),
        4 => (name(), name()).prop_map(|(from, to)| Op::Rename(from, to)),
        3 => (name(), name()).prop_map(|(from, to)| Op::Link(from, to)),
        1 => Just(Op::Rotate),
        1 => Just(Op::RenameDirectory),
        1 => name().prop_map(Op::PlaintextAndRebuild),
        1 => Just(Op::Rebuild),
    ]
}

fn apply(fs: &EncryptedFs, dir: &Path, op: &Op) {
    // Half of the names below a directory that moves between two names.
    let path = |name: u8| -> PathBuf {
        if name < 6 {
            return dir.join(format!("f{name}"));
        }
        let sub = if dir.join("one").is_dir() { "one" } else { "two" };
        dir.join(sub).join(format!("f{name}"))
    };
    // Half of the operations fail, as with a real engine that is wrong about a name: the
    // accounting must not change then.
    match *op {
        Op::Create(name, len) => {
            if let Ok(mut writer) = fs.create_new(path(name), FileKind::Table) {
                writer.append(&vec![name; len.into()]).unwrap();
                writer.finish_unsynced().unwrap();
            }
        }
        Op::Remove(name) => drop(fs.remove(path(name))),
        Op::Rename(from, to) => drop(fs.rename(path(from), path(to))),
        Op::Link(from, to) => drop(fs.hard_link(path(from), path(to))),
        Op::Rotate => drop(fs.keyring().keys().rotate().unwrap()),
        Op::RenameDirectory => {
            let (one, two) = (dir.join("one"), dir.join("two"));
            let (from, to) = if one.is_dir() { (one, two) } else { (two, one) };
            fs.rename(from, to).unwrap();
        }
        Op::PlaintextAndRebuild(name) => {
            let _ = std::fs::remove_file(path(name));
            std::fs::write(path(name), b"plain").unwrap();
            store_of(fs).renewal().rebuild_usage(&|_| {}).unwrap();
        }
        Op::Rebuild => drop(store_of(fs).renewal().rebuild_usage(&|_| {}).unwrap()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn memory_agrees_with_the_disk(ops in prop::collection::vec(op(), 1..60)) {
        let store = TestStore::new();
        let fs = store.fs();
        std::fs::create_dir(store.data().join("one")).unwrap();
        store_of(&fs).renewal().usage().unwrap();
        for op in &ops {
            apply(&fs, &store.data(), op);
        }
        let scanned = counts(&store_of(&fs).renewal().scan_usage(&|_| {}).unwrap());
        prop_assert_eq!(counts(&store_of(&fs).renewal().usage().unwrap()), scanned);
    }
}

#[test]
fn a_rebuilding_beside_an_engine_loses_nothing() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = |name: usize| store.data().join(format!("{name}"));
    for name in 0..300 {
        write(&fs, &path(name), b"x");
    }
    std::thread::scope(|scope| {
        let engine = scope.spawn(|| {
            for round in 0..600_usize {
                let (a, b) = (round % 300, round * 7 % 300);
                match round % 4 {
                    0 => drop(fs.rename(path(a), path(b + 1000))),
                    1 => drop(fs.remove(path(b))),
                    2 => drop(fs.hard_link(path(a), path(b + 2000))),
                    _ => write_if_free(&fs, &path(b + 3000)),
                }
            }
        });
        while !engine.is_finished() {
            store_of(&fs).renewal().rebuild_usage(&|_| {}).unwrap();
        }
    });
    let scanned = counts(&store_of(&fs).renewal().scan_usage(&|_| {}).unwrap());
    assert_eq!(counts(&store_of(&fs).renewal().usage().unwrap()), scanned);
}

fn write_if_free(fs: &EncryptedFs, path: &Path) {
    if let Ok(mut writer) = fs.create_new(path, FileKind::Table) {
        writer.append(b"new").unwrap();
        writer.finish_unsynced().unwrap();
    }
}

#[test]
fn stale_files_come_oldest_first() {
    let store = TestStore::new();
    let clock = ManualClock::new();
    let mut options = options(&clock);
    options.settings.plaintext = PlaintextPolicy::Allow;
    let fs = store.create(options).files().clone();
    let path = |name: &str| store.data().join(name);
    let mut keys = Vec::new();
    for name in ["c", "b", "a"] {
        keys.push(write(&fs, &path(name), b"1"));
        clock.advance(30 * ManualClock::DAY);
        fs.keyring().maintain().unwrap();
    }
    write(&fs, &path("new"), b"1");
    std::fs::write(path("plain"), b"plain").unwrap();
    std::fs::write(path("empty"), b"").unwrap();

    let names = |policy: &StalePolicy| -> Vec<String> {
        let stale = store_of(&fs).renewal().stale_files(policy, &|_| {}).unwrap();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        stale.map(|file| name(&file.path)).collect()
    };
    let days = |days: u64| std::time::Duration::from_secs(days * 86_400);
    assert_eq!(names(&StalePolicy::default()), ["plain"]);
    assert_eq!(names(&StalePolicy::older_than(days(60))), ["plain", "c", "b"]);
    assert_eq!(names(&StalePolicy::older_than(days(0))), ["plain", "c", "b", "a"]);
    let mut named = StalePolicy::default();
    (named.plaintext, named.keys) = (false, vec![keys[1]]);
    assert_eq!(names(&named), ["b"]);
    let mut authenticated = StalePolicy::default();
    authenticated.require_authenticated = true;
    let weak = store_of(&fs).renewal().stale_files(&authenticated, &|_| {}).unwrap();
    assert_eq!(weak.len(), 5);
    assert_eq!(weak.as_slice()[1].reason, StaleReason::WeakSuite);
    assert_eq!(weak.as_slice()[1].data_key_id, Some(keys[0]));
}
