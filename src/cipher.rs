//! Encryption and decryption of file bodies, without I/O.
//!
//! [`Encryptor`] is sequential, not `Clone`, and owns its position, so that no byte of
//! keystream is used twice. [`Decryptor`] reads anywhere, from many threads. Nothing made
//! from a header can encrypt. Suite 1 is here and in `ctr`; what suites 2 and 3 add is in
//! `chunks` and `log`, over `gcm`.
//!
//! Both hold their key through a [`KeySlot`], from which the keyring takes it when access
//! to the customer's key is lost, and into which it puts it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::chunks::{ChunkLen, ChunkWriter};
use self::log::FrameWriter;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{HEADER_LEN, Header, Suite};
use crate::process::Process;

pub(crate) mod chunks;
pub(crate) mod ctr;
pub(crate) mod gcm;
pub(crate) mod log;
mod slot;

pub use log::FRAME_LEN_MAX;
pub(crate) use slot::{KeySlot, revoked};

/// Longest body in bytes, in every suite: the blocks of a file then number at most 2^40.
pub const BODY_LEN_MAX: u64 = 1 << 44;

/// Bytes that are made room for and encrypted in one go: they stay in the first cache.
const PIECE_LEN: usize = 16 << 10;

/// Bytes an encryptor counts by itself before it adds them to its data key's total.
const COUNT_BATCH_BYTES: u64 = 1 << 20;

fn not_length_preserving() -> Error {
    let what = format!("expected suite {:?}, found one that changes lengths", Suite::Aes256Ctr);
    Error::new(ErrorKind::UnsupportedFeature, what)
}

fn wrong_suite(found: Suite, wanted: &str) -> Error {
    Error::new(
        ErrorKind::UnsupportedFeature,
        format!("expected a suite with {wanted}, found {found:?}"),
    )
}

/// A body that is not what its writer wrote.
pub(crate) fn authentication(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Authentication, what)
}

/// The number of a message under one key: 32 bits, so that no nonce comes twice.
fn message_index(index: u64) -> Result<u32> {
    u32::try_from(index).map_err(|_| {
        let what = format!("expected fewer than 2^32 chunks or frames in a file, found {index}");
        Error::new(ErrorKind::FileTooLarge, what)
    })
}

/// What an encryptor knows about its position besides the number of plaintext bytes.
enum Progress {
    Stream,
    Chunks(ChunkWriter),
    Frames(FrameWriter),
}

/// Bytes encrypted under one data key.
#[derive(Debug, Default)]
pub(crate) struct ByteCount(AtomicU64);

