//! Reading one file: any offset, any number of threads, no lock.

use std::io;
use std::path::{Path, PathBuf};

use super::START_LEN_MAX;
use super::source::{FileBody, ReadPath};
use crate::cipher::Decryptor;
use crate::error::{Error, ErrorKind, Result};
use crate::header::HEADER_LEN;
use crate::keyring::AccessFlag;
use crate::suite::Suite;
use crate::suite::log::Torn;
use crate::suite::unsealer::Unsealer;
use crate::vfs::{Map, ReadFile};

/// A file open for reading. Offsets and lengths are those of the plaintext.
///
/// What opening and reading cost depends on the suite:
///
/// - Suite 1: nothing is read at opening; a read is one `pread` into the caller's buffer,
///   decrypted there. Changed bytes are **not** noticed.
/// - Suite 2: opening verifies the end, which authenticates the length. Whole chunks are read
///   into the caller's buffer, verified and decrypted there, at most 256 KiB at a time; a read
///   that begins or ends within a chunk goes through a buffer of the thread's. Tags are read
///   256 at a time and kept, at most 64 MiB of them for the process.
/// - Suite 3: opening reads and verifies the log up to the first frame that is not good, and
///   remembers where each frame ends (8 to 16 bytes a frame); what ended it is told by
///   [`torn`](Self::torn). A read verifies again the frames that it touches, through the
///   same buffer or one as long as a frame. A log that is still being written can be read:
///   [`len`](Self::len), and reads beyond the known end, look for what was added.
///
/// No read takes a lock, except while a growing log's new frames are being looked for.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Box<dyn ReadFile>,
    map: Option<Map>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// A plaintext file, which the store's policy allowed. It stops together with the
    /// encrypted ones.
    Plain(AccessFlag),
    Encrypted(Unsealer),
}

impl Reader {
    pub(super) fn plain(path: PathBuf, file: Box<dyn ReadFile>, access: AccessFlag) -> Self {
        Self { path, file, map: None, content: Content::Plain(access) }
    }

    pub(crate) fn encrypted(
        path: PathBuf,
        file: Box<dyn ReadFile>,
        decryptor: Decryptor,
        read_path: ReadPath,
    ) -> Result<Self> {
        let (layout, slot) = decryptor.into_parts();
        let map = (read_path == ReadPath::Mapped && layout.can_be_mapped()).then(|| file.map());
        let content = Content::Encrypted(Unsealer::open(layout, slot, &FileBody::new(&*file))?);
        Ok(Self { path, file, map: map.flatten(), content })
    }

