//! Registered directories that a walk over one above them passes by, and what is not to be
//! registered.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use atrest::keyring::RetireOutcome;
use atrest::store::{Reencrypt, StalePolicy};
use atrest::verify::verify;
use atrest::{EncryptedFs, Store};

use super::exchange::{Between, Call};
use super::moved::{beside, io, markers, registered, retire};
use super::write;
use crate::support::{TestStore, key_file, kind, left_out, manual, store_of};

/// What makes a walk pass a directory by.
fn hide(dir: &Path) {
    std::fs::write(dir.join("KEYRING"), b"another store's").unwrap();
}

/// A file in a registered directory of a directory that walks pass by, and its key, which is
/// another than that of new files.
fn with_a_checkpoint(fs: &EncryptedFs, disk: &Path) -> (PathBuf, atrest::DataKeyId) {
    let checkpoint = disk.join("backups/checkpoint");
    std::fs::create_dir_all(&checkpoint).unwrap();
    hide(&disk.join("backups"));
    let key = write(fs, &checkpoint.join("a"), b"1");
    fs.keyring().keys().rotate().unwrap();
    assert_eq!(registered(fs), std::slice::from_ref(&checkpoint));
    (checkpoint, key)
}

#[test]
fn one_that_a_walk_would_pass_by_stays_on_the_list() {
    let (_store, fs, base) = beside();
    let disk = base.join("disk");
    let (checkpoint, key) = with_a_checkpoint(&fs, &disk);
    store_of(&fs).directories().register(&disk).unwrap();
    assert_eq!((registered(&fs), markers(&checkpoint)), (vec![disk, checkpoint], 1));
    assert_eq!(retire(&fs, key), RetireOutcome::InUse);
}

/// Before the move the way to its new name is free.
#[test]
fn one_that_moves_with_what_hides_it_stays_on_the_list() {
    let (_store, fs, base) = beside();
    let (disk, above) = (base.join("disk"), base.join("above"));
    let (_, key) = with_a_checkpoint(&fs, &disk);
    std::fs::create_dir(&above).unwrap();
    store_of(&fs).directories().register(&above).unwrap();
    fs.rename(disk.join("backups"), above.join("backups")).unwrap();
    let moved = above.join("backups/checkpoint");
    assert_eq!((registered(&fs), markers(&moved)), (vec![above, moved], 1));
    assert_eq!(retire(&fs, key), RetireOutcome::InUse);
}

/// As a checkpoint among another store's backups in the store's own directory.
#[test]
fn one_below_the_stores_own_that_a_walk_passes_by_is_verified() {
    let (store, fs, base) = beside();
    let disk = base.join("disk");
    with_a_checkpoint(&fs, &disk);
    let backups = store.data().canonicalize().unwrap().join("backups");
    fs.rename(disk.join("backups"), &backups).unwrap();
    let moved = backups.join("checkpoint");
    assert_eq!(registered(&fs), std::slice::from_ref(&moved));
    std::fs::write(moved.join("a"), b"damaged").unwrap();
    let told = verify(&fs, store.data(), &|_| std::ops::ControlFlow::Continue(())).unwrap();
    let problems: Vec<_> = told.problems.iter().map(|problem| &problem.path).collect();
    assert_eq!(problems, [&moved.join("a")]);
}

/// After the next move of the store its marker would be another one's, and none would be on the
/// list.
#[test]
fn one_below_another_has_no_marker_after_it_was_taken_over() {
    let (store, fs, base) = beside();
    let (above, below) = (base.join("above"), base.join("above/below"));
    std::fs::create_dir_all(&below).unwrap();
    store_of(&fs).directories().register(&above).unwrap();
    write(&fs, &below.join("a"), b"1");
    fs.keyring().keys().rotate().unwrap();
    let marker = format!("KEYRING.directory.{}", fs.keyring().store_id());
    std::fs::write(below.join(marker), b"elsewhere").unwrap();
    let mut all = Reencrypt::default();
    all.policy = StalePolicy::older_than(std::time::Duration::ZERO);
    let reencrypt = || store_of(&fs).renewal().reencrypt(&all).map(|done| done.files);
    assert_eq!(kind(reencrypt()), atrest::ErrorKind::IdentityMismatch);
    store_of(&fs).directories().take_over(&below).unwrap();
    assert_eq!((registered(&fs), markers(&below)), (vec![above], 0));
    assert_eq!(reencrypt().unwrap(), 1);
    drop(store);
}

