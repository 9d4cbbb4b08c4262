//! Symbolic links, stores inside of a store, and names that are the library's: what a walk
//! over a store's directory meets besides files.

use crate::support::store_of;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use atrest::backup::Snapshot;
use atrest::keyring::{DirectoryStorage, KeyState, RetireOutcome};
use atrest::store::{Reencrypt, ScanProgress, StalePolicy, StorePlace};
use atrest::verify::verify;
use atrest::vfs::Vfs;
use atrest::{DataKeyId, EncryptedFs, Error, ErrorKind, FileKind, Store};
use atrest_testkit::MemFs;

use super::exchange::Between;
use super::{counts, write};
use crate::support::{
    DIR, ManualClock, ScriptedKms, TestStore, check_file, in_dir, kind, manual, mem_create,
    options, write_file,
};

fn quiet(_: ScanProgress) {}

fn all<'a>() -> Reencrypt<'a> {
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    how
}

/// What becomes of one key at a retirement without grace.
fn retire(fs: &EncryptedFs, id: DataKeyId) -> Result<RetireOutcome, Error> {
    let done = store_of(fs).renewal().retire(None, Duration::ZERO, &quiet)?;
    Ok(done.keys.into_iter().find(|key| key.id == id).unwrap().outcome)
}

fn state(fs: &EncryptedFs, id: DataKeyId) -> KeyState {
    fs.keyring().status().data_keys.iter().find(|key| key.id == id).unwrap().state
}

/// A store, and a file of it that was moved to another disk, with a link in its place.
fn with_a_cold_table() -> (TestStore, EncryptedFs, DataKeyId) {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = store.create(options(&clock)).files().clone();
    let (hot, cold) = (store.data().join("table"), store.dir.path().join("cold"));
    let key = write(&fs, &hot, b"rows");
    std::fs::rename(&hot, &cold).unwrap();
    symlink(&cold, &hot).unwrap();
    fs.keyring().keys().rotate().unwrap();
    (store, fs, key)
}

#[test]
fn a_key_is_in_use_by_the_file_behind_a_link() {
    let (store, fs, key) = with_a_cold_table();
    for _ in 0..3 {
        assert_eq!(retire(&fs, key).unwrap(), RetireOutcome::InUse);
    }
    let mut rows = [0; 4];
    fs.open(store.data().join("table")).unwrap().read_exact_at(&mut rows, 0).unwrap();
    // Through several links, and after the library renamed the first one.
    symlink(store.data().join("table"), store.data().join("again")).unwrap();
    fs.rename(store.data().join("again"), store.data().join("moved")).unwrap();
    assert_eq!(retire(&fs, key).unwrap(), RetireOutcome::InUse);
    std::fs::remove_file(store.dir.path().join("cold")).unwrap();
    std::fs::remove_file(store.data().join("table")).unwrap();
    std::fs::remove_file(store.data().join("moved")).unwrap();
    assert!(matches!(retire(&fs, key).unwrap(), RetireOutcome::Retiring { .. }));
    assert_eq!(retire(&fs, key).unwrap(), RetireOutcome::Destroyed);
}

#[test]
fn a_link_that_leads_nowhere_or_elsewhere_stops_a_retirement() {
    let (store, fs, key) = with_a_cold_table();
    let (link, elsewhere) = (store.data().join("link"), store.dir.path().join("disk2"));
    std::fs::create_dir(&elsewhere).unwrap();
    for target in [Path::new("nowhere"), elsewhere.as_path()] {
        symlink(target, &link).unwrap();
        let refused = store_of(&fs).renewal().retire(None, Duration::ZERO, &quiet).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
        assert!(refused.to_string().contains("link"), "{refused}");
        assert_eq!(state(&fs, key), KeyState::DecryptOnly);
        std::fs::remove_file(&link).unwrap();
    }
    // A directory that the keyring knows is scanned anyway, and one inside is met anyway.
    std::fs::create_dir(store.data().join("inside")).unwrap();
    symlink("inside", store.data().join("link2")).unwrap();
    store_of(&fs).directories().register(&elsewhere).unwrap();
    symlink(&elsewhere, &link).unwrap();
    assert_eq!(retire(&fs, key).unwrap(), RetireOutcome::InUse);
}

