//! Reading one file: any offset, any number of threads, no lock.

use std::io;
use std::path::{Path, PathBuf};

use super::START_LEN_MAX;
use super::chunks::Chunks;
use super::log::{Log, Torn};
use crate::cipher::Decryptor;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{HEADER_LEN, Suite};
use crate::keyring::AccessFlag;
use crate::vfs::ReadFile;

/// A file open for reading. Offsets and lengths are those of the plaintext.
///
/// What opening and reading cost depends on the suite:
///
/// - Suite 1: nothing is read at opening; a read is one `pread` into the caller's buffer,
///   decrypted there. Changed bytes are **not** noticed.
/// - Suite 2: opening verifies the last chunk, which authenticates the length. A read
///   brings the whole chunks that it touches into a buffer of the thread's (256 KiB, or one
///   chunk if that is longer), verifies each, and decrypts what was asked for into the
///   caller's buffer.
/// - Suite 3: opening reads and verifies the whole log, and remembers where each frame ends
///   (8 to 16 bytes a frame). A read verifies again the frames that it touches, through the
///   same buffer or one as long as a frame. A log that is still being written can be read:
///   [`len`](Self::len), and reads beyond the known end, look for what was added.
///
/// No read takes a lock, except while a growing log's new frames are being looked for.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Box<dyn ReadFile>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// A plaintext file, which the store's policy allowed. It stops together with the
    /// encrypted ones.
    Plain(AccessFlag),
    Stream(Decryptor),
    Chunks(Chunks),
    Log(Box<Log>),
}

impl Reader {
    pub(super) fn plain(path: PathBuf, file: Box<dyn ReadFile>, access: AccessFlag) -> Self {
        Self { path, file, body: Body::Plain(access) }
    }

    pub(crate) fn encrypted(
        path: PathBuf,
        file: Box<dyn ReadFile>,
        decryptor: Decryptor,
    ) -> Result<Self> {
        let body = match decryptor.suite() {
            Suite::Aes256Ctr => Body::Stream(decryptor),
            Suite::Aes256GcmChunks => Body::Chunks(Chunks::open(&*file, decryptor)?),
            Suite::Aes256GcmLog => Body::Log(Box::new(Log::open(&*file, decryptor)?)),
        };
        Ok(Self { path, file, body })
    }

    /// The path it was opened at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The suite; `None` for a plaintext file.
    pub fn suite(&self) -> Option<Suite> {
        let decryptor = match &self.body {
            Body::Plain(_) => return None,
            Body::Stream(decryptor) => decryptor,
            Body::Chunks(chunks) => chunks.decryptor(),
            Body::Log(log) => log.decryptor(),
        };
        Some(decryptor.suite())
    }

    /// Plaintext length in bytes: asked of the file system anew in suite 1, that of the
    /// whole frames there are now in suite 3, the one verified at opening in suite 2.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io); in suite 3 [`Authentication`](ErrorKind::Authentication) and
    /// [`CmekRevoked`](ErrorKind::CmekRevoked) too.
    pub fn len(&self) -> Result<u64> {
        match &self.body {
            Body::Plain(_) => self.physical_len(),
            Body::Stream(_) => Ok(self.physical_len()?.saturating_sub(HEADER_LEN as u64)),
            Body::Chunks(chunks) => Ok(chunks.len()),
            Body::Log(log) => self.at_path(log.len(&*self.file)),
        }
    }

    /// Where a log of suite 3 ends inside a frame, as of opening or of the last look behind
    /// its end: the append that a crash cut off, or one that is being written. `None` for a
    /// log that ends with a whole frame, and for other suites.
    pub fn torn(&self) -> Option<Torn> {
        match &self.body {
            Body::Log(log) => log.torn(),
            _ => None,
        }
    }

