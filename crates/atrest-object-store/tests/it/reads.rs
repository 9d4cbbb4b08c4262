//! Reading: ranges, chunks, versions of an object.

use std::sync::Arc;

use atrest::{ErrorKind, HEADER_LEN, Integrity};
use atrest_object_store::find_error;
use futures_util::{StreamExt, TryStreamExt};
use object_store::chunked::ChunkedStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt};

use crate::served::EncryptedStore;
use crate::spy::Spy;
use crate::support::{Keys, cold, header, in_memory, over_memory, pattern, read, read_range};

/// Far enough into the object for two requests.
const FAR: u64 = 100_000;

#[tokio::test]
async fn a_stream_of_many_chunks_decrypts_each_at_its_own_offset() {
    let lens = [1, 7, 16, 4095, 4096, 4097, 10_000];
    for (keys, chunk_len) in Keys::both().iter().flat_map(|keys| lens.map(|len| (keys, len))) {
        let raw = Arc::new(InMemory::new());
        let (path, data) = (Path::from("a"), pattern(30_000, 1));
        keys.store(raw.clone()).put(&path, data.clone().into()).await.unwrap();
        let chunked = keys.store(ChunkedStore::new(raw, chunk_len));
        // The first reads header and data at once, the second data alone.
        for _ in 0..2 {
            let chunks = chunked.get(&path).await.unwrap().into_stream();
            let chunks: Vec<_> = chunks.try_collect().await.unwrap();
            let least = if keys.integrity == Integrity::Confidential { 2 } else { 0 };
            assert!(chunks.len() > least, "{chunk_len}: only {} chunks", chunks.len());
            assert_eq!(chunks.concat(), data, "{chunk_len}");
            let part = read_range(&chunked, &path, 17..29_000).await.unwrap();
            assert_eq!(part, data.slice(17..29_000), "{chunk_len}");
        }
    }
}

#[tokio::test]
async fn an_object_overwritten_between_header_and_data_is_read_anew() {
    let (keys, store, raw) = in_memory();
    let path = Path::from("a");
    let (old, new) = (pattern(200_000, 1), pattern(200_000, 2));
    for without_conditions in [false, true] {
        store.put(&path, old.clone().into()).await.unwrap();
        let mut spy = Spy::new(raw.clone());
        if without_conditions {
            spy = spy.without_conditions();
        }
        let reader = keys.store(spy.clone());
        let (store, path2, new2) = (store.clone(), path.clone(), new.clone());
        // Before the request for the data, when the header has been read.
        spy.before_get(1, || async move {
            store.put(&path2, new2.into()).await.unwrap();
        });
        let data = read_range(&reader, &path, FAR..FAR + 1000).await.unwrap();
        assert_eq!(data, new.slice(FAR as usize..FAR as usize + 1000), "{without_conditions}");
        let gets = spy.gets();
        assert_eq!(gets.len(), 4, "header, data, header, data");
        for (header, data) in [(0, 1), (2, 3)] {
            assert_eq!(gets[header].if_match, None);
            assert!(gets[data].if_match.is_some(), "the data is tied to the header's version");
        }
        assert_ne!(gets[1].if_match, gets[3].if_match);
    }
}