#[test]
fn a_copy_of_the_store_inside_of_it_keeps_its_own_keys() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = store.create(options(&clock)).files().clone();
    let (table, copy) = (store.data().join("table"), store.data().join("old"));
    let old = write(&fs, &table, b"rows");
    let copied = store.dir.path().join("copied");
    assert!(
        Command::new("cp").arg("-a").args([&store.data(), &copied]).status().unwrap().success()
    );
    std::fs::rename(&copied, &copy).unwrap();
    let before = std::fs::read(copy.join("table")).unwrap();

    fs.keyring().keys().rotate().unwrap();
    let report = store_of(&fs).renewal().reencrypt(&all()).unwrap();
    assert_eq!((report.files, report.failed.len()), (1, 0), "{report:?}");
    assert!(std::fs::read(copy.join("table")).unwrap() == before, "another store's file");
    let report = verify(&fs, store.data(), &|_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!((report.unauthenticated_files, report.problems.len()), (1, 0));
    assert_eq!(report.passed_by.nested_stores, std::slice::from_ref(&copy));
    let usage = store_of(&fs).renewal().scan_usage(&quiet).unwrap();
    assert!(usage.of_key(old).is_none_or(|usage| usage.count.files == 0), "{usage:?}");
    assert_eq!(kind(Snapshot::take(&store_of(&fs), store.data())), ErrorKind::InvalidArgument);
    assert!(matches!(retire(&fs, old).unwrap(), RetireOutcome::Retiring { .. }));

    let inner = Store::open_read_only(&copy, store.kms(), manual()).unwrap();
    let mut rows = [0; 4];
    let reader = inner.files().open(copy.join("table")).unwrap();
    reader.read_exact_at(&mut rows, 0).unwrap();
    assert_eq!(&rows, b"rows");
}

/// The same rules where the walk goes through a file system of the engine's.
#[test]
fn links_and_stores_inside_are_seen_through_any_file_system() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new("nested"));
    let fs = mem_create(&mem, &kms).unwrap();
    write_file(&fs, "table").unwrap();
    let key = fs.keyring().status().data_keys[0].id;
    mem.put(Path::new("/cold/table"), &mem.read(&in_dir("table")).unwrap());
    mem.put(&in_dir("copy/KEYRING"), b"another's");
    mem.put(&in_dir("copy/table"), &mem.read(&in_dir("table")).unwrap());
    mem.delete(&in_dir("table"));
    mem.put_link(&in_dir("table"), "/cold/table");
    fs.keyring().keys().rotate().unwrap();
    assert_eq!(retire(&fs, key).unwrap(), RetireOutcome::InUse);
    check_file(&fs, "table");
    assert_eq!(
        store_of(&fs)
            .renewal()
            .scan_usage(&quiet)
            .unwrap()
            .of_key(key)
            .map_or(0, |usage| usage.count.files),
        0
    );
    mem.put_link(&in_dir("table"), "/cold/none");
    assert_eq!(kind(retire(&fs, key)), ErrorKind::InvalidArgument);
    mem.delete(&in_dir("table"));
    assert!(matches!(retire(&fs, key).unwrap(), RetireOutcome::Retiring { .. }));
}

/// Nobody would look for it there before its data key is destroyed.
#[test]
fn no_file_gets_a_name_in_what_is_another_stores() {
    let (store, (mem, kms)) = (TestStore::new(), (MemFs::new(DIR), ScriptedKms::new("other")));
    let data = store.data().canonicalize().unwrap();
    std::fs::create_dir_all(data.join("old/deep")).unwrap();
    std::fs::write(data.join("old/KEYRING"), b"").unwrap();
    symlink(data.join("old"), data.join("link")).unwrap();
    mem.put_dir(&in_dir("old/deep"));
    mem.put_link(&in_dir("old/KEYRING"), "/none");
    mem.put_link(&in_dir("link"), in_dir("old"));
    for (fs, data) in [(store.fs(), &*data), (mem_create(&mem, &kms).unwrap(), Path::new(DIR))] {
        write(&fs, &data.join("a"), b"rows");
        fs.keyring().keys().rotate().unwrap();
        for dir in ["old", "old/deep", "link", "link/deep"] {
            let path = data.join(dir).join("f");
            let refused = [
                kind(fs.create_new(&path, FileKind::Other)),
                kind(fs.rename(data.join("a"), &path)),
                kind(fs.hard_link(data.join("a"), &path)),
                kind(fs.create_dir(&path)),
                kind(store_of(&fs).directories().register(path.parent().unwrap())),
            ];
            assert_eq!(refused, [ErrorKind::InvalidArgument; 5], "{dir}");
        }
        let refused = store_of(&fs).renewal().retire(None, Duration::ZERO, &quiet);
        assert_eq!(kind(refused), ErrorKind::InvalidArgument, "a link leads there");
    }
}

