//! Registered directories that get other names, or go.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use atrest::keyring::{DirectoryStorage, KeyState, RetireOutcome};
use atrest::store::{Reencrypt, StalePolicy};
use atrest::{DataKeyId, EncryptedFs, ErrorKind, Keyring, Store};
use atrest_testkit::MemFs;
use atrest_testkit::mem_fs::{After, kill_everywhere};

use super::exchange::{Between, Call};
use super::write;
use crate::support::{
    DIR, ScriptedKms, TestStore, copy, kind, manual, mem_create, mem_open, store_of,
};

/// The registered directories.
pub fn registered(fs: &EncryptedFs) -> Vec<PathBuf> {
    let mut all = store_of(fs).directories().list();
    all.retain(|dir| !dir.ends_with("data") && dir != Path::new(DIR));
    all
}

pub fn retire(fs: &EncryptedFs, key: DataKeyId) -> RetireOutcome {
    let retired = store_of(fs).renewal().retire(None, Duration::ZERO, &|_| {}).unwrap();
    retired.keys.into_iter().find(|of| of.id == key).unwrap().outcome
}

pub fn markers(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    entries.filter(|name| name.to_str().unwrap().starts_with("KEYRING.directory.")).count()
}

/// A store, and where directories beside it may be.
pub fn beside() -> (TestStore, EncryptedFs, PathBuf) {
    let store = TestStore::new();
    let fs = store.fs();
    let base = store.dir.path().canonicalize().unwrap();
    (store, fs, base)
}

pub fn io(error: io::ErrorKind) -> ErrorKind {
    ErrorKind::Io(error)
}

#[test]
fn a_directory_that_was_removed_is_no_longer_looked_for() {
    let (_store, fs, base) = beside();
    let outside = base.join("outside");
    fs.create_dir(&outside).unwrap();
    let key = write(&fs, &outside.join("a"), b"1");
    fs.keyring().keys().rotate().unwrap();
    // As long as there is anything, all stays as it is.
    assert_eq!(kind(fs.remove_dir(&outside)), io(io::ErrorKind::DirectoryNotEmpty));
    assert_eq!((registered(&fs), markers(&outside)), (vec![outside.clone()], 1));
    assert_eq!(retire(&fs, key), RetireOutcome::InUse);
    fs.remove(outside.join("a")).unwrap();
    fs.remove_dir(&outside).unwrap();
    assert!(!outside.exists() && registered(&fs).is_empty());
    assert_ne!(retire(&fs, key), RetireOutcome::InUse);
    // Made by others, it is known again from its first file on.
    std::fs::create_dir(&outside).unwrap();
    let key = write(&fs, &outside.join("a"), b"2");
    assert_eq!((registered(&fs), markers(&outside)), (vec![outside.clone()], 1));
    fs.keyring().keys().rotate().unwrap();
    assert_eq!(retire(&fs, key), RetireOutcome::InUse);
    // One below it has no marker, and costs no commit.
    let generation = fs.keyring().status().info.generation;
    fs.create_dir(outside.join("below")).unwrap();
    fs.remove_dir(outside.join("below")).unwrap();
    assert_eq!(fs.keyring().status().info.generation, generation);
    assert_eq!(registered(&fs), [outside]);
}

