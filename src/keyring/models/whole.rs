//! Whole keyrings: every lock, swap and look at the storage is a point at which another thread may
//! go on, commits and unlocking included.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shuttle::rand::Rng as _;
use shuttle::thread;

use super::super::fuzz::Bare;
use super::super::{AccessState, Expect, FileSpec, KeyState, LiveKeys, RetireOutcome};
use super::*;
use crate::error::{Error, KmsErrorKind, Result};
use crate::kms::{Deadline, KeyUri, Kms, KmsError, SlotKey, WrapContext, WrappedKey};
use crate::{DataKeyId, Encryptor};

const ORDERS: usize = 300;
/// Points of the longest thread of a model, about.
const LONGEST: usize = 100;

/// The headers of the files there are.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Vec<Header>>>);

impl Disk {
    fn put(&self, encryptor: &Encryptor) {
        let header = Header::parse(encryptor.header()).unwrap();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(header);
    }

    fn files(&self) -> Vec<Header> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remove(&self, header: &Header) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|file| file.prefix != header.prefix);
    }
}

impl LiveKeys for Disk {
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>> {
        Ok(self.files().iter().map(|file| file.data_key_id).collect())
    }
}

/// Begins at any point of what another thread does, which may go past many.
fn later() {
    for _ in 0..shuttle::rand::thread_rng().gen_range(0..LONGEST) {
        thread::yield_now();
    }
}

fn options() -> Options {
    Options { background: false, ..Options::default() }
}

fn new() -> (Keyring, Arc<MemoryStorage>) {
    let storage = Arc::new(MemoryStorage::new());
    let kms = Bare::from_uri("fuzz:k").unwrap();
    (Keyring::create(storage.clone(), kms, options()).unwrap(), storage)
}

/// As another process, or after a restart.
fn open(storage: &Arc<MemoryStorage>) -> Keyring {
    Keyring::open(storage.clone(), Bare::from_uri("fuzz:k").unwrap(), options()).unwrap()
}

fn read(keyring: &Keyring, file: &Header) -> Result<()> {
    keyring.decryptor(file, &Expect::default()).map(drop)
}

fn kind<T>(result: &Result<T>) -> Option<ErrorKind> {
    result.as_ref().err().map(Error::kind)
}

fn state(keyring: &Keyring, id: DataKeyId) -> KeyState {
    let status = keyring.status();
    status.data_keys.iter().find(|key| key.id == id).unwrap().state
}

#[test]
fn no_order_creates_a_file_without_access_or_loses_one() {
    in_many_orders(ORDERS, || {
        let (keyring, storage) = new();
        let (disk, withdrawn) = (Disk::default(), Arc::new(AtomicBool::new(false)));
        let writers = [(); 2].map(|()| {
            let (keyring, disk, withdrawn) = (keyring.clone(), disk.clone(), withdrawn.clone());
            thread::spawn(move || {
                later();
                for _ in 0..2 {
                    let before = withdrawn.load(Ordering::SeqCst);
                    let created = keyring.encryptor(FileKind::Table);
                    let all_along = before && withdrawn.load(Ordering::SeqCst);
                    assert!([None, Some(ErrorKind::CmekRevoked)].contains(&kind(&created)));
                    assert!(!all_along || created.is_err(), "created without access");
                    created.iter().for_each(|encryptor| disk.put(encryptor));
                }
            })
        });
        let rotation = {
            let keyring = keyring.clone();
            thread::spawn(move || {
                later();
                (keyring.keys().rotate(), keyring.keys().rotate_store_key())
            })
        };
        later();
        keyring.access().revoke().unwrap();
        withdrawn.store(true, Ordering::SeqCst);
        for file in disk.files() {
            assert_eq!(kind(&read(&keyring, &file)), Some(ErrorKind::CmekRevoked));
        }
        withdrawn.store(false, Ordering::SeqCst);
        keyring.access().restore().unwrap();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let (rotated, store_key_rotated) = rotation.join().unwrap();
        for refused in [kind(&rotated), kind(&store_key_rotated)] {
            assert!([None, Some(ErrorKind::CmekRevoked)].contains(&refused), "{refused:?}");
        }
        for keyring in [&keyring, &open(&storage)] {
            disk.files().iter().for_each(|file| read(keyring, file).unwrap());
            rotated.iter().for_each(|id| assert_ne!(state(keyring, *id), KeyState::Destroyed));
            keyring.encryptor(FileKind::Table).unwrap();
        }
    });
}

