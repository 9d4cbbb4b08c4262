//! Objects are the same under either version of `object_store`.

use std::sync::Arc;

use atrest_object_store::{v0_13, v0_14};
use object_store::ObjectStoreExt as _;
use object_store_0_13::ObjectStoreExt as _;

use crate::support::{Keys, pattern};

#[tokio::test]
async fn what_one_version_writes_the_other_reads() {
    for keys in Keys::both() {
        let dir = tempfile::tempdir().unwrap();
        let (path, keyring) = (dir.path(), &keys.keyring);
        let old = object_store_0_13::local::LocalFileSystem::new_with_prefix(path).unwrap();
        let old = v0_13::EncryptedStore::new(Arc::new(old), keyring.clone());
        let old = old.with_integrity(keys.integrity);
        let new = object_store::local::LocalFileSystem::new_with_prefix(path).unwrap();
        let new = v0_14::EncryptedStore::new(Arc::new(new), keyring.clone());
        let new = new.with_integrity(keys.integrity);
        let (one, two) = (pattern(30_000, 1), pattern(30_000, 2));
        old.put(&"old".into(), one.clone().into()).await.unwrap();
        new.put(&"new".into(), two.clone().into()).await.unwrap();
        assert_eq!(new.get(&"old".into()).await.unwrap().bytes().await.unwrap(), one);
        assert_eq!(old.get(&"new".into()).await.unwrap().bytes().await.unwrap(), two);
    }
}
