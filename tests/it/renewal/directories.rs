//! Directories outside of the store's own: links that lead elsewhere, disks that are not
//! mounted.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use atrest::backup::Snapshot;
use atrest::keyring::{KeyState, RETIRE_GRACE, RetireOutcome, Retirement};
use atrest::store::{OnScan, Reencrypt, Renewal, StalePolicy};
use atrest::{DataKeyId, EncryptedFs, Error, ErrorKind, Keyring, Store};

use super::exchange::Between;
use super::write;
use crate::support::{ManualClock, TestStore, key_file, kind, left_out, manual, options, store_of};

fn open(store: &TestStore, clock: &Arc<ManualClock>) -> EncryptedFs {
    let keyring = Keyring::open_or_create(store.storage(), store.kms(), options(clock)).unwrap();
    Store::over(keyring).unwrap().files().clone()
}

fn retire(fs: &EncryptedFs) -> Result<Retirement, Error> {
    store_of(fs).renewal().retire(None, RETIRE_GRACE, &|_| {})
}

fn in_use(fs: &EncryptedFs, key: DataKeyId) -> bool {
    let retired = retire(fs).unwrap();
    retired.keys.iter().any(|of| of.id == key && of.outcome == RetireOutcome::InUse)
}

/// An empty directory beside the store's.
fn beside(store: &TestStore, name: &str) -> PathBuf {
    let dir = store.dir.path().canonicalize().unwrap().join(name);
    std::fs::create_dir(&dir).unwrap();
    dir
}

fn list(fs: &EncryptedFs) -> Vec<PathBuf> {
    store_of(fs).directories().list()
}

#[test]
fn a_directory_that_was_created_is_known_and_those_below_have_no_marker() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let outside = store.dir.path().canonicalize().unwrap().join("outside");
    fs.create_dir(&outside).unwrap();
    let below = outside.join("below");
    fs.create_dir(&below).unwrap();
    assert_eq!(list(&fs).iter().filter(|dir| dir.starts_with(&outside)).count(), 1);
    let key = write(&fs, &below.join("a"), b"1");
    fs.keyring().keys().rotate().unwrap();
    assert!(in_use(&fs, key));
    fs.remove(below.join("a")).unwrap();
    std::fs::remove_dir(&below).unwrap();
    // The marker is in the one above: without it nothing is taken for proven.
    retire(&fs).unwrap();
    std::fs::remove_dir_all(&outside).unwrap();
    fs.create_dir(&outside).unwrap();
    assert_eq!(retire(&fs).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_link_to_a_directory_is_followed_anew_each_time() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let (one, other) = (beside(&store, "one"), beside(&store, "other"));
    let link = store.dir.path().join("link");
    symlink(&one, &link).unwrap();
    write(&fs, &link.join("a"), b"1");
    std::fs::remove_file(&link).unwrap();
    symlink(&other, &link).unwrap();
    // Created, renamed and linked: each is found where it is.
    let key = write(&fs, &link.join("b"), b"2");
    fs.keyring().keys().rotate().unwrap();
    fs.remove(one.join("a")).unwrap();
    assert!(in_use(&fs, key));
    assert!(list(&fs).contains(&one) && list(&fs).contains(&other));
    let usage = store_of(&fs).renewal().usage().unwrap();
    assert_eq!(usage.of_key(key).unwrap().count.files, 1);
    fs.remove(link.join("b")).unwrap();
    assert_eq!(store_of(&fs).renewal().usage().unwrap().of_key(key).unwrap().count.files, 0);
}

/// The directory itself is the one that it was, so that only its path tells.
#[test]
fn a_directory_that_moved_behind_a_link_is_covered_where_it_is() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let (data, moved) = (store.data().canonicalize().unwrap(), beside(&store, "moved"));
    std::fs::create_dir_all(data.join("a/b")).unwrap();
    write(&fs, &data.join("a/b/before"), b"1");
    std::fs::rename(data.join("a"), moved.join("a")).unwrap();
    symlink(moved.join("a"), data.join("a")).unwrap();
    let key = write(&fs, &data.join("a/b/after"), b"2");
    assert!(list(&fs).contains(&moved.join("a/b")), "{:?}", list(&fs));
    fs.keyring().keys().rotate().unwrap();
    std::fs::remove_file(data.join("a")).unwrap();
    assert!(in_use(&fs, key));
}