#[test]
fn a_directory_with_a_keyrings_name_hides_no_files() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = store.create(options(&clock)).files().clone();
    let table = store.data().join("t/1.sst");
    std::fs::create_dir_all(store.data().join("t/KEYRING")).unwrap();
    let key = write(&fs, &table, b"rows");
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new("hidden"));
    let in_mem = mem_create(&mem, &kms).unwrap();
    mem.create_dir(&in_dir("t"), 0o700).unwrap();
    mem.create_dir(&in_dir("t/KEYRING"), 0o700).unwrap();
    write_file(&in_mem, "t/1.sst").unwrap();
    let other = in_mem.keyring().status().data_keys[0].id;
    for (fs, key) in [(&fs, key), (&in_mem, other)] {
        fs.keyring().keys().rotate().unwrap();
        for _ in 0..2 {
            assert_eq!(retire(fs, key).unwrap(), RetireOutcome::InUse);
        }
    }
    let mut rows = [0; 4];
    fs.open(&table).unwrap().read_exact_at(&mut rows, 0).unwrap();
    check_file(&in_mem, "t/1.sst");
    let report = verify(&fs, store.data(), &|_| std::ops::ControlFlow::Continue(())).unwrap();
    assert_eq!((report.unauthenticated_files, report.passed_by.nested_stores.len()), (1, 0));
    assert!(Snapshot::take(&store_of(&fs), store.data()).is_ok());
}

#[test]
fn a_reserved_name_is_refused_in_any_part_of_a_path() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new("reserved"));
    let fs = mem_create(&mem, &kms).unwrap();
    write_file(&fs, "file").unwrap();
    for dir in ["KEYRING.staging.aa", "KEYRING.restore", "KEYRING.dir"] {
        mem.create_dir(&in_dir(dir), 0o700).unwrap();
    }
    let before = mem.files();
    for name in [
        "KEYRING.staging.aa/f",
        "KEYRING.restore/KEYRING.1",
        "KEYRING.restore/f",
        "KEYRING.dir/f",
        "KEYRING.sst",
        ".atrest-reencrypt-0",
    ] {
        let path = in_dir(name);
        let refused = [
            kind(fs.create_new(&path, FileKind::Other)),
            kind(fs.reuse_for_write(&path, FileKind::Other)),
            kind(fs.remove(&path)),
            kind(fs.rename(in_dir("file"), &path)),
            kind(fs.rename(&path, in_dir("x"))),
            kind(fs.hard_link(in_dir("file"), &path)),
            kind(fs.hard_link(&path, in_dir("x"))),
            kind(fs.create_dir(&path)),
        ];
        assert_eq!(refused, [ErrorKind::InvalidArgument; 8], "{name}");
    }
    assert_eq!(mem.files(), before);
}

/// Below a directory that is called so, a store works all the same.
#[test]
fn a_whole_store_may_lie_below_a_reserved_name() {
    let mem = MemFs::new("/disk/KEYRING.copy/store");
    let vfs = Arc::new(mem);
    let storage = DirectoryStorage::with_vfs("/disk/KEYRING.copy/store", vfs.clone());
    let place = StorePlace::new(storage, vfs);
    let store = Store::create(place, ScriptedKms::new("copy"), manual()).unwrap();
    let fs = store.files();
    let path = Path::new("/disk/KEYRING.copy/store/file");
    fs.create_new(path, FileKind::Other).unwrap().finish().unwrap();
    let inside = Path::new("/disk/KEYRING.copy/store/KEYRING.x/file");
    assert_eq!(kind(fs.create_new(inside, FileKind::Other)), ErrorKind::InvalidArgument);
}

/// The links of a running backup are in a directory: what only has such a name is passed by, on
/// any file system.
#[test]
fn what_has_the_name_of_a_staging_and_is_none_is_not_looked_into() {
    let store = TestStore::new();
    let fs = store.fs();
    write(&fs, &store.data().join("table"), b"rows");
    let outside = store.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::copy(store.data().join("table"), outside.join("7")).unwrap();
    symlink(&outside, store.data().join("KEYRING.staging.link")).unwrap();
    std::fs::write(store.data().join("KEYRING.staging.file"), b"no directory").unwrap();
    let usage = store_of(&fs).renewal().scan_usage(&quiet).unwrap();
    drop(fs);
    let vfs = Arc::new(Between::new(|_| Ok(())));
    let walked = Store::over_vfs(store.keyring(), vfs).unwrap();
    let walked = walked.renewal().scan_usage(&quiet).unwrap();
    assert_eq!(counts(&walked), counts(&usage));
    assert_eq!(walked.keys[0].count.files, 1);
}