#[test]
fn no_order_destroys_the_key_of_a_file_that_is_written_or_moved() {
    in_many_orders(ORDERS, || {
        let (keyring, storage) = new();
        let disk = Disk::default();
        disk.put(&keyring.encryptor(FileKind::Table).unwrap());
        let old = disk.files().remove(0);
        keyring.keys().rotate().unwrap();
        let copied = {
            let (keyring, disk, old) = (keyring.clone(), disk.clone(), old.clone());
            // An engine that moves a file: it is open while it is in neither place.
            thread::spawn(move || {
                later();
                let open = keyring.decryptor(&old, &Expect::default()).ok()?;
                disk.remove(&old);
                later();
                disk.0.lock().unwrap_or_else(PoisonError::into_inner).push(old);
                drop(open);
                Some(())
            })
        };
        let writer = {
            let (keyring, disk) = (keyring.clone(), disk.clone());
            thread::spawn(move || {
                later();
                let encryptor = keyring.encryptor(FileKind::Table).unwrap();
                keyring.keys().rotate().unwrap();
                later();
                disk.put(&encryptor);
                Header::parse(encryptor.header()).unwrap().data_key_id
            })
        };
        for _ in 0..4 {
            let found = keyring.keys().retire(&disk, Duration::ZERO).unwrap();
            let destroyed = |outcome: &RetireOutcome| *outcome == RetireOutcome::Destroyed;
            assert!(!found.keys.iter().any(|key| destroyed(&key.outcome)), "all are in use");
        }
        assert!(copied.join().unwrap().is_some(), "its file was there all along");
        let id = writer.join().unwrap();
        for keyring in [&keyring, &open(&storage)] {
            disk.files().iter().for_each(|file| read(keyring, file).unwrap());
            assert_ne!(state(keyring, id), KeyState::Destroyed);
        }
    });
}

#[test]
fn no_order_lets_a_hold_or_an_opening_succeed_whose_key_is_destroyed() {
    in_many_orders(ORDERS, || {
        let (keyring, storage) = new();
        let disk = Disk::default();
        let old = Header::parse(keyring.encryptor(FileKind::Table).unwrap().header()).unwrap();
        keyring.keys().rotate().unwrap();
        let opening = {
            let (keyring, old) = (keyring.clone(), old.clone());
            thread::spawn(move || {
                later();
                keyring.decryptor(&old, &Expect::default())
            })
        };
        let hold = {
            let (keyring, id) = (keyring.clone(), old.data_key_id);
            thread::spawn(move || {
                later();
                keyring.holds().register("tape 7", &[id])
            })
        };
        let mut destroyed = false;
        for _ in 0..2 {
            let found = keyring.keys().retire(&disk, Duration::ZERO).unwrap();
            destroyed |= found.destroyed().any(|id| id == old.data_key_id);
        }
        let (opened, held) = (opening.join().unwrap(), hold.join().unwrap());
        assert!(!destroyed || opened.is_err(), "a file is open under a destroyed key");
        assert!(!destroyed || kind(&held) == Some(ErrorKind::KeyDestroyed), "{held:?}");
        let gone = state(&open(&storage), old.data_key_id) == KeyState::Destroyed;
        assert_eq!(gone, destroyed, "what is stored is what was said");
    });
}

#[test]
fn no_order_reads_what_was_shredded() {
    in_many_orders(ORDERS, || {
        let (keyring, storage) = new();
        let tenant = keyring.keyspaces().create("tenant").unwrap();
        let spec = FileSpec::new(FileKind::Table).keyspace(tenant);
        let (disk, shredded) = (Disk::default(), Arc::new(AtomicBool::new(false)));
        disk.put(&keyring.encryptor(spec).unwrap());
        let reader = {
            let (keyring, disk, shredded) = (keyring.clone(), disk.clone(), shredded.clone());
            thread::spawn(move || {
                later();
                for _ in 0..2 {
                    let late = shredded.load(Ordering::SeqCst);
                    let created = keyring.encryptor(spec);
                    assert!(!late || created.is_err(), "created in a shredded keyspace");
                    created.iter().for_each(|encryptor| disk.put(encryptor));
                    for file in disk.files() {
                        let opened = keyring.decryptor(&file, &Expect::default());
                        later();
                        let late = shredded.load(Ordering::SeqCst);
                        let reads = opened.and_then(|it| it.decrypt_in_place(0, &mut [0; 16]));
                        assert!(!late || reads.is_err(), "read what was shredded");
                    }
                }
            })
        };
        let access = {
            let keyring = keyring.clone();
            thread::spawn(move || {
                later();
                (keyring.access().revoke(), keyring.access().restore())
            })
        };
        later();
        let shredding = keyring.keyspaces().danger_shred("tenant");
        shredded.store(shredding.is_ok(), Ordering::SeqCst);
        assert!([None, Some(ErrorKind::CmekRevoked)].contains(&kind(&shredding)));
        reader.join().unwrap();
        let (revoked, restored) = access.join().unwrap();
        revoked.unwrap();
        restored.unwrap();
        if shredding.is_err() {
            keyring.keyspaces().danger_shred("tenant").unwrap();
        }
        for keyring in [&keyring, &open(&storage)] {
            for file in disk.files() {
                assert_eq!(kind(&read(keyring, &file)), Some(ErrorKind::KeyDestroyed));
            }
            keyring.encryptor(FileKind::Table).unwrap();
        }
    });
}

