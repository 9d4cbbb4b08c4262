//! Reading a file of suite 2: any offset, whole chunks verified.

use super::scratch::{Scratch, read_exact};
use crate::cipher::Decryptor;
use crate::cipher::chunks::ChunkLen;
use crate::error::{Error, Result};
use crate::header::HEADER_LEN;
use crate::vfs::ReadFile;

/// Ciphertext bytes that one call to the file system reads, if a chunk is not longer.
const BATCH_LEN: usize = 256 << 10;

/// A file of suite 2 whose length was verified.
#[derive(Debug)]
pub(super) struct Chunks {
    decryptor: Decryptor,
    chunk: ChunkLen,
    /// Plaintext bytes.
    len: u64,
}

impl Chunks {
    /// Reads and verifies the last chunk, and with it the file's length.
    pub(super) fn open(file: &dyn ReadFile, decryptor: Decryptor) -> Result<Self> {
        let chunk = decryptor.chunks()?;
        let physical = file.len().map_err(|e| Error::io("the file's length is unknown", e))?;
        let body_len = physical.saturating_sub(HEADER_LEN as u64);
        let len = decryptor.plaintext_len(body_len)?;
        let chunks = Self { decryptor, chunk, len };
        let last = len / chunk.plain() as u64;
        chunks.for_each(file, last, last, |index, chunk| {
            chunks.decryptor.open_chunk(index, chunk, 0, &mut [])
        })?;
        Ok(chunks)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn decryptor(&self) -> &Decryptor {
        &self.decryptor
    }

    /// Where in the file the bytes at a logical offset are, roughly: for hints.
    pub(super) fn physical(&self, offset_bytes: u64) -> u64 {
        let chunk = offset_bytes / self.chunk.plain() as u64;
        (chunk << self.chunk.sealed().trailing_zeros()).saturating_add(HEADER_LEN as u64)
    }

    /// Fills `buf` as far as the file goes. What is in `buf` after an error is plaintext of
    /// verified chunks and the caller's old bytes, never unverified plaintext.
    pub(super) fn read_at(
        &self,
        file: &dyn ReadFile,
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
        self.for_each(file, first / plain as u64, last / plain as u64, |index, chunk| {
            let skip = ((first + done as u64) % plain as u64) as usize;
            let len = (plain - skip).min(wanted - done);
            self.decryptor.open_chunk(index, chunk, skip, &mut buf[done..done + len])?;
            done += len;
            Ok(())
        })?;
        Ok(wanted)
    }

    /// Reads the chunks from `first` to `last` and hands out the ciphertext of each.
    fn for_each(
        &self,
        file: &dyn ReadFile,
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
            read_exact(file, bytes, start)?;
            for (index, chunk) in (index..).zip(bytes.chunks(sealed)) {
                use_chunk(index, chunk)?;
            }
        }
        Ok(())
    }
}
