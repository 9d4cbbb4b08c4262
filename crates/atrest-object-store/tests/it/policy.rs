//! Plaintext, reserved paths, rotation, and keys that come and go.

use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::Options;
use atrest::{ErrorKind, FileKind, Integrity, Keyring, PlaintextPolicy};
use atrest_object_store::find_error;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use crate::served::{EncryptedStore, slatedb_file_kind};
use crate::spy::Spy;
use crate::support::{Keys, cold, header, in_memory, pattern, read, read_range};

#[tokio::test]
async fn plaintext_is_read_where_it_is_allowed_and_refused_where_not() {
    let keys = Keys::with_policy(PlaintextPolicy::Allow);
    let raw = Arc::new(InMemory::new());
    let store = keys.store(raw.clone());
    let (old, new) = (Path::from("old"), Path::from("new"));
    store.put(&new, pattern(200_000, 2).into()).await.unwrap();
    for len in [0, 1, 7, 4095, 4096, 4097, 200_000] {
        let data = pattern(len, 1);
        raw.put(&old, data.clone().into()).await.unwrap();
        for store in [cold(&keys, &raw), store.clone()] {
            assert_eq!(read(&store, &old).await.unwrap(), data);
            assert_eq!(store.head(&old).await.unwrap().size, len as u64);
            let metas: Vec<_> = store.list(None).try_collect().await.unwrap();
            let sizes: Vec<_> = metas.iter().map(|meta| meta.size).collect();
            assert_eq!(sizes, [200_000, len as u64]);
            let last = read_range(&store, &old, GetRange::Suffix(3)).await.unwrap();
            assert_eq!(last, data.slice(len.saturating_sub(3)..));
            if len > 100_001 {
                for range in [50..60, 100_000..100_001] {
                    let part = read_range(&store, &old, range.start as u64..range.end as u64);
                    assert_eq!(part.await.unwrap(), data.slice(range));
                }
            }
        }
    }
    // Never taken for plaintext: a torn header, a keyring.
    for bytes in [Bytes::from_static(b"\x89ATRF\r\n"), Bytes::from_static(b"\x89ATRK\r\n\x1a...")] {
        raw.put(&old, bytes.into()).await.unwrap();
        assert!(find_error(&store.get(&old).await.unwrap_err()).is_some());
    }
    // Remembered as plaintext, then refused.
    raw.put(&old, "plain".into()).await.unwrap();
    assert_eq!(read(&store, &old).await.unwrap(), "plain");
    let mut settings = keys.keyring.settings();
    settings.plaintext = PlaintextPolicy::Require;
    keys.keyring.keys().configure(&settings).unwrap();
    let error = store.get(&old).await.unwrap_err();
    assert_eq!(find_error(&error).unwrap().kind(), ErrorKind::NotEncrypted);
    // An encrypted object stays readable, a raw object of 0 bytes has size 0 and no content.
    assert_eq!(read(&store, &new).await.unwrap(), pattern(200_000, 2));
    raw.put(&old, Bytes::new().into()).await.unwrap();
    assert_eq!(store.head(&old).await.unwrap().size, 0);
    let error = store.get(&old).await.unwrap_err();
    assert_eq!(find_error(&error).unwrap().kind(), ErrorKind::EmptyFile);
}

/// Stores of authenticated objects in which lengths tell no sizes, the one because it reads
/// confidential objects too and the other plaintext. Each has such a one, `a`, of 1 MiB.
async fn unsure() -> Vec<(Keys, Spy, EncryptedStore)> {
    let mut stores = Vec::new();
    for policy in [PlaintextPolicy::Require, PlaintextPolicy::Allow] {
        let (mut keys, raw) = (Keys::with_policy(policy), Arc::new(InMemory::new()));
        let (data, spy) = (pattern(MIB as usize, 1), Spy::new(raw.clone()));
        if policy == PlaintextPolicy::Allow {
            raw.put(&"a".into(), data.into()).await.unwrap();
        } else {
            keys.store(raw).put(&"a".into(), data.into()).await.unwrap();
        }
        keys.integrity = Integrity::Authenticated;
        let mut store = keys.store(spy.clone());
        if policy != PlaintextPolicy::Allow {
            store = store.with_both_read();
        }
        stores.push((keys, spy, store));
    }
    stores
}

