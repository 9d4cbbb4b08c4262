//! The body of one response of an authenticated object: from chunks to verified plaintext.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::object_store::Result;
use super::object_store::path::Path;
use atrest::{ChunkRun, ErrorKind};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::body::{Chunks, cut_short};
use super::error::{fault, refused};
use super::headers::Headers;
use crate::chunked::Chunked;
use crate::tags::{TAG_LEN, Tags};

/// A read of adjacent chunks that is under way.
pub(crate) struct Opening {
    object: Chunked,
    location: Path,
    headers: Arc<Headers>,
    tags: Tags,
    runs: VecDeque<ChunkRun>,
    /// Where in the body the next byte of the stream stands.
    at: u64,
    /// The chunk that is opened next.
    next: u64,
    /// What has come of it and of those behind it.
    sealed: BytesMut,
    /// Plaintext still to be passed over.
    skip: usize,
    /// Plaintext still wanted.
    remaining: u64,
    ready: VecDeque<Bytes>,
}

impl Opening {
    /// The plaintext `range` out of a stream that begins with the first chunk of it.
    pub(crate) fn new(
        location: Path,
        object: Chunked,
        tags: Tags,
        range: &Range<u64>,
        headers: Arc<Headers>,
    ) -> Self {
        let chunks = object.chunks_of(range.clone());
        let runs: VecDeque<_> = object.map.runs(chunks.clone()).collect();
        Self {
            at: runs.front().map_or(0, |run| run.bytes.start),
            next: chunks.start,
            skip: (range.start - chunks.start * object.map.chunk_len() as u64) as usize,
            remaining: range.end - range.start,
            object,
            location,
            headers,
            tags,
            runs,
            sealed: BytesMut::new(),
            ready: VecDeque::new(),
        }
    }

    /// Opens chunk for chunk. A stream that ends before the range does is an error.
    pub(crate) fn stream(self, chunks: Chunks) -> Chunks {
        stream::try_unfold((chunks, self), |(mut chunks, mut opening)| async move {
            loop {
                if let Some(plaintext) = opening.ready.pop_front() {
                    return Ok(Some((plaintext, (chunks, opening))));
                }
                if opening.remaining == 0 {
                    return Ok(None);
                }
                let Some(bytes) = chunks.try_next().await? else {
                    return Err(cut_short(&opening.location, opening.remaining));
                };
                opening.take(bytes)?;
            }
        })
        .boxed()
    }

    fn take(&mut self, bytes: Bytes) -> Result<()> {
        // Somebody else may have the bytes too, as with a store in memory.
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
        while let Some(run) = self.runs.front()
            && !bytes.is_empty()
        {
            // The tags of the section before.
            let passed = run.bytes.start.saturating_sub(self.at).min(bytes.len() as u64);
            bytes.advance(passed as usize);
            let now = (run.bytes.end - self.at - passed).min(bytes.len() as u64);
            self.at += passed + now;
            let ended = self.at == run.bytes.end;
            let part = bytes.split_to(now as usize);
            if self.sealed.is_empty() {
                self.sealed = part;
            } else {
                self.sealed.extend_from_slice(&part);
            }
            self.open_whole(ended)?;
            if ended {
                self.runs.pop_front();
            }
        }
        Ok(())
    }

    /// Opens the chunks that are whole; `all` are, at the end of a run.
    fn open_whole(&mut self, all: bool) -> Result<()> {
        let chunk_len = self.object.map.chunk_len();
        loop {
            let rest = if all { 0 } else { self.sealed.len() % chunk_len };
            let whole = self.sealed.len() - rest;
            if whole == 0 {
                return Ok(());
            }
            let tags = self.tags.from(self.next);
            let count = whole.div_ceil(chunk_len).min(tags.len() / TAG_LEN);
            if count == 0 {
                return Err(fault(format!("{}: tags are missing", self.location)));
            }
            let mut chunks = self.sealed.split_to(whole.min(count * chunk_len));
            let tags = &tags[..count * TAG_LEN];
            let opened =
                self.object.decryptor.decrypt_chunks_in_place(self.next, &mut chunks, tags);
            if let Err(error) = opened {
                if error.kind() == ErrorKind::Authentication {
                    // Were the tags wrong when they were read? Nothing of it is remembered.
                    self.headers.forget(&self.location);
                }
                return Err(refused(&self.location, error));
            }
            self.next += count as u64;
            let skipped = self.skip.min(chunks.len());
            self.skip -= skipped;
            chunks.advance(skipped);
            chunks.truncate(usize::try_from(self.remaining).unwrap_or(usize::MAX));
            self.remaining -= chunks.len() as u64;
            if !chunks.is_empty() {
                self.ready.push_back(chunks.freeze());
            }
        }
    }
}
