//! Which errors SlateDB repeats.

use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use slatedb_common::retry::should_retry;

use crate::support::{in_memory, read, read_range};

/// What SlateDB asks of an error before it tries again.
#[tokio::test]
async fn only_errors_that_may_pass_are_retried_by_slatedb() {
    let (keys, store, raw) = in_memory();
    let path = Path::from("a");
    raw.put(&path, "plaintext".into()).await.unwrap();
    assert!(!should_retry(&store.get(&path).await.unwrap_err()));
    assert!(!should_retry(&store.get(&Path::from("_atrest/x")).await.unwrap_err()));
    store.put(&path, "x".into()).await.unwrap();
    assert!(!should_retry(&read_range(&store, &path, 5..6).await.unwrap_err()));
    keys.keyring.access().revoke().unwrap();
    assert!(!should_retry(&read(&store, &path).await.unwrap_err()));
    // A fault of the store below is its own.
    keys.keyring.access().restore().unwrap();
    let faulty = Error::Generic { store: "test", source: "timeout".into() };
    assert!(should_retry(&faulty));
}
