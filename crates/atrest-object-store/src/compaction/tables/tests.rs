#![allow(clippy::unwrap_used)]

use atrest::keyring::{MemoryStorage, Options};
use atrest::store::StalePolicy;
use atrest::{FileKind, Header, Keyring, kms};
use object_store::memory::InMemory;
use ulid::Ulid;

use super::*;

#[test]
fn a_table_that_cannot_be_rewritten_waits_twice_as_long_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    kms::generate_key_file(&key).unwrap();
    let kms = kms::from_uri(&format!("file://{}", key.display())).unwrap();
    let keyring = Keyring::create(MemoryStorage::new(), kms, Options::default()).unwrap();
    let header = Header::parse(keyring.encryptor(FileKind::Table).unwrap().header()).unwrap();
    let mut policy = StalePolicy::default();
    policy.keys = vec![header.data_key_id];

    let mut tables = Tables::new(Arc::new(InMemory::new()), Integrity::Confidential);
    let [old, plain, gone] = [1, 2, 3].map(|n| SsTableId::new(Ulid(n)));
    let mut known = |table, what| tables.known.insert(table, Known { what, seen: 0 });
    known(old, Contents::Encrypted(Box::new(header)));
    known(plain, Contents::Plaintext);
    let judge = policy.judge(&keyring);
    assert_eq!(tables.stale(old, &judge), None, "under the active key");
    keyring.keys().rotate().unwrap();
    let judge = policy.judge(&keyring);
    let created_ns = keyring.status().data_keys[0].created_ns;
    assert_eq!(tables.stale(old, &judge), Some(created_ns));
    assert_eq!(tables.stale(plain, &judge), Some(0));
    assert_eq!(tables.stale(gone, &judge), None);
    assert!(tables.are_fresh(&[old]));

    for pause in [2, 4, 8] {
        tables.settle(&[old, gone]);
        for _ in 0..pause {
            assert_eq!(tables.stale(old, &judge), None);
            tables.poll += 1;
        }
        assert_eq!(tables.stale(old, &judge), Some(created_ns));
    }
    assert_eq!(tables.stale(plain, &judge), Some(0));
    assert!(!tables.are_fresh(&[old, gone]));
    // A policy that asks for what new tables are not either, and then are.
    policy.keys.clear();
    policy.require_authenticated = true;
    assert_eq!(tables.stale(old, &policy.judge(&keyring)), None);
    tables.integrity = Integrity::Authenticated;
    assert_eq!(tables.stale(old, &policy.judge(&keyring)), Some(created_ns));
}
