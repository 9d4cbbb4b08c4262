//! What stands in the way of the library's own directories: links to somewhere else, and
//! what is left of a lost store.

use std::os::unix::fs::{chown, symlink};
use std::time::Duration;

use atrest::store::{Reencrypt, StalePolicy};

use super::*;
use crate::support::copy;

/// A directory with what another store has in it.
fn victim(bench: &Bench, name: &str) -> PathBuf {
    let victim = bench.path(name);
    std::fs::create_dir(&victim).unwrap();
    for name in ["KEYRING", "KEYRING.lock", "KEYRING.from", "0", "a.sst"] {
        std::fs::write(victim.join(name), name).unwrap();
    }
    victim
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn assert_untouched(victim: &Path) {
    assert_eq!(names(victim), ["0", "KEYRING", "KEYRING.from", "KEYRING.lock", "a.sst"]);
    for name in names(victim) {
        assert_eq!(std::fs::read(victim.join(&name)).unwrap(), name.as_bytes(), "{name}");
    }
}

#[test]
fn a_snapshot_leaves_alone_what_a_link_leads_to() {
    let bench = Bench::new();
    fill(&bench);
    let victim = victim(&bench, "victim");
    symlink(&victim, bench.store.data().join("KEYRING.staging.x")).unwrap();
    drop(Snapshot::take(&store_of(&bench.fs), bench.store.data()).unwrap());
    assert_untouched(&victim);
    // Nor is what is no link of ours removed from a directory that looks like one of ours.
    let own = bench.store.data().join("KEYRING.staging.y");
    std::fs::create_dir(&own).unwrap();
    for name in ["KEYRING.lock", "KEYRING", "a.sst", "17"] {
        std::fs::write(own.join(name), b"").unwrap();
    }
    drop(Snapshot::take(&store_of(&bench.fs), bench.store.data()).unwrap());
    assert_eq!(names(&own), ["KEYRING", "a.sst"]);
    // Nor anything from somebody else's.
    let other = bench.store.data().join("KEYRING.staging.z");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("17"), b"").unwrap();
    if chown(&other, Some(999), None).is_ok() {
        drop(Snapshot::take(&store_of(&bench.fs), bench.store.data()).unwrap());
        assert_eq!(names(&other), ["17"]);
    }
}

#[test]
fn a_lock_is_not_taken_through_a_link() {
    let bench = Bench::new();
    fill(&bench);
    let own = bench.store.data().join("KEYRING.staging.y");
    std::fs::create_dir(&own).unwrap();
    symlink(bench.path("made"), own.join("KEYRING.lock")).unwrap();
    assert!(Snapshot::take(&store_of(&bench.fs), bench.store.data()).is_err());
    assert!(!bench.path("made").exists());
}

#[test]
fn a_restore_enters_no_link() {
    let bench = Bench::new();
    fill(&bench);
    bench.back_up();
    let victim = victim(&bench, "victim");
    for name in ["KEYRING.restore", "tables"] {
        let to = bench.path("to");
        std::fs::create_dir(&to).unwrap();
        symlink(&victim, to.join(name)).unwrap();
        assert!(bench.restore(1, "to").is_err(), "{name}");
        assert!(!to.join("KEYRING").exists());
        assert_untouched(&victim);
        std::fs::remove_dir_all(&to).unwrap();
    }
    // Nor when a killed restore is continued, whose note is in the place of a link.
    let chain = bench.read_chain().unwrap();
    let spec = RestoreSpec::new(bench.path("to"), bench.store.kms());
    assert!(chain.restore(&spec, &|_| ControlFlow::Break(())).is_err());
    let waiting = bench.path("to/KEYRING.restore");
    std::fs::rename(&waiting, bench.path("moved")).unwrap();
    symlink(bench.path("moved"), &waiting).unwrap();
    let before = names(&bench.path("moved"));
    assert!(chain.restore(&spec, &go_on).is_err());
    assert_eq!(names(&bench.path("moved")), before);
    assert!(!bench.path("to/KEYRING").exists());
}

#[test]
fn the_folders_of_a_directory_of_backups_are_no_links() {
    for folder in ["tmp", "files"] {
        let bench = Bench::new();
        fill(&bench);
        drop(bench.chain());
        let victim = victim(&bench, "victim");
        drop(std::fs::remove_dir_all(bench.path("backup").join(folder)));
        symlink(&victim, bench.path("backup").join(folder)).unwrap();
        assert!(bench.try_back_up().is_err(), "{folder}");
        assert_untouched(&victim);
    }
}

