//! A store in a bucket, the keyring in it too, and two processes that write to it:
//! `cargo run -p atrest-object-store --example bucket`
//!
//! `InMemory` stands for S3, GCS or Azure here: an engine that writes objects gets the
//! `EncryptedStore` in the place of its own, and nothing else changes.

use std::sync::Arc;

use atrest::kms::{KeyFile, Kms, generate_key_file};
use atrest::{Keyring, Options};
use atrest_object_store::{EncryptedStore, ObjectStoreKeyringStorage};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

type Any<T> = Result<T, Box<dyn std::error::Error>>;

/// What each process does. Any number may have the store open: of two that rotate at once one
/// commits, and the other goes on with its key.
///
/// It blocks, for the keyring alone. Inside of a runtime call it from a blocking thread.
fn open(bucket: &Arc<dyn ObjectStore>, kms: &Arc<dyn Kms>) -> atrest::Result<EncryptedStore> {
    // The keyring is at `db/_atrest/KEYRING`. Opening proves that the bucket keeps conditional
    // writes, without which two processes could lose each other's keys.
    let storage = ObjectStoreKeyringStorage::new(bucket.clone(), &Path::from("db"))?;
    let keyring = Keyring::open_or_create(storage, kms.clone(), Options::default())?;
    Ok(EncryptedStore::new(bucket.clone(), keyring))
}

fn main() -> Any<()> {
    let place = tempfile::tempdir()?;
    generate_key_file(place.path().join("cmek.key"))?;
    let kms: Arc<dyn Kms> = Arc::new(KeyFile::new(place.path().join("cmek.key"))?);
    let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());

    let one = open(&bucket, &kms)?;
    let other = open(&bucket, &kms)?;
    let old = one.keyring().keys().active_id()?;
    let first = Path::from("db/wal/1.sst");
    futures_executor::block_on(one.put(&first, "rows of a customer".into()))?;
    // A new data key, which the other process has not seen: it reads the keyring once when it
    // meets an object under it.
    let new = one.keyring().keys().rotate()?;
    futures_executor::block_on(talk(&bucket, &one, &other))?;

    // Objects under each data key: an old object keeps its own until the engine rewrites it.
    let usage = futures_executor::block_on(one.usage(None))?;
    assert_eq!((usage.keys[&new].objects, usage.keys[&old].objects), (1, 1));
    println!("{:#?}", usage.keys);
    Ok(())
}

async fn talk(
    bucket: &Arc<dyn ObjectStore>,
    one: &EncryptedStore,
    other: &EncryptedStore,
) -> Any<()> {
    let (first, second) = (Path::from("db/wal/1.sst"), Path::from("db/wal/2.sst"));
    assert_eq!(other.get(&first).await?.bytes().await?, "rows of a customer");
    assert_eq!(other.get_range(&first, 8..18).await?, "a customer");
    one.put(&second, "more rows".into()).await?;
    assert_eq!(other.get(&second).await?.bytes().await?, "more rows");

    // Lengths are those of the plaintext; below, each object has 4096 bytes in front, and behind
    // it 16 bytes for each 4096 of it and 16 for its end.
    assert_eq!(one.head(&first).await?.size, 18);
    let below = bucket.get(&first).await?.bytes().await?;
    assert_eq!(below.len(), 4096 + 18 + 16 + 16);
    assert!(!below.windows(4).any(|bytes| bytes == b"rows"));
    // The keyring's objects are there and are nobody else's.
    let keyring = Path::from("db/_atrest/KEYRING");
    assert!(bucket.head(&keyring).await.is_ok() && one.head(&keyring).await.is_err());
    Ok(())
}

#[test]
fn runs() -> Any<()> {
    main()
}