impl ByteCount {
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self(bytes.into()))
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes over a count that is known from elsewhere, if it is higher.
    pub(crate) fn raise(&self, bytes: u64) {
        self.0.fetch_max(bytes, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Encrypts one new file from its first byte to its last.
///
/// Made by [`Keyring::encryptor`](crate::Keyring::encryptor) alone, with a fresh salt and
/// so a fresh key. Each byte position is encrypted once: if a write fails, the **same**
/// ciphertext may be written again, but the plaintext **MUST NOT** be encrypted again.
///
/// In any suite, [`append`](Self::append) turns plaintext into the next bytes of the body
/// and [`finish`](Self::finish) ends it. In suite 1, whose ciphertext is as long as the
/// plaintext, [`encrypt`](Self::encrypt) and [`encrypt_in_place`](Self::encrypt_in_place)
/// do the same without a `Vec`.
///
/// ```compile_fail
/// fn copied<T: Clone>() {}
/// copied::<atrest::Encryptor>();
/// ```
pub struct Encryptor {
    header: Box<[u8; HEADER_LEN]>,
    suite: Suite,
    slot: Arc<KeySlot>,
    position: u64,
    progress: Progress,
    finished: bool,
    uncounted: u64,
    count: Arc<ByteCount>,
    /// The process that may write: a forked child shares the file and would reuse the
    /// keystream.
    process: Process,
}

impl Encryptor {
    pub(crate) fn new(
        header: Box<[u8; HEADER_LEN]>,
        suite: Suite,
        slot: Arc<KeySlot>,
        count: Arc<ByteCount>,
    ) -> Self {
        let process = Process::current();
        let progress = match suite {
            Suite::Aes256Ctr => Progress::Stream,
            Suite::Aes256GcmChunks => Progress::Chunks(ChunkWriter::new(header[13])),
            Suite::Aes256GcmLog => Progress::Frames(FrameWriter::default()),
        };
        Self {
            header,
            suite,
            slot,
            position: 0,
            progress,
            finished: false,
            uncounted: 0,
            count,
            process,
        }
    }

    /// The 4096 bytes to write in front of the body.
    pub fn header(&self) -> &[u8; HEADER_LEN] {
        &self.header
    }

    /// The suite of the file.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Plaintext bytes taken so far: the offset of the next one.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the header and of the body given out so far: the length of the file, once
    /// the encryptor is finished.
    pub fn physical_len(&self) -> u64 {
        HEADER_LEN as u64
            + match &self.progress {
                Progress::Stream => self.position,
                Progress::Chunks(chunks) => chunks.body_len(self.position, self.finished),
                Progress::Frames(frames) => frames.body_len(self.position),
            }
    }

    /// Takes the next bytes of the file and appends to `out` what is to be written next.
    ///
    /// - Suite 1: as many bytes.
    /// - Suite 2: the chunks that are now full, maybe none. The rest, less than a chunk,
    ///   waits inside until more comes or the encryptor is [finished](Self::finish).
    /// - Suite 3: one frame of 20 bytes more; nothing for no bytes.
    ///
    /// # Errors
    /// [`FileTooLarge`](ErrorKind::FileTooLarge),
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for more than
    /// [`FRAME_LEN_MAX`] bytes in suite 3,
    /// [`CmekRevoked`](ErrorKind::CmekRevoked), [`Poisoned`](ErrorKind::Poisoned) in a
    /// forked child. Nothing was taken then, and `out` is as it was.
    pub fn append(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.check_process()?;
        let position = self.position;
        match &mut self.progress {
            Progress::Stream => {
                let mut at = self.reserve(plaintext.len())?;
                self.slot.with_ctr(|key| {
                    out.reserve(plaintext.len());
                    for piece in plaintext.chunks(PIECE_LEN) {
                        let start = out.len();
                        out.resize(start + piece.len(), 0);
                        key.apply(at, piece, &mut out[start..]);
                        at += piece.len() as u64;
                    }
                })?;
            }
            Progress::Chunks(chunks) => {
                chunks.check_len(position, plaintext.len())?;
                self.slot.with_gcm(|key| chunks.append(key, plaintext, out))?;
            }
            Progress::Frames(_) if plaintext.is_empty() => {}
            Progress::Frames(frames) => {
                frames.check_len(position, plaintext.len())?;
                self.slot.with_gcm(|key| frames.append(key, plaintext, out))?;
            }
        }
        self.advance(plaintext.len());
        Ok(())
    }

    /// Ends the file: appends to `out` the last chunk of suite 2, nothing in other suites.
    ///
    /// A file of suite 2 without it is refused by every reader.
    ///
    /// # Errors
    /// [`CmekRevoked`](ErrorKind::CmekRevoked), [`Poisoned`](ErrorKind::Poisoned) in a
    /// forked child. The file cannot be ended any more then.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<()> {
        self.end(out)
    }

    /// [`finish`](Self::finish), leaving the lengths to be asked for. Nothing may be
    /// appended afterwards.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.check_process()?;
        if let Progress::Chunks(chunks) = &mut self.progress
            && !self.finished
        {
            self.slot.with_gcm(|key| chunks.finish(key, out))?;
        }
        self.finished = true;
        Ok(())
    }

    /// Plaintext bytes until the present chunk of suite 2 is full.
    pub(crate) fn chunk_room(&self) -> Option<usize> {
        match &self.progress {
            Progress::Chunks(chunks) => Some(chunks.room()),
            Progress::Stream | Progress::Frames(_) => None,
        }
    }

    /// Whether the key is still here, for what does not use it but must stop with it.
    ///
    /// # Errors
    /// [`CmekRevoked`](ErrorKind::CmekRevoked).
    pub fn check_access(&self) -> Result<()> {
        self.slot.check()
    }

    /// Encrypts the next bytes of the file where they stand.
    ///
    /// # Errors
    /// [`FileTooLarge`](ErrorKind::FileTooLarge),
    /// [`CmekRevoked`](ErrorKind::CmekRevoked), [`Poisoned`](ErrorKind::Poisoned) in a
    /// forked child, [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) for a suite that
    /// changes lengths. `buf` is then unchanged and the position stays.
    pub fn encrypt_in_place(&mut self, buf: &mut [u8]) -> Result<()> {
        self.check_process()?;
        let position = self.reserve(buf.len())?;
        self.slot.with_ctr(|key| key.apply_in_place(position, buf))?;
        self.advance(buf.len());
        Ok(())
    }

    /// Encrypts the next bytes of the file from `plaintext` into `ciphertext`, in one pass.
    ///
    /// # Errors
    /// Those of [`encrypt_in_place`](Self::encrypt_in_place), and
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the lengths differ.
    pub fn encrypt(&mut self, plaintext: &[u8], ciphertext: &mut [u8]) -> Result<()> {
        self.check_process()?;
        same_len(plaintext, ciphertext)?;
        let position = self.reserve(plaintext.len())?;
        self.slot.with_ctr(|key| key.apply(position, plaintext, ciphertext))?;
        self.advance(plaintext.len());
        Ok(())
    }

    /// Refuses in a forked child, which must not go on writing its parent's file.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.process.check("a forked child cannot go on writing its parent's file")
    }

    fn reserve(&self, len: usize) -> Result<u64> {
        match self.position.checked_add(len as u64) {
            Some(end) if end <= BODY_LEN_MAX => Ok(self.position),
            _ => Err(Error::new(
                ErrorKind::FileTooLarge,
                format!("expected at most {BODY_LEN_MAX} bytes in a file"),
            )),
        }
    }

    fn advance(&mut self, len: usize) {
        self.position += len as u64;
        self.uncounted += len as u64;
        if self.uncounted >= COUNT_BATCH_BYTES {
            self.count.add(std::mem::take(&mut self.uncounted));
        }
    }
}

