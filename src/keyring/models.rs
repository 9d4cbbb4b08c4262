//! The gate of the keys, the keys of open files, and retirement against both: in many orders of
//! the threads that meet there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::snapshot::{Snapshot, Unlocked};
use super::vault::{GivingBack, Vault};
use super::{Keyring, MemoryStorage, Options};
use crate::cipher::KeySlot;
use crate::derive::Derived;
use crate::header::PREFIX_LEN;
use crate::ids::DataKeyId;
use crate::kms::{KeyFile, generate_key_file};
use crate::sync::in_many_orders;
use crate::{ErrorKind, FileKind, Header};

mod whole;

const ORDERS: usize = 1000;

/// A generation with keys, and a file under the active one.
struct Store {
    keyring: Keyring,
    prefix: [u8; PREFIX_LEN],
    derived: Derived,
}

impl Store {
    fn new() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        generate_key_file(&key).unwrap();
        let kms = Arc::new(KeyFile::new(&key).unwrap());
        let options = Options { background: false, ..Options::default() };
        let keyring = Keyring::create(MemoryStorage::new(), kms, options).unwrap();
        let encryptor = keyring.encryptor(FileKind::Log).unwrap();
        let header = Header::parse(encryptor.header()).unwrap();
        let derived = keyring.unseal(&header).unwrap().unwrap();
        Arc::new(Self { keyring, prefix: header.prefix, derived })
    }

    fn id(&self) -> DataKeyId {
        crate::header::data_key_id(&self.prefix)
    }

    /// The generation once more, as a rotation or an unlocking brings it.
    fn snapshot(&self) -> Snapshot {
        let now = self.keyring.inner.vault.load_full();
        Snapshot {
            image: now.image.clone(),
            body: now.body.clone(),
            unlocked: now.unlocked.clone(),
        }
    }

    /// The next generation, without the key.
    fn without_key(&self) -> Snapshot {
        let mut next = self.snapshot();
        let old = next.unlocked.take().unwrap();
        let mut keys = old.keys.clone();
        keys.remove(&self.id());
        let (store_key, active) = (old.store_key.clone(), Vec::new());
        next.unlocked = Some(Arc::new(Unlocked { store_key, keys, active }));
        next
    }
}

fn works(slot: &KeySlot) -> bool {
    let refused = slot.with_ctr(|_| ()).err().map(|error| error.kind());
    assert!([None, Some(ErrorKind::CmekRevoked)].contains(&refused), "{refused:?}");
    refused.is_none()
}

/// A withdrawal, a rotation that ends about then, and keys that were unwrapped about then.
#[test]
fn no_order_brings_keys_back_that_were_unwrapped_before_a_withdrawal() {
    let store = Store::new();
    in_many_orders(ORDERS, move || {
        let vault = Arc::new(Vault::new(store.snapshot()));
        let rotation = {
            let (vault, store) = (vault.clone(), store.clone());
            shuttle::thread::spawn(move || vault.publish(store.snapshot()))
        };
        let unlocking = {
            let (vault, store) = (vault.clone(), store.clone());
            shuttle::thread::spawn(move || {
                let epoch = vault.epoch();
                let let_in = vault.let_in(epoch, store.snapshot()).map(GivingBack::run);
                (epoch, let_in.is_ok())
            })
        };
        vault.withdraw();
        let (epoch, let_in) = unlocking.join().unwrap();
        rotation.join().unwrap();
        assert!(let_in || epoch == 0);
        assert_eq!(vault.load().unlocked.is_some(), epoch == 1);
    });
}

/// Files that are opened and read while the keys are taken away and come back.
#[test]
fn no_order_leaves_an_open_file_its_key_after_a_withdrawal() {
    let store = Store::new();
    in_many_orders(ORDERS, move || {
        let vault = Arc::new(Vault::new(store.snapshot()));
        let withdrawn = Arc::new(AtomicBool::new(false));
        let open = {
            let (vault, store, withdrawn) = (vault.clone(), store.clone(), withdrawn.clone());
            move || {
                let slot = KeySlot::new(&store.prefix, &store.derived);
                let registered = vault.handles.register(&slot);
                for _ in 0..3 {
                    let late = withdrawn.load(Ordering::SeqCst);
                    // An opening that was refused drops its key.
                    assert!(!registered || !late || !works(&slot), "read after the withdrawal");
                }
                registered.then_some(slot)
            }
        };
        let openings = [(); 2].map(|()| shuttle::thread::spawn(open.clone()));
        vault.withdraw();
        withdrawn.store(true, Ordering::SeqCst);
        let slots: Vec<_> = openings.into_iter().filter_map(|one| one.join().unwrap()).collect();
        assert!(vault.handles.flag().check().is_err() && !slots.iter().any(|slot| works(slot)));
        vault.let_in(1, store.snapshot()).unwrap().run();
        assert!(slots.iter().all(|slot| works(slot)));
        assert!(open_again(&vault, &store));
    });
}

/// Keys that come back to open files while they are withdrawn again, and while one is destroyed.
#[test]
fn no_order_gives_a_file_its_key_back_after_another_withdrawal() {
    let store = Store::new();
    for shredded in [false, true] {
        let store = store.clone();
        in_many_orders(ORDERS, move || {
            let vault = Arc::new(Vault::new(store.snapshot()));
            let slots = [(); 2].map(|()| {
                let slot = KeySlot::new(&store.prefix, &store.derived);
                assert!(vault.handles.register(&slot));
                slot
            });
            vault.withdraw();
            let returning = {
                let (vault, store) = (vault.clone(), store.clone());
                shuttle::thread::spawn(move || {
                    vault.let_in(1, store.snapshot()).map(GivingBack::run).is_ok()
                })
            };
            if shredded {
                vault.handles.withdraw_keys(&[store.id()].into());
            } else {
                vault.withdraw();
            }
            let let_in = returning.join().unwrap();
            assert!(!slots.iter().any(|slot| works(slot)), "a key came back");
            assert!(let_in || !shredded);
        });
    }
}

fn open_again(vault: &Vault, store: &Store) -> bool {
    let slot = KeySlot::new(&store.prefix, &store.derived);
    vault.handles.register(&slot) && works(&slot)
}

/// What `retire_all_but` does about one key, against the opening of a file and the creation of one.
#[test]
fn no_order_destroys_a_key_that_a_file_is_opened_or_created_under() {
    for writing in [false, true] {
        let store = Store::new();
        in_many_orders(ORDERS, move || {
            let inner = &store.keyring.inner;
            // The model before this one took the key away.
            let with_key = store.snapshot();
            let on_disk = Arc::new(AtomicBool::new(false));
            let opening = {
                let (store, on_disk) = (store.clone(), on_disk.clone());
                shuttle::thread::spawn(move || {
                    let slot = store.keyring.key_slot(&store.prefix, &store.derived, writing);
                    on_disk.store(slot.is_ok() && writing, Ordering::SeqCst);
                    slot.ok()
                })
            };
            let mut open = inner.vault.handles.close(&[store.id()], false);
            // The look at all files, and the second time before the commit.
            let in_use = on_disk.load(Ordering::SeqCst);
            open.extend(inner.vault.handles.close(&[store.id()], true));
            let destroyed = open.is_empty() && !in_use;
            if destroyed {
                inner.vault.publish(store.without_key());
            }
            inner.vault.handles.reopen();
            let slot = opening.join().unwrap();
            assert!(!destroyed || slot.is_none(), "a file is open under a destroyed key");
            assert!(!destroyed || !on_disk.load(Ordering::SeqCst), "a file lost its key");
            drop(slot);
            inner.vault.publish(with_key);
        });
    }
}
