#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::keyring::body::Body;
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
        trail.archive(storage, store_id, number as usize).unwrap();
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
    let name = archive_name(&trail.archived_hash);
    let good = storage.load_beside(&name).unwrap().unwrap();
    let refused = |bytes: Option<Vec<u8>>| {
        match bytes {
            Some(bytes) => storage.put_beside(&name, &bytes).unwrap(),
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
    refused(Some(encode(id, trail.archived, trail.archived_hash, &[]).unwrap()));
    // The one before under this one's name.
    let first = encode(id, 0, [0; 32], &(0..128).map(event).collect::<Vec<_>>()).unwrap();
    refused(Some(first));
    storage.put_beside(&name, &good).unwrap();
    assert_eq!(trail.all(&storage, id).unwrap().len(), 600);
    let other = StoreId::from_bytes([2; 16]);
    assert_eq!(trail.all(&storage, other).unwrap_err().kind(), ErrorKind::Authentication);
}

#[test]
fn events_that_numbers_do_not_suffice_for_are_refused() {
    let (key, id) = (tempfile::tempdir().unwrap(), StoreId::from_bytes([1; 16]));
    let events = [event(1), event(2)];
    for (first, good) in [(u64::MAX - 1, false), (u64::MAX - 2, true)] {
        let bytes = encode(id, first, [0; 32], &events).unwrap();
        assert_eq!(decode(&bytes, id).is_some(), good);
        fuzz(&bytes, id).unwrap();
    }
    let path = key.path().join("key");
    generate_key_file(&path).unwrap();
    let kms: Arc<dyn Kms> = Arc::new(KeyFile::new(&path).unwrap());
    let keyring = Keyring::create(MemoryStorage::new(), kms, Options::default()).unwrap();
    let mut body = keyring.inner.vault.load().body.clone();
    let events = body.audit.tail_len() as u64;
    for (archived, good) in [(u64::MAX - events, true), (u64::MAX - events + 1, false)] {
        body.audit.archived = archived;
        let decoded = Body::decode(&body.encode().unwrap());
        assert_eq!(
            decoded.as_ref().err().map(Error::kind),
            (!good).then_some(ErrorKind::KeyringCorrupt)
        );
        if let Ok(body) = decoded {
            assert_eq!(body.audit.recent().last().unwrap().number, u64::MAX - 1);
        }
    }
}

#[test]
fn two_histories_share_no_archive() {
    let (storage, id) = (MemoryStorage::new(), StoreId::from_bytes([1; 16]));
    let common = trail(&storage, id, 256);
    let goes_on = |number: u64, detail: &str, events: u64| {
        let mut trail = common.clone();
        for number in (256..256 + events).map(|at| at + number) {
            trail.push(Event { detail: detail.into(), ..event(number) });
            let committed = trail.tail_len() - 1;
            trail.archive(&storage, id, committed).unwrap();
        }
        trail
    };
    // One goes far on, the other a little, and archives last.
    let far = goes_on(0, "far", 500);
    let near = goes_on(7, "near", 150);
    assert_eq!(far.all(&storage, id).unwrap().len(), 756);
    assert_eq!(near.all(&storage, id).unwrap().len(), 406);
    assert_eq!(common.all(&storage, id).unwrap().len(), 256);
}

#[test]
fn what_is_not_committed_is_not_archived() {
    let (storage, id) = (MemoryStorage::new(), StoreId::from_bytes([1; 16]));
    let mut trail = trail(&storage, id, 100);
    (100..600).for_each(|number| trail.push(event(number)));
    trail.archive(&storage, id, 100).unwrap();
    assert_eq!((trail.archived, trail.tail_len()), (0, 600));
    trail.archive(&storage, id, 600).unwrap();
    assert_eq!((trail.archived, trail.tail_len()), (384, 216));
    assert_eq!(trail.all(&storage, id).unwrap().len(), 600);
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
    let last = archive_name(&keyring.inner.vault.load().body.audit.archived_hash);
    storage.remove_beside(&last).unwrap();
    assert_eq!(keyring.audit().events().unwrap_err().kind(), ErrorKind::Authentication);
}

#[test]
fn two_writers_past_the_archive_both_read_the_trail() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    generate_key_file(&key).unwrap();
    let kms: Arc<dyn Kms> = Arc::new(KeyFile::new(&key).unwrap());
    let storage = Arc::new(MemoryStorage::new());
    let quiet = || Options { background: false, ..Options::default() };
    let one = Keyring::create(storage.clone(), kms.clone(), quiet()).unwrap();
    for _ in 0..250 {
        one.keys().rotate().unwrap();
    }
    let two = Keyring::open(storage.clone(), kms.clone(), quiet()).unwrap();
    for round in 0..100 {
        let writer = if round % 3 == 0 { &one } else { &two };
        let name = format!("space {round}");
        writer.keyspaces().create(&name).unwrap();
    }
    one.reload().unwrap();
    two.reload().unwrap();
    let fresh = Keyring::open(storage, kms, quiet()).unwrap();
    let expected = fresh.audit().events().unwrap();
    assert_eq!(expected.len(), 1 + 250 + 200);
    for keyring in [&one, &two] {
        assert_eq!(keyring.audit().events().unwrap(), expected);
    }
}