    /// Whether reads come from a map of the file.
    pub fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    fn body(&self) -> FileBody<'_> {
        FileBody { file: &*self.file, map: self.map.as_ref() }
    }

    /// The path it was opened at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The suite; `None` for a plaintext file.
    pub fn suite(&self) -> Option<Suite> {
        match &self.content {
            Content::Plain(_) => None,
            Content::Encrypted(unsealer) => Some(unsealer.suite()),
        }
    }

    /// The body and what is known of it; an error for plaintext, which `wanted` does not fit.
    fn unsealer(&self, wanted: &str) -> Result<(&Unsealer, FileBody<'_>)> {
        match &self.content {
            Content::Encrypted(unsealer) => Ok((unsealer, self.body())),
            Content::Plain(_) => {
                let what = format!("expected {wanted}, found a plaintext file");
                Err(Error::new(ErrorKind::UnsupportedFeature, what))
            }
        }
    }

    /// Plaintext length in bytes: asked of the file system anew in suite 1, that of the
    /// whole frames there are now in suite 3, the one verified at opening in suite 2.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io); in suite 3 [`CmekRevoked`](ErrorKind::CmekRevoked) too, and
    /// [`Authentication`](ErrorKind::Authentication) for a log that became shorter.
    pub fn len(&self) -> Result<u64> {
        self.at_path(match &self.content {
            Content::Plain(_) => {
                self.file.len().map_err(|e| Error::io("the file's length is unknown", e))
            }
            Content::Encrypted(unsealer) => unsealer.len(&self.body()),
        })
    }

    /// Plaintext bytes up to the first place that was allocated and never written, as a power
    /// cut leaves behind what was synced last; [`len`](Self::len) where there is none. In such a
    /// place a disk holds zeros, which suite 1 decrypts to noise: a recovery that goes by the
    /// noise takes it for data, or for damage where there is only an early end.
    ///
    /// What tells them is a whole block of 16 zero bytes of ciphertext, at an offset that is a
    /// multiple of 16. In written bytes it comes by chance once in 2^128 blocks: in the longest
    /// file with a chance of 2^-88. Up to 15 bytes in front of the returned offset may be
    /// unwritten too, and zeros that hold no whole such block are not told. A suite that
    /// authenticates has no such places; in a plaintext file zeros may be data, and the length
    /// is returned.
    ///
    /// Reads all of a file of suite 1 up to there. For files that are not being written.
    ///
    /// # Errors
    /// Those of [`len`](Self::len).
    pub fn written_len(&self) -> Result<u64> {
        match &self.content {
            Content::Plain(_) => self.len(),
            Content::Encrypted(unsealer) => self.at_path(unsealer.written_len(&self.body())),
        }
    }

    /// Where a log of suite 3 ends before its file does, and why, as of opening or of the
    /// last look behind its end: an append that a crash cut off, or that is being written, or
    /// damage. From there on nothing is read. `None` for a log that ends with a whole frame,
    /// and for other suites.
    pub fn torn(&self) -> Option<Torn> {
        match &self.content {
            Content::Plain(_) => None,
            Content::Encrypted(unsealer) => unsealer.torn(),
        }
    }

    /// How many frames a log of suite 3 has now: one for each append.
    ///
    /// # Errors
    /// Those of [`len`](Self::len);
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) in other suites.
    pub fn frame_count(&self) -> Result<u64> {
        let found = self.unsealer("a suite with frames");
        self.at_path(found.and_then(|(unsealer, body)| unsealer.append_count(&body)))
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
        let found = self.unsealer("a suite with frames");
        let read = found.and_then(|(unsealer, body)| unsealer.read_append(&body, frame, plaintext));
        if read.is_err() {
            plaintext.clear();
        }
        self.at_path(read)
    }

    /// The plaintext offset behind an append that was counted.
    pub(super) fn known_append_end(&self, number: u64) -> Option<u64> {
        self.unsealer("appends").ok()?.0.append_end(number)
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

    /// Reads the next piece of a file that is read through for a copy: up to the first place that
    /// was never [written](Self::written_len), and whether there is one.
    pub(super) fn read_written(&self, buf: &mut [u8], offset_bytes: u64) -> Result<(usize, bool)> {
        let result = match &self.content {
            Content::Plain(_) => self.read_inner(buf, offset_bytes).map(|read| (read, false)),
            Content::Encrypted(unsealer) => {
                self.at_path(unsealer.read_written(&self.body(), buf, offset_bytes))
            }
        };
        if result.is_err() {
            buf.fill(0);
        }
        result
    }

    /// Fills `buf` from the file's beginning, of which the ciphertext `start` was read
    /// together with the header.
    pub(super) fn read_from_start(&self, start: &[u8], buf: &mut [u8]) -> Result<usize> {
        // Less than asked for: either the end of the file, or of what is read ahead.
        let is_all = start.len() == buf.len() || start.len() < START_LEN_MAX;
        let opened = match &self.content {
            Content::Encrypted(unsealer) if is_all => {
                unsealer.read_start(start, &mut buf[..start.len()])
            }
            _ => None,
        };
        match opened {
            Some(opened) => self.at_path(opened).map(|()| start.len()),
            None => self.read_at(buf, 0),
        }
    }

    #[inline]
    fn read_inner(&self, buf: &mut [u8], offset_bytes: u64) -> Result<usize> {
        self.at_path(match &self.content {
            Content::Encrypted(unsealer) => unsealer.read_at(&self.body(), buf, offset_bytes),
            Content::Plain(access) => access.check().and_then(|()| {
                let read = self.file.read_at(buf, offset_bytes);
                read.map_err(|e| Error::io("the file cannot be read", e))
            }),
        })
    }

    /// Tells the system which bytes will be read soon. A hint.
    pub fn will_need(&self, offset_bytes: u64, len: u64) {
        let physical = |offset: u64| match &self.content {
            Content::Plain(_) => offset,
            Content::Encrypted(unsealer) => {
                unsealer.physical(offset).saturating_add(HEADER_LEN as u64)
            }
        };
        let start = physical(offset_bytes);
        let end = physical(offset_bytes.saturating_add(len));
        self.file.will_need(start, end.saturating_sub(start));
    }

    fn at_path<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.with_path(&self.path))
    }
}
