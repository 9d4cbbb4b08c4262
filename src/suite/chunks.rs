//! Suite 2: chunks that are authenticated one by one (`docs/FORMAT.md`, section 4).
//!
//! Chunk `k` is message `k` of the file's [`GcmKey`]; its tag stands behind the section of
//! chunks that it is in. The end of the body is the tag of a message of its own, which says how
//! long the file is: without it, or with the end of another length, a file is refused.

use zeroize::Zeroizing;

use super::limits::{authentication, message_index};
use super::output::Output;
use crate::cipher::gcm::{GcmKey, TAG_LEN};
use crate::error::Result;

mod geometry;
pub(super) mod open;
mod tags;

pub(crate) use geometry::{ChunkLen, END_LEN};
pub use geometry::{ChunkMap, ChunkRun};
use geometry::{check_len, fills_section};

/// The number of the message that ends a file. No chunk has it.
const END_INDEX: u32 = u32::MAX;

/// What an encryptor knows about the chunk it is at.
pub(crate) struct ChunkSealer {
    chunk: ChunkLen,
    index: u64,
    /// Plaintext of the chunk that is not full; fewer than a chunk's bytes.
    pending: Zeroizing<Vec<u8>>,
    /// Of the chunks of this section that were given out.
    tags: Vec<u8>,
    finished: bool,
}

impl ChunkSealer {
    pub(super) fn new(chunk: ChunkLen) -> Self {
        let (pending, tags) = Default::default();
        Self { chunk, index: 0, pending, tags, finished: false }
    }

    /// Bytes until the present chunk is full; at least 1.
    pub(super) fn room(&self) -> usize {
        self.chunk.bytes() - self.pending.len()
    }

    pub(super) fn chunk_len(&self) -> usize {
        self.chunk.bytes()
    }

    pub(super) fn check_len(&self, position: u64, len: usize) -> Result<()> {
        check_len(self.chunk, position, len as u64)
    }

    /// Takes plaintext whose length was checked; puts out the chunks that it fills.
    pub(super) fn append(
        &mut self,
        key: &GcmKey,
        mut plaintext: &[u8],
        out: &mut Output<'_>,
    ) -> Result<()> {
        chunk_index(self.index)?;
        let len = self.chunk.bytes();
        if !self.pending.is_empty() {
            let (now, later) = plaintext.split_at(self.room().min(plaintext.len()));
            self.pending.extend_from_slice(now);
            plaintext = later;
            if self.pending.len() < len {
                return Ok(());
            }
            let full = std::mem::take(&mut self.pending);
            self.seal(key, &full, out);
            self.pending = full;
            self.pending.clear();
        }
        let full = plaintext.chunks_exact(len);
        let rest = full.remainder();
        out.reserve(plaintext.len() - rest.len());
        for chunk in full {
            self.seal(key, chunk, out);
        }
        if !rest.is_empty() {
            if self.pending.capacity() == 0 {
                // All at once: growing would leave copies of plaintext behind.
                *self.pending = Vec::with_capacity(len);
            }
            self.pending.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Puts out the next chunk, and behind the last of a section its tags.
    fn seal(&mut self, key: &GcmKey, plaintext: &[u8], out: &mut Output<'_>) {
        // OK because the length was checked: it keeps chunk numbers below the end's.
        let index = chunk_index(self.index).expect("a checked length");
        let tag = key.seal(index, &[], plaintext, out.room(plaintext.len()));
        self.tags.extend_from_slice(&tag);
        if fills_section(self.index) {
            out.push(&self.tags);
            self.tags.clear();
        }
        self.index += 1;
    }

    /// Puts out the last chunk, the tags and the end of a file of `len` bytes, once.
    pub(super) fn finish(&mut self, key: &GcmKey, len: u64, out: &mut Output<'_>) -> Result<()> {
        if self.finished {
            return Ok(());
        }
        let last = std::mem::take(&mut self.pending);
        if !last.is_empty() {
            self.seal(key, &last, out);
        }
        out.push(&self.tags);
        self.tags = Vec::new();
        out.push(&key.seal(END_INDEX, &len.to_le_bytes(), &[], &mut []));
        self.finished = true;
        Ok(())
    }

    /// Body bytes produced so far.
    pub(super) fn body_len(&self, position: u64) -> u64 {
        if self.finished {
            self.chunk.body_len(position)
        } else {
            self.chunk.unfinished_len(self.index)
        }
    }
}

/// The message number of a chunk.
fn chunk_index(index: u64) -> Result<u32> {
    // One more than a chunk's must be a message's too: the end comes after all of them.
    message_index(index.saturating_add(1)).map(|behind| behind - 1)
}

/// Verifies a whole chunk and decrypts `plaintext.len()` bytes from its byte `skip` on.
fn open_chunk(
    key: &GcmKey,
    index: u64,
    ciphertext: &[u8],
    tag: &[u8; TAG_LEN],
    skip: usize,
    plaintext: &mut [u8],
) -> Result<()> {
    let number = chunk_index(index)?;
    checked(index, key.open(number, &[], ciphertext, tag, skip, plaintext))
}

fn checked(index: u64, good: bool) -> Result<()> {
    if good {
        return Ok(());
    }
    Err(authentication(format!("chunk {index} failed its authentication")))
}

/// Verifies whole chunks from `first` on and decrypts them where they stand.
pub(crate) fn open_in_place(
    key: &GcmKey,
    chunk: ChunkLen,
    first: u64,
    bytes: &mut [u8],
    tags: &[[u8; TAG_LEN]],
) -> Result<()> {
    // All the numbers that a chunk can have count on.
    chunk_index(first)?;
    for (index, (chunk, tag)) in (first..).zip(bytes.chunks_mut(chunk.bytes()).zip(tags)) {
        checked(index, key.open_in_place(chunk_index(index)?, &[], chunk, tag))?;
    }
    Ok(())
}

/// Verifies whole chunks from `first` on and decrypts `plaintext.len()` bytes from byte `skip`
/// of the first on, which all of the chunks have a part in.
pub(crate) fn open_part(
    key: &GcmKey,
    chunk: ChunkLen,
    first: u64,
    bytes: &[u8],
    tags: &[[u8; TAG_LEN]],
    mut skip: usize,
    mut plaintext: &mut [u8],
) -> Result<()> {
    // As above.
    chunk_index(first)?;
    for (index, (chunk, tag)) in (first..).zip(bytes.chunks(chunk.bytes()).zip(tags)) {
        let len = (chunk.len() - skip).min(plaintext.len());
        let (now, later) = plaintext.split_at_mut(len);
        open_chunk(key, index, chunk, tag, skip, now)?;
        (plaintext, skip) = (later, 0);
    }
    Ok(())
}

/// Verifies that a file has `len` bytes of plaintext.
pub(crate) fn verify_end(key: &GcmKey, len: u64, tag: &[u8]) -> Result<()> {
    if key.verify(END_INDEX, &len.to_le_bytes(), &[], tag) {
        return Ok(());
    }
    Err(authentication("the end is not this file's: it was cut, extended or not finished"))
}
