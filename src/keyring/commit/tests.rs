#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{ErrorKind, Result};
use crate::keyring::{
    DirectoryStorage, KeyState, Keyring, KeyringStorage, MemoryStorage, Options, format,
};
use crate::kms::{KeyFile, Kms, generate_key_file};
use crate::process::tests::{MachineCopies, beside_forked_child, in_forked_child};
use crate::{Clock, EncryptedFs, FileKind, FileSpec, Header, Store};

const ROUNDS: u64 = 40;

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
    for round in 0..ROUNDS {
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
    for round in 0..ROUNDS {
        let reader = fs.open(dir.path().join(format!("parent.{round}"))).unwrap();
        assert_eq!(reader.len().unwrap(), 5);
    }
    // The creation, the rotations, and the counts at the end: all the parent's.
    assert_eq!(fs.keyring().status().info.generation, ROUNDS + 2);
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

/// Once armed, whoever asks it goes on in a copy of the machine.
#[derive(Debug, Default)]
struct CopyingClock(AtomicBool);

impl CopyingClock {
    fn arm(&self, armed: bool) {
        self.0.store(armed, Ordering::Relaxed);
    }

    fn asked(&self) {
        if self.0.load(Ordering::Relaxed) {
            MachineCopies::make();
        }
    }
}

impl Clock for CopyingClock {
    fn now_ns(&self) -> u64 {
        self.asked();
        1_700_000_000_000_000_000
    }

    fn since_boot(&self) -> Duration {
        self.asked();
        Duration::from_secs(1)
    }
}

#[test]
fn a_copy_of_the_machine_ends_the_threads_of_what_it_closes() {
    let _one_again = MachineCopies;
    let (keys, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (kms, storage) = (customer(keys.path()), || DirectoryStorage::new(dir.path()));
    let keyring = Keyring::create(storage(), kms.clone(), Options::default()).unwrap();
    let watch = keyring.inner.watch.clone();
    MachineCopies::make();
    drop(keyring);
    for alarm in [&watch.alarm, &watch.watcher] {
        assert!(alarm.is_stopping());
        assert_eq!(Arc::strong_count(alarm), 1, "the thread still has it");
    }
    Keyring::open(storage(), kms, options()).unwrap();
}

#[test]
fn a_copy_of_the_machine_writes_nothing_that_was_begun_before_it() {
    let _one_again = MachineCopies;
    let (keys, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (kms, clock) = (customer(keys.path()), Arc::new(CopyingClock::default()));
    let options = || Options { clock: clock.clone(), ..options() };
    let storage = || DirectoryStorage::new(dir.path());
    // Both copies have the identities and the keys of the new store.
    clock.arm(true);
    let keyring = Keyring::create(storage(), kms.clone(), options()).unwrap();
    assert!(poisoned(keyring.keys().rotate()) && poisoned(keyring.encryptor(FileKind::Log)));
    drop(keyring);
    // Both go on from one image.
    let keyring = Keyring::open(storage(), kms.clone(), options()).unwrap();
    assert!(poisoned(keyring.keys().rotate()) && poisoned(keyring.encryptor(FileKind::Log)));
    drop(keyring);
    // Both have the salt of one file.
    clock.arm(false);
    let keyring = Keyring::open(storage(), kms, options()).unwrap();
    let mut out = Vec::new();
    keyring.encryptor(FileKind::Log).unwrap().append(b"alone", &mut out).unwrap();
    clock.arm(true);
    let mut encryptor = keyring.encryptor(FileKind::Log).unwrap();
    assert!(poisoned(encryptor.append(b"twice", &mut out)));
}

/// An opening that got the key just before, and keeps it just after.
#[test]
fn a_file_key_that_was_on_its_way_when_its_data_key_went_is_refused() {
    let (keys, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let storage = DirectoryStorage::new(dir.path());
    let keyring = Keyring::create(storage, customer(keys.path()), options()).unwrap();
    let tenant = keyring.keyspaces().create("tenant").unwrap();
    let encryptor = keyring.encryptor(FileSpec::new(FileKind::Log).keyspace(tenant)).unwrap();
    let header = Header::parse(encryptor.header()).unwrap();
    let derived = keyring.unseal(&header).unwrap().unwrap();
    keyring.key_slot(&header.prefix, &derived, false).unwrap();
    keyring.keyspaces().danger_shred("tenant").unwrap();
    assert_eq!(encryptor.check_access().unwrap_err().kind(), ErrorKind::CmekRevoked);
    let late = keyring.key_slot(&header.prefix, &derived, false);
    assert_eq!(late.err().unwrap().kind(), ErrorKind::KeyDestroyed);
}

#[test]
fn a_keyring_full_of_destroyed_keys_goes_on_rotating_and_destroying() {
    let keys = tempfile::tempdir().unwrap();
    let kms = customer(keys.path());
    let made = Keyring::create(MemoryStorage::new(), kms.clone(), options()).unwrap();
    made.keyspaces().create("tenant").unwrap();
    let snapshot = made.inner.vault.load();
    let mut body = snapshot.body.clone();
    let mut destroyed = body.keys[0].clone();
    destroyed.destroy(1);
    body.keys.splice(
        0..0,
        (0..16_384_u64).map(|number| {
            destroyed.id[..8].copy_from_slice(&number.to_le_bytes());
            destroyed.clone()
        }),
    );
    let store_key = &snapshot.unlocked().unwrap().store_key;
    let image = &snapshot.image;
    let bytes = format::encode(&image.fixed, &image.slots, &body, store_key).unwrap();
    let storage = Arc::new(MemoryStorage::new());
    storage.commit(&bytes, image.fixed.generation, None).unwrap();
    let keyring = Keyring::open(storage, kms, options()).unwrap();
    keyring.keys().rotate().unwrap();
    keyring.keyspaces().danger_shred("tenant").unwrap();
    keyring.keys().rotate_store_key().unwrap();
    let records = keyring.status().data_keys;
    let destroyed = records.iter().filter(|key| key.state == KeyState::Destroyed).count();
    assert_eq!((records.len(), destroyed), (16_384 + 3, 16_384));
    // The one that was just destroyed is among them.
    assert!(records.iter().any(|key| key.keyspace == "tenant"));
}
