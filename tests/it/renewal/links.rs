//! Files with several names: in the store, and outside of it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atrest::backup::Snapshot;
use atrest::keyring::{KeyState, RETIRE_GRACE, RetireOutcome};
use atrest::store::{HARD_LINKS_HOLD, Reencrypt, ReencryptReport, StalePolicy};
use atrest::{DataKeyId, EncryptedFs, ErrorKind, Header, Keyring, Store};

use super::exchange::{Between, Call};
use super::{counts, write};
use crate::support::{ManualClock, TestStore, kind, manual, options, store_of};

fn open(store: &TestStore, clock: &Arc<ManualClock>) -> EncryptedFs {
    let keyring = Keyring::open_or_create(store.storage(), store.kms(), options(clock)).unwrap();
    Store::over(keyring).unwrap().files().clone()
}

fn retire(fs: &EncryptedFs, key: DataKeyId) -> RetireOutcome {
    let retired = store_of(fs).renewal().retire(None, RETIRE_GRACE, &|_| {}).unwrap();
    retired.keys.into_iter().find(|of| of.id == key).unwrap().outcome
}

fn reencrypt(fs: &EncryptedFs) -> ReencryptReport {
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    let report = store_of(fs).renewal().reencrypt(&how).unwrap();
    assert!(report.failed.is_empty() && report.skipped.is_empty(), "{report:?}");
    report
}

fn read(fs: &EncryptedFs, path: &Path) -> Vec<u8> {
    let reader = fs.open(path).unwrap();
    let mut bytes = vec![0; reader.len().unwrap() as usize];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn key_of(path: &Path) -> DataKeyId {
    Header::parse(&std::fs::read(path).unwrap()).unwrap().data_key_id
}

fn held() -> RetireOutcome {
    RetireOutcome::Held { by: vec![HARD_LINKS_HOLD.into()] }
}

/// A checkpoint beside the store, of links, as `cp -al` makes it.
fn checkpoint(store: &TestStore, path: &Path) -> PathBuf {
    let link = store.dir.path().join("checkpoint");
    std::fs::hard_link(path, &link).unwrap();
    link
}

#[test]
fn a_checkpoint_outside_keeps_its_key_when_the_store_is_re_encrypted() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let (path, inside) = (store.data().join("a"), store.data().join("b"));
    let old = write(&fs, &path, b"content");
    fs.hard_link(&path, &inside).unwrap();
    let outside = checkpoint(&store, &path);
    let new = fs.keyring().keys().rotate().unwrap();
    assert_eq!(reencrypt(&fs).files, 1);
    assert_eq!((key_of(&path), key_of(&inside), key_of(&outside)), (new, new, old));
    assert_eq!(path.metadata().unwrap().ino(), inside.metadata().unwrap().ino());
    for _ in 0..2 {
        assert_eq!(retire(&fs, old), held());
        clock.advance(30 * ManualClock::DAY);
    }
    assert_eq!(read(&fs, &outside), b"content");
    // Whoever knows that it is gone says so.
    fs.keyring().holds().release(HARD_LINKS_HOLD).unwrap();
    std::fs::remove_file(&outside).unwrap();
    assert!(matches!(retire(&fs, old), RetireOutcome::Retiring { .. }));
    clock.advance(30 * ManualClock::DAY);
    assert_eq!(retire(&fs, old), RetireOutcome::Destroyed);
}

#[test]
fn a_checkpoint_that_a_retirement_met_keeps_its_key_when_the_engine_goes_on() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let (path, other) = (store.data().join("a"), store.data().join("b"));
    let old = write(&fs, &path, b"content");
    let outside = checkpoint(&store, &path);
    let next = fs.keyring().keys().rotate().unwrap();
    write(&fs, &other, b"other");
    fs.hard_link(&other, store.data().join("c")).unwrap();
    fs.keyring().keys().rotate().unwrap();
    assert_eq!(retire(&fs, old), RetireOutcome::InUse);
    let generation = fs.keyring().anchor().generation;
    retire(&fs, old);
    assert_eq!(fs.keyring().anchor().generation, generation, "one commit");
    for name in ["a", "b", "c"] {
        fs.remove(store.data().join(name)).unwrap();
    }
    assert_eq!(retire(&fs, old), held());
    clock.advance(30 * ManualClock::DAY);
    assert_eq!(retire(&fs, old), held());
    assert_eq!(read(&fs, &outside), b"content");
    // Names inside of the store hold nothing.
    let status = fs.keyring().status();
    let state = status.data_keys.iter().find(|key| key.id == next).unwrap().state;
    assert_eq!(state, KeyState::Destroyed);
}