const MIB: u64 = 1 << 20;

/// Whoever reads as far as the guess would take a part of the object for all of it.
#[tokio::test]
async fn a_size_that_cannot_be_looked_up_is_an_error_and_no_guess() {
    for (_keys, spy, store) in unsure().await {
        spy.fail_ranges(true);
        store.head(&"a".into()).await.unwrap_err();
        store.list(None).try_collect::<Vec<_>>().await.unwrap_err();
        store.list_with_offset(None, &"A".into()).try_collect::<Vec<_>>().await.unwrap_err();
        store.list_with_delimiter(None).await.unwrap_err();
        spy.fail_ranges(false);
        assert_eq!(store.list(None).try_next().await.unwrap().unwrap().size, MIB);
        assert_eq!(store.head(&"a".into()).await.unwrap().size, MIB);
    }
}

#[tokio::test]
async fn the_size_of_an_old_version_is_looked_up_in_that_version() {
    for (_keys, spy, store) in unsure().await {
        let version = Some("1".to_owned());
        let options = GetOptions { head: true, version: version.clone(), ..GetOptions::default() };
        assert_eq!(store.get_opts(&"a".into(), options).await.unwrap().meta.size, MIB);
        // The store in memory has no versions.
        assert!(spy.gets().iter().all(|get| get.version == version));
    }
}

