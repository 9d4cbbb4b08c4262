//! Authenticated objects: what is refused, and what is promised of old ones.

use std::sync::Arc;

use atrest::{ErrorKind, FileKind, Integrity, IntegrityPolicy, Suite};
use atrest_object_store::find_error;
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use crate::served::{EncryptedStore, slatedb_file_kind};
use crate::spy::Spy;
use crate::support::{Keys, cold, header, over_memory, pattern, read, read_range};

fn kind(error: &object_store::Error) -> ErrorKind {
    find_error(error).unwrap_or_else(|| panic!("{error:?}")).kind()
}

#[tokio::test]
async fn objects_are_authenticated_unless_something_else_is_asked_for() {
    let (keys, raw, path) = (Keys::new(), Arc::new(InMemory::new()), Path::from("wal/1"));
    let store = EncryptedStore::new(raw.clone(), keys.keyring.clone());
    // Whatever is in it: an object is written whole, so a log's is no log of frames.
    let store = store.with_file_kind(slatedb_file_kind);
    store.put(&path, "x".into()).await.unwrap();
    let found = header(&*raw, &path).await;
    assert_eq!((found.suite, found.kind), (Suite::Aes256GcmChunks, FileKind::Log));
    store.clone().with_integrity(Integrity::Confidential).put(&path, "x".into()).await.unwrap();
    assert_eq!(header(&*raw, &path).await.suite, Suite::Aes256Ctr);
}

/// The bytes of an object after which a read still succeeds, if any is other than what was
/// written.
async fn bytes_nobody_missed(bytes: &Bytes, every: usize, data: &Bytes, keys: &Keys) -> usize {
    let (raw, path) = (Arc::new(InMemory::new()), Path::from("a"));
    let mut read_well = 0;
    for at in (0..bytes.len()).step_by(every) {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1 << (at % 8);
        raw.put(&path, changed.into()).await.unwrap();
        if let Ok(found) = read(&cold(keys, &raw), &path).await {
            assert_eq!(found, data, "a change of byte {at} was not noticed");
            read_well += 1;
        }
        // In parts, each with a store that remembers nothing and with one that does.
        let warm = cold(keys, &raw);
        for start in (0..data.len()).step_by(50_000) {
            let range = start as u64..(start as u64 + 1000).min(data.len() as u64);
            for store in [&cold(keys, &raw), &warm] {
                if let Ok(found) = read_range(store, &path, range.clone()).await {
                    let expected = data.slice(range.start as usize..range.end as usize);
                    assert_eq!(found, expected, "a change of byte {at} was not noticed");
                }
            }
        }
    }
    read_well
}

#[tokio::test]
async fn every_changed_byte_is_noticed() {
    for (len, every) in [(0, 1), (1, 1), (5000, 7), (200_000, 997)] {
        let (keys, store, raw) = over_memory(Keys::authenticated());
        let (path, data) = (Path::from("a"), pattern(len, 1));
        store.put(&path, data.clone().into()).await.unwrap();
        let bytes = read(&*raw, &path).await.unwrap();
        assert_eq!(bytes_nobody_missed(&bytes, every, &data, &keys).await, 0, "{len}");
    }
}

#[tokio::test]
async fn cut_extended_and_foreign_bodies_are_refused() {
    let (keys, store, raw) = over_memory(Keys::authenticated());
    let (a, b) = (Path::from("a"), Path::from("b"));
    let data = pattern(150_000, 1);
    store.put(&a, data.clone().into()).await.unwrap();
    store.put(&b, pattern(150_000, 2).into()).await.unwrap();
    let (good, other) = (read(&*raw, &a).await.unwrap(), read(&*raw, &b).await.unwrap());
    let chunk = |n: usize| 4096 + n * 4096..4096 + (n + 1) * 4096;
    let spliced = |parts: &[&[u8]]| Bytes::from(parts.concat());
    let cases = [
        good.slice(..good.len() - 1),
        good.slice(..good.len() - 16),
        good.slice(..good.len() - 4112),
        good.slice(..4096),
        spliced(&[&good, &[0]]),
        spliced(&[&good, &good[good.len() - 4112..]]),
        // Another object's body, and one of its chunks.
        spliced(&[&good[..4096], &other[4096..]]),
        spliced(&[&good[..chunk(1).start], &other[chunk(1)], &good[chunk(1).end..]]),
        // Two chunks that changed places.
        spliced(&[
            &good[..chunk(1).start],
            &good[chunk(2)],
            &good[chunk(1)],
            &good[chunk(2).end..],
        ]),
    ];
    for (number, bytes) in cases.into_iter().enumerate() {
        raw.put(&a, bytes.into()).await.unwrap();
        for store in [&store, &cold(&keys, &raw)] {
            let error = read(store, &a).await.unwrap_err();
            assert_eq!(kind(&error), ErrorKind::Authentication, "{number}");
        }
        let suffix = read_range(&cold(&keys, &raw), &a, GetRange::Suffix(10)).await;
        if let Ok(found) = suffix {
            assert_eq!(found, data.slice(data.len() - 10..), "{number}");
        }
    }
    // It is read again when it is back.
    raw.put(&a, good.into()).await.unwrap();
    assert_eq!(read(&store, &a).await.unwrap(), data);
}

