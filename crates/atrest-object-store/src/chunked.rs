//! An authenticated object: where its chunks are, and which tags a read needs.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use atrest::{ChunkMap, Decryptor};
use bytes::Bytes;

use crate::tags::{PIECE_TAGS, TAG_LEN, TagPieces, Tags};

/// The body of one object, or of what was at its path for a while.
#[derive(Clone, Debug)]
pub(crate) struct Chunked {
    pub(crate) decryptor: Decryptor,
    pub(crate) map: ChunkMap,
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
}
