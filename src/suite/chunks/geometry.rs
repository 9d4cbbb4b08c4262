//! Where the parts of a body of suite 2 stand: arithmetic alone (`docs/FORMAT.md`, section 4).
//!
//! Chunks stand one behind the other, as long as their plaintext, and their tags behind a
//! section of them: 2^16 chunks, or what is left. Pages of chunks so stay pages, and the tags of
//! a file of up to 256 MiB are one piece at its end.

use std::ops::Range;

use crate::cipher::gcm::TAG_LEN;
use crate::error::{Error, ErrorKind, Result};
use crate::suite::limits::{BODY_LEN_MAX, authentication, too_large};

/// Log2 of the shortest and the longest chunk.
const LOG2_RANGE: std::ops::RangeInclusive<u8> = 12..=16;

/// Chunks of a section that is full. Fewer in unit tests, so that they have several sections.
pub(super) const SECTION_CHUNKS: u64 = if cfg!(test) { 512 } else { 1 << 16 };
const SECTION_TAGS_LEN: u64 = SECTION_CHUNKS * TAG_LEN as u64;

/// Tags that are read and kept together.
pub(super) const PAGE_TAGS: u64 = 256;
pub(super) const PAGE_LEN: usize = PAGE_TAGS as usize * TAG_LEN;
const _: () = assert!(SECTION_CHUNKS.is_multiple_of(PAGE_TAGS));

/// Bytes that end a body: a tag of their own.
pub(crate) const END_LEN: usize = TAG_LEN;

/// What the parts of a body that was not finished are multiples of.
const PAGE: u64 = 4096;

/// The length of a file's chunks, as a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkLen {
    log2: u8,
}

impl ChunkLen {
    pub(crate) fn from_log2(log2: u8) -> Option<Self> {
        LOG2_RANGE.contains(&log2).then_some(Self { log2 })
    }

    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a length that no chunk has.
    pub(crate) fn from_bytes(bytes: u32) -> Result<Self> {
        let log2 = bytes.is_power_of_two().then(|| bytes.trailing_zeros() as u8);
        log2.and_then(Self::from_log2).ok_or_else(|| {
            let what = format!(
                "expected a power of two from 4096 to 65536 as chunk length, found {bytes}"
            );
            Error::new(ErrorKind::InvalidArgument, what)
        })
    }

    pub(crate) const fn log2(self) -> u8 {
        self.log2
    }

    /// Bytes of a full chunk, plaintext and ciphertext alike.
    pub(crate) const fn bytes(self) -> usize {
        1 << self.log2
    }

    const fn bytes_and_tag(self) -> u64 {
        (self.bytes() + TAG_LEN) as u64
    }

    /// Most plaintext bytes in a file whose body has at most 2^44. Chunks then number fewer
    /// than 2^32 - 1.
    pub(crate) const fn file_len_max(self) -> u64 {
        let rest = BODY_LEN_MAX - END_LEN as u64;
        let last = (rest % self.bytes_and_tag()).saturating_sub(TAG_LEN as u64);
        ((rest / self.bytes_and_tag()) << self.log2) + last
    }

    /// Plaintext bytes of a body of `body_len` bytes; `None` if no file has that length.
    pub(crate) const fn file_len(self, body_len: u64) -> Option<u64> {
        let Some(rest) = body_len.checked_sub(END_LEN as u64) else { return None };
        if body_len > BODY_LEN_MAX {
            return None;
        }
        let full = (rest / self.bytes_and_tag()) << self.log2;
        match rest % self.bytes_and_tag() {
            0 => Some(full),
            last => match last.checked_sub(TAG_LEN as u64) {
                None | Some(0) => None,
                Some(last) => Some(full + last),
            },
        }
    }

    /// Chunks of a file with `len` bytes of plaintext.
    const fn count(self, len: u64) -> u64 {
        len.div_ceil(self.bytes() as u64)
    }

    /// Body bytes of a finished file with `len` bytes of plaintext.
    pub(crate) const fn body_len(self, len: u64) -> u64 {
        len + self.count(len) * TAG_LEN as u64 + END_LEN as u64
    }

    /// Body bytes that a writer has given out when it has sealed so many full chunks and not
    /// ended the file.
    pub(super) const fn unfinished_len(self, chunks: u64) -> u64 {
        (chunks << self.log2) + chunks / SECTION_CHUNKS * SECTION_TAGS_LEN
    }

    /// Whether a writer that was stopped may have left a body of this length.
    pub(crate) const fn can_stop_at(self, body_len: u64) -> bool {
        body_len.is_multiple_of(PAGE)
    }
}

/// Whether the tags of a section follow chunk `index`, because it fills the section.
pub(super) const fn fills_section(index: u64) -> bool {
    (index + 1).is_multiple_of(SECTION_CHUNKS)
}

