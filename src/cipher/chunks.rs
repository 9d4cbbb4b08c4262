//! Suite 2: chunks that are authenticated one by one (`docs/FORMAT.md`, section 4).
//!
//! A ciphertext chunk has C = 2^12..=2^20 bytes: C - 16 of plaintext and a tag. Chunk `k`
//! is message `k` of the file's [`GcmKey`]. The last chunk always carries fewer plaintext
//! bytes than the others, maybe none, so that its place is sure and the length of the
//! file is authenticated with it.

use zeroize::Zeroizing;

use super::gcm::{GcmKey, TAG_LEN};
use super::{BODY_LEN_MAX, Decryptor, authentication, message_index};
use crate::error::{Error, ErrorKind, Result};

/// The length of a file's chunks, as a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkLen {
    log2: u8,
}

impl ChunkLen {
    /// `log2` is in 12..=20: a header and a [`FileSpec`](crate::FileSpec) were checked.
    pub(crate) const fn from_log2(log2: u8) -> Self {
        Self { log2 }
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

    /// Body bytes of a finished file with `len` bytes of plaintext.
    pub(crate) const fn body_len(self, len: u64) -> u64 {
        (len / self.plain() as u64) * self.sealed() as u64
            + len % self.plain() as u64
            + TAG_LEN as u64
    }
}

/// What an encryptor knows about the chunk it is at.
pub(super) struct ChunkWriter {
    chunk: ChunkLen,
    index: u64,
    /// Plaintext of the chunk that is not full; fewer than a chunk's bytes.
    pending: Zeroizing<Vec<u8>>,
}

impl ChunkWriter {
    pub(super) fn new(log2: u8) -> Self {
        let chunk = ChunkLen::from_log2(log2);
        Self { chunk, index: 0, pending: Zeroizing::default() }
    }

    /// Bytes until the present chunk is full; at least 1.
    pub(super) fn room(&self) -> usize {
        self.chunk.plain() - self.pending.len()
    }

    pub(super) fn check_len(&self, position: u64, len: usize) -> Result<()> {
        let max = self.chunk.file_len_max();
        match position.checked_add(len as u64) {
            Some(end) if end <= max => Ok(()),
            _ => Err(Error::new(
                ErrorKind::FileTooLarge,
                format!("expected at most {max} bytes in a file"),
            )),
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

    /// Appends the last chunk.
    pub(super) fn finish(&mut self, key: &GcmKey, out: &mut Vec<u8>) -> Result<()> {
        seal(key, message_index(self.index)?, &self.pending, out);
        self.index += 1;
        self.pending.clear();
        Ok(())
    }

    /// Body bytes produced so far.
    pub(super) fn body_len(&self, position: u64, finished: bool) -> u64 {
        if finished {
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

impl Decryptor {
    /// Ciphertext bytes of a full chunk, in suite 2.
    pub fn chunk_len(&self) -> Option<usize> {
        self.chunks().ok().map(ChunkLen::sealed)
    }

    /// Plaintext bytes of a file that has `body_len` bytes after its header, in suites 1
    /// and 2.
    ///
    /// In suite 2 that length is authenticated by the last chunk: the caller **MUST**
    /// decrypt that chunk before it trusts the length.
    ///
    /// # Errors
    /// [`Authentication`](ErrorKind::Authentication) for a length that no file of suite 2
    /// has: it was cut, extended, or is not finished;
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) in suite 3, where the length
    /// depends on the frames.
    pub fn plaintext_len(&self, body_len: u64) -> Result<u64> {
        if !self.suite.is_authenticated() {
            return Ok(body_len);
        }
        self.chunks()?.file_len(body_len).ok_or_else(|| {
            authentication("the last chunk is missing: the file was cut, extended or not finished")
        })
    }

    /// Decrypts chunk `index` of suite 2: `chunk` is its ciphertext and tag, `plaintext` is
    /// 16 bytes shorter. All chunks but the last have [`chunk_len`](Self::chunk_len) bytes;
    /// the last one **MUST** be shorter, and the caller **MUST** refuse a file without it.
    ///
    /// # Errors
    /// [`Authentication`](ErrorKind::Authentication),
    /// [`CmekRevoked`](ErrorKind::CmekRevoked),
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for other lengths,
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) in other suites. `plaintext`
    /// is zeros after a failed authentication, and else unchanged.
    pub fn decrypt_chunk(&self, index: u64, chunk: &[u8], plaintext: &mut [u8]) -> Result<()> {
        let sealed = self.chunks()?.sealed();
        if chunk.len() > sealed || chunk.len() != plaintext.len() + TAG_LEN {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "expected a chunk of 16 to {sealed} bytes and 16 fewer of plaintext, found {} and {}",
                    chunk.len(),
                    plaintext.len()
                ),
            ));
        }
        self.open_chunk(index, chunk, 0, plaintext)
    }

    /// Verifies a whole chunk and decrypts `plaintext.len()` bytes from its byte `skip` on:
    /// zeros if it fails its authentication.
    pub(crate) fn open_chunk(
        &self,
        index: u64,
        chunk: &[u8],
        skip: usize,
        plaintext: &mut [u8],
    ) -> Result<()> {
        let number = message_index(index)?;
        let (ciphertext, tag) =
            chunk.split_last_chunk::<TAG_LEN>().ok_or_else(|| authentication("a chunk is cut"))?;
        self.slot.with_gcm(|key| {
            if key.open(number, &[], ciphertext, tag, skip, plaintext) {
                return Ok(());
            }
            Err(authentication(format!("chunk {index} failed its authentication")))
        })
    }

    pub(crate) fn chunks(&self) -> Result<ChunkLen> {
        self.chunk.ok_or_else(|| super::wrong_suite(self.suite, "chunks"))
    }
}
