//! Where each frame of an open log ends: grows at its end while others read it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Entries of the first block; each further block doubles the total.
const FIRST_LEN: usize = 64;
/// Enough for 2^32 frames.
const BLOCKS: usize = 27;

/// Logical end offsets, rising. Readers take no lock. 8 bytes a frame, up to 16 with the
/// room that the last block has left.
pub(super) struct FrameIndex {
    blocks: [OnceLock<Box<[AtomicU64]>>; BLOCKS],
    len: AtomicUsize,
}

impl FrameIndex {
    pub(super) fn new() -> Self {
        Self { blocks: [const { OnceLock::new() }; BLOCKS], len: AtomicUsize::new(0) }
    }

    /// Frames so far.
    pub(super) fn len(&self) -> usize {
        // Pairs with the store in `push`: entries below the length are there to be read.
        self.len.load(Ordering::Acquire)
    }

    /// Where the frame before frame `index` ends. `index` **MUST** be at most a length seen.
    pub(super) fn start(&self, index: usize) -> u64 {
        index.checked_sub(1).map_or(0, |before| self.end(before))
    }

    /// Where frame `index` ends. `index` **MUST** be below a length seen.
    pub(super) fn end(&self, index: usize) -> u64 {
        let (block, at) = place(index);
        self.blocks[block].get().map_or(0, |ends| ends[at].load(Ordering::Relaxed))
    }

    /// The frame that holds a logical offset; `len` if it lies behind frame `len - 1`.
    pub(super) fn find(&self, offset_bytes: u64, len: usize) -> usize {
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.end(middle) <= offset_bytes {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Adds a frame. One thread at a time.
    pub(super) fn push(&self, end: u64) {
        let len = self.len.load(Ordering::Relaxed);
        let (block, at) = place(len);
        let ends = self.blocks[block].get_or_init(|| {
            let block_len = if block == 0 { FIRST_LEN } else { FIRST_LEN << (block - 1) };
            (0..block_len).map(|_| AtomicU64::new(0)).collect()
        });
        ends[at].store(end, Ordering::Relaxed);
        self.len.store(len + 1, Ordering::Release);
    }
}

/// Block and place in it: block `b > 0` has the entries from `FIRST_LEN << (b - 1)` on.
fn place(index: usize) -> (usize, usize) {
    let block = (index / FIRST_LEN).checked_ilog2().map_or(0, |log2| log2 as usize + 1);
    let first = if block == 0 { 0 } else { FIRST_LEN << (block - 1) };
    (block, index - first)
}

impl std::fmt::Debug for FrameIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameIndex").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_place_while_it_grows() {
        let index = FrameIndex::new();
        assert_eq!((index.len(), index.start(0), index.find(0, 0)), (0, 0, 0));
        for i in 0..3000 {
            index.push(10 * (i + 1));
            assert_eq!(index.len() as u64, i + 1);
        }
        for i in 0..3000_usize {
            let start = 10 * i as u64;
            assert_eq!((index.start(i), index.end(i)), (start, start + 10));
            assert_eq!(index.find(start, 3000), i);
            assert_eq!(index.find(start + 9, 3000), i);
        }
        assert_eq!(index.find(30_000, 3000), 3000);
        assert_eq!(index.find(25_000, 2000), 2000);
    }

    #[test]
    fn the_last_frame_that_a_log_can_have_has_a_place() {
        let (block, at) = place((1 << 32) - 1);
        assert_eq!(block, BLOCKS - 1);
        assert_eq!(at, (FIRST_LEN << (block - 1)) - 1);
    }
}
