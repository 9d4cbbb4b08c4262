//! The few file operations the library needs, as a trait, so that tests can stop it
//! between any two of them.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file system. Paths are used as given.
pub trait Vfs: Send + Sync + Debug {
    /// Creates a file that must not exist, for appending; `mode` is its Unix mode before
    /// the umask.
    ///
    /// # Errors
    /// `AlreadyExists` among others.
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file for reading at offsets.
    ///
    /// # Errors
    /// `NotFound` among others.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Renames over whatever is at `to`.
    ///
    /// # Errors
    /// Whatever the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes a hard link; `to` must not exist.
    ///
    /// # Errors
    /// `AlreadyExists` among others.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound` among others.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, in no order.
    ///
    /// # Errors
    /// `NotFound` among others.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Makes creations, renames and removals in `dir` durable.
    ///
    /// # Errors
    /// Whatever the system says; the changes may then be lost in a crash.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Creates `path` if needed and locks it against other processes until the returned
    /// guard is dropped.
    ///
    /// # Errors
    /// `WouldBlock` if somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Directory and name.
    pub path: PathBuf,
    /// Physical length in bytes.
    pub len: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
}

/// A file open for reading.
#[allow(clippy::len_without_is_empty, reason = "a length that can fail is no container's")]
pub trait ReadFile: Send + Sync + Debug {
    /// Reads at an offset; fewer bytes than asked only at the end of the file.
    ///
    /// # Errors
    /// Whatever the system says; an interrupted call is repeated inside.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Physical length in bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn len(&self) -> io::Result<u64>;

    /// Tells the system which bytes will be read soon. A hint: failures are ignored.
    fn will_need(&self, _offset: u64, _len: u64) {}
}

/// A file open for appending.
pub trait WriteFile: Send + Sync + Debug {
    /// Appends all of `buf`.
    ///
    /// # Errors
    /// `StorageFull` among others; a part of `buf` may then be in the file.
    fn append(&mut self, buf: &[u8]) -> io::Result<()>;

    /// Hands to the system what the file kept back, if it keeps anything back.
    ///
    /// # Errors
    /// Those of [`append`](Self::append).
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Makes content and length durable. **MUST NOT** be called again after it failed.
    ///
    /// # Errors
    /// Whatever the system says; nothing is known about the file then.
    fn sync(&mut self) -> io::Result<()>;
}

mod direct;

pub use direct::DirectVfs;

/// The operating system's files, through the page cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsVfs;

impl Vfs for OsVfs {
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        Ok(Box::new(OsFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(OsFile(File::open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) => entries.push(DirEntry {
                    path: entry.path(),
                    len: metadata.len(),
                    is_file: metadata.is_file(),
                }),
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct OsFile(File);

impl ReadFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn will_need(&self, offset: u64, len: u64) {
        #[cfg(target_os = "linux")]
        {
            let len = std::num::NonZeroU64::new(len);
            let advice = rustix::fs::Advice::WillNeed;
            // A hint: the read that follows reports whatever is wrong.
            let _ = rustix::fs::fadvise(&self.0, offset, len, advice);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, len);
    }
}

impl WriteFile for OsFile {
    fn append(&mut self, buf: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.0, buf)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
