//! An authenticated object: which tags a read needs, and the plaintext of verified chunks.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use atrest::{ChunkMap, ChunkRun, Decryptor, ErrorKind};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::Result;
use object_store::path::Path;

use crate::body::{Chunks, cut_short};
use crate::error::{fault, refused};
use crate::headers::Headers;
use crate::tags::{PIECE_TAGS, TAG_LEN, TagPieces, Tags};

/// The body of one object, or of what was at its path for a while.
#[derive(Clone, Debug)]
pub(crate) struct Chunked {
    decryptor: Decryptor,
    map: ChunkMap,
    /// Names it among those whose tags are kept.
    id: u64,
    /// Whether its end, and so its length, was verified.
    is_proven: Arc<AtomicBool>,
}

impl Chunked {
    /// A body that claims to have `body_len` bytes.
    pub(crate) fn new(decryptor: Decryptor, body_len: u64) -> atrest::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (map, id) = (decryptor.chunk_map(body_len)?, NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { decryptor, map, id, is_proven: Arc::default() })
    }

    /// Plaintext bytes, as claimed.
    pub(crate) fn len(&self) -> u64 {
        self.map.plaintext_len()
    }

    pub(crate) fn chunks_of(&self, range: Range<u64>) -> Range<u64> {
        self.map.chunks_of(range)
    }

    /// Where these chunks stand in the body. Tags may stand between them.
    pub(crate) fn bytes_of(&self, chunks: &Range<u64>) -> Range<u64> {
        let mut runs = self.map.runs(chunks.clone()).map(|run| run.bytes);
        let Some(first) = runs.next() else { return 0..0 };
        first.start..runs.last().map_or(first.end, |last| last.end)
    }

    /// The pieces of tags that belong to these chunks.
    fn pieces(chunks: &Range<u64>) -> Range<u64> {
        chunks.start / PIECE_TAGS..chunks.end.div_ceil(PIECE_TAGS)
    }

    fn place(&self, piece: u64) -> Range<u64> {
        let end = ((piece + 1) * PIECE_TAGS).min(self.map.chunk_count());
        // One run: a section of the format holds whole pieces.
        let mut runs = self.map.runs(piece * PIECE_TAGS..end).map(|run| run.tags);
        runs.next().unwrap_or(0..0)
    }

    /// What has to be read of the body before these chunks can be opened, in its order.
    pub(crate) fn lacks(&self, kept: &TagPieces, chunks: &Range<u64>) -> Vec<Range<u64>> {
        let pieces = Self::pieces(chunks).filter(|piece| kept.find(self.id, *piece).is_none());
        let mut places: Vec<_> = pieces.map(|piece| self.place(piece)).collect();
        if !self.is_proven.load(Ordering::Acquire) {
            places.push(self.map.end());
        }
        places
    }

    /// Takes in what parts of the body tell: the tags of these chunks, and the object's end.
    /// What is not in the parts was there before, or `None` is returned: it was forgotten.
    ///
    /// # Errors
    /// [`Authentication`](ErrorKind::Authentication) for another end than the object's.
    pub(crate) fn learn(
        &self,
        kept: &TagPieces,
        chunks: &Range<u64>,
        parts: &[(u64, Bytes)],
    ) -> atrest::Result<Option<Tags>> {
        let find = |place: &Range<u64>| {
            parts.iter().find_map(|(start, bytes)| {
                let from = usize::try_from(place.start.checked_sub(*start)?).ok()?;
                bytes.get(from..from + (place.end - place.start) as usize)
            })
        };
        if !self.is_proven.load(Ordering::Acquire) {
            let Some(end) = find(&self.map.end()) else { return Ok(None) };
            self.decryptor.verify_end(&self.map, end)?;
            self.is_proven.store(true, Ordering::Release);
        }
        let pieces = Self::pieces(chunks);
        let first = pieces.start;
        let all = pieces.map(|piece| match find(&self.place(piece)) {
            Some(tags) => Some(kept.keep(self.id, piece, tags)),
            None => kept.find(self.id, piece),
        });
        Ok(all.collect::<Option<_>>().map(|pieces| Tags { first, pieces }))
    }

    /// After it was written here: its end is known, and its last tags.
    pub(crate) fn learn_written(&self, kept: &TagPieces, end_of_object: &Bytes) {
        self.is_proven.store(true, Ordering::Release);
        let last = self.map.chunk_count().saturating_sub(1);
        // A short object's header may be in front.
        let len = self.map.body_len().min(end_of_object.len() as u64);
        let start = self.map.body_len() - len;
        let end = end_of_object.slice(end_of_object.len() - len as usize..);
        // It cannot fail: there is nothing to verify.
        let _ = self.learn(kept, &(last..self.map.chunk_count()), &[(start, end)]);
    }

    /// How many of the last bytes of an object hold its end and the tags in front of it.
    pub(crate) fn end_len_max() -> usize {
        PIECE_TAGS as usize * TAG_LEN + TAG_LEN
    }

    /// The plaintext `range` out of a stream that begins with the first chunk of it.
    pub(crate) fn open(
        self,
        location: Path,
        headers: Arc<Headers>,
        tags: Tags,
        range: &Range<u64>,
    ) -> Opening {
        let chunks = self.chunks_of(range.clone());
        let runs: VecDeque<_> = self.map.runs(chunks.clone()).collect();
        Opening {
            at: runs.front().map_or(0, |run| run.bytes.start),
            next: chunks.start,
            skip: (range.start - chunks.start * self.map.chunk_len() as u64) as usize,
            remaining: range.end - range.start,
            object: self,
            location,
            headers,
            tags,
            runs,
            sealed: BytesMut::new(),
            ready: VecDeque::new(),
        }
    }
}

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
