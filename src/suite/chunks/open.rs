//! Reading a file of suite 2: any offset, whole chunks verified.

use std::sync::Arc;

use super::{ChunkLen, open_chunk};
use crate::cipher::KeySlot;
use crate::error::Result;
use crate::suite::limits::authentication;
use crate::suite::source::{Scratch, Source, read_exact};

/// Ciphertext bytes that one call to the file system reads, if a chunk is not longer.
const BATCH_LEN: usize = 256 << 10;

/// A file whose length was verified.
pub(crate) struct Chunks {
    slot: Arc<KeySlot>,
    chunk: ChunkLen,
    /// Plaintext bytes.
    len: u64,
}

/// The plaintext length that a body claims: true once its last chunk is verified.
pub(in crate::suite) fn claimed_len(chunk: ChunkLen, body_len: u64) -> Result<u64> {
    chunk.file_len(body_len).ok_or_else(|| {
        authentication("the last chunk is missing: the file was cut, extended or not finished")
    })
}

impl Chunks {
    /// Reads and verifies the last chunk, and with it the file's length.
    pub(in crate::suite) fn open(
        chunk: ChunkLen,
        slot: Arc<KeySlot>,
        source: &impl Source,
    ) -> Result<Self> {
        let len = claimed_len(chunk, source.body_len()?)?;
        let chunks = Self { slot, chunk, len };
        let last = len / chunk.plain() as u64;
        chunks.for_each(source, last, last, |index, chunk| {
            chunks.slot.with_gcm(|key| open_chunk(key, index, chunk, 0, &mut []))
        })?;
        Ok(chunks)
    }

    pub(in crate::suite) fn len(&self) -> u64 {
        self.len
    }

    /// Where in the body the bytes at a logical offset are, roughly: for hints.
    pub(in crate::suite) fn physical(&self, offset_bytes: u64) -> u64 {
        let chunk = offset_bytes / self.chunk.plain() as u64;
        chunk << self.chunk.log2()
    }

    /// Fills `buf` as far as the file goes. What is in `buf` after an error is plaintext of
    /// verified chunks and the caller's old bytes, never unverified plaintext.
    pub(in crate::suite) fn read_at(
        &self,
        source: &impl Source,
        buf: &mut [u8],
        offset_bytes: u64,
    ) -> Result<usize> {
        let rest = self.len.saturating_sub(offset_bytes);
        let wanted = usize::try_from(rest).map_or(buf.len(), |rest| rest.min(buf.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let plain = self.chunk.plain();
        let (first, last) = (offset_bytes, offset_bytes + wanted as u64 - 1);
        let mut done = 0;
        self.for_each(source, first / plain as u64, last / plain as u64, |index, chunk| {
            let skip = ((first + done as u64) % plain as u64) as usize;
            let len = (plain - skip).min(wanted - done);
            let plaintext = &mut buf[done..done + len];
            self.slot.with_gcm(|key| open_chunk(key, index, chunk, skip, plaintext))?;
            done += len;
            Ok(())
        })?;
        Ok(wanted)
    }

    /// Reads the chunks from `first` to `last` and hands out the ciphertext of each.
    fn for_each(
        &self,
        source: &impl Source,
        first: u64,
        last: u64,
        mut use_chunk: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let sealed = self.chunk.sealed();
        let batch = (BATCH_LEN / sealed).max(1) as u64;
        let body_len = self.chunk.body_len(self.len);
        let mut scratch = Scratch::take();
        for index in (first..=last).step_by(batch as usize) {
            let start = index * sealed as u64;
            let count = batch.min(last - index + 1);
            let end = (start + count * sealed as u64).min(body_len);
            let bytes = scratch.bytes((end - start) as usize);
            read_exact(source, bytes, start)?;
            for (index, chunk) in (index..).zip(bytes.chunks(sealed)) {
                use_chunk(index, chunk)?;
            }
        }
        Ok(())
    }
}
