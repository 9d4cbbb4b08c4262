//! Ciphertext on its way to the store below, in memory that is used again.
//!
//! Fresh memory is dear: at a few gigabytes a second the system takes longer to give out
//! and clear its pages than the processor to encrypt into them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::object_store::PutPayload;
use atrest::{Encryptor, HEADER_LEN};
use bytes::Bytes;

use crate::chunked::Chunked;

/// Bytes of one buffer, about: what goes in last may come out as a chunk more.
const BUFFER_LEN: usize = 256 << 10;
/// Longest buffer that is kept: tags may have made it longer.
const BUFFER_LEN_MAX: usize = BUFFER_LEN + (16 << 10);
/// Buffers that wait for their next use: 16 MiB.
const KEPT_MAX: usize = 64;

/// Buffers that come back when the store below has let go of them. A clone shares them.
#[derive(Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// Memory for the next of `len` bytes: a part of a buffer would be a waste if the store
    /// below keeps what it gets.
    fn take(&self, len: usize) -> Buffer {
        if len < BUFFER_LEN / 2 {
            return Buffer { bytes: Vec::with_capacity(len), home: None };
        }
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut bytes = kept.unwrap_or_else(|| Vec::with_capacity(BUFFER_LEN + (8 << 10)));
        bytes.clear();
        Buffer { bytes, home: Some(self.clone()) }
    }
}

struct Buffer {
    bytes: Vec<u8>,
    home: Option<Buffers>,
}

impl Buffer {
    /// Bytes that may go in before it is full.
    fn room(&self) -> usize {
        let len = if self.home.is_some() { BUFFER_LEN } else { self.bytes.capacity() };
        len.saturating_sub(self.bytes.len())
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = &self.home
            && self.bytes.capacity() <= BUFFER_LEN_MAX
        {
            let mut kept = home.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < KEPT_MAX {
                kept.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

/// A whole object that was encrypted, for whoever remembers it.
pub(crate) struct Written {
    pub(crate) physical_len: u64,
    /// Its last bytes, as far as they were not sent before.
    pub(crate) end: Bytes,
}

/// What was encrypted and not sent yet, the header first.
pub(crate) struct Ciphertext {
    buffers: Buffers,
    pieces: VecDeque<Bytes>,
    current: Option<Buffer>,
    len: usize,
    /// Bytes that were taken before.
    taken: u64,
}

impl Ciphertext {
    /// The header of an object of which `len` more bytes come soon.
    pub(crate) fn new(buffers: Buffers, header: &[u8; HEADER_LEN], len: usize) -> Self {
        let mut buffer = buffers.take(HEADER_LEN + len);
        buffer.bytes.extend_from_slice(header);
        let pieces = VecDeque::new();
        Self { buffers, pieces, current: Some(buffer), len: HEADER_LEN, taken: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Encrypts the next bytes of the object, each once. After an error a part of them may be
    /// here: the object must be given up then.
    pub(crate) fn append(
        &mut self,
        encryptor: &mut Encryptor,
        plaintext: &PutPayload,
    ) -> atrest::Result<()> {
        let mut left = plaintext.content_length();
        for mut chunk in plaintext.iter().map(|chunk| &chunk[..]) {
            while !chunk.is_empty() {
                let buffer = self.current.get_or_insert_with(|| self.buffers.take(left));
                let now = chunk.len().min(buffer.room());
                let before = buffer.bytes.len();
                encryptor.append(&chunk[..now], &mut buffer.bytes)?;
                self.len += buffer.bytes.len() - before;
                left -= now;
                chunk = &chunk[now..];
                if buffer.room() == 0 {
                    self.end_buffer();
                }
            }
        }
        Ok(())
    }

    /// Ends the object. Nothing may be appended any more.
    pub(crate) fn finish(&mut self, encryptor: Encryptor) -> atrest::Result<Written> {
        // Short, but for the tags of a long object.
        let buffer = self.current.get_or_insert_with(|| self.buffers.take(0));
        let before = buffer.bytes.len();
        encryptor.finish(&mut buffer.bytes)?;
        self.len += buffer.bytes.len() - before;
        let physical_len = self.taken + self.len as u64;
        Ok(Written { physical_len, end: self.end(Chunked::end_len_max()) })
    }

    /// A copy of the last `len` bytes, or fewer.
    fn end(&self, len: usize) -> Bytes {
        let current = self.current.as_ref().map(|buffer| &buffer.bytes[..]);
        let pieces = self.pieces.iter().rev().map(|piece| &piece[..]);
        let (mut end, mut left) = (VecDeque::new(), len);
        for piece in current.into_iter().chain(pieces) {
            let part = &piece[piece.len().saturating_sub(left)..];
            left -= part.len();
            end.push_front(part);
        }
        end.iter().flat_map(|part| part.iter()).copied().collect()
    }

    fn end_buffer(&mut self) {
        self.pieces.extend(self.current.take().map(Bytes::from_owner));
    }

    /// Takes the first `len` bytes, or all if there are fewer.
    pub(crate) fn take(&mut self, len: usize) -> PutPayload {
        let mut left = len.min(self.len);
        if left > self.pieces.iter().map(Bytes::len).sum() {
            self.end_buffer();
        }
        self.len -= left;
        self.taken += left as u64;
        let mut taken = Vec::new();
        while left > 0
            && let Some(mut piece) = self.pieces.pop_front()
        {
            if piece.len() > left {
                self.pieces.push_front(piece.split_off(left));
            }
            left -= piece.len();
            taken.push(piece);
        }
        taken.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
