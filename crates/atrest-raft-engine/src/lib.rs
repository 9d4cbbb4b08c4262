#![doc = include_str!("../README.md")]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atrest::{EncryptedFs, ErrorKind, FileKind, Reader, Store, Suite, Writer};
use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

/// Most bytes of one write that are taken at once, and of a copy.
const PIECE_LEN: usize = 1 << 20;

/// What stands where a log is damaged: no record begins so.
const DAMAGED: u8 = 0xff;

/// The files of a store, for `Engine::open_with_file_system`. The engine's directories are best
/// below the store's own; one elsewhere is registered when the first file is created.
#[derive(Clone, Debug)]
pub struct EncryptedFileSystem {
    files: EncryptedFs,
}

impl EncryptedFileSystem {
    /// Logs in files of `store`.
    pub fn new(store: &Store) -> Self {
        Self { files: store.files().clone() }
    }

    fn log(&self, path: &Path, state: State) -> Log {
        Log { files: self.files.clone(), path: path.into(), state: Mutex::new(state) }
    }

    /// With what a crash left beside it.
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.remove(path)?;
        match self.files.remove(beside(path)) {
            Err(error) if error.kind() != ErrorKind::Io(io::ErrorKind::NotFound) => {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl FileSystem for EncryptedFileSystem {
    type Handle = Log;
    type Reader = LogReader;
    type Writer = LogWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Log> {
        let writer = self.files.reuse_for_write(&path, FileKind::Log)?;
        Ok(self.log(path.as_ref(), State { writer: Some(writer), ..State::default() }))
    }

    /// Any log can be written to, whatever `_perm` says: the engine asks for less and means it.
    fn open<P: AsRef<Path>>(&self, path: P, _perm: Permission) -> io::Result<Log> {
        let reader = open(&self.files, path.as_ref())?;
        Ok(self.log(path.as_ref(), State { reader, ..State::default() }))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.remove(path.as_ref())
    }

    fn rename<P: AsRef<Path>>(&self, src_path: P, dst_path: P) -> io::Result<()> {
        Ok(self.files.rename(src_path, dst_path)?)
    }

    /// A new file: what was written under the old one's key is not written over.
    fn reuse<P: AsRef<Path>>(&self, src_path: P, dst_path: P) -> io::Result<()> {
        self.reuse_and_open(src_path, dst_path).map(drop)
    }

    fn reuse_and_open<P: AsRef<Path>>(&self, src_path: P, dst_path: P) -> io::Result<Log> {
        self.remove(src_path.as_ref())?;
        self.create(dst_path)
    }

    // The headers are in the files.
    fn delete_metadata<P: AsRef<Path>>(&self, _path: P) -> io::Result<()> {
        Ok(())
    }

    fn exists_metadata<P: AsRef<Path>>(&self, _path: P) -> bool {
        false
    }

    fn new_reader(&self, handle: Arc<Log>) -> io::Result<LogReader> {
        Ok(LogReader(Cursor { log: handle, offset: 0 }))
    }

    fn new_writer(&self, handle: Arc<Log>) -> io::Result<LogWriter> {
        Ok(LogWriter(Cursor { log: handle, offset: 0 }))
    }
}

/// One file of a log.
#[derive(Debug)]
pub struct Log {
    files: EncryptedFs,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Takes the byte behind those that it took, and no other.
    writer: Option<Writer>,
    /// `None` before the first look, and of a file without a header.
    reader: Option<Arc<Reader>>,
    /// Bytes that are known to be there: nothing of a file goes away.
    good: u64,
    /// Something could not be read: what the engine then takes for the end may be none.
    unread: bool,
}

impl Log {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self, state: &mut State) -> io::Result<Option<Arc<Reader>>> {
        if state.reader.is_none() {
            state.reader = open(&self.files, &self.path)?;
        }
        Ok(state.reader.clone())
    }

    /// Plaintext bytes: those that are good, and those with what is torn.
    fn lens(&self, state: &mut State) -> io::Result<(u64, u64)> {
        if let Some(writer) = &state.writer {
            return Ok((writer.position(), writer.position()));
        }
        let Some(reader) = self.reader(state)? else { return Ok((0, 0)) };
        let good = reader.len()?;
        state.good = good;
        let torn = reader.torn().map_or(0, |torn| torn.len_bytes);
        Ok((good, good.saturating_add(torn)))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let (reader, good, all) = {
            let mut state = self.state();
            let (good, all) = match state.good {
                // Without asking the system for the file's length at each read.
                good if offset.saturating_add(buf.len() as u64) <= good => (good, good),
                _ => self.lens(&mut state)?,
            };
            (self.reader(&mut state)?, good, all)
        };
        let len = buf.len().min(usize::try_from(all.saturating_sub(offset)).unwrap_or(usize::MAX));
        let read = usize::try_from(good.saturating_sub(offset)).unwrap_or(usize::MAX).min(len);
        let (read, damaged) = buf[..len].split_at_mut(read);
        if let (Some(reader), false) = (reader, read.is_empty()) {
            reader.read_exact_at(read, offset)?;
        }
        damaged.fill(DAMAGED);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PIECE_LEN)];
        let mut state = self.state();
        let mut writer = match state.writer.take() {
            Some(writer) if writer.position() == offset => writer,
            _ => self.renewed(&mut state, offset)?,
        };
        // Read by whoever has the handle, from the file. After an error the file has another
        // writer: what this one took or wrote is not known.
        writer.append(bytes)?;
        writer.flush()?;
        state.writer = Some(writer);
        Ok(bytes.len())
    }

