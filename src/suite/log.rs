//! Suite 3: a log of authenticated frames (`docs/FORMAT.md`, section 5).
//!
//! Each append is one frame, message number `frame index` of the file's [`GcmKey`]:
//!
//! ```text
//! off  len  field
//!   0    4  n, big-endian, 1..=2^24; also the additional data of the tag
//!   4    n  ciphertext
//! 4+n   16  tag
//! ```

use super::limits::{BODY_LEN_MAX, message_index, too_large};
use super::output::Output;
use crate::cipher::gcm::{GcmKey, TAG_LEN};
use crate::error::{Error, ErrorKind, Result};

mod index;
pub(super) mod open;
pub(super) mod scan;

pub use scan::{Torn, TornReason};

/// Most plaintext bytes in one frame, and so in one append to a log of suite 3.
pub const FRAME_LEN_MAX: usize = 1 << 24;

/// Length of a frame's first field in bytes.
const HEAD_LEN: usize = 4;

/// Bytes that a frame has besides its plaintext.
pub(crate) const FRAME_EXTRA: usize = HEAD_LEN + TAG_LEN;

/// The plaintext length that a frame's head says; `None` if no frame has it.
pub(crate) fn frame_len(head: [u8; HEAD_LEN]) -> Option<usize> {
    let len = u32::from_be_bytes(head) as usize;
    (1..=FRAME_LEN_MAX).contains(&len).then_some(len)
}

/// Whether a frame, all of which is given, is what was written.
///
/// # Errors
/// [`FileTooLarge`](ErrorKind::FileTooLarge) for a number that no frame has.
pub(crate) fn verify(key: &GcmKey, index: u64, frame: &[u8]) -> Result<bool> {
    open(key, index, frame, 0, &mut [])
}

/// Verifies a frame and decrypts `plaintext.len()` bytes from its byte `skip` on: zeros if it
/// is not what was written.
pub(crate) fn open_frame(
    key: &GcmKey,
    index: u64,
    frame: &[u8],
    skip: usize,
    plaintext: &mut [u8],
) -> Result<()> {
    if open(key, index, frame, skip, plaintext)? {
        return Ok(());
    }
    let failed = format!("frame {index} failed its authentication");
    Err(super::limits::authentication(failed))
}

fn open(key: &GcmKey, index: u64, frame: &[u8], skip: usize, plaintext: &mut [u8]) -> Result<bool> {
    let number = message_index(index)?;
    let parts = frame
        .split_first_chunk::<HEAD_LEN>()
        .and_then(|(head, rest)| Some((head, rest.split_last_chunk::<TAG_LEN>()?)));
    // The head is the additional data: it must be true of the bytes that are hashed.
    Ok(parts.is_some_and(|(head, (ciphertext, tag))| {
        frame_len(*head) == Some(ciphertext.len())
            && key.open(number, head, ciphertext, tag, skip, plaintext)
    }))
}

/// What an encryptor knows about the log it writes.
#[derive(Default)]
pub(crate) struct FrameSealer {
    index: u64,
}

impl FrameSealer {
    /// Whether appends of these lengths can come at `position`.
    pub(super) fn check_lens(
        &self,
        position: u64,
        lens: impl IntoIterator<Item = usize>,
    ) -> Result<()> {
        let (mut sum, mut count) = (0_u64, 0);
        for len in lens {
            self.check_len(position + sum, count, len)?;
            (sum, count) = (sum + len as u64, count + 1);
        }
        Ok(())
    }

    /// Whether an append can come behind `before` others, that are to end at `position`.
    fn check_len(&self, position: u64, before: u64, len: usize) -> Result<()> {
        if len > FRAME_LEN_MAX {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "expected at most {FRAME_LEN_MAX} bytes in one append to a log, found {len}"
                ),
            ));
        }
        // Position and frames so far are below 2^44 and 2^32: nothing overflows.
        let index = self.index + before;
        let end = body_len(position, index) + (len + FRAME_EXTRA) as u64;
        if end > BODY_LEN_MAX || message_index(index).is_err() {
            return Err(too_large(format!(
                "expected at most 2^32 frames and {BODY_LEN_MAX} bytes in a log"
            )));
        }
        Ok(())
    }

    /// Appends one frame; the length was checked.
    pub(super) fn append(
        &mut self,
        key: &GcmKey,
        plaintext: &[u8],
        out: &mut Output<'_>,
    ) -> Result<()> {
        let index = message_index(self.index)?;
        let head = (plaintext.len() as u32).to_be_bytes();
        out.reserve(plaintext.len() + FRAME_EXTRA);
        out.push(&head);
        let tag = key.seal(index, &head, plaintext, out.room(plaintext.len()));
        out.push(&tag);
        self.index += 1;
        Ok(())
    }

    /// Body bytes produced so far.
    pub(super) fn body_len(&self, position: u64) -> u64 {
        body_len(position, self.index)
    }
}

/// Body bytes of a log of so many plaintext bytes in so many frames.
pub(super) const fn body_len(len: u64, frames: u64) -> u64 {
    len + frames * FRAME_EXTRA as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Several appends at once are counted with each other, their bytes and their frames.
    #[test]
    fn of_several_appends_all_have_to_fit() {
        let log = FrameSealer::default();
        let most = BODY_LEN_MAX - 3 * FRAME_EXTRA as u64 - 30;
        assert!(log.check_lens(most, [10, 10, 10]).is_ok());
        assert!(log.check_lens(most, [10, 10, 11]).is_err());
        assert!(log.check_lens(most + 1, [10, 10, 10]).is_err());
        let nearly_full = FrameSealer { index: u32::MAX.into() };
        assert!(nearly_full.check_lens(0, [1]).is_ok());
        assert!(nearly_full.check_lens(0, [1, 1]).is_err());
    }
}