/// Where the parts of a body of suite 2 stand, whose length is known: for whoever reads a body
/// himself. Offsets are those of the body, which begins behind the header.
///
/// A body's length and that of its plaintext tell each other. Neither is proven before the
/// [end](Self::end) is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMap {
    chunk: ChunkLen,
    /// Plaintext bytes.
    len: u64,
}

/// Adjacent chunks whose ciphertext is one piece, and whose tags are another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChunkRun {
    /// Their numbers.
    pub chunks: Range<u64>,
    /// Where they stand in the body.
    pub bytes: Range<u64>,
    /// Where their tags stand in the body.
    pub tags: Range<u64>,
}

impl ChunkMap {
    /// The map of a body of `body_len` bytes with chunks of `chunk_len`.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a length that no chunk has,
    /// [`Authentication`](ErrorKind::Authentication) for one that no body has.
    pub fn of_body(chunk_len: u32, body_len: u64) -> Result<Self> {
        Self::claimed(ChunkLen::from_bytes(chunk_len)?, body_len)
    }

    /// The map of a file of `len` plaintext bytes with chunks of `chunk_len`.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a length that no chunk has,
    /// [`FileTooLarge`](ErrorKind::FileTooLarge).
    pub fn of_plaintext(chunk_len: u32, len: u64) -> Result<Self> {
        let chunk = ChunkLen::from_bytes(chunk_len)?;
        check_len(chunk, 0, len)?;
        Ok(Self { chunk, len })
    }

    pub(crate) fn claimed(chunk: ChunkLen, body_len: u64) -> Result<Self> {
        let len = chunk.file_len(body_len).ok_or_else(|| {
            authentication("no finished file has this length: it was cut, extended or not finished")
        })?;
        Ok(Self { chunk, len })
    }

    /// Plaintext bytes.
    pub const fn plaintext_len(&self) -> u64 {
        self.len
    }

    /// Bytes behind the header.
    pub const fn body_len(&self) -> u64 {
        self.chunk.body_len(self.len)
    }

    /// Bytes of every chunk but the last, which may have fewer.
    pub const fn chunk_len(&self) -> usize {
        self.chunk.bytes()
    }

    /// How many chunks there are; none in an empty file.
    pub const fn chunk_count(&self) -> u64 {
        self.chunk.count(self.len)
    }

    /// The last 16 bytes of the body, which prove its length.
    pub const fn end(&self) -> Range<u64> {
        let end = self.body_len();
        end - END_LEN as u64..end
    }

    /// The chunks that hold the plaintext `range`, as far as the file goes.
    pub fn chunks_of(&self, range: Range<u64>) -> Range<u64> {
        let end = range.end.min(self.len);
        if range.start >= end {
            return 0..0;
        }
        range.start >> self.chunk.log2()..self.chunk.count(end)
    }

    /// Where `chunks` stand, and their tags: as few pieces as there are.
    ///
    /// # Panics
    /// For chunks beyond the [count](Self::chunk_count).
    pub fn runs(&self, chunks: Range<u64>) -> impl Iterator<Item = ChunkRun> + use<> {
        assert!(chunks.end <= self.chunk_count(), "chunks beyond the end of the file");
        let (this, mut next) = (*self, chunks.start);
        std::iter::from_fn(move || {
            let run = (next < chunks.end).then(|| this.run(next..chunks.end))?;
            next = run.chunks.end;
            Some(run)
        })
    }

    /// Where in the body the plaintext at an offset is, roughly: for hints.
    pub(super) const fn place(&self, offset: u64) -> u64 {
        let tags = (offset >> self.chunk.log2()) / SECTION_CHUNKS * SECTION_TAGS_LEN;
        // A hint may reach to the end of all numbers.
        offset.saturating_add(tags)
    }

    /// As many of `chunks`, of which there is one, as are in the section of the first.
    pub(super) fn run(&self, chunks: Range<u64>) -> ChunkRun {
        let section = chunks.start / SECTION_CHUNKS;
        let first = section * SECTION_CHUNKS;
        let chunks = chunks.start..chunks.end.min(first + SECTION_CHUNKS);
        // All its chunks but the last of the file are full.
        let place =
            |chunk: u64| (chunk << self.chunk.log2()).min(self.len) + section * SECTION_TAGS_LEN;
        let tags = place((first + SECTION_CHUNKS).min(self.chunk_count()));
        let tag = |chunk: u64| tags + (chunk - first) * TAG_LEN as u64;
        ChunkRun {
            bytes: place(chunks.start)..place(chunks.end),
            tags: tag(chunks.start)..tag(chunks.end),
            chunks,
        }
    }
}

/// # Errors
/// [`FileTooLarge`](ErrorKind::FileTooLarge) for more plaintext than a file can have.
pub(super) fn check_len(chunk: ChunkLen, position: u64, len: u64) -> Result<()> {
    let max = chunk.file_len_max();
    match position.checked_add(len) {
        Some(end) if end <= max => Ok(()),
        _ => Err(too_large(format!("expected at most {max} bytes in a file"))),
    }
}

#[cfg(test)]
mod tests;