    /// How many frames a log of suite 3 has now: one for each append.
    ///
    /// # Errors
    /// Those of [`len`](Self::len);
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) in other suites.
    pub fn frame_count(&self) -> Result<u64> {
        self.at_path(self.log().and_then(|log| log.frame_count(&*self.file)))
    }

    /// Puts what append number `frame` wrote, counted from 0, in place of what is in
    /// `plaintext`. False, and nothing done, if a log of suite 3 has no such frame yet.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), [`CmekRevoked`](ErrorKind::CmekRevoked),
    /// [`Authentication`](ErrorKind::Authentication),
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) in other suites. `plaintext` is
    /// then empty.
    pub fn read_frame(&self, frame: u64, plaintext: &mut Vec<u8>) -> Result<bool> {
        let read = self.log().and_then(|log| log.read_frame(&*self.file, frame, plaintext));
        if read.is_err() {
            plaintext.clear();
        }
        self.at_path(read)
    }

    fn log(&self) -> Result<&Log> {
        match &self.body {
            Body::Log(log) => Ok(log),
            _ => Err(Error::new(
                ErrorKind::UnsupportedFeature,
                format!("expected suite {:?}, found {:?}", Suite::Aes256GcmLog, self.suite()),
            )),
        }
    }

    /// Whether the plaintext is empty.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset_bytes`. In suite 1 that is one `pread` into the caller's
    /// buffer, decrypted there. No allocation, no lock.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), with `UnexpectedEof` if the file ends earlier;
    /// [`CmekRevoked`](ErrorKind::CmekRevoked);
    /// [`Authentication`](ErrorKind::Authentication) in suites 2 and 3. `buf` then holds
    /// zeros.
    pub fn read_exact_at(&self, buf: &mut [u8], offset_bytes: u64) -> Result<()> {
        let read = self.read_at(buf, offset_bytes)?;
        if read == buf.len() {
            return Ok(());
        }
        buf.fill(0);
        let what = format!(
            "expected {} bytes at offset {offset_bytes}, found {read} before the end",
            buf.len()
        );
        Err(Error::new(ErrorKind::Io(io::ErrorKind::UnexpectedEof), what).with_path(&self.path))
    }

    /// Reads up to `buf.len()` bytes; fewer only at the end of the file. Returns the
    /// number of bytes.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), [`CmekRevoked`](ErrorKind::CmekRevoked),
    /// [`Authentication`](ErrorKind::Authentication). `buf` then holds zeros.
    pub fn read_at(&self, buf: &mut [u8], offset_bytes: u64) -> Result<usize> {
        let result = self.read_inner(buf, offset_bytes);
        if result.is_err() {
            // A caller that ignores the error must not take ciphertext for data.
            buf.fill(0);
        }
        result
    }

    /// Fills `buf` from the file's beginning, of which the ciphertext `start` was read
    /// together with the header.
    pub(super) fn read_from_start(&self, start: &[u8], buf: &mut [u8]) -> Result<usize> {
        match &self.body {
            // Less than asked for: either the end of the file, or of what is read ahead.
            Body::Stream(decryptor) if start.len() == buf.len() || start.len() < START_LEN_MAX => {
                let buf = &mut buf[..start.len()];
                self.at_path(decryptor.decrypt(0, start, buf)).map(|()| start.len())
            }
            _ => self.read_at(buf, 0),
        }
    }

    #[inline]
    fn read_inner(&self, buf: &mut [u8], offset_bytes: u64) -> Result<usize> {
        match &self.body {
            Body::Plain(access) => {
                self.at_path(access.check())?;
                self.read_file(buf, offset_bytes, 0)
            }
            Body::Stream(decryptor) => {
                let read = self.read_file(buf, offset_bytes, HEADER_LEN as u64)?;
                self.at_path(decryptor.decrypt_in_place(offset_bytes, &mut buf[..read]))?;
                Ok(read)
            }
            Body::Chunks(chunks) => self.at_path(chunks.read_at(&*self.file, buf, offset_bytes)),
            Body::Log(log) => self.at_path(log.read_at(&*self.file, buf, offset_bytes)),
        }
    }

    #[inline]
    fn read_file(&self, buf: &mut [u8], offset_bytes: u64, header_len: u64) -> Result<usize> {
        let physical = offset_bytes.checked_add(header_len).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "the offset overflows").with_path(&self.path)
        })?;
        self.file.read_at(buf, physical).map_err(|e| self.fail("the file cannot be read", e))
    }

    /// Tells the system which bytes will be read soon. A hint.
    pub fn will_need(&self, offset_bytes: u64, len: u64) {
        let physical = |offset: u64| match &self.body {
            Body::Plain(_) => offset,
            Body::Stream(_) => offset.saturating_add(HEADER_LEN as u64),
            Body::Chunks(chunks) => chunks.physical(offset),
            Body::Log(log) => log.physical_at(offset),
        };
        let start = physical(offset_bytes);
        let end = physical(offset_bytes.saturating_add(len));
        self.file.will_need(start, end.saturating_sub(start));
    }

    fn physical_len(&self) -> Result<u64> {
        self.file.len().map_err(|e| self.fail("the file's length is unknown", e))
    }

    fn at_path<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.with_path(&self.path))
    }

    fn fail(&self, what: &str, source: io::Error) -> Error {
        Error::io(what, source).with_path(&self.path)
    }
}
