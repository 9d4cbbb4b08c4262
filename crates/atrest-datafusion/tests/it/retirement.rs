//! No data key is destroyed that a file needs, and every other one is.

use std::collections::BTreeSet;
use std::time::Duration;

use atrest::keyring::{LiveKeys, RetireOutcome};
use atrest::{DataKeyId, ErrorKind, Keyring};
use atrest_datafusion::{ParquetFiles, ParquetKeys};
use datafusion_common::config::EncryptionFactoryOptions;
use datafusion_execution::parquet_encryption::EncryptionFactory;
use object_store::ObjectStoreExt;

use crate::support::{bytes, count, keyring, one_file, places, rows, write};

/// What becomes of the oldest replaced data key by two calls.
async fn retire(keys: &ParquetKeys, places: &[ParquetFiles]) -> RetireOutcome {
    keys.retire(places, Duration::ZERO).await.unwrap();
    keys.retire(places, Duration::ZERO).await.unwrap().keys[0].outcome.clone()
}

fn held(keyring: &Keyring) -> BTreeSet<DataKeyId> {
    keyring.holds().list().into_iter().flat_map(|hold| hold.keys).collect()
}

#[tokio::test]
async fn a_data_key_goes_with_its_last_file() {
    let keyring = keyring();
    let first = keyring.keys().active_id().unwrap();
    let (keys, raw) = one_file(&keyring).await;
    assert_eq!(held(&keyring), [first].into());
    let second = keyring.keys().rotate().unwrap();
    write(&keys, &raw, "a/2.parquet").await.unwrap();
    assert_eq!(retire(&keys, &places(&raw)).await, RetireOutcome::InUse);
    assert_eq!(count(&keys, &raw, "a/1.parquet").await, 1000);
    raw.delete(&"a/1.parquet".into()).await.unwrap();
    assert_eq!(retire(&keys, &places(&raw)).await, RetireOutcome::Destroyed);
    assert_eq!(held(&keyring), [second].into());
    assert_eq!(count(&keys, &raw, "a/2.parquet").await, 1000);
    // The hold goes on with the next ones.
    let third = keyring.keys().rotate().unwrap();
    write(&keys, &raw, "a/3.parquet").await.unwrap();
    assert_eq!(held(&keyring), [second, third].into());
}

#[tokio::test]
async fn who_does_not_look_at_the_files_destroys_nothing() {
    struct Nothing;
    impl LiveKeys for Nothing {
        fn keys_in_use(&self) -> atrest::Result<Vec<DataKeyId>> {
            Ok(Vec::new())
        }
    }
    let keyring = keyring();
    let (keys, raw) = one_file(&keyring).await;
    keyring.keys().rotate().unwrap();
    for _ in 0..2 {
        let retired = keyring.keys().retire(&Nothing, Duration::ZERO).unwrap();
        let by = vec!["parquet/tables/0".to_owned()];
        assert_eq!(retired.keys[0].outcome, RetireOutcome::Held { by });
    }
    assert_eq!(count(&keys, &raw, "a/1.parquet").await, 1000);
}

#[tokio::test]
async fn a_file_that_is_being_written_keeps_its_data_key() {
    let keyring = keyring();
    let (keys, raw) = one_file(&keyring).await;
    let (config, schema) = (EncryptionFactoryOptions::default(), rows().schema());
    let writing = keys.get_file_encryption_properties(&config, &schema, &"a/2".into()).await;
    raw.delete(&"a/1.parquet".into()).await.unwrap();
    keyring.keys().rotate().unwrap();
    assert_eq!(retire(&keys, &places(&raw)).await, RetireOutcome::InUse);
    drop(writing);
    assert_eq!(retire(&keys, &places(&raw)).await, RetireOutcome::Destroyed);
}

#[tokio::test]
async fn what_cannot_be_looked_at_lets_no_data_key_go() {
    let keyring = keyring();
    let (keys, raw) = one_file(&keyring).await;
    let place = places(&raw);
    keyring.keys().rotate().unwrap();
    // None of them is a file of ours.
    for other in [&b""[..], b"PAR", b"PAR1PAR1", b"text"] {
        raw.put(&"a/other".into(), other.into()).await.unwrap();
        assert_eq!(keys.usage(&place).await.unwrap().len(), 1);
    }
    let good = bytes(&*raw, "a/1.parquet").await;
    let mut bad = good.clone();
    let at = bad.len() - 300;
    bad[at] ^= 1;
    raw.put(&"a/1.parquet".into(), bad.into()).await.unwrap();
    let refused = keys.retire(&place, Duration::ZERO).await.unwrap_err().kind();
    assert_eq!(refused, ErrorKind::CorruptHeader);
    raw.put(&"a/1.parquet".into(), good.into()).await.unwrap();
    keyring.access().revoke().unwrap();
    assert_eq!(keys.usage(&place).await.unwrap_err().kind(), ErrorKind::CmekRevoked);
    assert!(keys.retire(&place, Duration::ZERO).await.is_err());
    keyring.access().restore().unwrap();
    assert_eq!(retire(&keys, &place).await, RetireOutcome::InUse);
}