#[tokio::test]
async fn an_object_overwritten_since_it_was_remembered_is_read_anew() {
    for (keys, without_conditions) in
        [false, true].into_iter().flat_map(|without| Keys::both().map(|keys| (keys, without)))
    {
        let (keys, store, raw) = over_memory(keys);
        let path = Path::from("a");
        let other = cold(&keys, &raw);
        let mut spy = Spy::new(raw.clone());
        if without_conditions {
            spy = spy.without_conditions();
        }
        let reader = keys.store(spy.clone());
        store.put(&path, pattern(50_000, 1).into()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(read(&reader, &path).await.unwrap(), pattern(50_000, 1));
        }
        let conditions: Vec<_> = spy.gets().into_iter().map(|get| get.if_match.is_some()).collect();
        assert_eq!(conditions, [false, true], "the second is tied to the header's version");
        // Longer, shorter, empty; read in all the ways there are.
        for (len, seed) in [(60_000, 2), (100, 3), (0, 4), (50_000, 5)] {
            let data = pattern(len, seed);
            other.put(&path, data.clone().into()).await.unwrap();
            assert_eq!(read(&reader, &path).await.unwrap(), data);
            other.put(&path, data.clone().into()).await.unwrap();
            assert_eq!(read_range(&reader, &path, GetRange::Suffix(10)).await.unwrap(), {
                data.slice(len.saturating_sub(10)..)
            });
            other.put(&path, data.clone().into()).await.unwrap();
            assert_eq!(reader.head(&path).await.unwrap().size, len as u64);
            if len > 50 {
                let ranges = reader.get_ranges(&path, &[10..20, 30..50]).await.unwrap();
                assert_eq!(ranges, [data.slice(10..20), data.slice(30..50)]);
            }
        }
    }
}

#[tokio::test]
async fn endless_overwriting_does_not_stop_a_read() {
    for keys in Keys::both() {
        endless_overwriting(over_memory(keys)).await;
    }
}

async fn endless_overwriting((keys, store, raw): (Keys, EncryptedStore, Arc<InMemory>)) {
    let path = Path::from("a");
    store.put(&path, pattern(200_000, 0).into()).await.unwrap();
    let spy = Spy::new(raw);
    for n in 0..64 {
        let (store, path) = (store.clone(), path.clone());
        spy.before_get(n, move || async move {
            store.put(&path, pattern(200_000, 77).into()).await.unwrap();
        });
    }
    let data = read_range(&keys.store(spy.clone()), &path, FAR..FAR + 10).await.unwrap();
    assert_eq!(data, pattern(200_000, 77).slice(FAR as usize..FAR as usize + 10));
    assert!(spy.gets().len() < 16);
}

#[tokio::test]
async fn the_callers_own_condition_is_kept() {
    for keys in Keys::both() {
        own_condition(over_memory(keys)).await;
    }
}

async fn own_condition((keys, store, raw): (Keys, EncryptedStore, Arc<InMemory>)) {
    let path = Path::from("a");
    let first = store.put(&path, pattern(200_000, 1).into()).await.unwrap().e_tag.unwrap();
    let get = |store: &dyn ObjectStore, if_match: &str, range: GetRange| {
        let options = GetOptions::new().with_if_match(Some(if_match)).with_range(Some(range));
        futures_executor::block_on(async {
            store.get_opts(&Path::from("a"), options).await?.bytes().await
        })
    };
    let ranges = [GetRange::Bounded(0..10), GetRange::Bounded(FAR..FAR + 1), GetRange::Suffix(3)];
    for range in &ranges {
        // Remembered or not, the object there is the one asked for.
        for store in [store.clone(), cold(&keys, &raw)] {
            get(&store, &first, range.clone()).unwrap();
            get(&store, "*", range.clone()).unwrap();
            get(&store, &format!("\"x\", {first}"), range.clone()).unwrap();
        }
    }
    let warm = store.clone();
    let second = cold(&keys, &raw).put(&path, pattern(9, 2).into()).await.unwrap().e_tag.unwrap();
    for range in &ranges {
        for store in [warm.clone(), cold(&keys, &raw)] {
            let error = get(&store, &first, range.clone()).unwrap_err();
            assert!(matches!(error, Error::Precondition { .. }), "{error}");
        }
    }
    assert_eq!(get(&warm, &format!("{first},{second}"), (0..9).into()).unwrap(), pattern(9, 2));
    // Known now, and not the one asked for.
    let error = get(&warm, &first, (0..9).into()).unwrap_err();
    assert!(matches!(error, Error::Precondition { .. }), "{error}");
    // A changed object in the midst of a conditional read is the caller's to judge.
    cold(&keys, &raw).put(&path, pattern(200_000, 3).into()).await.unwrap();
    let third = raw.head(&path).await.unwrap().e_tag.unwrap();
    let spy = Spy::new(raw.clone());
    spy.before_get(1, || async move {
        store.put(&Path::from("a"), pattern(200_000, 4).into()).await.unwrap();
    });
    let error = get(&keys.store(spy), &third, (FAR..FAR + 1).into()).unwrap_err();
    assert!(matches!(error, Error::Precondition { .. }), "{error}");
}

