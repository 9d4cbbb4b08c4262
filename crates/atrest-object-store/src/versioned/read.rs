//! Reading an object: which requests it takes, and how they are kept to one version of it.
//!
//! A read needs the header, the data and the tags, if there are any, of **one** version of the
//! object: another one's data under this one's key is noise, and suite 1 would not notice. So
//! whenever they come in several requests, or the header from memory, the others carry
//! `if_match` with the header's ETag, and the answer's own ETag is compared once more,
//! for stores that do not know conditions. If the object changed, the read starts anew.

use std::ops::Range;
use std::sync::Arc;

use super::object_store::path::Path;
use super::object_store::{
    Error, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore, PutResult,
    Result,
};
use atrest::{BODY_LEN_MAX, Decryptor, HEADER_LEN};
use bytes::Bytes;
use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::body::{By, Plaintext, chunks, cut_short, peek};
use super::ciphertext::Written;
use super::error::{bad_range, fault, refused, reserved};
use super::headers::{Body, Headers, Known};
use super::open::Opener;
use super::opening::Opening;
use super::reserved::is_reserved;
use super::{emptied, first_of, nothing};
use crate::chunked::Chunked;
use crate::tags::{TagPieces, Tags};

mod sizes;

/// A read whose header is not known and that begins within this many bytes is one request
/// from the header on: passing over 64 KiB costs less than a second round trip.
pub(crate) const JOINED_OFFSET_MAX: u64 = 64 << 10;
/// Reads in two requests that met a changed object before the whole object is asked for
/// in one, which no overwriting can disturb.
const SPLIT_ATTEMPTS_MAX: usize = 4;
/// Requests for tags at the same time, of one read.
const TAGS_TOGETHER: usize = 8;

/// The store below with what turns its objects into plaintext.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) opener: Opener,
    pub(crate) headers: Arc<Headers>,
    pub(crate) tags: Arc<TagPieces>,
    /// Longest response of a local file that is read at once.
    pub(crate) collected_len_max: u64,
}

/// Why a read has to start anew.
#[derive(Debug, PartialEq)]
enum Again {
    /// The object is no longer the one whose header is known, if one is.
    Changed,
    /// Nothing ties a second request to the version that the first one met.
    Unpinned,
}

/// What the first bytes of an object told.
struct Begun {
    answer: GetResult,
    start: Bytes,
    body: Body,
}

type Attempt = Result<Result<GetResult, Again>>;

