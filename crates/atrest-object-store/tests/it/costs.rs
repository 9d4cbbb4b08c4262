//! How many requests each operation makes. The README's table is this file.

use std::sync::Arc;

use atrest::PlaintextPolicy;
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use crate::spy::Spy;
use crate::support::{Keys, pattern, read};

const LEN: u64 = 1 << 20;

async fn gets(spy: &Spy, store: &dyn ObjectStore, range: Option<GetRange>) -> usize {
    let options = GetOptions { range, ..GetOptions::default() };
    store.get_opts(&Path::from("a"), options).await.unwrap().bytes().await.unwrap();
    spy.gets().len()
}

#[tokio::test]
async fn a_read_is_one_request_when_the_header_is_known_and_two_at_most() {
    let (keys, spy) = (Keys::new(), Spy::new(Arc::new(InMemory::new())));
    let writer = keys.store(spy.clone());
    writer.put(&Path::from("a"), pattern(LEN as usize, 1).into()).await.unwrap();
    let cases: &[(Option<GetRange>, usize)] = &[
        (None, 1),
        (Some((0..100).into()), 1),
        (Some((65_536..200_000).into()), 1),
        (Some((65_537..200_000).into()), 2),
        (Some((1000..).into()), 1),
        (Some((LEN - 1..).into()), 2),
        (Some(GetRange::Suffix(100)), 2),
    ];
    for (range, requests) in cases {
        let cold = keys.store(spy.clone());
        assert_eq!(gets(&spy, &cold, range.clone()).await, *requests, "cold {range:?}");
        assert_eq!(gets(&spy, &cold, range.clone()).await, 1, "known {range:?}");
        assert_eq!(gets(&spy, &writer, range.clone()).await, 1, "written here {range:?}");
    }
    // The second request of a far read is as short as the data.
    let cold = keys.store(spy.clone());
    let options = GetOptions::new().with_range(Some(100_000..100_010));
    cold.get_opts(&Path::from("a"), options).await.unwrap();
    let ranges: Vec<_> = spy.gets().into_iter().map(|get| get.range.unwrap()).collect();
    assert_eq!(ranges, [(0..4096).into(), (104_096..104_106).into()]);
    // Ranges: near ones are one request together.
    writer.get_ranges(&Path::from("a"), &[1..2, 5000..6000, 900_000..900_001]).await.unwrap();
    assert_eq!(spy.gets().len(), 1);
}