impl Drop for Encryptor {
    fn drop(&mut self) {
        self.count.add(self.uncounted);
    }
}

impl std::fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryptor")
            .field("suite", &self.suite)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// Decrypts one file at any offset, from any number of threads.
///
/// Made by [`Keyring::decryptor`](crate::Keyring::decryptor) from a header that its data
/// key proved. A clone shares the key.
#[derive(Clone)]
pub struct Decryptor {
    suite: Suite,
    /// In suite 2.
    chunk: Option<ChunkLen>,
    slot: Arc<KeySlot>,
}

impl Decryptor {
    pub(crate) fn new(header: &Header, slot: Arc<KeySlot>) -> Self {
        let chunk = header.chunk_len.map(|len| ChunkLen::from_log2(len.trailing_zeros() as u8));
        Self { suite: header.suite, chunk, slot }
    }

    /// The suite of the file.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Decrypts where they stand the bytes read from logical offset `offset_bytes`
    /// (physical offset minus 4096). No allocation, no lock, no system call.
    ///
    /// # Errors
    /// [`CmekRevoked`](ErrorKind::CmekRevoked),
    /// [`FileTooLarge`](ErrorKind::FileTooLarge) beyond 2^44,
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) for a suite that changes
    /// lengths. `buf` is then unchanged.
    #[inline]
    pub fn decrypt_in_place(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset_bytes, buf.len())?;
        self.slot.with_ctr(|key| key.apply_in_place(offset_bytes, buf))
    }

    /// Decrypts from `ciphertext` into `plaintext`, in one pass.
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
        same_len(ciphertext, plaintext)?;
        self.check(offset_bytes, ciphertext.len())?;
        self.slot.with_ctr(|key| key.apply(offset_bytes, ciphertext, plaintext))
    }

    #[inline]
    fn check(&self, offset_bytes: u64, len: usize) -> Result<()> {
        match offset_bytes.checked_add(len as u64) {
            Some(end) if end <= BODY_LEN_MAX => Ok(()),
            _ => Err(Error::new(
                ErrorKind::FileTooLarge,
                format!("expected an offset below {BODY_LEN_MAX}, found {offset_bytes}"),
            )),
        }
    }
}

impl std::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decryptor").field("suite", &self.suite).finish_non_exhaustive()
    }
}

fn same_len(from: &[u8], to: &[u8]) -> Result<()> {
    if from.len() == to.len() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("expected two buffers of one length, found {} and {}", from.len(), to.len()),
    ))
}

#[cfg(test)]
mod tests;