#[tokio::test]
async fn a_store_without_e_tags_is_read_from_the_start() {
    let (keys, store, raw) = in_memory();
    let (path, data) = (Path::from("a"), pattern(200_000, 1));
    store.put(&path, data.clone().into()).await.unwrap();
    let spy = Spy::new(raw).without_e_tags();
    let reader = keys.store(spy.clone());
    for _ in 0..2 {
        let part = read_range(&reader, &path, FAR..FAR + 10).await.unwrap();
        assert_eq!(part, data.slice(FAR as usize..FAR as usize + 10));
        let last = spy.gets().pop().unwrap();
        assert_eq!(last.range, Some(GetRange::Bounded(0..FAR + 10 + HEADER_LEN as u64)));
    }
}

#[tokio::test]
async fn sizes_and_ranges_are_those_of_the_plaintext() {
    for keys in Keys::both() {
        sizes_and_ranges(over_memory(keys)).await;
    }
}

async fn sizes_and_ranges((keys, warm, raw): (Keys, EncryptedStore, Arc<InMemory>)) {
    for len in [0, 1, 15, 16, 17, 4095, 4096, 4097, 70_000, 200_000] {
        let (path, data) = (Path::from(format!("d/{len}")), pattern(len, 9));
        let size = len as u64;
        warm.put(&path, data.clone().into()).await.unwrap();
        let tags = match keys.integrity {
            Integrity::Confidential => 0,
            Integrity::Authenticated => 16 * size.div_ceil(4096) + 16,
        };
        assert_eq!(raw.head(&path).await.unwrap().size, 4096 + size + tags);
        let ranges: &[GetRange] = &[
            (0..1).into(),
            (0..size).into(),
            (0..size + 1).into(),
            (size / 2..size).into(),
            (size / 2..u64::MAX).into(),
            (size..size + 1).into(),
            (size..size).into(),
            (size.saturating_sub(1)..).into(),
            (size..).into(),
            (0..).into(),
            GetRange::Suffix(0),
            GetRange::Suffix(1),
            GetRange::Suffix(size),
            GetRange::Suffix(size + 1),
            GetRange::Suffix(size + 4096),
            GetRange::Suffix(u64::MAX),
        ];
        for range in ranges {
            for store in [cold(&keys, &raw), warm.clone()] {
                let options = GetOptions::new().with_range(Some(range.clone()));
                let result = store.get_opts(&path, options).await;
                match range.as_range(size) {
                    Ok(expected) => {
                        let result = result.unwrap_or_else(|e| panic!("{len} {range:?}: {e}"));
                        assert_eq!(result.range, expected, "{len} {range:?}");
                        assert_eq!(result.meta.size, size);
                        assert_eq!(result.meta.location, path);
                        assert!(matches!(result.payload, GetResultPayload::Stream(_)));
                        let expected = expected.start as usize..expected.end as usize;
                        assert_eq!(result.bytes().await.unwrap(), data.slice(expected));
                    }
                    Err(_) => assert!(matches!(result, Err(Error::Generic { .. })), "{range:?}"),
                }
            }
        }
        assert_eq!(read(&warm, &path).await.unwrap(), data);
        assert_eq!(cold(&keys, &raw).head(&path).await.unwrap().size, size);
    }
    let listed: Vec<_> = warm.list(None).try_collect().await.unwrap();
    let delimited = warm.list_with_delimiter(Some(&Path::from("d"))).await.unwrap().objects;
    let offset = warm.list_with_offset(None, &Path::from("a")).try_collect::<Vec<_>>();
    for metas in [listed, delimited, offset.await.unwrap()] {
        assert_eq!(metas.len(), 10);
        for meta in metas {
            assert_eq!(meta.location, Path::from(format!("d/{}", meta.size)));
        }
    }
}

