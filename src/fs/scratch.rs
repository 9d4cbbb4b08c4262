//! One buffer of ciphertext for each thread, so that reading suites 2 and 3 allocates once.
//!
//! Plaintext never gets into it: it is decrypted straight into the caller's buffer.

use std::cell::Cell;

use crate::cipher::authentication;
use crate::error::{Error, Result};
use crate::header::HEADER_LEN;
use crate::vfs::ReadFile;

/// A longer buffer, for a long log frame, is freed after use.
const KEPT_LEN_MAX: usize = 1 << 20;

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The thread's buffer, taken out: a file system that itself reads encrypted files gets
/// another one.
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    pub(super) fn take() -> Self {
        // A thread that is ending has none any more.
        Self(KEPT.try_with(Cell::take).unwrap_or_default())
    }

    /// `len` bytes with any content.
    pub(super) fn bytes(&mut self, len: usize) -> &mut [u8] {
        if self.0.len() < len {
            self.0.resize(len, 0);
        }
        &mut self.0[..len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.capacity() <= KEPT_LEN_MAX {
            let buffer = std::mem::take(&mut self.0);
            // Without a place to keep it, it is freed.
            let _ = KEPT.try_with(|kept| kept.set(buffer));
        }
    }
}

/// Fills `buf` from an offset of the body; the file was seen to be long enough.
pub(super) fn read_exact(file: &dyn ReadFile, buf: &mut [u8], body_offset: u64) -> Result<()> {
    let read = file
        .read_at(buf, body_offset + HEADER_LEN as u64)
        .map_err(|e| Error::io("the file cannot be read", e))?;
    if read == buf.len() {
        return Ok(());
    }
    Err(authentication("the file became shorter while it was open"))
}
