#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::keyring::{FilesBeside, Keyring, MemoryStorage, Options};
use crate::kms::{KeyFile, Kms, generate_key_file};

fn event(number: u64) -> Event {
    Event {
        at_ns: number,
        generation: number,
        what: (number % 12 + 1) as u8,
        store_key_id: [7; 16],
        detail: format!("event {number}"),
    }
}

fn trail(storage: &MemoryStorage, store_id: StoreId, events: u64) -> Trail {
    let mut trail = Trail::beginning_with(event(0));
    for number in 1..events {
        trail.push(event(number));
        trail.archive(storage, store_id).unwrap();
    }
    trail
}

#[test]
fn a_long_trail_reads_back_whole_and_leaves_the_keyring_small() {
    let (storage, id) = (MemoryStorage::new(), StoreId::from_bytes([1; 16]));
    let trail = trail(&storage, id, 1000);
    assert!(trail.tail.len() <= TAIL_MAX);
    let all = trail.all(&storage, id).unwrap();
    assert_eq!(all.len(), 1000);
    for (number, found) in all.iter().enumerate() {
        assert_eq!(*found, event(number as u64).numbered(number as u64));
    }
}

#[test]
fn a_changed_missing_or_foreign_archive_is_refused() {
    let (storage, id) = (MemoryStorage::new(), StoreId::from_bytes([1; 16]));
    let trail = trail(&storage, id, 600);
    let name = archive_name(129);
    let good = storage.load_beside(&name).unwrap().unwrap();
    let refused = |bytes: Option<Vec<u8>>| {
        match bytes {
            Some(bytes) => drop(storage.put_beside(&name, &bytes).unwrap()),
            None => storage.remove_beside(&name).unwrap(),
        }
        let kind = trail.all(&storage, id).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::Authentication);
    };
    refused(None);
    refused(Some(Vec::new()));
    refused(Some(good[..good.len() - 1].to_vec()));
    let mut longer = good.clone();
    longer.push(0);
    refused(Some(longer));
    for at in (0..good.len()).step_by(17) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        refused(Some(bad));
    }
    let empty = [&good[..24], &encode(&[]).unwrap()[..]].concat();
    refused(Some(empty));
    assert!(storage.put_beside(&name, &good).unwrap());
    assert_eq!(trail.all(&storage, id).unwrap().len(), 600);
    let other = StoreId::from_bytes([2; 16]);
    assert_eq!(trail.all(&storage, other).unwrap_err().kind(), ErrorKind::Authentication);
}

#[test]
fn an_archive_whose_commit_failed_does_no_harm() {
    let (storage, id) = (MemoryStorage::new(), StoreId::from_bytes([1; 16]));
    let before = trail(&storage, id, 256);
    let mut failed = before.clone();
    failed.push(event(256));
    failed.archive(&storage, id).unwrap();
    assert_eq!(failed.archived, 129);
    assert_eq!(before.all(&storage, id).unwrap().len(), 256);
    let mut later = before;
    (256..400).for_each(|number| later.push(event(number)));
    later.archive(&storage, id).unwrap();
    // The archive now has more events than the first generation vouches for.
    assert_eq!(failed.all(&storage, id).unwrap().len(), 257);
    assert_eq!(later.all(&storage, id).unwrap().len(), 400);
}

#[test]
fn rotations_of_an_open_keyring_are_in_its_audit() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    generate_key_file(&key).unwrap();
    let kms: Arc<dyn Kms> = Arc::new(KeyFile::new(&key).unwrap());
    let storage = Arc::new(MemoryStorage::new());
    let keyring = Keyring::create(storage.clone(), kms.clone(), Options::default()).unwrap();
    for _ in 0..300 {
        keyring.keys().rotate().unwrap();
    }
    keyring.keys().rotate_store_key().unwrap();
    drop(keyring);
    let keyring = Keyring::open(storage.clone(), kms, Options::default()).unwrap();
    let audit = keyring.audit().events().unwrap();
    assert_eq!(audit.len(), 303);
    assert_eq!(audit[0].what, AuditKind::Created);
    assert_eq!(audit[300].what, AuditKind::DataKeyRotated);
    assert_eq!((audit[302].what, audit[302].generation), (AuditKind::StoreKeyRotated, 302));
    storage.remove_beside(&archive_name(0)).unwrap();
    assert_eq!(keyring.audit().events().unwrap_err().kind(), ErrorKind::Authentication);
}
