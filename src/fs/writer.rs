//! Writing one new file from its first byte to its last.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::buffer::Buffer;
use crate::cipher::Encryptor;
use crate::error::{Error, ErrorKind, Result};
use crate::header;
use crate::ids::DataKeyId;
use crate::store::ledger::{FileRecord, Owner, Token};
use crate::store::places::Places;
use crate::suite::output::Output;
use crate::suite::sealer::Intake;
use crate::vfs::WriteFile;

#[cfg(test)]
mod tests;

/// A new file. Appends go, encrypted on the way, into one buffer.
///
/// In suite 2 a chunk is encrypted when it is full and the last one by
/// [`finish`](Self::finish), which writes the tags too (16 bytes a chunk, at most 1 MiB): a file
/// that was not finished is refused by every reader, whatever was synced. In suite 3 each append is one frame, of at most
/// [`FRAME_LEN_MAX`](crate::FRAME_LEN_MAX) bytes, and the buffer grows to hold a longer one.
///
/// Dropping it without [`finish`](Self::finish) loses what is in the buffer, as a crash
/// would. After an error of the file system it takes no more
/// ([`Poisoned`](ErrorKind::Poisoned)): delete the file and write a new one.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: Box<dyn WriteFile>,
    encryptor: Encryptor,
    /// Ciphertext, and in front of the first the header.
    buffer: Buffer,
    unsynced: bool,
    poisoned: bool,
    places: Arc<Places>,
    token: Option<Token>,
}