#[tokio::test]
async fn a_local_file_is_never_handed_out_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let raw = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    // The larger one is streamed in small pieces, the smaller is read at once.
    let lens = [5_000, 6 << 20];
    for (keys, len) in Keys::both().iter().flat_map(|keys| lens.map(|len| (keys, len))) {
        let (path, data) = (Path::from("a"), pattern(len, 3));
        keys.store(raw.clone()).put(&path, data.clone().into()).await.unwrap();
        for range in [None, Some(GetRange::Bounded(100..len as u64)), Some(GetRange::Suffix(99))] {
            let store = keys.store(raw.clone());
            for _ in 0..2 {
                let options = GetOptions { range: range.clone(), ..GetOptions::default() };
                let result = store.get_opts(&path, options).await.unwrap();
                assert!(matches!(result.payload, GetResultPayload::Stream(_)));
                let at = result.range.start as usize..result.range.end as usize;
                assert_eq!(result.bytes().await.unwrap(), data.slice(at));
            }
        }
    }
}

#[tokio::test]
async fn a_response_that_ends_early_is_an_error() {
    for keys in Keys::both() {
        cut_answers(over_memory(keys)).await;
    }
}

/// An object cut off after its size was remembered, in a store that tells neither.
async fn cut_answers((keys, store, raw): (Keys, EncryptedStore, Arc<InMemory>)) {
    let path = Path::from("a");
    store.put(&path, pattern(1000, 1).into()).await.unwrap();
    let reader = keys.store(Cut(raw.clone()));
    for _ in 0..2 {
        let error = read(&reader, &path).await.unwrap_err();
        assert!(error.to_string().contains("too early"), "{error}");
    }

    use object_store::*;
    #[derive(Debug)]
    struct Cut(Arc<InMemory>);
    impl std::fmt::Display for Cut {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Cut")
        }
    }
    #[async_trait::async_trait]
    impl ObjectStore for Cut {
        async fn put_opts(&self, a: &Path, b: PutPayload, c: PutOptions) -> Result<PutResult> {
            self.0.put_opts(a, b, c).await
        }
        async fn put_multipart_opts(
            &self,
            a: &Path,
            b: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(a, b).await
        }
        async fn get_opts(&self, a: &Path, b: GetOptions) -> Result<GetResult> {
            let mut result = self.0.get_opts(a, b).await?;
            let GetResultPayload::Stream(chunks) = result.payload else { unreachable!() };
            let chunks = chunks.map_ok(|chunk| chunk.slice(..chunk.len() - 1)).boxed();
            result.payload = GetResultPayload::Stream(chunks);
            Ok(result)
        }
        fn delete_stream(
            &self,
            a: futures_util::stream::BoxStream<'static, Result<Path>>,
        ) -> futures_util::stream::BoxStream<'static, Result<Path>> {
            self.0.delete_stream(a)
        }
        fn list(
            &self,
            a: Option<&Path>,
        ) -> futures_util::stream::BoxStream<'static, Result<ObjectMeta>> {
            self.0.list(a)
        }
        async fn list_with_delimiter(&self, a: Option<&Path>) -> Result<ListResult> {
            self.0.list_with_delimiter(a).await
        }
        async fn copy_opts(&self, a: &Path, b: &Path, c: CopyOptions) -> Result<()> {
            self.0.copy_opts(a, b, c).await
        }
    }
}

#[tokio::test]
async fn each_object_has_its_own_key_and_shows_no_plaintext() {
    let (_keys, store, raw) = in_memory();
    let data = bytes::Bytes::from("the quick brown fox ".repeat(1000));
    let (a, b) = (Path::from("a"), Path::from("b"));
    store.put(&a, data.clone().into()).await.unwrap();
    store.put(&b, data.clone().into()).await.unwrap();
    let (first, second) = (read(&*raw, &a).await.unwrap(), read(&*raw, &b).await.unwrap());
    // The salt is at 96..128; with one salt for all, all would have one keystream.
    assert_ne!(first[96..128], second[96..128]);
    assert_ne!(first[4096..], second[4096..]);
    store.put(&a, data.clone().into()).await.unwrap();
    assert_ne!(read(&*raw, &a).await.unwrap()[4096..], first[4096..], "overwriting, too");
    for raw in [&first, &second] {
        assert!(!raw.windows(9).any(|window| window == b"quick bro"));
    }
    assert_ne!(header(&*raw, &a).await, header(&*raw, &b).await);
}