#[test]
fn names_in_the_store_stay_names_of_one_file() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    std::fs::create_dir(store.data().join("below")).unwrap();
    let names = ["a", "b", "below/c"].map(|name| store.data().join(name));
    let old = write(&fs, &names[0], b"content");
    for name in &names[1..] {
        fs.hard_link(&names[0], name).unwrap();
    }
    store_of(&fs).renewal().usage().unwrap();
    let new = fs.keyring().keys().rotate().unwrap();
    assert_eq!(reencrypt(&fs).files, 1);
    let inode = names[0].metadata().unwrap().ino();
    for name in &names {
        assert_eq!((read(&fs, name), key_of(name)), (b"content".to_vec(), new));
        let metadata = name.metadata().unwrap();
        assert_eq!((metadata.ino(), metadata.nlink()), (inode, 3));
    }
    assert_eq!(kind(fs.keyring().holds().release(HARD_LINKS_HOLD)), ErrorKind::InvalidArgument);
    assert!(matches!(retire(&fs, old), RetireOutcome::Retiring { .. }));
    let known = counts(&store_of(&fs).renewal().usage().unwrap());
    assert_eq!(known, counts(&store_of(&fs).renewal().scan_usage(&|_| {}).unwrap()));
    let below: Vec<_> = std::fs::read_dir(store.data().join("below")).unwrap().collect();
    assert_eq!(below.len(), 1);
}

#[test]
fn a_file_that_leaves_the_store_for_a_checkpoint_keeps_its_key() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let path = |name: &str| store.data().join(name);
    // Removed, replaced, and, through another process' links in the store, neither.
    let removed = write(&fs, &path("removed"), b"1");
    std::fs::hard_link(path("removed"), store.dir.path().join("one")).unwrap();
    let replaced = fs.keyring().keys().rotate().unwrap();
    write(&fs, &path("replaced"), b"2");
    std::fs::hard_link(path("replaced"), store.dir.path().join("two")).unwrap();
    let inside = fs.keyring().keys().rotate().unwrap();
    write(&fs, &path("inside"), b"3");
    std::fs::hard_link(path("inside"), path("inside too")).unwrap();
    let gone = fs.keyring().keys().rotate().unwrap();
    write(&fs, &path("gone"), b"4");
    std::fs::hard_link(path("gone"), path("gone too")).unwrap();
    fs.keyring().keys().rotate().unwrap();
    fs.remove(path("removed")).unwrap();
    write(&fs, &path("new"), b"5");
    fs.rename(path("new"), path("replaced")).unwrap();
    fs.remove(path("inside")).unwrap();
    fs.remove(path("gone")).unwrap();
    fs.remove(path("gone too")).unwrap();
    assert_eq!((retire(&fs, removed), retire(&fs, replaced)), (held(), held()));
    assert_eq!(retire(&fs, inside), RetireOutcome::InUse);
    assert!(matches!(retire(&fs, gone), RetireOutcome::Retiring { .. }));
    fs.remove(path("inside too")).unwrap();
    assert!(matches!(retire(&fs, inside), RetireOutcome::Retiring { .. }));
    clock.advance(30 * ManualClock::DAY);
    assert_eq!((retire(&fs, removed), retire(&fs, replaced)), (held(), held()));
    let destroyed = fs.keyring().status().data_keys.into_iter();
    let destroyed = destroyed.filter(|key| key.state == KeyState::Destroyed);
    assert_eq!(destroyed.map(|key| key.id).collect::<Vec<_>>(), [inside, gone]);
}

/// Removes one file and replaces another while a backup by this store keeps them, and tells
/// what becomes of their keys once the backup is over.
fn retire_beside_backup(
    store: &TestStore,
    fs: &EncryptedFs,
    backs_up: &Store,
) -> Vec<RetireOutcome> {
    let path = |name: &str| store.data().join(name);
    let removed = write(fs, &path("removed"), b"1");
    fs.hard_link(path("removed"), path("removed too")).unwrap();
    let replaced = fs.keyring().keys().rotate().unwrap();
    write(fs, &path("below/replaced"), b"2");
    let active = fs.keyring().keys().rotate().unwrap();
    write(fs, &path("active"), b"3");
    let snapshot = Snapshot::take(backs_up, store.data()).unwrap();
    for name in ["removed", "removed too", "active"] {
        fs.remove(path(name)).unwrap();
    }
    write(fs, &path("new"), b"4");
    fs.rename(path("new"), path("below/replaced")).unwrap();
    drop(snapshot);
    fs.keyring().keys().rotate().unwrap();
    let outcomes = [removed, replaced].map(|key| retire(fs, key)).to_vec();
    assert!(fs.keyring().holds().list().iter().all(|hold| !hold.keys.contains(&active)));
    outcomes
}

#[test]
fn what_goes_while_a_backup_keeps_it_holds_no_key() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    std::fs::create_dir(store.data().join("below")).unwrap();
    for outcome in retire_beside_backup(&store, &fs, &store_of(&fs)) {
        assert!(matches!(outcome, RetireOutcome::Retiring { .. }), "{outcome:?}");
    }
}