#[test]
fn nothing_else_is_removed() {
    let (store, fs, base) = beside();
    let outside = base.join("outside");
    fs.create_dir(&outside).unwrap();
    symlink(&outside, base.join("link")).unwrap();
    std::fs::write(base.join("file"), b"1").unwrap();
    for name in ["link", "file"] {
        assert_eq!(kind(fs.remove_dir(base.join(name))), io(io::ErrorKind::NotADirectory));
        assert!(base.join(name).exists());
    }
    assert_eq!(kind(fs.remove_dir(base.join("none"))), io(io::ErrorKind::NotFound));
    let reserved = store.data().join("KEYRING.staging.1");
    std::fs::create_dir(&reserved).unwrap();
    assert_eq!(kind(fs.remove_dir(&reserved)), ErrorKind::InvalidArgument);
    assert_eq!(kind(fs.remove_dir(store.data())), io(io::ErrorKind::DirectoryNotEmpty));
    // What a crash left of a marker goes too.
    let id = fs.keyring().store_id();
    std::fs::write(outside.join(format!("KEYRING.directory.{id}.new")), b"").unwrap();
    drop(fs);
    // A copy does not take its original's away.
    copy(&store.data(), &base.join("clone"));
    let clone = Store::open(base.join("clone"), store.kms(), manual()).unwrap();
    assert_eq!(kind(clone.files().remove_dir(&outside)), ErrorKind::IdentityMismatch);
    assert_eq!(kind(clone.files().rename(&outside, base.join("b"))), ErrorKind::IdentityMismatch);
    assert_eq!(markers(&outside), 2);
    let reader = Store::open_read_only(store.data(), store.kms(), manual()).unwrap();
    assert_eq!(kind(reader.files().remove_dir(&outside)), ErrorKind::ReadOnly);
    assert_eq!(markers(&outside), 2);
    let fs = store.fs();
    fs.remove_dir(&outside).unwrap();
    assert!(!outside.exists() && registered(&fs).is_empty());
}

#[test]
fn a_rename_to_the_same_name_changes_nothing() {
    let (_store, fs, base) = beside();
    let (outside, up) = (base.join("outside"), base.join("up"));
    fs.create_dir(&outside).unwrap();
    symlink(&base, &up).unwrap();
    let key = write(&fs, &outside.join("a"), b"1");
    fs.keyring().keys().rotate().unwrap();
    for same in [outside.clone(), up.join("outside")] {
        fs.rename(&outside, same).unwrap();
        assert_eq!(registered(&fs), std::slice::from_ref(&outside));
        assert_eq!(retire(&fs, key), RetireOutcome::InUse);
    }
}

/// Two threads, one of which makes anew what the other moves.
#[test]
fn a_name_that_others_use_meanwhile_stays_known() {
    let store = TestStore::new();
    let base = store.dir.path().canonicalize().unwrap();
    let (old, new) = (base.join("old"), base.join("new"));
    let files: Arc<OnceLock<EncryptedFs>> = Arc::default();
    let (others, place) = (files.clone(), old.clone());
    let between = Between::new(move |call| {
        // Behind the rename, before the old name goes off the list.
        if matches!(call, Call::SyncDir) && others.get().is_some() && !place.exists() {
            std::fs::create_dir(&place)?;
            write(others.get().unwrap(), &place.join("b"), b"2");
        }
        Ok(())
    });
    let fs = Store::over_vfs(store.keyring(), Arc::new(between)).unwrap().files().clone();
    fs.create_dir(&old).unwrap();
    write(&fs, &old.join("a"), b"1");
    files.set(fs.clone()).unwrap();
    fs.rename(&old, &new).unwrap();
    assert_eq!((registered(&fs), markers(&old)), (vec![new, old.clone()], 1));
    fs.remove(old.join("b")).unwrap();
    fs.remove_dir(&old).unwrap();
}

/// That appears between the look at it and the creation of a file.
#[test]
fn a_directory_that_others_make_is_known_from_its_first_file() {
    let store = TestStore::new();
    let outside = store.dir.path().canonicalize().unwrap().join("outside");
    let place = outside.clone();
    let between = Between::new(move |call| match call {
        Call::Create(path) if path.parent() == Some(&place) && !place.exists() => {
            std::fs::create_dir(&place)
        }
        _ => Ok(()),
    });
    let fs = Store::over_vfs(store.keyring(), Arc::new(between)).unwrap().files().clone();
    write(&fs, &outside.join("a"), b"1");
    assert_eq!((registered(&fs), markers(&outside)), (vec![outside], 1));
}

