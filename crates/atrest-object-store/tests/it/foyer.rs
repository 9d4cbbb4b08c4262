//! foyer's hybrid cache: below the encrypting store its disk holds ciphertext, above it plaintext.

use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy,
};
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};

use crate::caches::{MARK, search};
use crate::support::{Keys, read_range};

type Cache = HybridCache<String, Vec<u8>>;

async fn cache(dir: &FilePath) -> Cache {
    let device = FsDeviceBuilder::new(dir).with_capacity(32 << 20).build().unwrap();
    let builder = HybridCacheBuilder::new()
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        // Next to nothing in memory.
        .memory(1)
        .storage()
        .with_engine_config(BlockEngineConfig::new(device).with_block_size(4 << 20));
    builder.build().await.unwrap()
}

/// A cache of the ranges of one version of an object: what the encrypting store asks for with
/// `if_match`, which is all but an object's first request.
#[derive(Debug)]
struct Cached {
    inner: Arc<InMemory>,
    cache: Cache,
    served: AtomicU64,
}

impl std::fmt::Display for Cached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cached({})", self.inner)
    }
}

impl Cached {
    async fn over(inner: &Arc<InMemory>, dir: &FilePath) -> Arc<Self> {
        let (inner, served) = (inner.clone(), AtomicU64::new(0));
        Arc::new(Self { inner, cache: cache(dir).await, served })
    }

    async fn get_pinned(
        &self,
        location: &Path,
        e_tag: &str,
        range: Range<u64>,
        options: GetOptions,
    ) -> Result<GetResult> {
        // What an answer tells of the object comes before its bytes.
        let key = format!("{location} {e_tag} {range:?}");
        let (size, bytes) = match self.cache.get(&key).await.unwrap() {
            Some(entry) => {
                self.served.fetch_add(1, Ordering::Relaxed);
                let (size, bytes) = entry.value().split_first_chunk().unwrap();
                (u64::from_le_bytes(*size), Bytes::copy_from_slice(bytes))
            }
            None => {
                let answer = self.inner.get_opts(location, options).await?;
                let size = answer.meta.size;
                let bytes = answer.bytes().await?;
                self.cache.insert(key, [&size.to_le_bytes(), &bytes[..]].concat());
                (size, bytes)
            }
        };
        let range = range.start..range.start + bytes.len() as u64;
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: Default::default(),
            size,
            e_tag: Some(e_tag.to_owned()),
            version: None,
        };
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        let (attributes, extensions) = (Attributes::new(), Default::default());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }
}

#[async_trait]
impl ObjectStore for Cached {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match (&options.if_match, &options.range) {
            (Some(e_tag), Some(GetRange::Bounded(range))) if !options.head => {
                let (e_tag, range) = (e_tag.clone(), range.clone());
                self.get_pinned(location, &e_tag, range, options).await
            }
            _ => self.inner.get_opts(location, options).await,
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Known words at every place.
fn object() -> Bytes {
    (0..40_000).flat_map(|i| format!("Ada Lovelace {i:05}, ").into_bytes()).collect()
}

/// Past what is read together with the header.
fn ranges() -> impl Iterator<Item = Range<u64>> {
    (100_000..800_000).step_by(100_000).map(|at| at..at + 20_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn foyer_below_the_encrypting_store_holds_ciphertext_and_serves() {
    for keys in Keys::both() {
        let (dir, raw, path) =
            (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()), Path::from("object"));
        keys.store(raw.clone()).put(&path, object().into()).await.unwrap();
        for life in 0..2 {
            let cached = Cached::over(&raw, dir.path()).await;
            let store = keys.store(cached.clone());
            for range in ranges() {
                let found = read_range(&store, &path, range.clone()).await.unwrap();
                assert!(found == object()[range.start as usize..range.end as usize], "{range:?}");
            }
            // Not how many: a cache on a busy machine may lose some.
            let served = cached.served.load(Ordering::Relaxed);
            assert_eq!(served > 0, life == 1, "{served} ranges in life {life}");
            cached.cache.close().await.unwrap();
            let (bytes, marks) = search(dir.path());
            assert!(bytes > 140_000, "{bytes} bytes in the cache");
            assert_eq!(marks, 0);
        }
        // And not without the customer's key.
        let store = keys.store(Cached::over(&raw, dir.path()).await);
        keys.keyring.access().revoke().unwrap();
        assert!(read_range(&store, &path, 100_000..120_000).await.is_err());
    }
}

/// The search finds what it looks for.
#[tokio::test(flavor = "multi_thread")]
async fn foyer_above_the_encrypting_store_holds_plaintext() {
    let (keys, dir, path) =
        (Keys::authenticated(), tempfile::tempdir().unwrap(), Path::from("object"));
    let store = keys.store(Arc::new(InMemory::new()));
    store.put(&path, object().into()).await.unwrap();
    let cache = cache(dir.path()).await;
    for range in ranges() {
        let found = read_range(&store, &path, range.clone()).await.unwrap();
        cache.insert(format!("{path} {range:?}"), found.to_vec());
    }
    cache.close().await.unwrap();
    let (_, marks) = search(dir.path());
    assert!(marks > 1_000, "{marks} of {}", String::from_utf8_lossy(MARK));
}