#[tokio::test]
async fn copies_and_renames_take_the_header_along() {
    for keys in Keys::both() {
        copies_and_renames(over_memory(keys)).await;
    }
}

async fn copies_and_renames((keys, store, raw): (Keys, EncryptedStore, Arc<InMemory>)) {
    let (a, b, c) = (Path::from("a"), Path::from("x/b"), Path::from("y/c"));
    let data = pattern(10_000, 1);
    store.put(&a, data.clone().into()).await.unwrap();
    store.put(&b, pattern(5, 2).into()).await.unwrap();
    store.copy(&a, &b).await.unwrap();
    store.rename(&a, &c).await.unwrap();
    for path in [&b, &c] {
        assert_eq!(read(&store, path).await.unwrap(), data);
        assert_eq!(read(&cold(&keys, &raw), path).await.unwrap(), data);
    }
    assert!(matches!(store.get(&a).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.copy_if_not_exists(&b, &c).await, Err(Error::AlreadyExists { .. })));
}

#[tokio::test]
async fn attributes_and_tags_are_passed_on() {
    use object_store::{Attribute, Attributes, PutOptions};
    let (keys, store, raw) = in_memory();
    let name = Attribute::Metadata("slatedbputid".into());
    let attributes = Attributes::from_iter([(name.clone(), "01J")]);
    let path = Path::from("a");
    let options = PutOptions { attributes, ..PutOptions::default() };
    store.put_opts(&path, "x".into(), options).await.unwrap();
    for store in [store, cold(&keys, &raw)] {
        for options in [GetOptions::new(), GetOptions::new().with_head(true)] {
            let result = store.get_opts(&path, options).await.unwrap();
            assert_eq!(result.attributes.get(&name).unwrap().as_ref(), "01J");
        }
    }
}

#[tokio::test]
async fn errors_of_the_format_are_told_apart() {
    let (keys, store, raw) = in_memory();
    let path = Path::from("a");
    store.put(&path, pattern(10, 1).into()).await.unwrap();
    let good = read(&*raw, &path).await.unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        bytes::Bytes::from(bytes)
    };
    let other_store = {
        let (_keys, store, raw) = in_memory();
        store.put(&path, "x".into()).await.unwrap();
        read(&*raw, &path).await.unwrap()
    };
    let cases = [
        (bytes::Bytes::new(), ErrorKind::EmptyFile),
        ("plaintext".into(), ErrorKind::NotEncrypted),
        ("age-encryption.org/v1".into(), ErrorKind::ForeignFile),
        (good.slice(..7), ErrorKind::TruncatedHeader),
        (good.slice(..4095), ErrorKind::TruncatedHeader),
        (flipped(8), ErrorKind::UnsupportedVersion),
        (flipped(100), ErrorKind::CorruptHeader),
        (flipped(4095), ErrorKind::CorruptHeader),
        (other_store, ErrorKind::IdentityMismatch),
    ];
    for (bytes, kind) in cases {
        raw.put(&path, bytes.into()).await.unwrap();
        for range in [None, Some((0..1).into()), Some((FAR..FAR + 1).into())] {
            let options = GetOptions { range, ..GetOptions::default() };
            let error = store.get_opts(&path, options).await.unwrap_err();
            let found = find_error(&error).unwrap_or_else(|| panic!("{kind:?}: {error}"));
            assert_eq!(found.kind(), kind);
            assert_eq!(found.path().unwrap(), std::path::Path::new("a"));
        }
    }
    raw.put(&path, good.into()).await.unwrap();
    assert_eq!(read(&cold(&keys, &raw), &path).await.unwrap(), pattern(10, 1));
}
