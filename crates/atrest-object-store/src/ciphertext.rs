//! Ciphertext on its way to the store below, in memory that is used again.
//!
//! Fresh memory is dear: at a few gigabytes a second the system takes longer to give out
//! and clear its pages than the processor to encrypt into them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use atrest::{Encryptor, HEADER_LEN};
use bytes::Bytes;
use object_store::PutPayload;

/// Bytes of one buffer.
const BUFFER_LEN: usize = 256 << 10;
/// Buffers that wait for their next use: 16 MiB.
const KEPT_MAX: usize = 64;

/// Buffers that come back when the store below has let go of them. A clone shares them.
#[derive(Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Box<[u8]>>>>);

impl Buffers {
    /// Memory for the next of `len` bytes: a part of a buffer would be a waste if the store
    /// below keeps what it gets.
    fn take(&self, len: usize) -> Buffer {
        if len < BUFFER_LEN / 2 {
            return Buffer { bytes: vec![0; len].into(), filled: 0, home: None };
        }
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = kept.unwrap_or_else(|| vec![0; BUFFER_LEN].into());
        Buffer { bytes, filled: 0, home: Some(self.clone()) }
    }
}

struct Buffer {
    /// Behind `filled` stands old ciphertext.
    bytes: Box<[u8]>,
    filled: usize,
    home: Option<Buffers>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            let mut kept = home.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < KEPT_MAX {
                kept.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

/// What was encrypted and not sent yet, the header first.
pub(crate) struct Ciphertext {
    buffers: Buffers,
    pieces: VecDeque<Bytes>,
    current: Option<Buffer>,
    len: usize,
}

impl Ciphertext {
    /// The header of a file of which `len` more bytes come soon.
    pub(crate) fn new(buffers: Buffers, header: &[u8; HEADER_LEN], len: usize) -> Self {
        let mut buffer = buffers.take(HEADER_LEN + len);
        buffer.bytes[..HEADER_LEN].copy_from_slice(header);
        buffer.filled = HEADER_LEN;
        Self { buffers, pieces: VecDeque::new(), current: Some(buffer), len: HEADER_LEN }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Encrypts the next bytes of the file, each once. After an error a part of them may be
    /// here: the file must be given up then.
    pub(crate) fn append(
        &mut self,
        encryptor: &mut Encryptor,
        plaintext: &PutPayload,
    ) -> atrest::Result<()> {
        let mut left = plaintext.content_length();
        for mut chunk in plaintext.iter().map(|chunk| &chunk[..]) {
            while !chunk.is_empty() {
                let buffer = self.current.get_or_insert_with(|| self.buffers.take(left));
                let room = &mut buffer.bytes[buffer.filled..];
                let now = chunk.len().min(room.len());
                encryptor.encrypt(&chunk[..now], &mut room[..now])?;
                buffer.filled += now;
                self.len += now;
                left -= now;
                chunk = &chunk[now..];
                if buffer.filled == buffer.bytes.len() {
                    self.end_buffer();
                }
            }
        }
        Ok(())
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
