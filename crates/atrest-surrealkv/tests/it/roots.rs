//! Root keys over their life.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use atrest::{ErrorKind, FileKind, Options, Store};
use atrest_surrealkv::RootKeys;
use atrest_testkit::{Engine, ScriptedKms};
use surrealkv::{EncryptionError, KeyManager, KeyProviderFailure, KeyState};
use tempfile::TempDir;

use crate::support::Surreal;

fn place() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("store/roots")).unwrap();
    let store =
        Store::create(dir.path().join("store"), ScriptedKms::new("customer"), Options::default());
    (dir, store.unwrap())
}

#[test]
fn each_data_key_gets_a_root_key_when_it_is_needed_and_keeps_it() {
    let (dir, store) = place();
    let roots = dir.path().join("store/roots");
    let keys = RootKeys::open(&store, &roots).unwrap();
    let first = store.keys().active_id().unwrap();
    assert_eq!((keys.active_key_id(), keys.data_key_id(1)), (1, Some(first)));
    let root = keys.root_key(1).unwrap();
    let second = store.keys().rotate().unwrap();
    assert_eq!((keys.active_key_id(), keys.data_key_id(2)), (2, Some(second)));
    let states = [0, 1, 2, 3].map(|id| keys.key_state(id));
    use KeyState::{Active, DecryptOnly, Unknown};
    assert_eq!(states, [Unknown, DecryptOnly, Active, Unknown]);
    assert_ne!(keys.root_key(2).unwrap(), root);
    assert_eq!(keys.root_key(3), Err(EncryptionError::UnknownKeyId));
    drop(keys);
    // What a crash left of one that was being made.
    fs::write(roots.join("root.new"), b"\x89ATRF").unwrap();
    let keys = RootKeys::open(&store, &roots).unwrap();
    assert_eq!(keys.root_key(1).unwrap(), root);
    assert_eq!(keys.retire(|_| true).unwrap(), [1]);
    assert_eq!(keys.key_state(1), KeyState::Retired);
    assert_eq!(keys.root_key(1), Err(EncryptionError::KeyRetired));
    store.keys().rotate().unwrap();
    assert_eq!(RootKeys::open(&store, &roots).unwrap().active_key_id(), 3);
    assert!(!format!("{keys:?}").contains(&format!("{:?}", &root[..2])));
}

#[test]
fn without_access_there_is_no_root_key_and_with_it_the_same_ones() {
    let (dir, store) = place();
    let keys = RootKeys::open(&store, dir.path().join("store/roots")).unwrap();
    let root = keys.root_key(1).unwrap();
    store.keys().rotate().unwrap();
    store.access().revoke().unwrap();
    let unavailable = EncryptionError::KeyProvider(KeyProviderFailure::Unavailable);
    assert_eq!(keys.root_key(1), Err(unavailable));
    // Nothing is made, and what was active is.
    assert_eq!((keys.active_key_id(), keys.key_state(1)), (1, KeyState::Active));
    store.access().restore().unwrap();
    assert_eq!(keys.root_key(1).unwrap(), root);
    assert_eq!(keys.active_key_id(), 2);
}

#[test]
fn a_root_key_that_is_not_the_one_it_was_is_refused() {
    let (dir, store) = place();
    let roots = dir.path().join("store/roots");
    let keys = RootKeys::open(&store, &roots).unwrap();
    store.keys().rotate().unwrap();
    assert_eq!(keys.active_key_id(), 2);
    let (one, two) = (roots.join("root.0000000001"), roots.join("root.0000000002"));
    let good = fs::read(&one).unwrap();
    let refused = || RootKeys::open(&store, &roots).unwrap_err().kind();
    fs::copy(&two, &one).unwrap();
    assert_eq!(refused(), ErrorKind::IdentityMismatch);
    for at in [4096, good.len() - 1] {
        let mut changed = good.clone();
        changed[at] ^= 1;
        fs::write(&one, changed).unwrap();
        assert_eq!(refused(), ErrorKind::Authentication);
    }
    fs::remove_file(&one).unwrap();
    let mut writer = store.files().create_new(&one, FileKind::Other).unwrap();
    writer.append(&[7; 32]).unwrap();
    writer.finish().unwrap();
    assert_eq!(refused(), ErrorKind::IdentityMismatch, "of the engine's own, without a number");
    fs::write(&one, &good).unwrap();
    drop(RootKeys::open(&store, &roots).unwrap());
}

#[test]
fn a_data_key_is_destroyed_when_the_database_does_not_need_its_root_key_any_more() {
    let (dir, store) = place();
    let mut engine = Surreal::open(&store, &dir.path().join("store")).unwrap();
    let first = store.keys().active_id().unwrap();
    engine.put(0, "before the rotation").unwrap();
    store.keys().rotate().unwrap();
    let retire = || {
        let retired = [0, 1].map(|_| store.renewal().retire(None, Duration::ZERO, &|_| {}));
        retired.into_iter().flat_map(|one| one.unwrap().destroyed().collect::<Vec<_>>()).next()
    };
    assert_eq!(engine.tree().retire_unused().unwrap(), []);
    assert_eq!(retire(), None);
    assert_eq!(engine.get(0).unwrap().as_deref(), Some("before the rotation"));
    engine.put(1, "after it").unwrap();
    // With all that is said of it, a compaction.
    engine.compact().unwrap();
    assert_eq!(retire(), Some(first));
    assert_eq!(engine.get(0).unwrap().as_deref(), Some("before the rotation"));
    drop(engine);
    let engine = Surreal::open(&store, &dir.path().join("store")).unwrap();
    assert_eq!(engine.get(1).unwrap().as_deref(), Some("after it"));
}

#[test]
fn a_revocation_from_inside_of_the_runtime_closes_the_database_too() {
    let (dir, store) = place();
    let mut engine = Surreal::open(&store, &dir.path().join("store")).unwrap();
    engine.put(0, "before").unwrap();
    let kept = Arc::clone(&engine.tree().tree().unwrap());
    engine.runtime.block_on(async { store.access().revoke().unwrap() });
    assert!(engine.tree().tree().is_err());
    engine.runtime.block_on(async { store.access().restore().unwrap() });
    let tree = loop {
        match engine.tree().tree() {
            Ok(tree) => break tree,
            Err(error) => assert!(error.to_string().contains("key"), "{error}"),
        }
    };
    assert!(!Arc::ptr_eq(&tree, &kept));
    assert_eq!(engine.get(0).unwrap().as_deref(), Some("before"));
}
