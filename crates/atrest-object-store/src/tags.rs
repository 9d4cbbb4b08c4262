//! A bounded memory of tags, so that a read of an authenticated object costs one request.
//!
//! They need no trust: a wrong tag fails with its chunk.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;

/// Bytes of a tag.
pub(crate) const TAG_LEN: usize = 16;
/// Tags that are read and kept together: 64 KiB, those of 16 MiB of data. A request for fewer
/// takes as long.
pub(crate) const PIECE_TAGS: u64 = 4096;
/// Pieces that are kept: 16 MiB, the tags of 4 GiB of data.
const KEPT_MAX: usize = 256;

/// The pieces used last, each by its object and its number there.
#[derive(Debug)]
pub(crate) struct TagPieces(Mutex<LruCache<(u64, u64), Bytes>>);

impl Default for TagPieces {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(NonZeroUsize::new(KEPT_MAX).unwrap_or(NonZeroUsize::MIN))))
    }
}

impl TagPieces {
    pub(crate) fn find(&self, object: u64, piece: u64) -> Option<Bytes> {
        self.pieces().get(&(object, piece)).cloned()
    }

    /// Keeps a copy: `tags` may be a small part of a long answer.
    pub(crate) fn keep(&self, object: u64, piece: u64, tags: &[u8]) -> Bytes {
        let tags = Bytes::copy_from_slice(tags);
        self.pieces().put((object, piece), tags.clone());
        tags
    }

    fn pieces(&self) -> MutexGuard<'_, LruCache<(u64, u64), Bytes>> {
        // No code that may panic runs while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tags of adjacent chunks, in pieces.
#[derive(Debug)]
pub(crate) struct Tags {
    /// Number of the first piece.
    pub(crate) first: u64,
    pub(crate) pieces: Vec<Bytes>,
}

impl Tags {
    /// Those from a chunk on, to the end of its piece.
    pub(crate) fn from(&self, chunk: u64) -> &[u8] {
        let at = (chunk % PIECE_TAGS) as usize * TAG_LEN;
        let piece = self.pieces.get((chunk / PIECE_TAGS - self.first) as usize);
        piece.and_then(|piece| piece.get(at..)).unwrap_or_default()
    }
}