#[test]
fn what_is_registered_is_where_a_link_leads() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let (one, other) = (beside(&store, "one"), beside(&store, "other"));
    let link = store.data().join("link");
    symlink(&one, &link).unwrap();
    store_of(&fs).directories().register(&link).unwrap();
    assert!(list(&fs).contains(&one), "{:?}", list(&fs));
    let key = write(&fs, &one.join("a"), b"1");
    fs.keyring().keys().rotate().unwrap();
    std::fs::remove_file(&link).unwrap();
    assert!(in_use(&fs, key));
    // And a link that takes a registered directory's place is not what was registered.
    std::fs::rename(&one, store.dir.path().join("moved")).unwrap();
    symlink(&other, &one).unwrap();
    let refused = retire(&fs).unwrap_err();
    assert_eq!((refused.kind(), refused.path()), (ErrorKind::InvalidArgument, Some(&*one)));
    assert_eq!(kind(store_of(&fs).directories().register("/no/such")), io_not_found());
    let relative = store_of(&fs).directories().register("no/such");
    assert_eq!(kind(relative), ErrorKind::InvalidArgument);
}

fn io_not_found() -> ErrorKind {
    ErrorKind::Io(std::io::ErrorKind::NotFound)
}

type Look = fn(&Renewal<'_>, OnScan<'_>) -> Result<(), Error>;

/// Takes a disk away, puts it back, and sees whether its keys stay.
fn a_disk_that_is_not_mounted_keeps_its_keys(store: &TestStore, fs: &EncryptedFs, disk: &Path) {
    let key = write(fs, &disk.join("a"), b"1");
    fs.keyring().keys().rotate().unwrap();
    assert!(in_use(fs, key));
    // As after a start without it: an empty directory.
    let away = store.dir.path().join("away");
    std::fs::rename(disk, &away).unwrap();
    std::fs::create_dir(disk).unwrap();
    for _ in 0..2 {
        let refused = retire(fs).unwrap_err();
        assert_eq!((refused.kind(), refused.path()), (ErrorKind::InvalidArgument, Some(disk)));
        // Nor is anything else shown by it.
        let (store, on_scan) = (store_of(fs), &|_| {});
        let renewal = store.renewal();
        let all: [Look; 4] = [
            |renewal, on_scan| renewal.scan_usage(on_scan).map(drop),
            |renewal, on_scan| renewal.rebuild_usage(on_scan).map(drop),
            |renewal, on_scan| renewal.stale_files(&StalePolicy::default(), on_scan).map(drop),
            |renewal, _| renewal.reencrypt(&Reencrypt::default()).map(drop),
        ];
        for look in all {
            assert_eq!(kind(look(&renewal, on_scan)), ErrorKind::InvalidArgument);
        }
        let root = store.directories().list().into_iter().find(|dir| dir.ends_with("data"));
        let root = root.unwrap();
        if disk.starts_with(&root) {
            assert_eq!(kind(Snapshot::take(&store, root)), ErrorKind::InvalidArgument);
        }
        // A file that comes there does not make it the right one.
        let _ = std::fs::remove_file(disk.join("new"));
        write(fs, &disk.join("new"), b"1");
    }
    std::fs::remove_dir_all(disk).unwrap();
    std::fs::rename(&away, disk).unwrap();
    assert!(in_use(fs, key));
    // Whoever knows better says so.
    fs.remove(disk.join("a")).unwrap();
    let mut entries = std::fs::read_dir(disk).unwrap().map(|entry| entry.unwrap());
    let marker = entries.next().unwrap();
    assert!(entries.next().is_none());
    let id = fs.keyring().store_id();
    assert_eq!(marker.file_name().to_str(), Some(&*format!("KEYRING.directory.{id}")));
    assert!(fs.list(disk).unwrap().is_empty(), "engines do not see it");
    std::fs::remove_file(marker.path()).unwrap();
    assert_eq!(kind(retire(fs)), ErrorKind::InvalidArgument);
    let shown = store_of(fs).renewal().prove_all_destroyed(&|_| {});
    assert_eq!(kind(shown), ErrorKind::InvalidArgument);
    store_of(fs).directories().register(disk).unwrap();
    assert!(!in_use(fs, key));
    let status = fs.keyring().status();
    assert_eq!(status.data_keys[0].state, KeyState::Retiring);
    store_of(fs).directories().unregister(disk).unwrap();
    assert!(!marker.path().exists());
}

