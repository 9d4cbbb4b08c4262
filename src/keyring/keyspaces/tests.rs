#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::keyring::{MemoryStorage, Options};
use crate::kms::{KeyFile, generate_key_file};

#[test]
fn many_keyspaces_are_added_in_few_commits_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cmek.key");
    generate_key_file(&path).unwrap();
    let options = Options { background: false, ..Options::default() };
    let kms = Arc::new(KeyFile::new(path).unwrap());
    let keyring = Keyring::create(MemoryStorage::new(), kms, options).unwrap();
    let keyspaces = keyring.keyspaces();
    let known = keyspaces.create("tenant 7").unwrap();
    let before = keyring.anchor().generation;
    let count = ADDED_TOGETHER + 10;
    let names: Vec<_> = (0..count).map(|number| format!("tenant {number}")).collect();
    let ids = keyspaces.find_or_create(&names).unwrap();
    assert_eq!(keyring.anchor().generation, before + 2);
    assert_eq!(ids[7], known);
    for (name, id) in names.iter().zip(&ids).step_by(97) {
        assert_eq!(keyspaces.find(name), Some(*id));
    }
    assert_eq!(keyspaces.list().len(), count + 1);
    // The store's creation, and two for each.
    assert_eq!(keyring.audit().events().unwrap().len(), 1 + 2 * count);
    assert_eq!(keyspaces.find_or_create(&names).unwrap(), ids);
    assert_eq!(keyring.anchor().generation, before + 2);
    let refused = keyspaces.find_or_create(&[String::new()]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}
