#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::keyring::{DirectoryStorage, Keyring, Options};
use crate::kms::{KeyFile, Kms, generate_key_file};
use crate::process::tests::{beside_forked_child, in_forked_child};
use crate::{EncryptedFs, FileKind, Store};

fn customer(dir: &Path) -> Arc<dyn Kms> {
    let key = dir.join("key");
    generate_key_file(&key).unwrap();
    Arc::new(KeyFile::new(&key).unwrap())
}

/// A background thread might hold a lock at the moment of a fork.
fn options() -> Options {
    Options { background: false, ..Options::default() }
}

fn files(keyring: Keyring) -> EncryptedFs {
    Store::over(keyring).unwrap().files().clone()
}

fn poisoned<T>(result: Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::Poisoned)
}

fn content(dir: &Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn a_forked_child_commits_nothing() {
    let (keys, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let storage = DirectoryStorage::new(dir.path());
    let keyring = Keyring::create(storage, customer(keys.path()), options()).unwrap();
    let tenant = keyring.keyspaces().create("tenant").unwrap();
    let fs = files(keyring.clone());
    drop(keyring.encryptor(FileKind::Log).unwrap());
    let before = content(dir.path());
    assert!(in_forked_child(|| {
        let refused = poisoned(keyring.keys().rotate())
            && poisoned(keyring.keys().rotate_store_key())
            && poisoned(keyring.keyspaces().danger_shred("tenant"))
            && poisoned(keyring.keyspaces().rotate(tenant))
            && poisoned(keyring.keyspaces().create("another"))
            && poisoned(keyring.slots().rewrap(None))
            && poisoned(keyring.maintain())
            && poisoned(keyring.encryptor(FileKind::Log))
            && poisoned(fs.create_new(dir.path().join("file"), FileKind::Log));
        // What has nothing to commit ends as it does when the store is only read.
        let closed = keyring.close().is_ok();
        refused && closed && content(dir.path()) == before
    }));
}

#[test]
fn no_file_is_lost_when_parent_and_child_rotate() {
    let (keys, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let kms = customer(keys.path());
    let storage = DirectoryStorage::new(dir.path());
    let keyring = Keyring::create(storage, kms.clone(), options()).unwrap();
    let fs = files(keyring);
    let write = |name: String| {
        let created = fs.create_new(dir.path().join(name), FileKind::Log);
        created.and_then(|mut writer| {
            writer.append(b"bytes")?;
            writer.finish()
        })
    };
    for round in 0..10 {
        let child = || {
            (0..20).all(|_| poisoned(fs.keyring().keys().rotate_store_key()))
                && poisoned(write(format!("child.{round}")))
        };
        let parent = || {
            fs.keyring().keys().rotate_store_key().unwrap();
            write(format!("parent.{round}")).unwrap();
        };
        assert!(beside_forked_child(child, parent));
    }
    drop(fs);
    let storage = DirectoryStorage::new(dir.path());
    let fs = files(Keyring::open(storage, kms, options()).unwrap());
    for round in 0..10 {
        let reader = fs.open(dir.path().join(format!("parent.{round}"))).unwrap();
        assert_eq!(reader.len().unwrap(), 5);
    }
    // The creation, ten rotations, and the counts at the end: all the parent's.
    assert_eq!(fs.keyring().status().info.generation, 12);
}

#[test]
fn a_forked_child_does_not_wait_for_its_parents_thread() {
    let (keys, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let storage = DirectoryStorage::new(dir.path());
    let options = Options::default();
    let keyring = Keyring::create(storage, customer(keys.path()), options).unwrap();
    assert!(in_forked_child(|| {
        drop(keyring);
        true
    }));
}
