//! Decrypting one file.

use std::sync::Arc;

use super::gcm::TAG_LEN;
use super::slot::KeySlot;
use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::suite::chunks::open_chunk;
use crate::suite::layout::Layout;
use crate::suite::limits::authentication;
use crate::suite::log::{FRAME_EXTRA, frame_len, open_frame};
use crate::suite::{Suite, stream};

/// Decrypts one file at any offset, from any number of threads.
///
/// Made by [`Keyring::decryptor`](crate::Keyring::decryptor) from a header that its data
/// key proved. A clone shares the key.
#[derive(Clone)]
pub struct Decryptor {
    layout: Layout,
    slot: Arc<KeySlot>,
}

impl Decryptor {
    pub(crate) fn new(header: &Header, slot: Arc<KeySlot>) -> Self {
        Self { layout: header.layout, slot }
    }

    /// For a reader, which keeps more state.
    pub(crate) fn into_parts(self) -> (Layout, Arc<KeySlot>) {
        (self.layout, self.slot)
    }

    /// The suite of the file.
    pub fn suite(&self) -> Suite {
        self.layout.suite()
    }

    /// Decrypts where they stand the bytes read from logical offset `offset_bytes`
    /// (physical offset minus 4096). No allocation, no lock, no system call.
    ///
    /// Suite 1 has no integrity: this is XOR with the file's keystream, so that of plaintext
    /// it makes ciphertext. Whoever has a decryptor can forge the file's body, and what comes
    /// of bytes that are not the file's **MUST NOT** leave the process: with the file itself it
    /// gives both away.
    ///
    /// # Errors
    /// [`CmekRevoked`](ErrorKind::CmekRevoked),
    /// [`FileTooLarge`](ErrorKind::FileTooLarge) beyond 2^44,
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) for a suite that changes
    /// lengths. `buf` is then unchanged.
    #[inline]
    pub fn decrypt_in_place(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        stream::apply_in_place(&self.slot, offset_bytes, buf)
    }

    /// Decrypts from `ciphertext` into `plaintext`, in one pass; what
    /// [`decrypt_in_place`](Self::decrypt_in_place) says of forging holds here.
    ///
    /// # Errors
    /// Those of [`decrypt_in_place`](Self::decrypt_in_place), and
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the lengths differ.
    pub fn decrypt(
        &self,
        offset_bytes: u64,
        ciphertext: &[u8],
        plaintext: &mut [u8],
    ) -> Result<()> {
        stream::apply(&self.slot, offset_bytes, ciphertext, plaintext)
    }

    /// Ciphertext bytes of a full chunk, in suite 2.
    pub fn chunk_len(&self) -> Option<usize> {
        self.layout.chunk_len().map(|len| len as usize)
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
        self.layout.plaintext_len(body_len)
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
    /// is then unchanged.
    pub fn decrypt_chunk(&self, index: u64, chunk: &[u8], plaintext: &mut [u8]) -> Result<()> {
        let sealed = self.layout.chunks()?.sealed();
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
        self.slot.with_gcm(|key| open_chunk(key, index, chunk, 0, plaintext))
    }

    /// Decrypts frame `index` of suite 3, with which `bytes` begins, onto the end of
    /// `plaintext`. Returns how many of `bytes` it took; `None` if they end inside the
    /// frame: there is more to read, or the log was torn there. A frame that fails its
    /// authentication ends the log just so (rule F17): nothing behind it **MUST** be used.
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
        self.layout.check_frames()?;
        let Some(head) = bytes.first_chunk() else { return Ok(None) };
        let len = frame_len(*head)
            .ok_or_else(|| authentication(format!("frame {index} has an impossible length")))?;
        let Some(frame) = bytes.get(..len + FRAME_EXTRA) else { return Ok(None) };
        let start = plaintext.len();
        plaintext.resize(start + len, 0);
        let opened =
            self.slot.with_gcm(|key| open_frame(key, index, frame, 0, &mut plaintext[start..]));
        if opened.is_err() {
            plaintext.truncate(start);
        }
        opened.map(|()| Some(frame.len()))
    }
}

impl std::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decryptor").field("suite", &self.suite()).finish_non_exhaustive()
    }
}
