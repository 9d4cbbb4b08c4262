//! Where ciphertext goes that is to be written next.

/// The end of a buffer. What stands behind it is overwritten: old ciphertext, which need not be
/// cleared first.
pub(crate) struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    filled: usize,
}

impl<'a> Output<'a> {
    /// Onto the end of a vector.
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Self {
        let filled = bytes.len();
        Self { bytes, filled }
    }

    /// Behind the first `filled` bytes of a vector.
    pub(crate) fn behind(bytes: &'a mut Vec<u8>, filled: usize) -> Self {
        Self { bytes, filled }
    }

    /// How many bytes are filled now.
    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    /// Makes room for `len` bytes at once, so that none is moved twice.
    pub(crate) fn reserve(&mut self, len: usize) {
        self.bytes.reserve((self.filled + len).saturating_sub(self.bytes.len()));
    }

    /// The next `len` bytes, all to be written.
    pub(crate) fn room(&mut self, len: usize) -> &mut [u8] {
        let start = self.filled;
        self.filled += len;
        if self.filled > self.bytes.len() {
            self.bytes.resize(self.filled, 0);
        }
        &mut self.bytes[start..self.filled]
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
    }
}
