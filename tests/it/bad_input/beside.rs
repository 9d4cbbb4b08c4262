//! Files beside a keyring, which nobody authenticated.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use atrest::keyring::{DirectoryStorage, KeyringInfo};
use atrest::{ErrorKind, Keyring};

use crate::backup::counting::Counting;
use crate::support::{TestStore, kind, manual};

#[test]
fn images_beside_the_keyring_are_not_read_in_any_number() {
    let store = TestStore::new();
    let keyring = Keyring::create(store.storage(), store.kms(), manual()).unwrap();
    for _ in 0..30 {
        keyring.keys().rotate().unwrap();
    }
    let path = |generation: u64| store.data().join(format!("KEYRING.{generation}"));
    let put = |generation: u64| std::fs::write(path(generation), vec![0; 1 << 20]).unwrap();
    let counting = Counting::default();
    let storage = || DirectoryStorage::with_vfs(store.data(), Arc::new(counting.clone()));
    let check = |what: &str| {
        let read = counting.read.swap(0, Ordering::Relaxed);
        assert!(read < 1 << 20, "{what}: {read} bytes");
    };
    (1..20).for_each(put);
    let reader = Keyring::open_read_only(storage(), store.kms(), manual()).unwrap();
    check("an opening for reading");
    keyring.keys().rotate().unwrap();
    (1..20).for_each(put);
    reader.reload().unwrap();
    check("a reload");
    drop((keyring, reader));
    let keyring = Keyring::open(storage(), store.kms(), manual()).unwrap();
    check("an opening for writing");
    assert!((1..20).all(|generation| !path(generation).exists()));
    (1..20).for_each(put);
    keyring.keys().rotate().unwrap();
    drop(keyring);
    check("a commit");
    (1000..1020).for_each(put);
    let refused = kind(Keyring::open(storage(), store.kms(), manual()));
    assert_eq!(refused, ErrorKind::KeyringRolledBack);
    check("an opening beside newer ones");
    let info = KeyringInfo::read(&storage()).unwrap();
    assert_eq!(info.newer_images(&storage()).unwrap().len(), 20);
    check("a list of the newer ones");
    std::fs::remove_file(store.data().join("KEYRING")).unwrap();
    let refused = kind(Keyring::open_or_create(storage(), store.kms(), manual()));
    assert_eq!(refused, ErrorKind::KeyringMissing);
    check("a keyring that is missing");
}
