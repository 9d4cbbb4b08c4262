//! Reading an object: which requests it takes, and how they are kept to one version of it.
//!
//! A read needs the header and the data of **one** version of the object: another one's
//! data under this one's key is noise, and suite 1 would not notice. So whenever they
//! come in two requests, or the header from memory, the request for the data carries
//! `if_match` with the header's ETag, and the answer's own ETag is compared once more,
//! for stores that do not know conditions. If the object changed, the read starts anew.

use std::ops::Range;
use std::sync::Arc;

use atrest::{Encryptor, HEADER_LEN};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore, PutResult,
    Result,
};

use crate::body::{Plaintext, chunks, peek};
use crate::error::{bad_range, fault};
use crate::headers::{Body, Headers, Known};
use crate::open::Opener;

/// A read whose header is not known and that begins within this many bytes is one request
/// from the header on: passing over 64 KiB costs less than a second round trip.
pub(crate) const JOINED_OFFSET_MAX: u64 = 64 << 10;
/// Reads in two requests that met a changed object before the whole object is asked for
/// in one, which no overwriting can disturb.
const SPLIT_ATTEMPTS_MAX: usize = 4;

/// The store below with what turns its objects into plaintext.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) opener: Opener,
    pub(crate) headers: Arc<Headers>,
}

/// Why a read has to start anew.
#[derive(Debug, PartialEq)]
enum Again {
    /// The object is no longer the one whose header is known, if one is.
    Changed,
    /// Nothing ties a second request to the version that the first one met.
    Unpinned,
}

type Attempt = Result<Result<GetResult, Again>>;

impl Reads {
    pub(crate) async fn get(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(range) = &options.range {
            range.is_valid().map_err(bad_range)?;
        }
        if options.head {
            return self.head(location, options).await;
        }
        if let Ok(result) = self.get_known(location, &options).await? {
            return Ok(result);
        }
        for _ in 0..SPLIT_ATTEMPTS_MAX {
            if is_joined(options.range.as_ref()) {
                break;
            }
            match self.get_split(location, &options).await? {
                Ok(result) => return Ok(result),
                Err(Again::Changed) => {}
                Err(Again::Unpinned) => break,
            }
        }
        self.get_joined(location, &options).await
    }

    /// One request for the data, with the header from memory.
    async fn get_known(&self, location: &Path, options: &GetOptions) -> Attempt {
        let Some(known) = self.headers.find(location).filter(|known| may_pin(options, known))
        else {
            return Ok(Err(Again::Changed));
        };
        if matches!(known.body, Body::Plain) && !self.opener.allows_plaintext() {
            return Ok(Err(Again::Changed));
        }
        // Whether the range fits is judged by a length that may be old: not for good here.
        let Ok(range) = resolve(options.range.as_ref(), known.len()) else {
            return Ok(Err(Again::Changed));
        };
        let pinned = GetOptions { if_match: Some(known.e_tag.clone()), ..options.clone() };
        let attempt = self.get_data(location, pinned, known.body, Some(&known.e_tag), range).await;
        match attempt {
            Ok(Ok(result)) => Ok(Ok(result)),
            // In a store that does not know conditions, a shorter object in the place of
            // the known one shows as a range that does not fit.
            Ok(Err(_)) | Err(Error::Generic { .. }) => {
                self.headers.forget(location);
                Ok(Err(Again::Changed))
            }
            Err(error) => Err(error),
        }
    }

    /// A request for the header, one for the data.
    async fn get_split(&self, location: &Path, options: &GetOptions) -> Attempt {
        let (meta, body) = self.header(location, options).await?;
        let len = meta.size.saturating_sub(body.header_len());
        let range = resolve(options.range.as_ref(), len)?;
        let pinned_version = options.version.clone();
        if meta.e_tag.is_none() && pinned_version.is_none() {
            return Ok(Err(Again::Unpinned));
        }
        // The conditions were the first request's: they held for this ETag.
        let pinned = GetOptions {
            if_match: meta.e_tag.clone(),
            version: pinned_version,
            extensions: options.extensions.clone(),
            ..GetOptions::default()
        };
        self.get_data(location, pinned, body, meta.e_tag.as_deref(), range).await
    }