/// It looks empty, and its files are elsewhere.
#[test]
fn what_is_not_mounted_is_neither_moved_nor_removed() {
    let (_store, fs, base) = beside();
    let (disk, away, new) = (base.join("disk"), base.join("away"), base.join("new"));
    fs.create_dir(&disk).unwrap();
    let key = write(&fs, &disk.join("a"), b"1");
    fs.keyring().keys().rotate().unwrap();
    std::fs::rename(&disk, &away).unwrap();
    for expected in [io(io::ErrorKind::NotFound), ErrorKind::InvalidArgument] {
        assert_eq!(kind(fs.rename(&disk, &new)), expected);
        assert_eq!(kind(fs.remove_dir(&disk)), expected);
        assert_eq!((registered(&fs), new.exists()), (vec![disk.clone()], false));
        let _ = std::fs::create_dir(&disk);
    }
    // Nor does another one take its place.
    fs.create_dir(&new).unwrap();
    assert_eq!(kind(fs.rename(&new, &disk)), ErrorKind::InvalidArgument);
    std::fs::remove_dir(&disk).unwrap();
    std::fs::rename(&away, &disk).unwrap();
    assert_eq!(retire(&fs, key), RetireOutcome::InUse);
}

/// A file that somebody puts there between the look and the removal, say.
#[test]
fn a_directory_that_cannot_be_removed_stays_known() {
    let store = TestStore::new();
    let outside = store.dir.path().canonicalize().unwrap().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let (armed, place) = (Arc::new(AtomicBool::new(false)), outside.clone());
    let strike = armed.clone();
    // The marker is looked at when the directory has been.
    let between = Between::new(move |call| match call {
        Call::Stat(path)
            if path.parent() == Some(&place) && strike.swap(false, Ordering::Relaxed) =>
        {
            std::fs::write(place.join("late"), b"")
        }
        _ => Ok(()),
    });
    let files = Store::over_vfs(store.keyring(), Arc::new(between)).unwrap().files().clone();
    files.create_dir(&outside).unwrap();
    armed.store(true, Ordering::Relaxed);
    let before = files.keyring().status().info.generation;
    assert_eq!(kind(files.remove_dir(&outside)), io(io::ErrorKind::DirectoryNotEmpty));
    assert_eq!((registered(&files), markers(&outside)), (vec![outside], 1));
    assert_eq!(files.keyring().status().info.generation, before + 2, "taken off, and back");
}

#[test]
fn a_registered_directory_takes_its_place_on_the_list_along() {
    let (_store, fs, base) = beside();
    let (old, new) = (base.join("copy.tmp"), base.join("copy"));
    fs.create_dir(&old).unwrap();
    let key = write(&fs, &old.join("a"), b"1");
    fs.keyring().keys().rotate().unwrap();
    fs.rename(&old, &new).unwrap();
    // And nothing above it is known for that.
    assert_eq!((registered(&fs), markers(&new), markers(&base)), (vec![new.clone()], 1, 0));
    assert_eq!(retire(&fs, key), RetireOutcome::InUse);
    // The old name is free, and is not taken for known.
    std::fs::create_dir(&old).unwrap();
    let key = write(&fs, &old.join("a"), b"2");
    assert_eq!(registered(&fs), [new.clone(), old.clone()]);
    fs.keyring().keys().rotate().unwrap();
    assert_eq!(retire(&fs, key), RetireOutcome::InUse);
    // A rename that fails leaves the list as it was.
    let full = base.join("full");
    std::fs::create_dir_all(full.join("of")).unwrap();
    for to in [&new, &full, &base.join("no/such")] {
        assert!(fs.rename(&old, to).is_err(), "{}", to.display());
    }
    assert_eq!(registered(&fs), [new.clone(), old.clone()]);
    // With those above it, and into the store's own directory, where it needs no place.
    let upper = base.join("upper");
    std::fs::create_dir(&upper).unwrap();
    fs.rename(&old, upper.join("b")).unwrap();
    fs.rename(&upper, base.join("other")).unwrap();
    assert!(registered(&fs).contains(&base.join("other/b")), "{:?}", registered(&fs));
    assert_eq!(retire(&fs, key), RetireOutcome::InUse);
}