/// A finished file, for the engine's manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sealed {
    /// Plaintext length in bytes.
    pub len: u64,
    /// Length on disk in bytes.
    pub physical_len: u64,
    /// The data key.
    pub data_key_id: DataKeyId,
    /// The header's commitment: names this very file and its key.
    pub commitment: [u8; 32],
}

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        file: Box<dyn WriteFile>,
        encryptor: Encryptor,
        buffer_len_max: usize,
        places: Arc<Places>,
        token: Option<Token>,
    ) -> Self {
        Self {
            buffer: Buffer::new(buffer_len_max, encryptor.header()),
            path,
            file,
            encryptor,
            unsynced: true,
            poisoned: false,
            places,
            token,
        }
    }

    /// The path it was created at.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a reader will tell each append from the next one.
    pub(crate) fn keeps_appends(&self) -> bool {
        self.encryptor.suite().keeps_appends()
    }

    /// Plaintext bytes appended so far: the offset of the next one.
    pub fn position(&self) -> u64 {
        self.encryptor.position()
    }

    /// Appends bytes: encrypted once, straight into the buffer; the buffer is written
    /// when it is full.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), which poisons the writer; [`Poisoned`](ErrorKind::Poisoned);
    /// [`FileTooLarge`](ErrorKind::FileTooLarge) and
    /// [`CmekRevoked`](ErrorKind::CmekRevoked), after which nothing more than whole
    /// buffers or chunks of `bytes` was taken: compare [`position`](Self::position);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for too many bytes in suite 3, of
    /// which then none was taken.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.check()?;
        match self.encryptor.intake() {
            Intake::InPlace => self.append_in_place(bytes),
            Intake::Chunks { room, chunk_len } => self.append_chunks(bytes, room, chunk_len),
            Intake::Whole { extra, len_max } => self.append_whole(&[bytes], extra, len_max),
        }
    }

    /// Appends several times: in suite 3 each gets a frame of its own, and all go to the file in
    /// one write, at once or with what is written next. In other suites it is one append of all.
    ///
    /// # Errors
    /// Those of [`append`](Self::append). In suite 3 none of them was taken then.
    pub fn append_many(&mut self, appends: &[&[u8]]) -> Result<()> {
        self.check()?;
        match self.encryptor.intake() {
            Intake::Whole { extra, len_max } => self.append_whole(appends, extra, len_max),
            _ => appends.iter().try_for_each(|append| self.append(append)),
        }
    }

    fn append_in_place(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.buffer.is_full() {
                self.write_out()?;
            }
            let room = self.buffer.room(bytes.len());
            let (now, later) = bytes.split_at(room.len());
            let encrypted = self.encryptor.encrypt(now, room);
            encrypted.map_err(|error| error.with_path(&self.path))?;
            self.buffer.fill(now.len());
            bytes = later;
        }
        Ok(())
    }

    /// As many chunks at once as the buffer has room for, but at least one, past the buffer's
    /// end if it has to.
    fn append_chunks(&mut self, mut bytes: &[u8], mut room: usize, chunk_len: usize) -> Result<()> {
        while !bytes.is_empty() {
            if self.buffer.is_full() {
                self.write_out()?;
            }
            let more = (self.buffer.space() / chunk_len).saturating_sub(1) * chunk_len;
            let (now, later) = bytes.split_at((room + more).min(bytes.len()));
            self.encrypt(now)?;
            (bytes, room) = (later, chunk_len);
        }
        Ok(())
    }

    fn append_whole(&mut self, appends: &[&[u8]], extra: usize, len_max: usize) -> Result<()> {
        let lens = || appends.iter().map(|append| append.len());
        let len = lens().fold(0, |sum: usize, len| sum.saturating_add(len).saturating_add(extra));
        if lens().all(|len| len <= len_max) && !self.buffer.fits(len) {
            self.write_out()?;
            // A long append does not leave its room behind for good.
            self.buffer.shrink();
        }
        self.put(|encryptor, output| encryptor.put_many(appends, output))
    }

    fn encrypt(&mut self, bytes: &[u8]) -> Result<()> {
        self.put(|encryptor, output| encryptor.put(bytes, output))
    }

    fn put(
        &mut self,
        put: impl FnOnce(&mut Encryptor, &mut Output<'_>) -> Result<()>,
    ) -> Result<()> {
        let encryptor = &mut self.encryptor;
        let appended = self.buffer.append(|output| put(encryptor, output));
        appended.map_err(|error| error.with_path(&self.path))
    }

    /// Hands all that was appended to the system, without making it durable.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), which poisons the writer; [`Poisoned`](ErrorKind::Poisoned);
    /// [`CmekRevoked`](ErrorKind::CmekRevoked), after which it can be called again once
    /// access is back.
    pub fn flush(&mut self) -> Result<()> {
        self.write_out()?;
        let flushed = self.file.flush();
        flushed.map_err(|source| self.poison("the file cannot be written", source))
    }

    fn write_out(&mut self) -> Result<()> {
        self.check()?;
        // Ciphertext could go out without a key; but a revoked store takes no more.
        self.encryptor.check_access().map_err(|error| error.with_path(&self.path))?;
        // A forked child shares the file and has copies of the buffers: if it wrote, the
        // parent's bytes would stand in the file twice, or be cut off.
        self.encryptor.check_process().map_err(|error| error.with_path(&self.path))?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        // Set here, so that a failed `append` that took a part of its bytes counts too.
        self.unsynced = true;
        let written = self.file.append(self.buffer.filled());
        written.map_err(|source| self.poison("the file cannot be written", source))?;
        self.buffer.clear();
        Ok(())
    }

    fn poison(&mut self, what: &str, source: io::Error) -> Error {
        self.poisoned = true;
        Error::io(what, source).with_path(&self.path)
    }

    /// Makes all that was appended durable; costs nothing if it is. In suite 2 that means
    /// the chunks that are full: what is in the last one is neither durable nor readable
    /// before [`finish`](Self::finish). The file's name is durable only after
    /// [`EncryptedFs::sync_dir`](super::EncryptedFs::sync_dir) of its directory.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush).
    pub fn sync(&mut self) -> Result<()> {
        self.write_out()?;
        if self.unsynced {
            let synced = self.file.sync();
            synced.map_err(|source| self.poison("the file cannot be made durable", source))?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Ends the file and makes its content durable: one fsync, none if nothing was appended
    /// since [`sync`](Self::sync) and the suite adds no last chunk. Its **name** is durable
    /// only after [`EncryptedFs::sync_dir`](super::EncryptedFs::sync_dir), which is the
    /// engine's to call, once for all the files it created, renamed and removed in a
    /// directory: until then a power cut may take the whole file away.
    ///
    /// # Errors
    /// Those of [`sync`](Self::sync); in suite 2 [`CmekRevoked`](ErrorKind::CmekRevoked).
    pub fn finish(mut self) -> Result<Sealed> {
        self.end()?;
        self.sync()?;
        Ok(self.account(self.sealed()))
    }

    /// Ends the file without making it durable: for files that need not outlive a crash,
    /// or whose engine syncs many at once.
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush); in suite 2 [`CmekRevoked`](ErrorKind::CmekRevoked).
    pub fn finish_unsynced(mut self) -> Result<Sealed> {
        self.end()?;
        self.flush()?;
        Ok(self.account(self.sealed()))
    }

    fn end(&mut self) -> Result<()> {
        self.check()?;
        self.put(Encryptor::put_end)
    }

    fn sealed(&self) -> Sealed {
        let header = self.encryptor.header();
        let (_, commitment) = header::created_and_commitment(header);
        Sealed {
            len: self.encryptor.position(),
            physical_len: self.encryptor.physical_len(),
            data_key_id: header::data_key_id(header::prefix(header)),
            commitment,
        }
    }

    /// From now on the file counts for its data key.
    fn account(&self, sealed: Sealed) -> Sealed {
        let (created_ns, _) = header::created_and_commitment(self.encryptor.header());
        let owner = match header::is_temporary(self.encryptor.header()) {
            true => Owner::Temporary,
            false => Owner::Key(sealed.data_key_id),
        };
        let record = FileRecord { owner, bytes: sealed.physical_len, created_ns };
        self.places.finished(self.token, record);
        sealed
    }

    fn check(&self) -> Result<()> {
        if self.poisoned {
            let what = "a write failed earlier: delete the file and write a new one";
            return Err(Error::new(ErrorKind::Poisoned, what).with_path(&self.path));
        }
        Ok(())
    }
}