#[test]
fn a_rename_that_fails_registers_nothing() {
    let store = TestStore::new();
    let base = store.dir.path().canonicalize().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let between = Between::new(move |call| match call {
        Call::Rename(..) if failing.load(Ordering::Relaxed) => {
            Err(std::io::ErrorKind::CrossesDevices.into())
        }
        _ => Ok(()),
    });
    let fs = Store::over_vfs(store.keyring(), Arc::new(between)).unwrap().files().clone();
    let (from, to) = (base.join("from"), base.join("to"));
    fs.create_dir(&from).unwrap();
    std::fs::create_dir(&to).unwrap();
    fails.store(true, Ordering::Relaxed);
    assert_eq!(kind(fs.rename(&from, &to)), io(std::io::ErrorKind::CrossesDevices));
    assert_eq!((registered(&fs), markers(&from), markers(&to)), (vec![from], 1, 0));
}

/// While a rename is under way its target is on the list.
#[test]
fn what_comes_into_the_target_of_a_rename_that_fails_is_seen() {
    for registers in [false, true] {
        let store = TestStore::new();
        let base = store.dir.path().canonicalize().unwrap();
        let (from, to) = (base.join("from"), base.join("to"));
        let (fails, barrier) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(2)));
        let (failing, meets, creates) = (fails.clone(), barrier.clone(), to.join("f"));
        let between = Between::new(move |call| match call {
            Call::Rename(..) if failing.swap(false, Ordering::SeqCst) => {
                // The other thread begins, and is in the middle.
                meets.wait();
                meets.wait();
                Err(std::io::ErrorKind::CrossesDevices.into())
            }
            Call::Create(path) if *path == creates => {
                meets.wait();
                meets.wait();
                Ok(())
            }
            _ => Ok(()),
        });
        let opened = Store::over_vfs(store.keyring(), Arc::new(between)).unwrap();
        let fs = opened.files().clone();
        fs.create_dir(&from).unwrap();
        std::fs::create_dir(&to).unwrap();
        fails.store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                barrier.wait();
                if registers {
                    opened.directories().register(&to).unwrap();
                    barrier.wait();
                } else {
                    write(&fs, &to.join("f"), b"1");
                }
            });
            assert_eq!(kind(fs.rename(&from, &to)), io(std::io::ErrorKind::CrossesDevices));
            if !registers {
                assert_eq!(registered(&fs), std::slice::from_ref(&from));
                barrier.wait();
            }
            other.join().unwrap();
        });
        assert_eq!((registered(&fs), markers(&to)), (vec![from, to], 1), "{registers}");
    }
}

#[test]
fn the_stores_own_directory_is_no_other_store_below_a_registered_one() {
    let (store, fs, base) = beside();
    store_of(&fs).directories().register(&base).unwrap();
    std::fs::create_dir(base.join("other")).unwrap();
    hide(&base.join("other"));
    symlink(store.data(), base.join("link")).unwrap();
    let told = verify(&fs, store.data(), &|_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!(told.passed_by.nested_stores, [base.join("other")]);
}

const CHILD: &str = "ATREST_MOUNTS_WHILE_OPEN";

/// The number of the device is the same, and the directory's path too.
#[test]
fn what_is_mounted_on_a_known_directory_is_registered() {
    let store = TestStore::new();
    store.keyring().close().unwrap();
    for dir in ["data/disk", "part"] {
        std::fs::create_dir(store.dir.path().join(dir)).unwrap();
    }
    let mut child = Command::new("unshare");
    child.arg("--mount").arg(std::env::current_exe().unwrap());
    child.args(["--exact", "renewal::hidden::mounts_while_a_store_is_open", "--nocapture"]);
    let said = child.env(CHILD, store.dir.path()).output();
    let said = said.map(|it| [it.stdout, it.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    if !said.contains("running 1 test") || said.contains("nothing can be mounted") {
        return left_out(format_args!("nothing can be mounted here: {said}"));
    }
    assert!(said.contains("1 passed"), "{said}");
}

/// The other process of the test above.
#[test]
fn mounts_while_a_store_is_open() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let dir = Path::new(&dir).canonicalize().unwrap();
    let (data, part, disk) = (dir.join("data"), dir.join("part"), dir.join("data/disk"));
    let opened = Store::open(&data, key_file(&dir.join("cmek.key")), manual()).unwrap();
    // Twice, so that the directory is known without a question.
    for name in ["a", "b"] {
        write(opened.files(), &disk.join(name), b"1");
    }
    assert!(registered(opened.files()).is_empty());
    let mounted = Command::new("mount").arg("--bind").args([&part, &disk]).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return println!("nothing can be mounted");
    }
    write(opened.files(), &disk.join("c"), b"1");
    assert_eq!((opened.directories().registered(), markers(&part)), (vec![disk], 1));
}