    /// One request for header and data.
    async fn get_joined(&self, location: &Path, options: &GetOptions) -> Result<GetResult> {
        let range = match &options.range {
            Some(GetRange::Bounded(range)) => {
                Some((0..range.end.saturating_add(HEADER_LEN as u64)).into())
            }
            _ => None,
        };
        let result = self.get_start(location, GetOptions { range, ..options.clone() }).await?;
        let (meta, attributes) = (result.meta.clone(), result.attributes.clone());
        let extensions = result.extensions.clone();
        let (start, chunks) = peek(chunks(result).await?, HEADER_LEN).await?;
        let body = self.opener.open(location, &start).await?;
        self.keep(location, options, &meta, &body);
        let meta = logical(meta, &body);
        let range = resolve(options.range.as_ref(), meta.size)?;
        let skip = body.header_len() + range.start;
        let plaintext = Plaintext::new(location.clone(), body, &range, skip);
        let payload = GetResultPayload::Stream(plaintext.stream(chunks));
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    /// The header of an object, under the caller's conditions.
    pub(crate) async fn header(
        &self,
        location: &Path,
        options: &GetOptions,
    ) -> Result<(ObjectMeta, Body)> {
        let range = Some((0..HEADER_LEN as u64).into());
        let options = GetOptions { range, ..options.clone() };
        let result = self.get_start(location, options.clone()).await?;
        let meta = result.meta.clone();
        let start = result.bytes().await?;
        let body = self.opener.open(location, &start).await?;
        self.keep(location, &options, &meta, &body);
        Ok((meta, body))
    }

    /// A request that begins at the first byte. An object of 0 bytes has no valid range
    /// and is answered all the same.
    async fn get_start(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.inner.get_opts(location, options.clone()).await {
            Err(error @ Error::Generic { .. }) if options.range.is_some() => {
                let head = GetOptions { range: None, head: true, ..options };
                match self.inner.get_opts(location, head).await {
                    Ok(result) if result.meta.size == 0 => Ok(without_body(result)),
                    _ => Err(error),
                }
            }
            other => other,
        }
    }

    /// The data of the object that has this ETag, at a logical range.
    async fn get_data(
        &self,
        location: &Path,
        pinned: GetOptions,
        body: Body,
        e_tag: Option<&str>,
        range: Range<u64>,
    ) -> Attempt {
        let hidden = body.header_len();
        let physical = range.start + hidden..range.end + hidden;
        // No range is empty for a store; the conditions are to be judged nevertheless.
        let head = range.is_empty();
        let wanted = (!head).then(|| GetRange::Bounded(physical.clone()));
        let options = GetOptions { range: wanted, head, ..pinned };
        let result = match self.inner.get_opts(location, options).await {
            Ok(result) => result,
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => {
                return Ok(Err(Again::Changed));
            }
            Err(error) => return Err(error),
        };
        if result.meta.e_tag.as_deref() != e_tag {
            return Ok(Err(Again::Changed));
        }
        if !head && result.range != physical {
            let found = &result.range;
            return Err(fault(format!("{location}: expected bytes {physical:?}, found {found:?}")));
        }
        let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
        let meta = logical(result.meta.clone(), &body);
        let chunks = if head { stream::empty().boxed() } else { chunks(result).await? };
        let plaintext = Plaintext::new(location.clone(), body, &range, 0);
        let payload = GetResultPayload::Stream(plaintext.stream(chunks));
        Ok(Ok(GetResult { payload, meta, range, attributes, extensions }))
    }

    /// What is known without the data: one request, a second where plaintext is allowed
    /// and the object has not been met.
    async fn head(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.inner.get_opts(location, GetOptions { range: None, ..options }).await?;
        let mut result = without_body(result);
        result.meta.size = self.logical_len(&result.meta).await;
        result.range = 0..result.meta.size;
        Ok(result)
    }

    /// The plaintext length of an object that was listed. Where plaintext is allowed, and
    /// the object has not been met, it has to look at the object's first bytes.
    pub(crate) async fn logical_len(&self, meta: &ObjectMeta) -> u64 {
        let encrypted = meta.size.saturating_sub(HEADER_LEN as u64);
        if meta.size == 0 || !self.opener.allows_plaintext() {
            return encrypted;
        }
        if let Some(known) = self.headers.find_same(&meta.location, meta.e_tag.as_deref()) {
            return known.len();
        }
        let options = GetOptions {
            if_match: meta.e_tag.clone(),
            range: Some((0..HEADER_LEN as u64).into()),
            ..GetOptions::default()
        };
        let start = match self.inner.get_opts(&meta.location, options).await {
            Ok(result) => result.bytes().await,
            Err(error) => Err(error),
        };
        match start {
            Ok(start) if Opener::is_plaintext(&start) => {
                self.keep(&meta.location, &GetOptions::default(), meta, &Body::Plain);
                meta.size
            }
            // An object that changed or went since it was listed, or that cannot be read:
            // the reading of it will say so.
            _ => encrypted,
        }
    }

    /// Remembers an object just written, so that reading it back is one request.
    pub(crate) async fn keep_written(
        &self,
        location: &Path,
        encryptor: &Encryptor,
        result: &PutResult,
    ) {
        let physical_len = HEADER_LEN as u64 + encryptor.position();
        let start = Bytes::copy_from_slice(encryptor.header());
        match (&result.e_tag, self.opener.open(location, &start).await) {
            (Some(e_tag), Ok(body)) => {
                let e_tag = e_tag.clone();
                self.headers.keep(location, Known { e_tag, physical_len, body });
            }
            // The object is written all the same; a read will ask for its header.
            _ => self.headers.forget(location),
        }
    }

    fn keep(&self, location: &Path, options: &GetOptions, meta: &ObjectMeta, body: &Body) {
        // An old version must not take the place of the newest.
        if let (Some(e_tag), None) = (&meta.e_tag, &options.version) {
            let (e_tag, body) = (e_tag.clone(), body.clone());
            self.headers.keep(location, Known { e_tag, physical_len: meta.size, body });
        }
    }
}

/// Whether a read whose header is not known is one request.
fn is_joined(range: Option<&GetRange>) -> bool {
    match range {
        None => true,
        Some(GetRange::Bounded(range)) => range.start <= JOINED_OFFSET_MAX,
        Some(GetRange::Offset(offset)) => *offset <= JOINED_OFFSET_MAX,
        Some(GetRange::Suffix(_)) => false,
    }
}

/// Whether `if_match` with the known ETag says what the caller's conditions say, or more.
fn may_pin(options: &GetOptions, known: &Known) -> bool {
    let allowed = options.if_match.as_ref().is_none_or(|allowed| {
        allowed == "*" || allowed.split(',').any(|e_tag| e_tag.trim() == known.e_tag)
    });
    // A store ignores `if_unmodified_since` beside `if_match`.
    allowed && options.if_unmodified_since.is_none() && options.version.is_none()
}

/// The bytes that a range means in an object of `len` bytes.
fn resolve(range: Option<&GetRange>, len: u64) -> Result<Range<u64>> {
    match range {
        None => Ok(0..len),
        Some(range) => range.as_range(len).map_err(bad_range),
    }
}

fn logical(mut meta: ObjectMeta, body: &Body) -> ObjectMeta {
    meta.size = meta.size.saturating_sub(body.header_len());
    meta
}

fn without_body(result: GetResult) -> GetResult {
    let payload = GetResultPayload::Stream(stream::once(async { Ok(Bytes::new()) }).boxed());
    GetResult { payload, range: 0..result.meta.size, ..result }
}
