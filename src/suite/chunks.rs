//! Suite 2: chunks that are authenticated one by one (`docs/FORMAT.md`, section 4).
//!
//! A ciphertext chunk has C = 2^12..=2^20 bytes: C - 16 of plaintext and a tag. Chunk `k`
//! is message `k` of the file's [`GcmKey`]. The last chunk always carries fewer plaintext
//! bytes than the others, maybe none, so that its place is sure and the length of the
//! file is authenticated with it.

use zeroize::Zeroizing;

use super::limits::{BODY_LEN_MAX, authentication, message_index, too_large};
use crate::cipher::gcm::{GcmKey, TAG_LEN};
use crate::error::Result;

pub(super) mod open;

/// Log2 of the shortest and the longest chunk.
const LOG2_RANGE: std::ops::RangeInclusive<u8> = 12..=20;

/// The length of a file's chunks, as a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkLen {
    log2: u8,
}

impl ChunkLen {
    pub(crate) fn from_log2(log2: u8) -> Option<Self> {
        LOG2_RANGE.contains(&log2).then_some(Self { log2 })
    }

    pub(crate) fn from_bytes(bytes: u32) -> Option<Self> {
        bytes.is_power_of_two().then(|| Self::from_log2(bytes.trailing_zeros() as u8)).flatten()
    }

    pub(crate) const fn log2(self) -> u8 {
        self.log2
    }

    /// Ciphertext bytes of a full chunk.
    pub(crate) const fn sealed(self) -> usize {
        1 << self.log2
    }

    /// Plaintext bytes of a full chunk.
    pub(crate) const fn plain(self) -> usize {
        self.sealed() - TAG_LEN
    }

    /// Most plaintext bytes in a file whose body has at most 2^44. Chunks then number
    /// fewer than 2^32.
    pub(crate) const fn file_len_max(self) -> u64 {
        (BODY_LEN_MAX >> self.log2) * self.plain() as u64 - 1
    }

    /// Plaintext bytes of a body of `body_len` bytes; `None` if no file has that length.
    pub(crate) const fn file_len(self, body_len: u64) -> Option<u64> {
        let last = body_len % self.sealed() as u64;
        if last < TAG_LEN as u64 || body_len > BODY_LEN_MAX {
            return None;
        }
        Some((body_len >> self.log2) * self.plain() as u64 + last - TAG_LEN as u64)
    }

    /// Plaintext bytes of the full chunks of a body that has no last one yet.
    pub(super) const fn unfinished_len(self, body_len: u64) -> u64 {
        (body_len >> self.log2) * self.plain() as u64
    }

    /// Body bytes of a finished file with `len` bytes of plaintext.
    pub(crate) const fn body_len(self, len: u64) -> u64 {
        (len / self.plain() as u64) * self.sealed() as u64
            + len % self.plain() as u64
            + TAG_LEN as u64
    }
}

/// What an encryptor knows about the chunk it is at.
pub(crate) struct ChunkSealer {
    chunk: ChunkLen,
    index: u64,
    /// Plaintext of the chunk that is not full; fewer than a chunk's bytes.
    pending: Zeroizing<Vec<u8>>,
    finished: bool,
}

impl ChunkSealer {
    pub(super) fn new(chunk: ChunkLen) -> Self {
        Self { chunk, index: 0, pending: Zeroizing::default(), finished: false }
    }

    /// Bytes until the present chunk is full; at least 1.
    pub(super) fn room(&self) -> usize {
        self.chunk.plain() - self.pending.len()
    }

    pub(super) fn check_len(&self, position: u64, len: usize) -> Result<()> {
        let max = self.chunk.file_len_max();
        match position.checked_add(len as u64) {
            Some(end) if end <= max => Ok(()),
            _ => Err(too_large(format!("expected at most {max} bytes in a file"))),
        }
    }

    /// Takes plaintext whose length was checked; appends the chunks that it fills.
    pub(super) fn append(
        &mut self,
        key: &GcmKey,
        mut plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let first = message_index(self.index)?;
        let plain = self.chunk.plain();
        if !self.pending.is_empty() {
            let (now, later) = plaintext.split_at(self.room().min(plaintext.len()));
            self.pending.extend_from_slice(now);
            plaintext = later;
            if self.pending.len() < plain {
                return Ok(());
            }
            seal(key, first, &self.pending, out);
            self.index += 1;
            self.pending.clear();
        }
        let mut full = plaintext.chunks_exact(plain);
        for chunk in &mut full {
            // OK because the length was checked: it keeps chunk numbers below 2^32.
            let index = message_index(self.index).expect("a checked length");
            seal(key, index, chunk, out);
            self.index += 1;
        }
        let rest = full.remainder();
        if !rest.is_empty() {
            if self.pending.capacity() == 0 {
                // All at once: growing would leave copies of plaintext behind.
                *self.pending = Vec::with_capacity(plain);
            }
            self.pending.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Appends the last chunk, once.
    pub(super) fn finish(&mut self, key: &GcmKey, out: &mut Vec<u8>) -> Result<()> {
        if self.finished {
            return Ok(());
        }
        seal(key, message_index(self.index)?, &self.pending, out);
        self.pending.clear();
        self.finished = true;
        Ok(())
    }

    /// Body bytes produced so far.
    pub(super) fn body_len(&self, position: u64) -> u64 {
        if self.finished {
            self.chunk.body_len(position)
        } else {
            self.index * self.chunk.sealed() as u64
        }
    }
}

fn seal(key: &GcmKey, index: u32, plaintext: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + plaintext.len(), 0);
    let tag = key.seal(index, &[], plaintext, &mut out[start..]);
    out.extend_from_slice(&tag);
}

/// Verifies a whole chunk and decrypts `plaintext.len()` bytes from its byte `skip` on.
pub(crate) fn open_chunk(
    key: &GcmKey,
    index: u64,
    chunk: &[u8],
    skip: usize,
    plaintext: &mut [u8],
) -> Result<()> {
    let number = message_index(index)?;
    let (ciphertext, tag) =
        chunk.split_last_chunk::<TAG_LEN>().ok_or_else(|| authentication("a chunk is cut"))?;
    if key.open(number, &[], ciphertext, tag, skip, plaintext) {
        return Ok(());
    }
    Err(authentication(format!("chunk {index} failed its authentication")))
}
