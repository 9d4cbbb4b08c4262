#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::process::tests::{MachineCopies, beside_forked_child, in_forked_child};
use crate::{Error, ErrorKind};

/// Makes a pipe that nobody writes to.
fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// What `open` says, which must not wait for a writer to come.
fn at_once<T: Send + 'static>(open: impl FnOnce() -> T + Send + 'static) -> T {
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || told.send(open()));
    heard.recv_timeout(Duration::from_secs(10)).expect("an answer at once")
}

fn file_systems() -> Vec<Box<dyn Vfs>> {
    vec![
        Box::new(OsVfs),
        #[cfg(target_os = "linux")]
        Box::new(DirectVfs),
    ]
}

#[test]
fn a_pipe_is_no_file_and_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    for vfs in file_systems() {
        let path = dir.path().join(format!("{vfs:?}"));
        pipe(&path);
        let refused =
            at_once(move || [vfs.open(&path, Links::Follow).err(), vfs.lock(&path).err()]);
        assert!(refused.iter().all(Option::is_some), "{refused:?}");
    }
}

#[test]
fn a_lock_creates_nothing_behind_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (link, other) = (dir.path().join("lock"), dir.path().join("other"));
    std::os::unix::fs::symlink(&other, &link).unwrap();
    assert!(OsVfs.lock(&link).is_err());
    assert!(!other.exists());
}

#[test]
fn a_lock_ends_with_its_holder_and_not_with_a_child() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let mut lock = Some(OsVfs.lock(&path).unwrap());
    // A child that ends ends no lock of its parent's.
    assert!(in_forked_child(|| lock.take().is_some()));
    assert_eq!(OsVfs.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    // A child that still has a copy of the descriptor, as one has that is being started, keeps
    // no lock that its parent gave up; be the parent in a copy of the machine by then.
    let _one_again = MachineCopies;
    for copied in [false, true] {
        let (mut again, done) = (None, dir.path().join(format!("done.{copied}")));
        let waited = || {
            while !done.exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
            true
        };
        assert!(beside_forked_child(waited, || {
            if copied {
                MachineCopies::make();
            }
            lock = None;
            again = Some(OsVfs.lock(&path));
            fs::write(&done, "").unwrap();
        }));
        lock = Some(again.unwrap().unwrap());
    }
}

#[test]
fn a_key_file_is_no_pipe() {
    use crate::keyring::{Keyring, MemoryStorage, Options};
    use crate::kms::{KeyFile, KmsErrorKind};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    pipe(&path);
    let created = at_once(move || {
        let kms = std::sync::Arc::new(KeyFile::new(&path).unwrap());
        let options = Options { background: false, ..Options::default() };
        Keyring::create(MemoryStorage::new(), kms, options).map(drop)
    });
    assert_eq!(created.unwrap_err().kind(), ErrorKind::Kms(KmsErrorKind::Misconfigured));
}

/// A child that flushes late would cut what its parent wrote and synced since the fork.
#[test]
fn a_forked_child_changes_no_file_of_its_parents() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    for vfs in file_systems() {
        let path = dir.path().join(format!("{vfs:?}"));
        let Ok(mut file) = vfs.create_new(&path, 0o600) else {
            atrest_testkit::left_out(format_args!("{vfs:?} is not on this file system"));
            continue;
        };
        file.append(b"before").unwrap();
        let poisoned = |result: io::Result<()>| {
            result.is_err_and(|error| Error::io("", error).kind() == ErrorKind::Poisoned)
        };
        assert!(in_forked_child(|| {
            poisoned(file.flush()) && poisoned(file.append(b"child")) && poisoned(file.sync())
        }));
        file.append(b"after").unwrap();
        file.sync().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"beforeafter");
    }
}