#[test]
fn in_the_store_s_own_directory_it_needs_no_place() {
    let (store, fs, base) = beside();
    let (outside, inside) = (base.join("outside"), store.data().join("inside"));
    fs.create_dir(&outside).unwrap();
    let key = write(&fs, &outside.join("a"), b"1");
    fs.keyring().keys().rotate().unwrap();
    fs.rename(&outside, &inside).unwrap();
    assert!(registered(&fs).is_empty());
    assert_eq!(retire(&fs, key), RetireOutcome::InUse);
    // Nor a marker, which would say that it is another's once the store is elsewhere.
    assert_eq!(markers(&inside), 0);
    fs.remove(inside.join("a")).unwrap();
    fs.remove_dir(&inside).unwrap();
    assert_ne!(retire(&fs, key), RetireOutcome::InUse);
}

/// With a device mounted in it: the rest is on no list of its own.
#[test]
fn what_leaves_the_store_s_directory_is_known_where_it_comes() {
    let store = TestStore::new();
    let data = store.data().canonicalize().unwrap();
    let (inside, disk) = (data.join("inside"), data.join("inside/disk"));
    std::fs::create_dir_all(&disk).unwrap();
    let mut mounted = Between::new(|_| Ok(()));
    mounted.mounted = Some(disk.clone());
    let files = Store::over_vfs(store.keyring(), Arc::new(mounted)).unwrap().files().clone();
    write(&files, &disk.join("b"), b"2");
    let key = write(&files, &inside.join("a"), b"1");
    files.keyring().keys().rotate().unwrap();
    let outside = store.dir.path().canonicalize().unwrap().join("outside");
    files.rename(&inside, &outside).unwrap();
    files.remove(outside.join("disk/b")).unwrap();
    assert_eq!(retire(&files, key), RetireOutcome::InUse);
}

/// The walk over that one passes the store's by, as any with a keyring.
#[test]
fn a_directory_above_the_store_s_hides_no_file() {
    for by_rename in [false, true] {
        let (store, fs, base) = beside();
        let data = store.data().canonicalize().unwrap();
        let (outside, key) = (base.join("outside"), write(&fs, &data.join("a"), b"1"));
        fs.create_dir(&outside).unwrap();
        write(&fs, &outside.join("b"), b"2");
        write(&fs, &data.join("c"), b"3");
        symlink(data.join("d"), base.join("link")).unwrap();
        std::fs::create_dir(data.join("d")).unwrap();
        fs.keyring().keys().rotate().unwrap();
        if by_rename {
            fs.rename(data.join("c"), base.join("c")).unwrap();
        } else {
            write(&fs, &base.join("e"), b"4");
        }
        assert_eq!(store_of(&fs).directories().list(), [base.clone(), data.clone()]);
        assert_eq!(markers(&outside), 0, "the one above speaks for it");
        for _ in 0..2 {
            assert_eq!(retire(&fs, key), RetireOutcome::InUse);
        }
        let usage = store_of(&fs).renewal().scan_usage(&|_| {}).unwrap();
        assert_eq!(usage.of_key(key).unwrap().count.files, 3);
        assert!(usage.passed_by.nested_stores.is_empty());
        // The same by a walk, and of a store that was moved.
        drop(fs);
        let moved = base.join("moved");
        std::fs::rename(&data, &moved).unwrap();
        std::fs::remove_file(base.join("link")).unwrap();
        let keyring = Keyring::open(DirectoryStorage::new(&moved), store.kms(), manual()).unwrap();
        let walked = Store::over_vfs(keyring, Arc::new(Between::new(|_| Ok(())))).unwrap();
        walked.directories().take_over(&base).unwrap();
        let usage = walked.renewal().scan_usage(&|_| {}).unwrap();
        assert_eq!(usage.of_key(key).unwrap().count.files, 3);
        let mut how = Reencrypt::default();
        how.policy = StalePolicy::older_than(Duration::ZERO);
        let report = walked.renewal().reencrypt(&how).unwrap();
        assert!(report.failed.is_empty() && report.files > 2, "{report:?}");
    }
}

