//! Keys of Parquet files over their life.

use std::collections::BTreeSet;
use std::sync::Arc;

use atrest::ErrorKind;
use atrest_datafusion::ParquetKeys;
use datafusion_common::config::EncryptionFactoryOptions;
use datafusion_execution::parquet_encryption::EncryptionFactory;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use crate::support::{
    GROUP_LEN, KNOWN, bytes, count, keyring, kind, one_file, places, reader, rows, write,
};

#[tokio::test]
async fn what_is_written_is_read_and_none_of_it_is_in_the_file() {
    let (keys, raw) = one_file(&keyring()).await;
    assert_eq!(count(&keys, &raw, "a/1.parquet").await, 1000);
    let file = bytes(&*raw, "a/1.parquet").await;
    for word in KNOWN {
        assert!(!file.windows(word.len()).any(|window| window == word.as_bytes()), "{word:?}");
    }
}

#[tokio::test]
async fn a_rotation_shows_in_new_files_and_old_ones_are_read() {
    let keyring = keyring();
    let first = keyring.keys().active_id().unwrap();
    let (keys, raw) = one_file(&keyring).await;
    let second = keyring.keys().rotate().unwrap();
    write(&keys, &raw, "a/2.parquet").await.unwrap();
    let usage = keys.usage(&places(&raw)).await.unwrap();
    assert_eq!(usage.keys().copied().collect::<BTreeSet<_>>(), [first, second].into());
    assert!(usage.values().all(|count| count.files == 1 && count.bytes > 1000));
    assert_eq!(count(&keys, &raw, "a/1.parquet").await, 1000);
    assert_eq!(count(&keys, &raw, "a/2.parquet").await, 1000);
}

#[tokio::test]
async fn a_revocation_stops_a_reader_at_the_next_row_group_and_gives_no_key() {
    let keyring = keyring();
    let (keys, raw) = one_file(&keyring).await;
    let mut running = reader(&keys, &raw, "a/1.parquet", false).await.unwrap();
    assert_eq!(running.next().unwrap().unwrap().num_rows(), GROUP_LEN);
    keyring.access().revoke().unwrap();
    // One row group may have been opened before.
    let after: Vec<_> = running.by_ref().take(2).collect();
    let error = after.into_iter().find_map(Result::err).unwrap();
    assert!(error.to_string().contains("access to the customer's key was withdrawn"), "{error}");
    let error = reader(&keys, &raw, "a/1.parquet", false).await.err().unwrap();
    assert_eq!(kind(&error), Some(ErrorKind::CmekRevoked), "{error}");
    let error = write(&keys, &raw, "a/2.parquet").await.unwrap_err();
    assert!(error.to_string().contains("withdrawn"), "{error}");
    keyring.access().restore().unwrap();
    assert_eq!(count(&keys, &raw, "a/1.parquet").await, 1000);
    write(&keys, &raw, "a/2.parquet").await.unwrap();
}

#[tokio::test]
async fn another_keyrings_keys_and_changed_files_are_refused() {
    let (keys, raw) = one_file(&keyring()).await;
    let other = ParquetKeys::new(&keyring(), "tables").unwrap();
    let error = reader(&other, &raw, "a/1.parquet", false).await.err().unwrap();
    assert_eq!(kind(&error), Some(ErrorKind::IdentityMismatch), "{error}");
    let (good, expected) = (bytes(&*raw, "a/1.parquet").await, rows());
    let (mut tried, mut refused) = (0, 0);
    for at in (0..good.len()).step_by(good.len() / 60) {
        let mut changed = good.clone();
        changed[at] ^= 1;
        raw.put(&"a/1.parquet".into(), changed.into()).await.unwrap();
        tried += 1;
        let batches: Result<Vec<_>, _> = match reader(&keys, &raw, "a/1.parquet", false).await {
            Ok(batches) => batches.collect(),
            Err(error) => Err(error.into()),
        };
        match batches {
            Err(_) => refused += 1,
            // What no reader looks at.
            Ok(batches) => {
                let found = arrow::compute::concat_batches(&expected.schema(), &batches).unwrap();
                assert_eq!(found, expected, "byte {at}");
            }
        }
    }
    assert!(refused * 2 > tried, "{refused} of {tried}");
}

#[tokio::test]
async fn each_column_of_each_file_has_a_key_of_its_own() {
    let keyring = keyring();
    let (keys, _) = one_file(&keyring).await;
    let (schema, config) = (rows().schema(), EncryptionFactoryOptions::default());
    let mut all = BTreeSet::new();
    for _ in 0..3 {
        let made =
            keys.get_file_encryption_properties(&config, &schema, &"a/3".into()).await.unwrap();
        let made = made.unwrap();
        let (_, columns, _) = made.column_keys();
        all.insert(made.footer_key().clone());
        all.extend(columns);
    }
    assert_eq!(all.len(), 3 * 3);
    assert!(all.iter().all(|key| key.len() == 32));
    let unknown = EncryptionFactoryOptions { options: [("a".into(), "b".into())].into() };
    let refused = keys.get_file_decryption_properties(&unknown, &"a/3".into()).await;
    assert!(refused.unwrap_err().to_string().contains("no option"));
    for name in ["", "a/b", &"x".repeat(201)] {
        let refused = ParquetKeys::new(&keyring, name).unwrap_err().kind();
        assert_eq!(refused, ErrorKind::InvalidArgument);
    }
}

#[tokio::test]
async fn a_shredded_column_is_gone_and_the_others_are_read() {
    let keyring = keyring();
    let people = keyring.keyspaces().create("people").unwrap();
    let keys = ParquetKeys::new(&keyring, "tables").unwrap().with_column("secret_column", people);
    let raw = Arc::new(InMemory::new());
    write(&keys, &raw, "a/1.parquet").await.unwrap();
    assert_eq!(keys.usage(&places(&raw)).await.unwrap().len(), 2, "the column, and the rest");
    keyring.keyspaces().danger_shred("people").unwrap();
    let rest = reader(&keys, &raw, "a/1.parquet", true).await.unwrap();
    assert_eq!(rest.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 1000);
    let mut all = reader(&keys, &raw, "a/1.parquet", false).await.unwrap();
    let error = all.next().unwrap().unwrap_err();
    assert!(error.to_string().contains("was destroyed"), "{error}");
    assert!(write(&keys, &raw, "a/2.parquet").await.is_err());
}

/// Parquet takes no key for a column that only the path has, and leaves columns without a key in
/// plaintext beside others.
#[tokio::test]
async fn a_file_of_a_partitioned_table_has_one_key_or_none() {
    let keyring = keyring();
    let people = keyring.keyspaces().create("people").unwrap();
    let keys = ParquetKeys::new(&keyring, "tables").unwrap();
    let (schema, config) = (rows().schema(), EncryptionFactoryOptions::default());
    let path = "a/number=3/1.parquet".into();
    let made = keys.get_file_encryption_properties(&config, &schema, &path).await.unwrap().unwrap();
    assert!(made.column_keys().0.is_empty());
    let other = "a/text=3/1.parquet".into();
    let made =
        keys.get_file_encryption_properties(&config, &schema, &other).await.unwrap().unwrap();
    assert_eq!(made.column_keys().0.len(), 2);
    let keys = keys.with_column("secret_column", people);
    let refused = keys.get_file_encryption_properties(&config, &schema, &path).await;
    assert!(refused.unwrap_err().to_string().contains("no keyspace for \"secret_column\""));
}
