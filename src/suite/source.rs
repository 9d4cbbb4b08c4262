//! Where a body's ciphertext comes from, and the memory it is read into.

use std::cell::Cell;
use std::ops::Range;

use super::limits::authentication;
use crate::cipher::gcm::will_read;
use crate::error::Result;

/// The body of one file: what stands behind its header.
///
/// Whoever has the bytes implements it; nothing in this room reads a file. Offsets are those
/// of the body.
pub(crate) trait Source {
    /// Bytes of the body now.
    fn body_len(&self) -> Result<u64>;

    /// The same when the body was opened, or now.
    fn opened_len(&self) -> Result<u64>;

    /// Fills `buf` as far as the body goes; returns how many bytes.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize>;

    /// The body as far as it is in memory that somebody else may write to. Ciphers alone may read
    /// there: each byte once.
    fn mapped(&self) -> &[u8] {
        &[]
    }
}

/// A part of a mapped body, if all of it is there.
#[inline]
pub(super) fn mapped_part(source: &impl Source, range: Range<u64>) -> Option<&[u8]> {
    let mapped = source.mapped();
    mapped.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

/// How much of a mapped body the processor is asked for before it is wanted. What follows it fetches
/// by itself, faster than if it were asked for more.
const AHEAD_LEN: usize = 2 << 10;

/// Has the beginning of a mapped part on its way from memory while its key is looked up.
#[inline]
pub(super) fn will_read_mapped(mapped: &[u8]) {
    will_read(&mapped[..mapped.len().min(AHEAD_LEN)]);
}

/// Fills `buf` from a body that was seen to be long enough.
pub(super) fn read_exact(source: &impl Source, buf: &mut [u8], offset: u64) -> Result<()> {
    if source.read(buf, offset)? == buf.len() {
        return Ok(());
    }
    Err(authentication("the file became shorter while it was open"))
}

/// A longer buffer, for a long log frame, is freed after use.
const KEPT_LEN_MAX: usize = 1 << 20;

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// One buffer of ciphertext for each thread, so that reading authenticated suites allocates
/// once. Plaintext never gets into it: it is decrypted straight into the caller's buffer.
///
/// It is taken out while in use: a file system that itself reads encrypted files gets
/// another one.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    pub(crate) fn take() -> Self {
        // A thread that is ending has none any more.
        Self(KEPT.try_with(Cell::take).unwrap_or_default())
    }

    /// `len` bytes with any content.
    pub(crate) fn bytes(&mut self, len: usize) -> &mut [u8] {
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