impl Reads {
    pub(crate) async fn get(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if is_reserved(location) {
            return Err(reserved(location));
        }
        if let Some(range) = &options.range {
            range.is_valid().map_err(bad_range)?;
        }
        if options.head {
            return self.head(location, options).await;
        }
        if let Ok(result) = self.get_known(location, &options).await? {
            return Ok(result);
        }
        let joined = is_joined(options.range.as_ref());
        if !joined || self.opener.policy.expects_tags() {
            for _ in 0..SPLIT_ATTEMPTS_MAX {
                match self.get_split(location, &options).await? {
                    Ok(result) => return Ok(result),
                    Err(Again::Changed) => {}
                    Err(Again::Unpinned) => break,
                }
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
        if matches!(known.body, Body::Plain(_)) && !self.opener.allows_plaintext() {
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

    /// A request for the header, one for the data. The first may have it all.
    async fn get_split(&self, location: &Path, options: &GetOptions) -> Attempt {
        let joined = is_joined(options.range.as_ref());
        let len = HEADER_LEN + if joined { JOINED_OFFSET_MAX as usize } else { 0 };
        let range = Some((0..len as u64).into());
        let result = self.get_start(location, GetOptions { range, ..options.clone() }).await?;
        let begun = self.begin(location, options, result, len).await?;
        let len = begun.body.len(begun.answer.meta.size);
        let range = resolve(options.range.as_ref(), len)?;
        if begun.start.len() as u64 == begun.answer.meta.size {
            return self.open_whole(location, begun, range).map(Ok);
        }
        let pinned_version = options.version.clone();
        if begun.answer.meta.e_tag.is_none() && pinned_version.is_none() {
            return Ok(Err(Again::Unpinned));
        }
        // The conditions were the first request's: they held for this ETag.
        let pinned = GetOptions {
            if_match: begun.answer.meta.e_tag.clone(),
            version: pinned_version,
            extensions: options.extensions.clone(),
            ..GetOptions::default()
        };
        let e_tag = begun.answer.meta.e_tag.as_deref();
        self.get_data(location, pinned, begun.body, e_tag, range).await
    }

    /// One request for header and data.
    async fn get_joined(&self, location: &Path, options: &GetOptions) -> Result<GetResult> {
        if self.opener.policy.expects_tags() {
            let whole = GetOptions { range: None, ..options.clone() };
            let result = self.get_start(location, whole).await?;
            let begun = self.begin(location, options, result, usize::MAX).await?;
            let len = begun.body.len(begun.answer.meta.size);
            let range = resolve(options.range.as_ref(), len)?;
            return self.open_whole(location, begun, range);
        }
        let range = match &options.range {
            Some(GetRange::Bounded(range)) => {
                Some((0..range.end.saturating_add(HEADER_LEN as u64)).into())
            }
            _ => None,
        };
        let result = self.get_start(location, GetOptions { range, ..options.clone() }).await?;
        let answer = emptied(&result);
        let (start, chunks) =
            peek(chunks(result, self.collected_len_max).await?, HEADER_LEN).await?;
        let body = self.opener.open(location, &start, answer.meta.size).await?;
        self.keep(location, options, &answer.meta, &body);
        let meta = logical(answer.meta.clone(), &body);
        let range = resolve(options.range.as_ref(), meta.size)?;
        let skip = body.header_len() + range.start;
        let Some(plaintext) = in_stream(location, &body, &range, skip) else {
            return Err(fault(format!("{location}: an object with tags was met too late")));
        };
        let payload = GetResultPayload::Stream(plaintext.stream(chunks));
        Ok(GetResult { payload, meta, range, ..answer })
    }

    /// Takes in the first bytes, up to `len_max`, of an answer that begins with the object's
    /// header.
    async fn begin(
        &self,
        location: &Path,
        options: &GetOptions,
        result: GetResult,
        len_max: usize,
    ) -> Result<Begun> {
        let answer = emptied(&result);
        // Nothing else bounds an answer that is collected whole.
        let len_most = answer.meta.size.min(HEADER_LEN as u64 + BODY_LEN_MAX);
        let len_max = len_max.min(usize::try_from(len_most).unwrap_or(usize::MAX));
        let start = first_of(result, len_max).await?;
        let body = self.opener.open(location, &start, answer.meta.size).await?;
        self.keep(location, options, &answer.meta, &body);
        Ok(Begun { answer, start, body })
    }

    /// A range of an object all of which is here.
    fn open_whole(&self, location: &Path, begun: Begun, range: Range<u64>) -> Result<GetResult> {
        let Begun { answer, start, body } = begun;
        let meta = logical(answer.meta.clone(), &body);
        let one = |bytes| stream::once(async { Ok(bytes) }).boxed();
        let payload = match (in_stream(location, &body, &range, 0), body) {
            (None, Body::Chunks(object)) => {
                let body = start.slice(HEADER_LEN..);
                let chunks = object.chunks_of(range.clone());
                let bytes = object.bytes_of(&chunks);
                let learned = object.learn(&self.tags, &chunks, &[(0, body.clone())]);
                let tags = learned.map_err(|error| refused(location, error))?;
                let tags = tags.ok_or_else(|| cut_short(location, object.len()))?;
                let data = body.slice(bytes.start as usize..bytes.end as usize);
                let headers = self.headers.clone();
                Opening::new(location.clone(), object, tags, &range, headers).stream(one(data))
            }
            (Some(plaintext), body) => {
                let at = body.header_len() + range.start..body.header_len() + range.end;
                let missing = at.end.saturating_sub(start.len() as u64);
                if missing > 0 {
                    return Err(cut_short(location, missing));
                }
                plaintext.stream(one(start.slice(at.start as usize..at.end as usize)))
            }
            (None, _) => unreachable!("only chunks have tags"),
        };
        let payload = GetResultPayload::Stream(payload);
        Ok(GetResult { payload, meta, range, ..answer })
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

    /// The data of the object that has this ETag, at a logical range. Tags that are not known,
    /// and the end if it was not verified, are asked for at the same time.
    async fn get_data(
        &self,
        location: &Path,
        pinned: GetOptions,
        body: Body,
        e_tag: Option<&str>,
        range: Range<u64>,
    ) -> Attempt {
        let hidden = body.header_len();
        let physical = match &body {
            Body::Chunks(object) => object.bytes_of(&object.chunks_of(range.clone())),
            Body::Stream(_) | Body::Plain(_) => range.clone(),
        };
        let physical = physical.start + hidden..physical.end + hidden;
        let data = self.get_pinned(location, &pinned, e_tag, physical);
        let (data, tags) = match &body {
            Body::Chunks(object) => {
                let chunks = object.chunks_of(range.clone());
                let tags = self.prove(location, &pinned, e_tag, object, chunks);
                let (data, tags) = try_join(data, tags).await?;
                match tags {
                    Ok(tags) => (data, Some(tags)),
                    Err(again) => return Ok(Err(again)),
                }
            }
            Body::Stream(_) | Body::Plain(_) => (data.await?, None),
        };
        let result = match data {
            Ok(result) => result,
            Err(again) => return Ok(Err(again)),
        };
        let answer = emptied(&result);
        let meta = logical(answer.meta.clone(), &body);
        // The answer to a request for nothing is a head's.
        let chunks = match range.is_empty() {
            true => stream::empty().boxed(),
            false => chunks(result, self.collected_len_max).await?,
        };
        let payload = match (in_stream(location, &body, &range, 0), body, tags) {
            (Some(plaintext), ..) => plaintext.stream(chunks),
            (None, Body::Chunks(object), Some(tags)) => {
                let headers = self.headers.clone();
                Opening::new(location.clone(), object, tags, &range, headers).stream(chunks)
            }
            (None, ..) => unreachable!("only chunks have tags"),
        };
        let payload = GetResultPayload::Stream(payload);
        Ok(Ok(GetResult { payload, meta, range, ..answer }))
    }

    /// A request for bytes of the object that has this ETag.
    async fn get_pinned(
        &self,
        location: &Path,
        pinned: &GetOptions,
        e_tag: Option<&str>,
        physical: Range<u64>,
    ) -> Attempt {
        // No range is empty for a store; the conditions are to be judged nevertheless.
        let head = physical.is_empty();
        let wanted = (!head).then(|| GetRange::Bounded(physical.clone()));
        let options = GetOptions { range: wanted, head, ..pinned.clone() };
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
        Ok(Ok(result))
    }

    /// The tags of chunks, and the proof of the object's length: from memory, or asked for.
    async fn prove(
        &self,
        location: &Path,
        pinned: &GetOptions,
        e_tag: Option<&str>,
        object: &Chunked,
        chunks: Range<u64>,
    ) -> Result<Result<Tags, Again>> {
        let mut known: Vec<(u64, Bytes)> = Vec::new();
        // What was known may be forgotten until it is all here; or an answer was cut short.
        for _ in 0..SPLIT_ATTEMPTS_MAX {
            let learned = object.learn(&self.tags, &chunks, &known);
            if let Some(tags) = learned.map_err(|error| refused(location, error))? {
                return Ok(Ok(tags));
            }
            let lacks = object.lacks(&self.tags, &chunks);
            let requests = near_together(lacks);
            let requests =
                requests.into_iter().map(|range| self.get_part(location, pinned, e_tag, range));
            let answers: Vec<_> =
                stream::iter(requests).buffered(TAGS_TOGETHER).try_collect().await?;
            match answers.into_iter().collect() {
                Ok(parts) => known = parts,
                Err(again) => return Ok(Err(again)),
            }
        }
        Err(fault(format!("{location}: an answer with tags ended too early")))
    }

    /// A short part of the body of the object that has this ETag, and where it begins.
    async fn get_part(
        &self,
        location: &Path,
        pinned: &GetOptions,
        e_tag: Option<&str>,
        range: Range<u64>,
    ) -> Result<Result<(u64, Bytes), Again>> {
        let (hidden, len) = (HEADER_LEN as u64, (range.end - range.start) as usize);
        let physical = range.start + hidden..range.end + hidden;
        Ok(match self.get_pinned(location, pinned, e_tag, physical).await? {
            Ok(result) => Ok((range.start, first_of(result, len).await?)),
            Err(again) => Err(again),
        })
    }

    /// Remembers an object just written, so that reading it back is one request.
    pub(crate) fn keep_written(
        &self,
        location: &Path,
        decryptor: Decryptor,
        made: Written,
        result: &PutResult,
    ) {
        match (&result.e_tag, Body::new(decryptor, made.physical_len)) {
            (Some(e_tag), Ok(body)) => {
                if let Body::Chunks(object) = &body {
                    object.learn_written(&self.tags, &made.end);
                }
                let (e_tag, physical_len) = (e_tag.clone(), made.physical_len);
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

/// What is read of the body, out of a stream that begins `skip` bytes before it; `None` where
/// tags are needed.
fn in_stream(location: &Path, body: &Body, range: &Range<u64>, skip: u64) -> Option<Plaintext> {
    let by = match body {
        Body::Stream(decryptor) => By::Key(decryptor.clone()),
        Body::Plain(access) => By::Access(access.clone()),
        Body::Chunks(_) => return None,
    };
    Some(Plaintext::new(location.clone(), by, range, skip))
}

/// Ranges in their order, those that are near each other as one.
fn near_together(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut together: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match together.last_mut() {
            Some(last) if range.start <= last.end + JOINED_OFFSET_MAX => last.end = range.end,
            _ => together.push(range),
        }
    }
    together
}

/// Whether a read whose header is not known begins near enough to it.
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
    meta.size = body.len(meta.size);
    meta
}

fn without_body(result: GetResult) -> GetResult {
    GetResult { payload: nothing(), range: 0..result.meta.size, ..result }
}
