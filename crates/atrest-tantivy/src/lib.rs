#![doc = include_str!("../README.md")]

use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use atrest::fs::ReadPath;
use atrest::{ErrorKind, FileKind, Reader, Store, Writer};
use tantivy::Directory;
use tantivy::HasLen;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, DirectoryLock, FileHandle, FileSlice, Lock, OwnedBytes, TerminatingWrite,
    WatchCallback, WatchCallbackList, WatchHandle, WritePtr,
};

/// The file whose replacement is a commit.
const META: &str = "meta.json";

/// A directory of encrypted files. A clone is the same one.
#[derive(Clone)]
pub struct EncryptedDirectory {
    store: Store,
    dir: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    watchers: WatchCallbackList,
    /// Held by who replaces a file.
    replacing: Mutex<()>,
}

impl EncryptedDirectory {
    /// The index in `dir`, which exists, in files of `store`. It is best below the store's own
    /// directory; one elsewhere is registered when the first file is created.
    pub fn new(store: &Store, dir: impl Into<PathBuf>) -> Self {
        Self { store: store.clone(), dir: dir.into(), shared: Arc::default() }
    }

    fn path(&self, name: &Path) -> PathBuf {
        self.dir.join(name)
    }

    fn open(&self, name: &Path) -> Result<Reader, OpenReadError> {
        // As tantivy maps plain files: they are written once and read often.
        let files = self.store.files().clone().read_path(ReadPath::Mapped);
        files.open(self.path(name)).map_err(|error| match error.kind() {
            ErrorKind::Io(io::ErrorKind::NotFound) => OpenReadError::FileDoesNotExist(name.into()),
            _ => OpenReadError::wrap_io_error(error.into(), name.into()),
        })
    }

    /// Under a name beside it first: what is at `name` is whole at any time. The name is always
    /// the same, so that a crash leaves one file at most, and the next replacement takes it.
    fn replace(&self, name: &Path, data: &[u8]) -> atrest::Result<()> {
        let _one_at_a_time = self.shared.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let (files, mut beside) = (self.store.files(), self.path(name).into_os_string());
        beside.push(".new");
        // Not a manifest, which grows: where files are authenticated, a cut one is refused.
        let mut writer = files.reuse_for_write(&beside, FileKind::Other)?;
        writer.append(data)?;
        writer.finish()?;
        files.rename(beside, self.path(name))
    }
}

impl std::fmt::Debug for EncryptedDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncryptedDirectory").field("dir", &self.dir).finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Directory for EncryptedDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        let reader = self.open(path)?;
        let len = plaintext_len(&reader);
        let len = len.map_err(|error| OpenReadError::wrap_io_error(error, path.into()))?;
        Ok(Arc::new(Handle { reader, len }))
    }

    fn open_read(&self, path: &Path) -> Result<FileSlice, OpenReadError> {
        self.get_file_handle(path).map(FileSlice::new)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.store.files().remove(self.path(path)).map_err(|error| match error.kind() {
            ErrorKind::Io(io::ErrorKind::NotFound) => DeleteError::FileDoesNotExist(path.into()),
            _ => DeleteError::IoError { io_error: Arc::new(error.into()), filepath: path.into() },
        })
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        let found = self.path(path).try_exists();
        found.map_err(|error| OpenReadError::wrap_io_error(error, path.into()))
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let created = self.store.files().create_new(self.path(path), FileKind::Table);
        let writer = created.map_err(|error| match error.kind() {
            ErrorKind::Io(io::ErrorKind::AlreadyExists) => {
                OpenWriteError::FileAlreadyExists(path.into())
            }
            _ => OpenWriteError::wrap_io_error(error.into(), path.into()),
        })?;
        Ok(BufWriter::new(Box::new(NewFile(Some(writer)))))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        let reader = self.open(path)?;
        let read = plaintext_len(&reader).and_then(|len| {
            let mut bytes = vec![0; len];
            reader.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        });
        read.map_err(|error| OpenReadError::wrap_io_error(error, path.into()))
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        self.replace(path, data)?;
        if path == Path::new(META) {
            // Nobody waits for what the watchers do.
            drop(self.shared.watchers.broadcast());
        }
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(self.store.files().sync_dir(&self.dir)?)
    }

    /// The system's lock, which ends with the process, on an empty file, which stays.
    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        let path = self.path(&lock.filepath);
        let file = File::options().create(true).write(true).truncate(false).open(path);
        let file = file.map_err(LockError::wrap_io_error)?;
        let locked = match lock.is_blocking {
            true => file.lock().map_err(TryLockError::Error),
            false => file.try_lock(),
        };
        match locked {
            Ok(()) => Ok(DirectoryLock::from(Box::new(file))),
            Err(TryLockError::WouldBlock) => Err(LockError::LockBusy),
            Err(TryLockError::Error(error)) => Err(LockError::wrap_io_error(error)),
        }
    }

    fn watch(&self, watch_callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(self.shared.watchers.subscribe(watch_callback))
    }
}

fn plaintext_len(reader: &Reader) -> io::Result<usize> {
    usize::try_from(reader.len()?).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

/// A file that is read.
#[derive(Debug)]
struct Handle {
    reader: Reader,
    len: usize,
}

impl HasLen for Handle {
    fn len(&self) -> usize {
        self.len
    }
}

impl FileHandle for Handle {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        let len = range.end.checked_sub(range.start).ok_or(io::ErrorKind::InvalidInput)?;
        if range.end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; len];
        self.reader.read_exact_at(&mut bytes, range.start as u64)?;
        Ok(OwnedBytes::new(bytes))
    }
}

/// A file that is written, until it is ended.
struct NewFile(Option<Writer>);

impl NewFile {
    fn writer(&mut self) -> io::Result<&mut Writer> {
        self.0.as_mut().ok_or_else(|| io::Error::other("the file is finished"))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer()?.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.writer()?.flush()?)
    }
}

impl TerminatingWrite for NewFile {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        let writer = self.0.take().ok_or_else(|| io::Error::other("the file is finished"))?;
        writer.finish()?;
        Ok(())
    }
}