#[tokio::test]
async fn a_store_refuses_what_its_policy_forbids() {
    let [confidential, authenticated] = Keys::both();
    let raw = Arc::new(InMemory::new());
    let store = |integrity| {
        let store = EncryptedStore::new(raw.clone(), confidential.keyring.clone());
        store.with_integrity(integrity)
    };
    drop(authenticated);
    let (weak, strong) = (Path::from("weak"), Path::from("strong"));
    let data = pattern(100_000, 1);
    store(Integrity::Confidential).put(&weak, data.clone().into()).await.unwrap();
    store(Integrity::Authenticated).put(&strong, data.clone().into()).await.unwrap();
    let cases = [
        (Integrity::Authenticated, &weak, ErrorKind::SuiteTooWeak),
        (Integrity::Confidential, &strong, ErrorKind::UnsupportedFeature),
    ];
    for (integrity, path, expected) in cases {
        for range in [None, Some(GetRange::Suffix(3)), Some((70_000..70_010).into())] {
            let options = GetOptions { range, ..GetOptions::default() };
            let error = store(integrity).get_opts(path, options).await.unwrap_err();
            assert_eq!(kind(&error), expected, "{path}");
        }
    }
    // Both, where that is asked for: with the right sizes.
    for integrity in Integrity::ALL {
        let spy = Spy::new(raw.clone());
        let both = EncryptedStore::new(Arc::new(spy.clone()), confidential.keyring.clone());
        let both = both.with_integrity(integrity).with_both_read();
        for looks in [2, 0] {
            let metas: Vec<_> = both.list(None).try_collect().await.unwrap();
            assert!(metas.iter().all(|meta| meta.size == 100_000));
            assert_eq!(spy.gets().len(), looks);
        }
        for path in [&weak, &strong] {
            assert_eq!(read(&both, path).await.unwrap(), data);
            let some = read_range(&both, path, 70_000..90_000).await.unwrap();
            assert_eq!(some, data.slice(70_000..90_000));
        }
    }
    // The keyring's word, for all kinds or one, stands above the store's.
    for (policy, refused) in [
        (IntegrityPolicy::all(Integrity::Authenticated), true),
        (IntegrityPolicy::default().with(FileKind::Other, Integrity::Authenticated), true),
        (IntegrityPolicy::default().with(FileKind::Log, Integrity::Authenticated), false),
    ] {
        let mut settings = confidential.keyring.settings();
        settings.integrity = policy;
        confidential.keyring.keys().configure(&settings).unwrap();
        let weaker = store(Integrity::Confidential);
        let written = weaker.put(&Path::from("new"), "x".into()).await;
        let found = read(&weaker, &weak).await;
        let both = read(&weaker.clone().with_both_read(), &weak).await;
        assert_eq!([written.is_err(), found.is_err(), both.is_err()], [refused; 3]);
        if refused {
            assert_eq!(kind(&found.unwrap_err()), ErrorKind::SuiteTooWeak);
        }
        assert_eq!(read(&store(Integrity::Authenticated), &strong).await.unwrap(), data);
    }
}

#[tokio::test]
async fn suites_that_no_object_has_are_refused() {
    let (keys, store, raw) = over_memory(Keys::authenticated());
    let path = Path::from("a");
    let framed = atrest::FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
    let long = atrest::FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks);
    for spec in [framed, long.chunk_len(8192)] {
        let mut encryptor = keys.keyring.encryptor(spec).unwrap();
        let mut bytes = encryptor.header().to_vec();
        encryptor.append(b"some bytes", &mut bytes).unwrap();
        encryptor.finish(&mut bytes).unwrap();
        raw.put(&path, bytes.into()).await.unwrap();
        for store in [&store, &store.clone().with_both_read()] {
            let error = read(store, &path).await.unwrap_err();
            assert_eq!(kind(&error), ErrorKind::UnsupportedFeature);
        }
    }
}

#[tokio::test]
async fn revocation_reaches_reads_that_are_under_way() {
    let (keys, store, _raw) = over_memory(Keys::authenticated());
    let (path, data) = (Path::from("a"), pattern(300_000, 1));
    store.put(&path, data.clone().into()).await.unwrap();
    let under_way = store.get(&path).await.unwrap();
    keys.keyring.access().revoke().unwrap();
    for error in [under_way.bytes().await.unwrap_err(), read(&store, &path).await.unwrap_err()] {
        assert!(matches!(error, object_store::Error::PermissionDenied { .. }), "{error}");
    }
    // Sizes and names need no key.
    assert_eq!(store.head(&path).await.unwrap().size, 300_000);
    keys.keyring.access().restore().unwrap();
    assert_eq!(read(&store, &path).await.unwrap(), data);
}

/// More than one section of tags, so that tags stand between data.
#[tokio::test]
async fn an_object_of_more_than_one_section_is_read_in_every_way() {
    let (keys, store, raw) = over_memory(Keys::authenticated());
    let (path, len) = (Path::from("a"), (256 << 20) + (3 << 20) + 5);
    let data = pattern(len, 1);
    let mut upload = store.put_multipart(&path).await.unwrap();
    for part in data.chunks(32 << 20) {
        object_store::MultipartUpload::put_part(&mut *upload, data.slice_ref(part).into())
            .await
            .unwrap();
    }
    object_store::MultipartUpload::complete(&mut *upload).await.unwrap();
    for store in [&store, &cold(&keys, &raw)] {
        assert!(read(store, &path).await.unwrap() == data);
        assert_eq!(store.head(&path).await.unwrap().size, len as u64);
        let edge: u64 = 256 << 20;
        for range in [edge - 5..edge + 5, edge..edge + 1, edge - 1..edge, 7..edge + 9000] {
            let found = read_range(&cold(&keys, &raw), &path, range.clone()).await.unwrap();
            assert!(found == data.slice(range.start as usize..range.end as usize));
        }
    }
}