#[test]
fn no_order_of_two_writers_loses_a_key() {
    in_many_orders(ORDERS, || {
        let (one, storage) = new();
        let other = open(&storage);
        let disk = Disk::default();
        let work = |keyring: Keyring, number: usize| {
            let disk = disk.clone();
            thread::spawn(move || {
                later();
                let id = keyring.keys().rotate().unwrap();
                disk.put(&keyring.encryptor(FileKind::Table).unwrap());
                keyring.holds().register(&format!("tape {number}"), &[id]).unwrap();
                keyring.keys().rotate_store_key().unwrap();
                disk.files().iter().for_each(|file| read(&keyring, file).unwrap());
                id
            })
        };
        let working = [work(one.clone(), 1), work(other.clone(), 2)];
        let ids = working.map(|work| work.join().unwrap());
        one.reload().unwrap();
        other.reload().unwrap();
        for keyring in [&one, &other, &open(&storage)] {
            disk.files().iter().for_each(|file| read(keyring, file).unwrap());
            ids.iter().for_each(|id| assert_ne!(state(keyring, *id), KeyState::Destroyed));
            assert_eq!(keyring.holds().list().len(), 2);
        }
        assert_eq!(one.anchor(), other.anchor());
    });
}

/// A key service that may deny access for a time.
#[derive(Debug)]
struct Fickle(Arc<dyn Kms>, AtomicBool);

impl Kms for Fickle {
    fn key_uri(&self) -> &KeyUri {
        self.0.key_uri()
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.0.wrap(key, context, deadline)
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        if self.1.load(Ordering::SeqCst) {
            return Err(KmsError::new(KmsErrorKind::AccessDenied, "denied for a time"));
        }
        self.0.unwrap(wrapped, context, deadline)
    }
}

#[test]
fn no_order_serves_a_store_that_is_marked_as_revoked() {
    in_many_orders(ORDERS, || {
        let (keyring, storage) = new();
        let restoring = {
            let keyring = keyring.clone();
            thread::spawn(move || {
                later();
                keyring.access().restore()
            })
        };
        later();
        keyring.access().revoke().unwrap();
        let restored = restoring.join().unwrap();
        assert!([None, Some(ErrorKind::CmekRevoked)].contains(&kind(&restored)), "{restored:?}");
        let with = || Bare::from_uri("fuzz:k").unwrap();
        let opened = Keyring::open(storage.clone(), with(), options());
        let serves = keyring.encryptor(FileKind::Table).is_ok();
        assert_eq!(opened.is_ok(), serves, "{:?}", kind(&opened));
    });
}

/// A lock that is waited for without end would end the model.
#[test]
fn no_order_of_all_that_a_keyring_does_hangs_or_leaves_it_without_keys() {
    in_many_orders(ORDERS, || {
        let kms = Fickle(Bare::from_uri("fuzz:k").unwrap(), AtomicBool::new(false));
        let (kms, storage) = (Arc::new(kms), Arc::new(MemoryStorage::new()));
        let keyring = Keyring::create(storage, kms.clone(), options()).unwrap();
        let (disk, told) = (Disk::default(), Arc::new(Mutex::new(Vec::new())));
        let listener = told.clone();
        keyring.access().on_transition(move |change| {
            thread::yield_now();
            listener.lock().unwrap_or_else(PoisonError::into_inner).push((change.from, change.to));
        });
        let engine = {
            let (keyring, disk) = (keyring.clone(), disk.clone());
            move || {
                keyring.encryptor(FileKind::Table).iter().for_each(|it| disk.put(it));
                drop(keyring.keys().rotate());
                drop(keyring.keys().retire(&disk, Duration::ZERO));
                drop(keyring.maintain());
            }
        };
        let service = {
            let kms = kms.clone();
            move || {
                kms.1.store(true, Ordering::SeqCst);
                later();
                kms.1.store(false, Ordering::SeqCst);
            }
        };
        let checks = {
            let keyring = keyring.clone();
            move || (0..2).for_each(|_| drop(keyring.access().check_now()))
        };
        let operator = {
            let keyring = keyring.clone();
            move || {
                drop(keyring.access().revoke());
                drop(keyring.access().restore());
                drop(keyring.reload());
            }
        };
        let all: [Box<dyn FnOnce() + Send>; 4] =
            [Box::new(engine), Box::new(service), Box::new(checks), Box::new(operator)];
        let threads = all.map(|one| {
            thread::spawn(move || {
                later();
                one();
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let serves = keyring.access().status().state.serves();
        assert_eq!(keyring.encryptor(FileKind::Table).is_ok(), serves, "what is said is so");
        keyring.access().restore().unwrap();
        disk.files().iter().for_each(|file| read(&keyring, file).unwrap());
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(told.windows(2).all(|two| two[0].1 == two[1].0), "in their order: {told:?}");
        let last = told.last().map_or(AccessState::Active, |change| change.1);
        assert_eq!(keyring.access().status().state, last);
        assert!(last.serves());
    });
}