#[tokio::test]
async fn a_read_of_an_authenticated_object_asks_for_tags_once() {
    let (keys, spy) = (Keys::authenticated(), Spy::new(Arc::new(InMemory::new())));
    let writer = keys.store(spy.clone());
    let small = Path::from("small");
    writer.put(&Path::from("a"), pattern(LEN as usize, 1).into()).await.unwrap();
    writer.put(&small, pattern(60_000, 1).into()).await.unwrap();
    let ranges: &[Option<GetRange>] = &[
        None,
        Some((0..100).into()),
        Some((65_536..200_000).into()),
        Some((65_537..200_000).into()),
        Some((1000..).into()),
        Some((LEN - 1..).into()),
        Some(GetRange::Suffix(100)),
    ];
    for range in ranges {
        let cold = keys.store(spy.clone());
        // The header; then data, and tags with the end, at the same time.
        assert_eq!(gets(&spy, &cold, range.clone()).await, 3, "cold {range:?}");
        assert_eq!(gets(&spy, &cold, range.clone()).await, 1, "known {range:?}");
        assert_eq!(gets(&spy, &writer, range.clone()).await, 1, "written here {range:?}");
    }
    // The most that comes with the header, tags included, and a byte more.
    let (most, more) = (Path::from("most"), Path::from("more"));
    writer.put(&most, pattern(65_264, 1).into()).await.unwrap();
    writer.put(&more, pattern(65_265, 1).into()).await.unwrap();
    let suffix = || Some(GetRange::Suffix(100));
    let cases = [
        (&small, None, 1),
        (&small, Some((0..100).into()), 1),
        (&small, Some((50_000..).into()), 1),
        (&small, suffix(), 3),
        (&most, None, 1),
        (&more, None, 3),
    ];
    for (path, range, requests) in cases {
        let cold = keys.store(spy.clone());
        let options = GetOptions { range, ..GetOptions::default() };
        for requests in [requests, 1] {
            let found = cold.get_opts(path, options.clone()).await.unwrap();
            found.bytes().await.unwrap();
            assert_eq!(spy.gets().len(), requests, "{path} {options:?}");
        }
    }
    for path in [&most, &more] {
        writer.delete(path).await.unwrap();
    }
    // What is asked for is whole chunks of what is wanted, and the tags in front of the end.
    let cold = keys.store(spy.clone());
    let options = GetOptions::new().with_range(Some(100_000..100_010));
    cold.get_opts(&Path::from("a"), options).await.unwrap().bytes().await.unwrap();
    let mut ranges: Vec<_> = spy.gets().into_iter().map(|get| get.range.unwrap()).collect();
    ranges.sort_by_key(|range| range.as_range(u64::MAX).unwrap().start);
    let (data, tags) = (4096 + 24 * 4096, 4096 + LEN);
    assert_eq!(
        ranges,
        [(0..4096).into(), (data..data + 4096).into(), (tags..tags + 256 * 16 + 16).into()]
    );
    writer.get_ranges(&Path::from("a"), &[1..2, 5000..6000, 900_000..900_001]).await.unwrap();
    assert_eq!(spy.gets().len(), 1);
    // Sizes take no request of their own.
    let metas: Vec<_> = cold.list(None).try_collect().await.unwrap();
    assert_eq!(metas.iter().map(|meta| meta.size).sum::<u64>(), LEN + 60_000);
    assert!(spy.gets().is_empty());
    assert_eq!((cold.head(&small).await.unwrap().size, spy.gets().len()), (60_000, 1));
}

#[tokio::test]
async fn other_operations_cost_what_they_cost_without_encryption() {
    for keys in Keys::both() {
        other_operations(keys).await;
    }
}

async fn other_operations(keys: Keys) {
    let spy = Spy::new(Arc::new(InMemory::new()));
    let store = keys.store(spy.clone());
    let path = Path::from("a");
    for n in 0..20 {
        store.put(&Path::from(format!("d/{n}")), "x".into()).await.unwrap();
    }
    assert_eq!(spy.others(), ["put"; 20]);
    store.put(&path, "x".into()).await.unwrap();
    store.head(&path).await.unwrap();
    store.list(None).try_collect::<Vec<_>>().await.unwrap();
    store.list_with_delimiter(None).await.unwrap();
    store.copy(&path, &Path::from("b")).await.unwrap();
    store.rename(&path, &Path::from("c")).await.unwrap();
    store.delete(&Path::from("b")).await.unwrap();
    assert_eq!(spy.others(), ["put", "list", "list", "copy", "rename", "delete"]);
    assert_eq!(spy.gets().len(), 1, "the head");
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(vec![0; 5 << 20].into()).await.unwrap();
    upload.put_part(vec![0; 5 << 20].into()).await.unwrap();
    upload.complete().await.unwrap();
    // One part more: the 4096 bytes that the header pushed along.
    assert_eq!(spy.others(), ["create-multipart", "part", "part", "part", "complete"]);
    assert_eq!(read(&store, &path).await.unwrap().len(), 10 << 20);
    assert_eq!(spy.gets().len(), 1);
}

#[tokio::test]
async fn where_plaintext_is_allowed_each_unknown_object_is_looked_at_once() {
    let keys = Keys::with_policy(PlaintextPolicy::Allow);
    let raw = Arc::new(InMemory::new());
    for n in 0..5 {
        raw.put(&Path::from(format!("plain/{n}")), "x".into()).await.unwrap();
    }
    let spy = Spy::new(raw);
    let store = keys.store(spy.clone());
    store.put(&Path::from("new"), "x".into()).await.unwrap();
    for expected in [5, 0] {
        store.list(None).try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(spy.gets().len(), expected);
    }
    store.head(&Path::from("plain/0")).await.unwrap();
    assert_eq!(spy.gets().len(), 1);
}
