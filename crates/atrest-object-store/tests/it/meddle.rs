//! A store whose puts of the keyring fail as told, and that lets something happen before a
//! request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;

/// What becomes of a put.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Done,
    /// Carried out, and the answer lost.
    Unheard,
    /// Not carried out.
    Lost,
    /// Not carried out, and the store says why.
    Denied,
    /// Carried out, and no answer ever.
    Hangs,
    /// Carried out, the answer lost, and so sent once more by the client.
    Repeated,
}

type Action = Box<dyn FnOnce() + Send>;

#[derive(Clone, Default)]
pub struct Meddle {
    pub inner: Arc<InMemory>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: usize,
    before: Option<(usize, Action)>,
    fates: VecDeque<Fate>,
    /// Whose they are; the keyring's if it is none.
    fated: Option<&'static str>,
}

impl Meddle {
    pub fn new(inner: Arc<InMemory>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Lets the next puts of the keyring end so.
    pub fn puts_end(&self, fates: impl IntoIterator<Item = Fate>) {
        self.state.lock().unwrap().fates = fates.into_iter().collect();
    }

    /// The same of the object that is named so.
    pub fn puts_of_end(&self, name: &'static str, fates: impl IntoIterator<Item = Fate>) {
        self.puts_end(fates);
        self.state.lock().unwrap().fated = Some(name);
    }

    fn fate(&self, at: &Path) -> Fate {
        let mut state = self.state.lock().unwrap();
        let fated = at.filename() == Some(state.fated.unwrap_or("KEYRING"));
        let fate = if fated { state.fates.pop_front() } else { None };
        fate.unwrap_or(Fate::Done)
    }

    /// Does something before the request number `index` from now.
    pub fn before(&self, index: usize, action: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock().unwrap();
        state.before = Some((state.requests + index, Box::new(action)));
    }

    /// Forgets what has not happened; tells whether it had.
    pub fn happened(&self) -> bool {
        self.state.lock().unwrap().before.take().is_none()
    }

    fn request(&self) {
        let mut state = self.state.lock().unwrap();
        let number = state.requests;
        state.requests += 1;
        let due = state.before.take_if(|(at, _)| *at == number);
        drop(state);
        if let Some((_, action)) = due {
            action();
        }
    }

    fn lost() -> Error {
        Error::Generic { store: "Meddle", source: "no answer".into() }
    }
}

#[async_trait]
impl ObjectStore for Meddle {
    async fn put_opts(&self, at: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.request();
        match self.fate(at) {
            Fate::Done => self.inner.put_opts(at, data, opts).await,
            Fate::Unheard => {
                self.inner.put_opts(at, data, opts).await?;
                Err(Self::lost())
            }
            Fate::Repeated => {
                self.inner.put_opts(at, data.clone(), opts.clone()).await?;
                self.inner.put_opts(at, data, opts).await
            }
            Fate::Lost => Err(Self::lost()),
            Fate::Denied => {
                Err(Error::PermissionDenied { path: at.to_string(), source: "policy".into() })
            }
            Fate::Hangs => {
                self.inner.put_opts(at, data, opts).await?;
                std::future::pending().await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(at, opts).await?;
        Ok(Box::new(MeddleUpload { inner, meddle: self.clone(), at: at.clone() }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.request();
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.request();
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.request();
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request();
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct MeddleUpload {
    inner: Box<dyn MultipartUpload>,
    meddle: Meddle,
    at: Path,
}

#[async_trait]
impl MultipartUpload for MeddleUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        match self.meddle.fate(&self.at) {
            Fate::Done => self.inner.complete().await,
            Fate::Lost => Err(Meddle::lost()),
            _ => {
                self.inner.complete().await?;
                Err(Meddle::lost())
            }
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

impl std::fmt::Debug for Meddle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddle")
    }
}

impl std::fmt::Display for Meddle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddle")
    }
}
