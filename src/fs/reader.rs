//! Reading one file: any offset, any number of threads, no lock.

use std::io;
use std::path::{Path, PathBuf};

use crate::cipher::Decryptor;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{HEADER_LEN, Suite};
use crate::vfs::ReadFile;

/// A file open for reading. Offsets and lengths are those of the plaintext.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Box<dyn ReadFile>,
    /// `None` for a plaintext file, which the store's policy allowed.
    decryptor: Option<Decryptor>,
}

impl Reader {
    pub(super) fn new(
        path: PathBuf,
        file: Box<dyn ReadFile>,
        decryptor: Option<Decryptor>,
    ) -> Self {
        Self { path, file, decryptor }
    }

    /// The path it was opened at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The suite; `None` for a plaintext file.
    pub fn suite(&self) -> Option<Suite> {
        self.decryptor.as_ref().map(Decryptor::suite)
    }

    /// Plaintext length in bytes, asked of the file system anew.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    pub fn len(&self) -> Result<u64> {
        let len = self.file.len().map_err(|e| self.fail("the file's length is unknown", e))?;
        Ok(len.saturating_sub(self.header_len()))
    }

    /// Whether the plaintext is empty.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset_bytes`: one `pread` into the caller's buffer, decrypted
    /// there. No allocation, no lock.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), with `UnexpectedEof` if the file ends earlier;
    /// [`CmekRevoked`](ErrorKind::CmekRevoked). `buf` then holds zeros.
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
    /// [`Io`](ErrorKind::Io), [`CmekRevoked`](ErrorKind::CmekRevoked). `buf` then holds
    /// zeros.
    pub fn read_at(&self, buf: &mut [u8], offset_bytes: u64) -> Result<usize> {
        let result = self.read_inner(buf, offset_bytes);
        if result.is_err() {
            // A caller that ignores the error must not take ciphertext for data.
            buf.fill(0);
        }
        result
    }

    fn read_inner(&self, buf: &mut [u8], offset_bytes: u64) -> Result<usize> {
        let physical = offset_bytes.checked_add(self.header_len()).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "the offset overflows").with_path(&self.path)
        })?;
        let read = self
            .file
            .read_at(buf, physical)
            .map_err(|e| self.fail("the file cannot be read", e))?;
        if let Some(decryptor) = &self.decryptor {
            decryptor
                .decrypt_in_place(offset_bytes, &mut buf[..read])
                .map_err(|error| error.with_path(&self.path))?;
        }
        Ok(read)
    }

    /// Tells the system which bytes will be read soon. A hint.
    pub fn will_need(&self, offset_bytes: u64, len: u64) {
        self.file.will_need(offset_bytes.saturating_add(self.header_len()), len);
    }

    fn header_len(&self) -> u64 {
        if self.decryptor.is_some() { HEADER_LEN as u64 } else { 0 }
    }

    fn fail(&self, what: &str, source: io::Error) -> Error {
        Error::io(what, source).with_path(&self.path)
    }
}
