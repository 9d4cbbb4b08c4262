//! Decrypting one file.

use std::sync::Arc;

use super::gcm::TAG_LEN;
use super::slot::KeySlot;
use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::suite::chunks::{ChunkMap, open_in_place, open_part, verify_end};
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

    /// Bytes of a full chunk, in suite 2.
    pub fn chunk_len(&self) -> Option<usize> {
        self.layout.chunk_len().map(|len| len as usize)
    }

    /// Plaintext bytes of a file that has `body_len` bytes after its header, in suites 1
    /// and 2.
    ///
    /// In suite 2 that length is authenticated by the end of the body: the caller **MUST**
    /// [verify](Self::verify_end) it before it trusts the length.
    ///
    /// # Errors
    /// [`Authentication`](ErrorKind::Authentication) for a length that no file of suite 2
    /// has: it was cut, extended, or is not finished;
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) in suite 3, where the length
    /// depends on the frames.
    pub fn plaintext_len(&self, body_len: u64) -> Result<u64> {
        self.layout.plaintext_len(body_len)
    }

    /// Where the chunks of suite 2 and their tags are, in a body of `body_len` bytes.
    ///
    /// # Errors
    /// [`Authentication`](ErrorKind::Authentication) for a length that no file has,
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) in other suites.
    pub fn chunk_map(&self, body_len: u64) -> Result<ChunkMap> {
        self.layout.chunk_map(body_len)
    }

    /// Proves the length of a file of suite 2: `end` is what stands at
    /// [`ChunkMap::end`]. The caller **MUST** refuse a file of another length.
    ///
    /// # Errors
    /// [`Authentication`](ErrorKind::Authentication),
    /// [`CmekRevoked`](ErrorKind::CmekRevoked),
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) in other suites.
    pub fn verify_end(&self, map: &ChunkMap, end: &[u8]) -> Result<()> {
        self.layout.chunks()?;
        self.slot.with_gcm(|key| verify_end(key, map.plaintext_len(), end))
    }

    /// Verifies whole adjacent chunks of suite 2, from number `first` on, and decrypts them
    /// where they stand. `tags` has 16 bytes for each. All but the last of the file have
    /// [`chunk_len`](Self::chunk_len) bytes.
    ///
    /// # Errors
    /// [`Authentication`](ErrorKind::Authentication),
    /// [`CmekRevoked`](ErrorKind::CmekRevoked),
    /// [`FileTooLarge`](ErrorKind::FileTooLarge) for a number that no chunk has,
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for other lengths,
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) in other suites. Of `chunks`
    /// nothing is left then.
    pub fn decrypt_chunks_in_place(
        &self,
        first: u64,
        chunks: &mut [u8],
        tags: &[u8],
    ) -> Result<()> {
        let chunk = self.layout.chunks()?;
        let opened = tags_of(chunks.len(), chunk.bytes(), tags).and_then(|tags| {
            self.slot.with_gcm(|key| open_in_place(key, chunk, first, chunks, tags))
        });
        if opened.is_err() {
            chunks.fill(0);
        }
        opened
    }

    /// Verifies whole adjacent chunks of suite 2, as
    /// [`decrypt_chunks_in_place`](Self::decrypt_chunks_in_place) does, and decrypts
    /// `plaintext.len()` bytes from byte `skip` of the first on.
    ///
    /// # Errors
    /// Those of [`decrypt_chunks_in_place`](Self::decrypt_chunks_in_place);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for chunks that nothing is wanted of.
    /// `plaintext` then holds zeros.
    pub fn decrypt_chunks(
        &self,
        first: u64,
        chunks: &[u8],
        tags: &[u8],
        skip: usize,
        plaintext: &mut [u8],
    ) -> Result<()> {
        let chunk = self.layout.chunks()?;
        let opened = tags_of(chunks.len(), chunk.bytes(), tags).and_then(|tags| {
            let end = skip.saturating_add(plaintext.len());
            let last = chunks.len().saturating_sub(1) / chunk.bytes() * chunk.bytes();
            if skip >= chunk.bytes().min(chunks.len()) || end > chunks.len() || end <= last {
                let what = format!(
                    "expected a range with a part in each chunk of {} bytes, found {skip} to {end}",
                    chunks.len()
                );
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            self.slot.with_gcm(|key| open_part(key, chunk, first, chunks, tags, skip, plaintext))
        });
        if opened.is_err() {
            plaintext.fill(0);
        }
        opened
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

/// The tags of so many bytes of chunks, and no more.
fn tags_of(len: usize, chunk_len: usize, tags: &[u8]) -> Result<&[[u8; TAG_LEN]]> {
    let count = len.div_ceil(chunk_len);
    match tags.as_chunks::<TAG_LEN>() {
        (tags, []) if tags.len() == count => Ok(tags),
        _ => {
            let (wanted, found) = (count * TAG_LEN, tags.len());
            let what = format!("expected {wanted} bytes of tags, found {found}");
            Err(Error::new(ErrorKind::InvalidArgument, what))
        }
    }
}

impl std::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decryptor").field("suite", &self.suite()).finish_non_exhaustive()
    }
}
