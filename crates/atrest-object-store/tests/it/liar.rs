//! A store that lies, as ones in the field do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;

/// What it does wrong, with the keyring and the objects it is tried out with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Lie {
    #[default]
    None,
    /// Overwrites where it should create.
    Creates,
    /// Overwrites whatever is there.
    Updates,
    /// Creates what it should replace, where nothing is there.
    UpdatesMissing,
    /// Overwrites in either case.
    DropsConditions,
    /// Says that there is a conflict, and there is none: the next so many times.
    Conflicts(usize),
    /// Its ETags are weak, so that none fits a condition.
    WeakTags,
    /// An object's ETag is another one each time it is read.
    ChangingTags,
    /// Takes one write of an object a second.
    OneWriteASecond,
    /// Has it, and says that it has not: the next so many times.
    NotFound(usize),
    /// May not be read, the next so many times.
    Forbidden(usize),
    /// Fails, the next so many times.
    Fails(usize),
    /// Has no ETags, and ends so many bytes before the end of an object.
    CutsShort(usize),
    /// Has an object, and its header, and sends no byte of it: the next so many times.
    SendsNothing(usize),
    /// Has no ETags, and goes on for ever behind the end of an object that is asked for whole.
    NeverEnds,
    /// Claims that any object is endless, and sends so much of it; of a keyring it does not
    /// even say so.
    Endless,
}

#[derive(Clone, Debug, Default)]
pub struct Liar {
    pub inner: Arc<InMemory>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    lie: Lie,
    reads: usize,
    /// Sent of what is endless, of 1 MiB each.
    pieces: usize,
    written: BTreeMap<Path, Instant>,
}

impl Liar {
    pub fn begin(&self, lie: Lie) {
        self.state.lock().unwrap().lie = lie;
    }

    pub fn pieces(&self) -> usize {
        self.state.lock().unwrap().pieces
    }

    fn lie(&self) -> Lie {
        self.state.lock().unwrap().lie
    }

    /// Whether it lies once more.
    fn once_more(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        match &mut state.lie {
            Lie::Conflicts(left)
            | Lie::NotFound(left)
            | Lie::Forbidden(left)
            | Lie::SendsNothing(left)
            | Lie::Fails(left) => {
                let lies = *left > 0;
                *left = left.saturating_sub(1);
                lies
            }
            _ => false,
        }
    }

    fn failed(what: &'static str) -> Error {
        Error::Generic { store: "Liar", source: what.into() }
    }

    fn tag(&self, tag: &mut Option<String>) {
        let lie = self.lie();
        let Some(tag) = tag else { return };
        if lie == Lie::WeakTags {
            *tag = format!("W/{tag}");
        }
        if lie == Lie::ChangingTags {
            let mut state = self.state.lock().unwrap();
            state.reads += 1;
            *tag = format!("{tag}-{}", state.reads);
        }
    }

    fn is_too_soon(&self, at: &Path) -> bool {
        let mut state = self.state.lock().unwrap();
        let last = state.written.get(at);
        let too_soon = last.is_some_and(|last| last.elapsed() < Duration::from_secs(1));
        if !too_soon {
            state.written.insert(at.clone(), Instant::now());
        }
        too_soon
    }
}

#[async_trait]
impl ObjectStore for Liar {
    async fn put_opts(
        &self,
        at: &Path,
        data: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        let missing = self.inner.head(at).await.is_err();
        let lie = self.lie();
        match (lie, &opts.mode) {
            (Lie::Creates | Lie::DropsConditions, PutMode::Create)
            | (Lie::Updates | Lie::DropsConditions, PutMode::Update(_)) => {
                opts.mode = PutMode::Overwrite;
            }
            (Lie::UpdatesMissing, PutMode::Update(_)) if missing => opts.mode = PutMode::Overwrite,
            (Lie::Conflicts(_), _) if self.once_more() => {
                let source = "409 ConditionalRequestConflict".into();
                return Err(Error::Precondition { path: at.to_string(), source });
            }
            (Lie::OneWriteASecond, _) if self.is_too_soon(at) => {
                return Err(Self::failed("429 SlowDown"));
            }
            _ => {}
        }
        let mut result = self.inner.put_opts(at, data, opts).await?;
        self.tag(&mut result.e_tag);
        Ok(result)
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let path = at.to_string();
        let keyring = at.filename() == Some("KEYRING");
        match self.lie() {
            Lie::NotFound(_) if keyring && self.once_more() => {
                return Err(Error::NotFound { path, source: "404".into() });
            }
            Lie::Forbidden(_) if keyring && self.once_more() => {
                return Err(Error::PermissionDenied { path, source: "403".into() });
            }
            Lie::Fails(_) if keyring && self.once_more() => return Err(Self::failed("500")),
            _ => {}
        }
        let whole = options.range.is_none() && !options.head;
        let mut result = self.inner.get_opts(at, options).await?;
        self.tag(&mut result.meta.e_tag);
        if let Lie::CutsShort(missing) = self.lie() {
            result.meta.e_tag = None;
            let (meta, attributes) = (result.meta.clone(), result.attributes.clone());
            let (range, extensions) = (result.range.clone(), result.extensions.clone());
            let missing = if range.end == meta.size { missing } else { 0 };
            let all = result.bytes().await?;
            let sent = all.slice(..all.len() - missing);
            let payload = GetResultPayload::Stream(stream::iter([Ok(sent)]).boxed());
            return Ok(GetResult { payload, meta, range, attributes, extensions });
        }
        if matches!(self.lie(), Lie::SendsNothing(_)) && self.once_more() {
            let payload = GetResultPayload::Stream(stream::empty().boxed());
            return Ok(GetResult { payload, ..result });
        }
        if self.lie() == Lie::NeverEnds {
            result.meta.e_tag = None;
        }
        let never_ends = self.lie() == Lie::NeverEnds && whole;
        if self.lie() == Lie::Endless || never_ends {
            if !keyring && !never_ends {
                result.meta.size = 1 << 60;
            }
            if !never_ends {
                result.range = 0..1 << 60;
            }
            let state = self.state.clone();
            let more = stream::repeat_with(move || {
                state.lock().unwrap().pieces += 1;
                Ok(Bytes::from_static(&[0; 1 << 20]))
            });
            let sent = GetResult { range: result.range.clone(), ..result };
            let (meta, attributes) = (sent.meta.clone(), sent.attributes.clone());
            let (range, extensions) = (sent.range.clone(), sent.extensions.clone());
            let payload = GetResultPayload::Stream(sent.into_stream().chain(more).boxed());
            return Ok(GetResult { payload, meta, range, attributes, extensions });
        }
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
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

impl std::fmt::Display for Liar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Liar")
    }
}