#[test]
fn what_goes_while_another_process_backs_it_up_holds_no_key() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    std::fs::create_dir(store.data().join("below")).unwrap();
    let reader = Store::open_read_only(store.data(), store.kms(), manual()).unwrap();
    for outcome in retire_beside_backup(&store, &fs, &reader) {
        assert!(matches!(outcome, RetireOutcome::Retiring { .. }), "{outcome:?}");
    }
}

/// The backup begins when the first files were met, and so behind the listing of the directory
/// that gets its links, and ends after the re-encryption.
fn reencrypt_while_a_backup_begins(fs: &EncryptedFs, data: &Path) -> ReencryptReport {
    let snapshot = std::sync::Mutex::new(None);
    let begin = |_| {
        let mut snapshot = snapshot.lock().unwrap();
        snapshot.get_or_insert_with(|| Snapshot::take(&store_of(fs), data).unwrap());
    };
    let mut how = Reencrypt::default();
    (how.policy, how.on_scan) = (StalePolicy::older_than(Duration::ZERO), &begin);
    store_of(fs).renewal().reencrypt(&how).unwrap()
}

#[test]
fn a_backup_that_begins_in_the_middle_of_a_re_encryption_holds_no_key() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let path = store.data().join("a");
    let old = write(&fs, &path, b"content");
    fs.hard_link(&path, store.data().join("b")).unwrap();
    fs.keyring().keys().rotate().unwrap();
    let report = reencrypt_while_a_backup_begins(&fs, &store.data());
    assert_eq!((report.files, report.skipped.len()), (0, 1), "{report:?}");
    assert_eq!(reencrypt(&fs).files, 1);
    assert!(matches!(retire(&fs, old), RetireOutcome::Retiring { .. }));
}

#[test]
fn a_backup_that_begins_before_a_file_is_met_holds_no_key() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    std::fs::create_dir(store.data().join("below")).unwrap();
    let old = write(&fs, &store.data().join("met first"), b"content");
    assert_eq!(write(&fs, &store.data().join("below/met later"), b"content"), old);
    fs.keyring().keys().rotate().unwrap();
    let report = reencrypt_while_a_backup_begins(&fs, &store.data());
    assert_eq!((report.files, report.skipped.len()), (0, 2), "{report:?}");
    assert_eq!(reencrypt(&fs).files, 2);
    assert!(matches!(retire(&fs, old), RetireOutcome::Retiring { .. }));
}

/// Met under the old name and then under the new one, it has as many names as were met.
#[test]
fn a_checkpoint_keeps_its_key_when_a_name_moves_while_it_is_looked_for() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let dirs = ["2-from", "1-to"].map(|dir| store.data().join(dir));
    dirs.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    let [from, to] = dirs.map(|dir| dir.join("f"));
    let [old, new] = [from.clone(), to.clone()];
    let armed = Arc::new(AtomicBool::new(true));
    let strike = armed.clone();
    let mut between = Between::new(move |call| match call {
        Call::List(dir) if dir.ends_with("1-to") && !strike.swap(true, Ordering::Relaxed) => {
            std::fs::rename(&old, &new)
        }
        _ => Ok(()),
    });
    between.descending = true;
    let keyring = Keyring::open_or_create(store.storage(), store.kms(), options(&clock)).unwrap();
    let fs = Store::over_vfs(keyring, Arc::new(between)).unwrap().files().clone();
    let key = write(&fs, &from, b"content");
    let outside = checkpoint(&store, &from);
    fs.keyring().keys().rotate().unwrap();
    armed.store(false, Ordering::Relaxed);
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    let run = || store_of(&fs).renewal().reencrypt(&how).unwrap().files;
    assert_eq!(run() + run(), 1);
    assert!(armed.load(Ordering::Relaxed));
    assert_eq!(retire(&fs, key), held());
    assert_eq!(read(&fs, &outside), b"content");
}

#[test]
fn a_checkpoint_keeps_its_key_beside_running_backups() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let path = |name: &str| store.data().join(name);
    // One linked before the backups, one beside them.
    let keys = ["before", "beside"].map(|name| {
        let key = write(&fs, &path(name), name.as_bytes());
        fs.keyring().keys().rotate().unwrap();
        key
    });
    let outside = |name: &str| store.dir.path().join(name);
    std::fs::hard_link(path("before"), outside("before")).unwrap();
    let reader = Store::open_read_only(store.data(), store.kms(), manual()).unwrap();
    let snapshots = [&store_of(&fs), &reader].map(|it| Snapshot::take(it, store.data()).unwrap());
    std::fs::hard_link(path("beside"), outside("beside")).unwrap();
    for name in ["before", "beside"] {
        fs.remove(path(name)).unwrap();
    }
    drop(snapshots);
    for (name, key) in ["before", "beside"].into_iter().zip(keys) {
        assert_eq!(retire(&fs, key), held(), "{name}");
        assert_eq!(read(&fs, &outside(name)), name.as_bytes());
    }
}