/// Whatever a registered directory was called once.
#[test]
fn a_file_with_a_registered_name_is_renamed_like_any() {
    let (_store, fs, base) = beside();
    let outside = base.join("outside");
    fs.create_dir(&outside).unwrap();
    std::fs::remove_dir_all(&outside).unwrap();
    write(&fs, &base.join("a"), b"1");
    fs.rename(base.join("a"), &outside).unwrap();
    fs.rename(&outside, base.join("b")).unwrap();
    assert!(base.join("b").exists());
}

const OLD: &str = "/elsewhere/copy.tmp";
const NEW: &str = "/elsewhere/copy";

/// A store with a file in a registered directory, under a key that was replaced.
fn in_memory() -> (MemFs, DataKeyId) {
    let mem = MemFs::new(DIR);
    mem.put_dir(Path::new("/elsewhere"));
    mem.put_dir(Path::new(OLD));
    let fs = mem_create(&mem, &ScriptedKms::new(1)).unwrap();
    let key = write(&fs, &Path::new(OLD).join("a"), b"1");
    fs.sync_dir(OLD).unwrap();
    fs.keyring().keys().rotate().unwrap();
    drop(fs);
    (mem.fork(), key)
}

fn reopened(mem: &MemFs) -> EncryptedFs {
    mem_open(mem, &ScriptedKms::new(1)).unwrap()
}

/// Whatever survives, no key goes while the file is there, and once the engine has done again
/// what it was about nothing is missing.
#[test]
fn a_crash_while_a_directory_moves_leaves_its_files_known() {
    let (base, key) = in_memory();
    let steps = kill_everywhere(
        &base,
        |mem| {
            let fs = mem_open(mem, &ScriptedKms::new(1))?;
            fs.rename(OLD, NEW).map(|()| fs)
        },
        |After { fs: mem, done, crash, step }| {
            let fs = reopened(&mem);
            let now =
                [OLD, NEW].map(Path::new).into_iter().find(|dir| fs.open(dir.join("a")).is_ok());
            let now = now.unwrap_or_else(|| panic!("step {step}, {crash:?}"));
            for _ in 0..2 {
                let _ = store_of(&fs).renewal().retire(None, Duration::ZERO, &|_| {});
            }
            let state =
                fs.keyring().status().data_keys.iter().find(|it| it.id == key).unwrap().state;
            assert_ne!(state, KeyState::Destroyed, "step {step}, {crash:?}");
            assert!(!done || now == Path::new(NEW), "durable with its end");
            assert!(registered(&fs).contains(&now.into()), "step {step}, {crash:?}");
            // What is on the list besides is missing, which is said, and taken off by hand.
            if now == Path::new(OLD) {
                fs.rename(OLD, NEW).unwrap();
            } else if registered(&fs).contains(&OLD.into()) {
                assert_eq!(store_of(&fs).directories().absent().len(), 1);
                store_of(&fs).directories().unregister(OLD).unwrap();
            }
            assert_eq!(registered(&fs), [Path::new(NEW)]);
            assert_eq!(retire(&fs, key), RetireOutcome::InUse);
        },
    );
    assert!(steps > 10, "{steps}");
}

#[test]
fn a_crash_while_a_directory_goes_is_made_good_by_its_removal() {
    let (base, key) = in_memory();
    let fs = reopened(&base);
    fs.remove(Path::new(OLD).join("a")).unwrap();
    fs.sync_dir(OLD).unwrap();
    drop(fs);
    let base = base.fork();
    let steps = kill_everywhere(
        &base,
        |mem| {
            let fs = mem_open(mem, &ScriptedKms::new(1))?;
            fs.remove_dir(OLD).map(|()| fs)
        },
        |After { fs: mem, crash, step, .. }| {
            let fs = reopened(&mem);
            match fs.remove_dir(OLD) {
                Err(error) if error.kind() == io(io::ErrorKind::NotFound) => {}
                other => other.unwrap(),
            }
            assert!(registered(&fs).is_empty(), "step {step}, {crash:?}");
            assert_ne!(retire(&fs, key), RetireOutcome::InUse);
        },
    );
    assert!(steps > 10, "{steps}");
}