    fn cut(&self, state: &mut State, len: u64) -> io::Result<()> {
        if self.lens(state)?.1 != len {
            let writer = self.renewed(state, len)?;
            state.writer = Some(writer);
        }
        Ok(())
    }

    /// The writer of a new file under a new key, which begins with the first `keep` bytes of the
    /// old one and has its name. Where a byte was encrypted no other one is.
    fn renewed(&self, state: &mut State, keep: u64) -> io::Result<Writer> {
        state.writer = None;
        state.good = 0;
        let old = self.reader(state)?;
        if keep == 0 && old.is_none() {
            return Ok(self.files.reuse_for_write(&self.path, FileKind::Log)?);
        }
        let beside = beside(&self.path);
        let mut writer = self.files.reuse_for_write(&beside, FileKind::Log)?;
        if keep > 0 {
            let old = old.ok_or(io::ErrorKind::UnexpectedEof)?;
            copy(&old, keep, &mut writer)?;
        }
        writer.sync()?;
        self.files.rename(&beside, &self.path)?;
        self.files.sync_dir(self.path.parent().unwrap_or(Path::new("")))?;
        state.reader = None;
        Ok(writer)
    }
}

/// The first `keep` bytes. In frames as long as they were: who reads a byte of one decrypts all of
/// it, and the engine reads as it wrote.
fn copy(old: &Reader, keep: u64, writer: &mut Writer) -> io::Result<()> {
    let has_frames = old.suite().is_some_and(Suite::keeps_appends);
    let mut piece = Vec::new();
    for frame in 0.. {
        let rest = usize::try_from(keep - writer.position()).unwrap_or(usize::MAX);
        if rest == 0 {
            break;
        }
        if !has_frames {
            piece.resize(rest.min(PIECE_LEN), 0);
            old.read_exact_at(&mut piece, writer.position())?;
        } else if !old.read_frame(frame, &mut piece)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        writer.append(&piece[..rest.min(piece.len())])?;
    }
    Ok(())
}

/// Where a log is copied to before it takes the name. No log of the engine's is called so.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// `None` for a file that a crash left without a header: nothing was ever readable in it.
fn open(files: &EncryptedFs, path: &Path) -> io::Result<Option<Arc<Reader>>> {
    match files.open(path) {
        Ok(reader) => Ok(Some(Arc::new(reader))),
        Err(error) => match error.kind() {
            ErrorKind::EmptyFile | ErrorKind::TruncatedHeader => Ok(None),
            _ => Err(error.into()),
        },
    }
}

impl Handle for Log {
    /// Called while logs are recovered, of what reading found.
    fn truncate(&self, offset: usize) -> io::Result<()> {
        let mut state = self.state();
        if state.unread {
            return Err(io::Error::other("a log that could not be read is not cut"));
        }
        self.cut(&mut state, offset as u64)
    }

    fn file_size(&self) -> io::Result<usize> {
        let (_, all) = self.lens(&mut self.state())?;
        usize::try_from(all).map_err(|_| io::ErrorKind::FileTooLarge.into())
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(writer) = &mut self.state().writer {
            match writer.sync() {
                Err(error) if error.kind() == ErrorKind::CmekRevoked => {}
                synced => return Ok(synced?),
            }
        }
        // What was written went to the system whole, and needs no key.
        File::open(&self.path)?.sync_data()
    }
}

#[derive(Debug)]
struct Cursor {
    log: Arc<Log>,
    offset: u64,
}

impl Seek for Cursor {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let (from, by) = match pos {
            SeekFrom::Start(offset) => (offset, 0),
            SeekFrom::Current(by) => (self.offset, by),
            SeekFrom::End(by) => (self.log.file_size()? as u64, by),
        };
        self.offset = from.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}

/// Reads a log.
#[derive(Debug)]
pub struct LogReader(Cursor);

impl Read for LogReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.0.log.read_at(buf, self.0.offset);
        let len = read.inspect_err(|_| self.0.log.state().unread = true)?;
        self.0.offset += len as u64;
        Ok(len)
    }
}

impl Seek for LogReader {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.0.seek(pos)
    }
}

/// Writes a log; ends the file when it is dropped.
#[derive(Debug)]
pub struct LogWriter(Cursor);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.0.log.write_at(bytes, self.0.offset)?;
        self.0.offset += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for LogWriter {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.0.seek(pos)
    }
}

#[deny(clippy::missing_trait_methods)]
impl WriteExt for LogWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.0.offset = offset as u64;
        self.0.log.cut(&mut self.0.log.state(), offset as u64)
    }

    /// Nothing: zeros on the disk would stand where ciphertext is to go.
    fn allocate(&mut self, _offset: usize, _size: usize) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if let Some(writer) = self.0.log.state().writer.take() {
            // All of it is written; this counts the file for its data key.
            drop(writer.finish_unsynced());
        }
    }
}