#[test]
fn a_directory_that_is_not_mounted_is_not_taken_for_empty() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let disk = beside(&store, "disk");
    a_disk_that_is_not_mounted_keeps_its_keys(&store, &fs, &disk);
}

/// What is registered above it speaks for what is there.
#[test]
fn nor_when_a_directory_above_it_is_registered() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let above = beside(&store, "above");
    let (disk, away) = (above.join("disk"), above.join("away"));
    std::fs::create_dir(&disk).unwrap();
    let key = write(&fs, &disk.join("a"), b"1");
    fs.keyring().keys().rotate().unwrap();
    std::fs::rename(&disk, store.dir.path().join("away")).unwrap();
    std::fs::create_dir(&disk).unwrap();
    write(&fs, &above.join("b"), b"2");
    store_of(&fs).directories().register(&above).unwrap();
    for _ in 0..2 {
        let refused = retire(&fs).unwrap_err();
        assert_eq!((refused.kind(), refused.path()), (ErrorKind::InvalidArgument, Some(&*disk)));
    }
    std::fs::remove_dir(&disk).unwrap();
    std::fs::rename(store.dir.path().join("away"), &away).unwrap();
    std::fs::rename(away, &disk).unwrap();
    assert!(in_use(&fs, key));
}

const CHILD: &str = "ATREST_STORE_WITH_A_MOUNT";

/// A directory that is mounted at another place has the same device: a volume of a container
/// whose parts are mounted one by one, say.
#[test]
fn nor_is_one_that_is_mounted_from_the_same_device() {
    let store = TestStore::new();
    store.create(options(&ManualClock::new())).close().unwrap();
    let (disk, part) = (store.data().join("disk"), beside(&store, "part"));
    std::fs::create_dir(&disk).unwrap();
    let mount = "mount --bind \"$1\" \"$2\" && exec \"$3\" --exact \
                 renewal::directories::writes_to_what_is_mounted --nocapture";
    let mut child = Command::new("unshare");
    child.args(["--mount", "sh", "-c", mount, "sh"]).args([&part, &disk]);
    child.arg(std::env::current_exe().unwrap()).env(CHILD, store.dir.path());
    let said = child.output().map(|it| [it.stdout, it.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    if !said.contains("running 1 test") {
        return left_out(format_args!("nothing can be mounted here: {said}"));
    }
    assert!(said.contains("1 passed"), "{said}");
    // Where it is not mounted.
    let fs = open(&store, &ManualClock::new());
    let disk = disk.canonicalize().unwrap();
    let refused = retire(&fs).unwrap_err();
    assert_eq!((refused.kind(), refused.path()), (ErrorKind::InvalidArgument, Some(&*disk)));
}

/// The other process of the test above.
#[test]
fn writes_to_what_is_mounted() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let kms = key_file(&Path::new(&dir).join("cmek.key"));
    let data = Path::new(&dir).join("data");
    let opened = Store::open(&data, kms, manual()).unwrap();
    write(opened.files(), &data.join("disk/a"), b"1");
    opened.keys().rotate().unwrap();
    opened.close().unwrap();
}

#[test]
fn nor_is_one_below_the_store() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let disk = store.data().canonicalize().unwrap().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut mounted = Between::new(|_| Ok(()));
    mounted.mounted = Some(disk.clone());
    let keyring = Keyring::open_or_create(store.storage(), store.kms(), options(&clock)).unwrap();
    let fs = Store::over_vfs(keyring, Arc::new(mounted)).unwrap().files().clone();
    a_disk_that_is_not_mounted_keeps_its_keys(&store, &fs, &disk);
}
