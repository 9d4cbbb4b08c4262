//! What happens while a retirement looks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atrest::keyring::{KeyState, LiveKeys, MemoryStorage, RetireOutcome};
use atrest::store::{Reencrypt, ScanProgress, StalePolicy};
use atrest::{DataKeyId, FileKind, Keyring};

use super::{GRACE, open, outcome, quiet, retire};
use crate::renewal::write;
use crate::support::{ManualClock, TestStore, options, store_of};

#[test]
fn a_file_that_is_finished_during_the_scan_keeps_its_key() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let path = store.data().join("late");
    let writer = fs.create_new(&path, FileKind::Table).unwrap();
    let old = fs.keyring().keys().active_id().unwrap();
    fs.keyring().keys().rotate().unwrap();
    retire(&fs);
    clock.advance(8 * ManualClock::DAY);
    // The scan has seen an empty file; at the commit no file is open.
    let writer = Mutex::new(Some(writer));
    let on_scan = |_: ScanProgress| {
        if let Some(writer) = writer.lock().unwrap().take() {
            writer.finish().unwrap();
        }
    };
    let found = store_of(&fs).renewal().retire(None, GRACE, &on_scan).unwrap();
    assert_eq!(outcome(&found, old), RetireOutcome::Open);
    assert!(fs.open(&path).unwrap().is_empty().unwrap());
}

#[test]
fn a_file_that_is_opened_during_the_scan_keeps_its_key() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    // Where no scan comes.
    let (path, elsewhere) = (store.data().join("old"), store.dir.path().join("old"));
    write(&fs, &path, b"read on");
    std::fs::rename(&path, &elsewhere).unwrap();
    let old = fs.keyring().keys().active_id().unwrap();
    fs.keyring().keys().rotate().unwrap();
    write(&fs, &path, b"something to scan");
    retire(&fs);
    clock.advance(8 * ManualClock::DAY);
    let reader = Mutex::new(None);
    let on_scan = |_: ScanProgress| {
        reader.lock().unwrap().get_or_insert_with(|| fs.open(&elsewhere).unwrap());
    };
    let found = store_of(&fs).renewal().retire(None, GRACE, &on_scan).unwrap();
    assert_eq!(outcome(&found, old), RetireOutcome::Open);
    let mut bytes = [0; 7];
    reader.lock().unwrap().take().unwrap().read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"read on");
    assert_eq!(outcome(&retire(&fs), old), RetireOutcome::Destroyed);
}

/// Nothing is under any key, and the look takes so long that the month is over.
struct Slow<'a>(&'a Keyring);

impl LiveKeys for Slow<'_> {
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>, atrest::Error> {
        self.0.keys().rotate()?;
        Ok(Vec::new())
    }
}

#[test]
fn a_key_that_is_replaced_during_the_look_waits_for_the_next() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let keyring = Keyring::create(MemoryStorage::new(), store.kms(), options(&clock)).unwrap();
    let old = keyring.keys().active_id().unwrap();
    keyring.keys().rotate().unwrap();
    let replaced = keyring.keys().active_id().unwrap();
    let found = keyring.keys().retire(&Slow(&keyring), GRACE).unwrap();
    let [only] = &found.keys[..] else { panic!("{found:?}") };
    assert_eq!(only.id, old);
    assert!(matches!(only.outcome, RetireOutcome::Retiring { .. }));
    let status = keyring.status();
    let state = status.data_keys.iter().find(|key| key.id == replaced).unwrap().state;
    assert_eq!(state, KeyState::DecryptOnly, "nobody looked whether a file is under it");
}

/// Ends the other thread, also when this one fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn files_open_at_any_time_while_keys_are_retired() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let (keep, path) = (store.data().join("keep"), store.data().join("gone"));
    write(&fs, &keep, b"kept");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs.open(&keep).unwrap();
            }
        });
        let _stop = Stop(&stop);
        for _ in 0..40 {
            fs.keyring().keys().rotate().unwrap();
            write(&fs, &path, b"1");
            fs.remove(&path).unwrap();
            store_of(&fs).renewal().retire(None, Duration::ZERO, &quiet).unwrap();
        }
    });
    let status = fs.keyring().status();
    let destroyed = status.data_keys.iter().filter(|key| key.state == KeyState::Destroyed);
    assert!(destroyed.count() > 30);
}

#[test]
fn files_that_move_during_the_scan_save_their_key() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let dirs: Vec<PathBuf> = (0..8).map(|i| store.data().join(i.to_string())).collect();
    dirs.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    for file in 0..400 {
        write(&fs, &dirs[file % 8].join(format!("new{file}")), b"1");
    }
    fs.keyring().keys().rotate().unwrap();
    for file in 0..400 {
        fs.remove(dirs[file % 8].join(format!("new{file}"))).unwrap();
    }
    let wanted = write(&fs, &dirs[0].join("wanderer"), b"1");
    for file in 0..400 {
        write(&fs, &dirs[file % 8].join(format!("new{file}")), b"1");
    }
    fs.keyring().keys().rotate().unwrap();
    let stop = AtomicBool::new(false);
    for file in 0..400 {
        fs.remove(dirs[file % 8].join(format!("new{file}"))).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut at = 0;
            while !stop.load(Ordering::Relaxed) {
                let next = (at + 3) % 8;
                fs.rename(dirs[at].join("wanderer"), dirs[next].join("wanderer")).unwrap();
                at = next;
            }
        });
        let _stop = Stop(&stop);
        for _ in 0..300 {
            let found = store_of(&fs).renewal().retire(None, GRACE, &quiet).unwrap();
            assert_eq!(outcome(&found, wanted), RetireOutcome::InUse);
        }
    });
}

#[test]
fn what_panics_during_the_scan_keeps_no_later_retirement_out() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    write(&fs, &store.data().join("a"), b"something to scan");
    let old = fs.keyring().keys().active_id().unwrap();
    fs.keyring().keys().rotate().unwrap();
    let whole = store_of(&fs);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        whole.renewal().retire(None, GRACE, &|_| panic!("a fault of the engine's"))
    }));
    assert!(panicked.is_err());
    assert_eq!(outcome(&retire(&fs), old), RetireOutcome::InUse);
    let run = |on_scan: &(dyn Fn(ScanProgress) + Sync)| {
        let mut how = Reencrypt::default();
        (how.policy, how.on_scan) = (StalePolicy::older_than(Duration::ZERO), on_scan);
        whole.renewal().reencrypt(&how).unwrap().files
    };
    let panicked = catch_unwind(AssertUnwindSafe(|| run(&|_| panic!("a fault of the engine's"))));
    assert!(panicked.is_err());
    assert_eq!(run(&|_| {}), 1);
    let rebuild = |on_scan: &(dyn Fn(ScanProgress) + Sync)| whole.renewal().rebuild_usage(on_scan);
    let panicked =
        catch_unwind(AssertUnwindSafe(|| rebuild(&|_| panic!("a fault of the engine's"))));
    assert!(panicked.is_err());
    assert_eq!(rebuild(&|_| {}).unwrap().of_key(old).unwrap().count.files, 0);
}
