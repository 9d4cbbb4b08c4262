//! A writer's buffer: small until it is needed large, and never zeroed twice.

use crate::error::Result;
use crate::suite::output::Output;

/// First size in bytes: the header and a little more, without a system call for memory.
const FIRST_LEN: usize = 16 << 10;

/// Bytes to be written. What stands behind them is old ciphertext.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
    len_max: usize,
}

impl Buffer {
    /// A buffer to be written out when it holds `len_max` bytes.
    pub(super) fn new(len_max: usize, first: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(len_max.min(FIRST_LEN).max(first.len()));
        bytes.extend_from_slice(first);
        Self { filled: bytes.len(), bytes, len_max }
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled >= self.len_max
    }

    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Room for up to `len` more bytes, to be [`fill`](Self::fill)ed: at least one unless
    /// the buffer is full.
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.filled.saturating_add(len).min(self.len_max.max(self.filled));
        if end > self.bytes.len() {
            if end > self.bytes.capacity() {
                // Fresh pages of the system are zeros already: no pass over them here.
                let mut grown = vec![0; self.len_max];
                grown[..self.filled].copy_from_slice(&self.bytes[..self.filled]);
                self.bytes = grown;
            } else {
                self.bytes.resize(end, 0);
            }
        }
        &mut self.bytes[self.filled..end]
    }

    /// Counts `len` bytes of the room as filled.
    pub(super) fn fill(&mut self, len: usize) {
        self.filled += len;
    }

    /// Lets `append` put bytes at the end, past `len_max` if it has to. Those of an error are
    /// not kept.
    pub(super) fn append(
        &mut self,
        append: impl FnOnce(&mut Output<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut output = Output::behind(&mut self.bytes, self.filled);
        append(&mut output)?;
        self.filled = output.filled();
        Ok(())
    }

    /// Gives back the room beyond `len_max` that something longer took.
    pub(super) fn shrink(&mut self) {
        self.bytes.truncate(self.filled);
        self.bytes.shrink_to(self.len_max);
    }

    /// Whether `len` more bytes fit.
    pub(super) fn fits(&self, len: usize) -> bool {
        self.filled.saturating_add(len) <= self.len_max
    }

    /// Bytes until it is full.
    pub(super) fn space(&self) -> usize {
        self.len_max.saturating_sub(self.filled)
    }
}
