//! Uploads in parts.

use std::sync::Arc;

use atrest::ErrorKind;
use atrest_object_store::find_error;
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStoreExt};

use crate::spy::Spy;
use crate::support::{Keys, cold, pattern, read};

const MIB: usize = 1 << 20;

/// Uploads parts of these lengths and returns the lengths of those sent on.
async fn upload(keys: &Keys, raw: &Arc<InMemory>, lens: &[usize]) -> (Bytes, Vec<usize>) {
    let spy = Spy::new(raw.clone());
    let store = keys.store(spy.clone());
    let path = Path::from("a");
    let mut upload = store.put_multipart(&path).await.unwrap();
    let mut data = Vec::new();
    let mut parts = Vec::new();
    for (n, len) in lens.iter().enumerate() {
        let part = pattern(*len, n as u32);
        data.extend_from_slice(&part);
        parts.push(upload.put_part(part.into()));
    }
    // The last first.
    for part in parts.into_iter().rev() {
        part.await.unwrap();
    }
    upload.complete().await.unwrap();
    let data = Bytes::from(data);
    assert_eq!(read(&store, &path).await.unwrap(), data, "{lens:?}");
    assert_eq!(read(&cold(keys, raw), &path).await.unwrap(), data, "{lens:?}");
    assert_eq!(store.head(&path).await.unwrap().size, data.len() as u64);
    (data, spy.part_lens())
}

#[tokio::test]
async fn an_upload_without_parts_has_its_header() {
    let (keys, raw) = (Keys::new(), Arc::new(InMemory::new()));
    let (data, parts) = upload(&keys, &raw, &[]).await;
    assert!(data.is_empty());
    assert_eq!(parts, [4096]);
    assert_eq!(raw.head(&Path::from("a")).await.unwrap().size, 4096);
    let (_, parts) = upload(&keys, &raw, &[0, 0]).await;
    assert_eq!(parts, [4096]);
}

#[tokio::test]
async fn parts_that_are_equal_stay_equal() {
    let (keys, raw) = (Keys::new(), Arc::new(InMemory::new()));
    let five = 5 * MIB;
    let cases: &[(&[usize], &[usize])] = &[
        (&[10], &[4106]),
        (&[five], &[five, 4096]),
        (&[five, five, five], &[five, five, five, 4096]),
        (&[five, five, 100], &[five, five, 4196]),
        (&[five, five - 4096], &[five, five]),
        (&[five, five - 4095], &[five, five, 1]),
        (&[6 * MIB, 6 * MIB, 7], &[6 * MIB, 6 * MIB, 4103]),
        // What no store of equal parts would get from its caller.
        (&[MIB, MIB, MIB], &[3 * MIB + 4096]),
        (&[MIB, 7 * MIB, MIB, 20 * MIB, 3], &[7 * MIB, 20 * MIB, 2 * MIB + 4099]),
    ];
    for (lens, expected) in cases {
        let (_, parts) = upload(&keys, &raw, lens).await;
        assert_eq!(parts, *expected, "{lens:?}");
        let (last, others) = parts.split_last().unwrap();
        assert!(
            others.iter().all(|len| *len >= five)
                && last <= lens.iter().max().unwrap_or(last).max(&five)
        );
    }
}

#[tokio::test]
async fn parts_of_an_authenticated_object_are_as_equal() {
    let (keys, raw) = (Keys::authenticated(), Arc::new(InMemory::new()));
    let five = 5 * MIB;
    // The header, the tags of a part, the end.
    let (header, tags, end) = (4096, five / 4096 * 16, 16);
    let cases: &[(&[usize], &[usize])] = &[
        (&[], &[header + end]),
        (&[10], &[header + 10 + 16 + end]),
        (&[five], &[five, header + tags + end]),
        (&[five, five, five], &[five, five, five, header + 3 * tags + end]),
        (&[five, five, 100], &[five, five, header + 100 + 2 * tags + 16 + end]),
        (&[five, five - 100_000], &[five, five - 100_000 + header + 2 * tags - 24 * 16 + end]),
        (&[five, five - 1], &[five, five, header + 2 * tags - 1 + end]),
        (&[MIB, 7 * MIB, MIB], &[7 * MIB, 2 * MIB + header + 9 * MIB / 256 + end]),
    ];
    for (lens, expected) in cases {
        let (_, parts) = upload(&keys, &raw, lens).await;
        assert_eq!(parts, *expected, "{lens:?}");
    }
}

#[tokio::test]
async fn an_upload_that_lost_a_part_cannot_complete() {
    let (keys, raw) = (Keys::new(), Arc::new(InMemory::new()));
    let (store, path) = (keys.store(raw.clone()), Path::from("a"));
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(pattern(100, 1).into()).await.unwrap();
    keys.keyring.access().revoke().unwrap();
    let error = upload.put_part(pattern(100, 2).into()).await.unwrap_err();
    assert!(matches!(error, Error::PermissionDenied { .. }), "{error}");
    assert_eq!(find_error(&error).unwrap().kind(), ErrorKind::CmekRevoked);
    keys.keyring.access().restore().unwrap();
    upload.put_part(pattern(100, 3).into()).await.unwrap_err();
    upload.complete().await.unwrap_err();
    upload.abort().await.unwrap();
    assert!(matches!(raw.head(&path).await, Err(Error::NotFound { .. })));
    // One that was not interrupted goes on where it was.
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(pattern(100, 1).into()).await.unwrap();
    keys.keyring.access().revoke().unwrap();
    // Nor does it complete without access, though no byte is left to encrypt.
    let error = upload.complete().await.unwrap_err();
    assert_eq!(find_error(&error).unwrap().kind(), ErrorKind::CmekRevoked);
    assert!(matches!(raw.head(&path).await, Err(Error::NotFound { .. })));
    keys.keyring.access().restore().unwrap();
    upload.put_part(pattern(100, 1).into()).await.unwrap();
    upload.complete().await.unwrap();
    assert!(upload.complete().await.is_err() && upload.put_part("x".into()).await.is_err());
    let both = [pattern(100, 1), pattern(100, 1)].concat();
    assert_eq!(read(&store, &path).await.unwrap(), both);
}