#[tokio::test]
async fn what_changes_while_it_is_listed_is_listed_as_it_is_then() {
    for (keys, spy, store) in unsure().await {
        let writer = keys.store(spy.inner.clone());
        spy.before_get(0, || async move {
            writer.put(&"a".into(), pattern(5000, 2).into()).await.unwrap();
        });
        let listed = store.list(None).try_next().await.unwrap().unwrap();
        assert_eq!(listed, store.head(&"a".into()).await.unwrap());
        assert_eq!(listed.size, 5000);
        assert_eq!(spy.gets().len(), 2);

        // Another, which was not met.
        let raw = spy.inner.clone();
        keys.store(raw.clone()).put(&"a".into(), "words".into()).await.unwrap();
        spy.before_get(0, || async move { raw.delete(&"a".into()).await.unwrap() });
        assert!(store.list(None).try_next().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn the_keyrings_objects_are_hidden_and_refused() {
    let (_keys, store, raw) = in_memory();
    let (mine, hidden) = (Path::from("db/a"), Path::from("db/_atrest/KEYRING"));
    store.put(&mine, "x".into()).await.unwrap();
    for path in ["db/_atrest/KEYRING", "_atrest/KEYRING.3", "KEYRING", "KEYRING.lock"] {
        raw.put(&Path::from(path), "keys".into()).await.unwrap();
    }
    let names = |metas: Vec<object_store::ObjectMeta>| -> Vec<_> {
        metas.into_iter().map(|meta| meta.location.to_string()).collect()
    };
    assert_eq!(names(store.list(None).try_collect().await.unwrap()), ["db/a"]);
    let offset = store.list_with_offset(None, &Path::from("A"));
    assert_eq!(names(offset.try_collect().await.unwrap()), ["db/a"]);
    let inside = store.list(Some(&Path::from("db/_atrest")));
    assert!(inside.try_collect::<Vec<_>>().await.unwrap().is_empty());
    let top = store.list_with_delimiter(None).await.unwrap();
    assert_eq!((top.objects, top.common_prefixes), (vec![], vec![Path::from("db")]));
    let below = store.list_with_delimiter(Some(&Path::from("db"))).await.unwrap();
    assert_eq!((below.objects.len(), below.common_prefixes.len()), (1, 0));

    let refused = |error: Error| assert!(matches!(error, Error::NotSupported { .. }), "{error}");
    refused(store.get(&hidden).await.unwrap_err());
    refused(store.head(&hidden).await.unwrap_err());
    refused(store.put(&hidden, "x".into()).await.unwrap_err());
    refused(store.put_multipart(&hidden).await.unwrap_err());
    refused(store.get_ranges(&hidden, &[0..1, 2..3]).await.unwrap_err());
    refused(store.delete(&hidden).await.unwrap_err());
    refused(store.copy(&hidden, &mine).await.unwrap_err());
    refused(store.copy(&mine, &hidden).await.unwrap_err());
    refused(store.rename(&hidden, &mine).await.unwrap_err());
    refused(store.rename(&mine, &hidden).await.unwrap_err());
    // One refused among others does not stop them.
    let locations = stream::iter([mine.clone(), hidden.clone()]).map(Ok).boxed();
    let outcomes: Vec<_> = store.delete_stream(locations).collect().await;
    assert!(outcomes[0].is_ok() && outcomes[1].is_err());
    assert!(raw.head(&mine).await.is_err() && raw.head(&hidden).await.is_ok());
}

#[tokio::test]
async fn rotation_moves_new_objects_and_keeps_old_ones_readable() {
    let (keys, store, raw) = in_memory();
    for n in 0..4 {
        let path = Path::from(format!("{n}"));
        store.put(&path, pattern(100, n).into()).await.unwrap();
        let expected = keys.keyring.keys().active_id().unwrap();
        assert_eq!(header(&*raw, &path).await.data_key_id, expected);
        keys.keyring.keys().rotate().unwrap();
    }
    for store in [store, cold(&keys, &raw)] {
        for n in 0..4 {
            assert_eq!(read(&store, &Path::from(format!("{n}"))).await.unwrap(), pattern(100, n));
        }
    }
}

#[tokio::test]
async fn an_object_on_its_way_to_the_store_below_keeps_its_data_key() {
    for keys in Keys::both() {
        let raw = Arc::new(InMemory::new());
        let spy = Spy::new(raw.clone());
        let store = keys.store(spy.clone());
        let retire_before = |name| {
            let store = store.clone();
            spy.before(name, || async move {
                store.keyring().keys().rotate().unwrap();
                for _ in 0..2 {
                    store.retire(Duration::ZERO).await.unwrap();
                }
            });
        };
        let (whole, parts) = (Path::from("whole"), Path::from("parts"));
        retire_before("put");
        store.put(&whole, pattern(100, 1).into()).await.unwrap();
        retire_before("complete");
        let mut upload = store.put_multipart(&parts).await.unwrap();
        upload.put_part(pattern(100, 2).into()).await.unwrap();
        upload.complete().await.unwrap();
        let reader = cold(&keys, &raw);
        assert_eq!(read(&reader, &whole).await.unwrap(), pattern(100, 1));
        assert_eq!(read(&reader, &parts).await.unwrap(), pattern(100, 2));
        // Two data keys were replaced, and neither is kept for longer than its object.
        drop((upload, reader));
        for path in [&whole, &parts] {
            raw.delete(path).await.unwrap();
        }
        let mut destroyed = 0;
        for _ in 0..2 {
            destroyed += store.retire(Duration::ZERO).await.unwrap().destroyed().count();
        }
        assert_eq!(destroyed, 2);
    }
}

/// A reader in another process meets a data key it does not know: it reads the keyring
/// once, in a thread of its own, whatever the runtime is.
#[test]
fn an_unknown_data_key_is_looked_up_under_any_runtime() {
    let (keys, raw) = (Keys::new(), Arc::new(InMemory::new()));
    let options = Options::default;
    let reader = Keyring::open_read_only(keys.storage.clone(), keys.kms(), options()).unwrap();
    let reader = EncryptedStore::new(raw.clone(), reader).with_integrity(keys.integrity);
    let path = Path::from("a");
    let write = |n| async move { pattern(100, n) };
    let put = |data: Bytes| {
        keys.keyring.keys().rotate().unwrap();
        futures_executor::block_on(keys.store(raw.clone()).put(&path, data.into())).unwrap();
    };
    // No runtime at all.
    let data = futures_executor::block_on(write(1));
    put(data.clone());
    assert_eq!(futures_executor::block_on(read(&reader, &path)).unwrap(), data);
    // One thread, many readers at once.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    put(pattern(100, 2));
    runtime.block_on(async {
        let reads = (0..50).map(|_| read(&reader, &path));
        for data in futures_util::future::try_join_all(reads).await.unwrap() {
            assert_eq!(data, pattern(100, 2));
        }
    });
    // A key that no keyring has.
    let (_other, foreign, foreign_raw) = in_memory();
    runtime.block_on(async {
        foreign.put(&path, "x".into()).await.unwrap();
        let mut bytes = read(&*foreign_raw, &path).await.unwrap().to_vec();
        let mine = read(&*raw, &path).await.unwrap();
        bytes[32..48].copy_from_slice(&mine[32..48]);
        use sha2::Digest;
        let checksum = sha2::Sha256::digest(&bytes[..160]);
        bytes[160..176].copy_from_slice(&checksum[..16]);
        raw.put(&path, bytes.into()).await.unwrap();
        let error = reader.get(&path).await.unwrap_err();
        assert_eq!(find_error(&error).unwrap().kind(), ErrorKind::UnknownKey);
    });
}

#[tokio::test]
async fn withdrawn_keys_end_every_operation_and_come_back() {
    let (keys, raw) = (Keys::with_policy(PlaintextPolicy::Allow), Arc::new(InMemory::new()));
    let (store, path) = (keys.store(raw.clone()), Path::from("a"));
    store.put(&path, pattern(200_000, 1).into()).await.unwrap();
    let stream = store.get(&path).await.unwrap();
    let plain = Path::from("plain");
    raw.put(&plain, pattern(200_000, 2).into()).await.unwrap();
    let plain_stream = store.get(&plain).await.unwrap();
    keys.keyring.access().revoke().unwrap();
    let denied = |error: Error| {
        assert!(matches!(error, Error::PermissionDenied { .. }), "{error}");
        assert_eq!(find_error(&error).unwrap().kind(), ErrorKind::CmekRevoked);
    };
    denied(stream.bytes().await.unwrap_err());
    denied(read(&store, &path).await.unwrap_err());
    denied(read(&cold(&keys, &raw), &path).await.unwrap_err());
    // As files do, what is not encrypted stops with the rest.
    denied(plain_stream.bytes().await.unwrap_err());
    denied(read(&store, &plain).await.unwrap_err());
    denied(read(&cold(&keys, &raw), &plain).await.unwrap_err());
    denied(store.put(&path, "x".into()).await.unwrap_err());
    denied(store.put_multipart(&path).await.unwrap_err());
    // Sizes and names need no key.
    assert_eq!(store.head(&path).await.unwrap().size, 200_000);
    keys.keyring.access().restore().unwrap();
    assert_eq!(read(&store, &path).await.unwrap(), pattern(200_000, 1));
    assert_eq!(read(&store, &plain).await.unwrap(), pattern(200_000, 2));
}

#[tokio::test]
async fn kinds_are_told_by_the_path() {
    let (keys, _, raw) = in_memory();
    let store = keys.store(Spy::new(raw.clone())).with_file_kind(slatedb_file_kind);
    let cases = [
        ("db/wal/1.sst", FileKind::Log),
        ("db/compacted/01J.sst", FileKind::Table),
        ("db/manifest/1.manifest", FileKind::Manifest),
        ("db/compactions/1.compactions", FileKind::Manifest),
        ("db/other", FileKind::Other),
        ("wal", FileKind::Other),
    ];
    for (path, kind) in cases {
        let path = Path::from(path);
        store.put(&path, "x".into()).await.unwrap();
        assert_eq!(header(&*raw, &path).await.kind, kind, "{path}");
    }
}