#[test]
fn a_restore_over_a_lost_keyring_is_refused() {
    let bench = Bench::new();
    fill(&bench);
    bench.back_up();
    for left in ["KEYRING.7", "KEYRING.bad-1", "KEYRING.audit.00000000000000000001"] {
        let to = bench.path("to");
        std::fs::create_dir(&to).unwrap();
        std::fs::write(to.join(left), b"the only keys of a lost store").unwrap();
        assert_eq!(kind(bench.restore(1, "to")), ErrorKind::KeyringExists, "{left}");
        assert_eq!(names(&to), [left]);
        std::fs::remove_dir_all(&to).unwrap();
    }
    // A lock is nobody's key.
    std::fs::create_dir(bench.path("to")).unwrap();
    std::fs::write(bench.path("to/KEYRING.lock"), b"").unwrap();
    bench.restore(1, "to").unwrap();
}

#[test]
fn no_store_is_created_beside_an_unfinished_restore() {
    let bench = Bench::new();
    fill(&bench);
    bench.back_up();
    let chain = bench.read_chain().unwrap();
    let spec = RestoreSpec::new(bench.path("to"), bench.store.kms());
    assert!(chain.restore(&spec, &|_| ControlFlow::Break(())).is_err());
    let storage = || atrest::keyring::DirectoryStorage::new(bench.path("to"));
    let created = Keyring::create(storage(), bench.store.kms(), manual());
    assert_eq!(kind(created), ErrorKind::KeyringExists);
    let created = Keyring::open_or_create(storage(), bench.store.kms(), manual());
    assert_eq!(kind(created), ErrorKind::KeyringExists);
    chain.restore(&spec, &go_on).unwrap();
    bench.assert_restored("to", &bench.contents("data", bench.store.kms()));
}

#[test]
fn re_encryption_leaves_the_links_of_a_running_backup() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    bench.write("stays.sst", FileKind::Table, &[b"stays"]);
    bench.write("goes.sst", FileKind::Table, &[b"goes"]);
    let expected = bench.contents("data", bench.store.kms());
    let snapshot = Snapshot::take(&store_of(&bench.fs), bench.store.data()).unwrap();
    let mut staging =
        std::fs::read_dir(bench.store.data()).unwrap().map(|entry| entry.unwrap().path());
    let staging = staging.find(|path| path.is_dir()).unwrap();
    let links = || -> Vec<_> {
        let at = |name: &String| staging.join(name);
        let look = |path: PathBuf| {
            (std::fs::metadata(&path).unwrap().ino(), std::fs::read(&path).unwrap())
        };
        names(&staging).iter().map(at).map(look).collect()
    };
    bench.fs.remove(bench.store.data().join("goes.sst")).unwrap();
    bench.fs.keyring().keys().rotate().unwrap();
    let before = links();
    assert!(before.len() >= 2);
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    let report = store_of(&bench.fs).renewal().reencrypt(&how).unwrap();
    assert_eq!((report.files, report.skipped.len(), report.failed.len()), (1, 0, 0));
    assert_eq!(links(), before);
    bench.chain().back_up(&store_of(&bench.fs), &snapshot, &go_on).unwrap();
    bench.restore(1, "restored").unwrap();
    bench.assert_restored("restored", &expected);
}

#[test]
fn a_restored_store_may_move_and_its_copy_leaves_it_alone() {
    let bench = Bench::new();
    fill(&bench);
    bench.back_up();
    bench.restore(1, "new").unwrap();
    let before = bench.contents("new", bench.store.kms());
    let markers = names(&bench.path("new"));
    let markers = markers.iter().filter(|name| name.starts_with("KEYRING.directory."));
    assert_eq!(markers.count(), 0);
    copy(&bench.path("new"), &bench.path("clone"));
    let clone = Store::open(bench.path("clone"), bench.store.kms(), manual()).unwrap();
    clone.keys().rotate().unwrap();
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    let report = clone.renewal().reencrypt(&how).unwrap();
    assert!(report.files > 0 && report.failed.is_empty(), "{report:?}");
    drop(clone);
    bench.assert_restored("new", &before);
    std::fs::rename(bench.path("new"), bench.path("prod")).unwrap();
    let moved = Store::open(bench.path("prod"), bench.store.kms(), manual()).unwrap();
    assert_eq!(moved.directories().list(), [bench.path("prod").canonicalize().unwrap()]);
    moved.renewal().scan_usage(&|_| {}).unwrap();
    assert_eq!(moved.renewal().reencrypt(&how).unwrap().failed.len(), 0);
    moved.renewal().retire(None, Duration::ZERO, &|_| {}).unwrap();
    drop(moved);
    bench.assert_restored("prod", &before);
}
