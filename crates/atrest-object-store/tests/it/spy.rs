//! A store that writes down its requests, and lets something happen in between.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::*;

type Action = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

#[derive(Clone)]
pub struct Spy {
    pub inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    gets: Vec<GetOptions>,
    others: Vec<&'static str>,
    before_get: Vec<(usize, Action)>,
    before: Vec<(&'static str, Action)>,
    part_lens: Vec<usize>,
    without_e_tags: bool,
    without_conditions: bool,
    failing_ranges: bool,
}

impl Spy {
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// A store that gives no ETags.
    pub fn without_e_tags(self) -> Self {
        self.state.lock().unwrap().without_e_tags = true;
        self
    }

    /// A store that does not know conditions.
    pub fn without_conditions(self) -> Self {
        self.state.lock().unwrap().without_conditions = true;
        self
    }

    /// Whether gets of ranges fail from now on.
    pub fn fail_ranges(&self, fail: bool) {
        self.state.lock().unwrap().failing_ranges = fail;
    }

    /// Gets since the last call.
    pub fn gets(&self) -> Vec<GetOptions> {
        std::mem::take(&mut self.state.lock().unwrap().gets)
    }

    /// Other requests since the last call.
    pub fn others(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.state.lock().unwrap().others)
    }

    pub fn part_lens(&self) -> Vec<usize> {
        std::mem::take(&mut self.state.lock().unwrap().part_lens)
    }

    /// Does something before the get number `index`, counted from the last [`Self::gets`].
    pub fn before_get<F>(&self, index: usize, action: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let action: Action = Box::new(move || Box::pin(action()));
        self.state.lock().unwrap().before_get.push((index, action));
    }

    /// Does something before the next request of this name, a "put" or a "complete".
    pub fn before<F>(&self, name: &'static str, action: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let action: Action = Box::new(move || Box::pin(action()));
        self.state.lock().unwrap().before.push((name, action));
    }

    fn other(&self, name: &'static str) {
        self.state.lock().unwrap().others.push(name);
    }

    /// The same, with what was to be done before.
    async fn write(&self, name: &'static str) {
        self.other(name);
        let action = {
            let before = &mut self.state.lock().unwrap().before;
            before.iter().position(|(at, _)| *at == name).map(|at| before.remove(at).1)
        };
        if let Some(action) = action {
            action().await;
        }
    }
}

#[async_trait]
impl ObjectStore for Spy {
    async fn put_opts(&self, at: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.write("put").await;
        let mut result = self.inner.put_opts(at, data, opts).await?;
        if self.state.lock().unwrap().without_e_tags {
            result.e_tag = None;
        }
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.other("create-multipart");
        let inner = self.inner.put_multipart_opts(at, opts).await?;
        Ok(Box::new(SpyUpload { inner, spy: self.clone() }))
    }

    async fn get_opts(&self, at: &Path, mut options: GetOptions) -> Result<GetResult> {
        let (action, without_e_tags) = {
            let mut state = self.state.lock().unwrap();
            let index = state.gets.len();
            state.gets.push(options.clone());
            if state.without_conditions {
                options.if_match = None;
            }
            let action = state.before_get.iter().position(|(at, _)| *at == index);
            (action.map(|at| state.before_get.remove(at).1), state.without_e_tags)
        };
        if let Some(action) = action {
            action().await;
        }
        if options.range.is_some() && self.state.lock().unwrap().failing_ranges {
            return Err(Error::Generic { store: "Spy", source: "503".into() });
        }
        let mut result = self.inner.get_opts(at, options).await?;
        if without_e_tags {
            result.meta.e_tag = None;
        }
        Ok(result)
    }

    async fn get_ranges(&self, _: &Path, _: &[Range<u64>]) -> Result<Vec<Bytes>> {
        panic!("the store's own get_ranges takes no condition: nothing ties it to the header")
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.other("delete");
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.other("list");
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.other("list");
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.other("list");
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.other("copy");
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.other("rename");
        self.inner.rename_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct SpyUpload {
    inner: Box<dyn MultipartUpload>,
    spy: Spy,
}

#[async_trait]
impl MultipartUpload for SpyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.spy.other("part");
        self.spy.state.lock().unwrap().part_lens.push(data.content_length());
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.spy.write("complete").await;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.spy.other("abort");
        self.inner.abort().await
    }
}

impl std::fmt::Debug for Spy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spy").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl std::fmt::Display for Spy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spy({})", self.inner)
    }
}
