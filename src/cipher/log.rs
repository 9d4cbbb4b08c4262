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

use super::gcm::{GcmKey, TAG_LEN};
use super::{BODY_LEN_MAX, Decryptor, authentication, message_index, wrong_suite};
use crate::error::{Error, ErrorKind, Result};
use crate::header::Suite;

/// Most plaintext bytes in one frame, and so in one append to a log of suite 3.
pub const FRAME_LEN_MAX: usize = 1 << 24;

/// Length of a frame's first field in bytes.
pub(crate) const FRAME_HEAD_LEN: usize = 4;

/// Bytes that a frame has besides its plaintext.
pub(crate) const FRAME_EXTRA: usize = FRAME_HEAD_LEN + TAG_LEN;

/// Reads the plaintext length of a frame.
pub(crate) fn frame_len(head: [u8; FRAME_HEAD_LEN]) -> Result<usize> {
    let len = u32::from_be_bytes(head) as usize;
    if (1..=FRAME_LEN_MAX).contains(&len) {
        return Ok(len);
    }
    Err(authentication(format!("expected a frame of 1 to {FRAME_LEN_MAX} bytes, found {len}")))
}

/// What an encryptor knows about the log it writes.
#[derive(Default)]
pub(super) struct FrameWriter {
    index: u64,
}

impl FrameWriter {
    pub(super) fn check_len(&self, position: u64, len: usize) -> Result<()> {
        if len > FRAME_LEN_MAX {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "expected at most {FRAME_LEN_MAX} bytes in one append to a log, found {len}"
                ),
            ));
        }
        // Position and frames so far are below 2^44 and 2^32: nothing overflows.
        let end = self.body_len(position) + (len + FRAME_EXTRA) as u64;
        if end > BODY_LEN_MAX || message_index(self.index).is_err() {
            return Err(Error::new(
                ErrorKind::FileTooLarge,
                format!("expected at most 2^32 frames and {BODY_LEN_MAX} bytes in a log"),
            ));
        }
        Ok(())
    }

    /// Appends one frame; the length was checked.
    pub(super) fn append(
        &mut self,
        key: &GcmKey,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let index = message_index(self.index)?;
        let head = (plaintext.len() as u32).to_be_bytes();
        out.reserve(plaintext.len() + FRAME_EXTRA);
        out.extend_from_slice(&head);
        let start = out.len();
        out.resize(start + plaintext.len(), 0);
        let tag = key.seal(index, &head, plaintext, &mut out[start..]);
        out.extend_from_slice(&tag);
        self.index += 1;
        Ok(())
    }

    /// Body bytes produced so far.
    pub(super) fn body_len(&self, position: u64) -> u64 {
        position + self.index * FRAME_EXTRA as u64
    }
}

impl Decryptor {
    /// Decrypts frame `index` of suite 3, with which `bytes` begins, onto the end of
    /// `plaintext`. Returns how many of `bytes` it took; `None` if they end inside the
    /// frame: there is more to read, or the log was torn there.
    ///
    /// # Errors
    /// [`Authentication`](ErrorKind::Authentication),
    /// [`CmekRevoked`](ErrorKind::CmekRevoked),
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) in other suites. `plaintext`
    /// is then unchanged.
    pub fn decrypt_frame(
        &self,
        index: u64,
        bytes: &[u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<Option<usize>> {
        if self.suite != Suite::Aes256GcmLog {
            return Err(wrong_suite(self.suite, "frames"));
        }
        let Some(head) = bytes.first_chunk() else { return Ok(None) };
        let len = frame_len(*head)?;
        let Some(frame) = bytes.get(..len + FRAME_EXTRA) else { return Ok(None) };
        let start = plaintext.len();
        plaintext.resize(start + len, 0);
        let opened = self.open_frame(index, frame, 0, &mut plaintext[start..]);
        opened.inspect_err(|_| plaintext.truncate(start))?;
        Ok(Some(frame.len()))
    }

    /// Verifies a frame, all of which is given.
    pub(crate) fn verify_frame(&self, index: u64, frame: &[u8]) -> Result<()> {
        self.open_frame(index, frame, 0, &mut [])
    }

    /// Verifies a frame and decrypts `plaintext.len()` bytes from its byte `skip` on: zeros
    /// if it fails its authentication.
    pub(crate) fn open_frame(
        &self,
        index: u64,
        frame: &[u8],
        skip: usize,
        plaintext: &mut [u8],
    ) -> Result<()> {
        let number = message_index(index)?;
        let failed = || authentication(format!("frame {index} failed its authentication"));
        let (head, rest) = frame.split_first_chunk::<FRAME_HEAD_LEN>().ok_or_else(failed)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or_else(failed)?;
        // The head is the additional data: it must be true of the bytes that are hashed.
        if frame_len(*head)? != ciphertext.len() {
            return Err(failed());
        }
        self.slot.with_gcm(|key| {
            let opened = key.open(number, head, ciphertext, tag, skip, plaintext);
            if opened { Ok(()) } else { Err(failed()) }
        })
    }
}
