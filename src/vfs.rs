//! The few file operations the library needs, as a trait, so that tests can stop it
//! between any two of them.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::process::Process;

/// A file system. Paths are used as given.
pub trait Vfs: Send + Sync + Debug {
    /// Creates a file that must not exist, for appending; `mode` is its Unix mode before
    /// the umask.
    ///
    /// # Errors
    /// `AlreadyExists` among others.
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file for reading at offsets. Waits for nobody: a pipe is refused, and so is
    /// all else that is no regular file.
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

    /// What is at `path`, symbolic links not followed. The default knows what a listing of
    /// the parent says.
    ///
    /// # Errors
    /// `NotFound` among others.
    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
        let mut entries = self.list(parent)?.into_iter();
        let entry = entries.find(|entry| entry.path.file_name() == path.file_name());
        let entry = entry.ok_or(io::ErrorKind::NotFound)?;
        let kind = if entry.is_file { EntryKind::File } else { EntryKind::Other };
        Ok(FileStat { kind, len: entry.len, links: 1, ..FileStat::default() })
    }

    /// Swaps two files that must both exist, atomically.
    ///
    /// # Errors
    /// `Unsupported`, which is the default, where there is no such operation; `NotFound`
    /// among others.
    fn exchange(&self, _one: &Path, _other: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives `to` the owner, group and mode of `from`. The default does nothing.
    ///
    /// # Errors
    /// Whatever the system says.
    fn copy_owner_and_mode(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Creates a directory whose parent exists; one that is there already is fine. The
    /// default, for file systems whose directories need no creation, does nothing.
    ///
    /// # Errors
    /// Whatever the system says.
    fn create_dir(&self, _dir: &Path, _mode: u32) -> io::Result<()> {
        Ok(())
    }

    /// Removes an empty directory. The default does nothing.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, `NotFound` among others.
    fn remove_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Gives a file the Unix mode and time of modification (nanoseconds since the Unix
    /// epoch) of the one it is a copy of. The default does nothing.
    ///
    /// # Errors
    /// Whatever the system says.
    fn set_mode_and_modified(&self, _path: &Path, _mode: u32, _ns: i64) -> io::Result<()> {
        Ok(())
    }

    /// One name for a directory that may be named in several ways. The default makes the
    /// path absolute.
    ///
    /// # Errors
    /// `NotFound` among others.
    fn canonical(&self, dir: &Path) -> io::Result<PathBuf> {
        std::path::absolute(dir)
    }

    /// Whether paths are the operating system's, so that a scan may open files by itself.
    fn is_os(&self) -> bool {
        false
    }
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    #[default]
    File,
    /// A directory.
    Directory,
    /// A symbolic link, socket, device or pipe.
    Other,
}

/// A file's attributes. Device, inode, length and modification time together name one
/// content of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStat {
    /// What it is.
    pub kind: EntryKind,
    /// Physical length in bytes.
    pub len: u64,
    /// Device; 0 if unknown.
    pub device: u64,
    /// Inode; 0 if unknown.
    pub inode: u64,
    /// Names the file has.
    pub links: u64,
    /// Last modification, nanoseconds since the Unix epoch; 0 if unknown.
    pub modified_ns: i64,
    /// Unix mode.
    pub mode: u32,
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

/// A file open for appending. Those of the operating system take nothing from a forked
/// child of the process that created them, which shares their place in the file.
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

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
mod direct;
#[cfg(test)]
mod tests;

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub use direct::DirectVfs;

/// The operating system's files, through the page cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsVfs;

impl Vfs for OsVfs {
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        Ok(Box::new(OsWriter { file, process: Process::current() }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(OsFile(open(path, OFlags::empty())?)))
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
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        // Not to hang on a pipe, nor to create a file elsewhere.
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed());
        let file = regular(options.open(path)?)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        Ok(FileStat::from(&fs::symlink_metadata(path)?))
    }

    #[cfg(target_os = "linux")]
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
            // File systems without it say `INVAL`, kernels without it `NOSYS`.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            other => Ok(other?),
        }
    }

    fn copy_owner_and_mode(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (fs::symlink_metadata(from)?, fs::symlink_metadata(to)?);
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            std::os::unix::fs::lchown(to, Some(old.uid()), Some(old.gid()))?;
        }
        fs::set_permissions(to, old.permissions())
    }

    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        match fs::DirBuilder::new().mode(mode).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            other => other,
        }
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn set_mode_and_modified(&self, path: &Path, mode: u32, ns: i64) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let file = File::open(path)?;
        let second = 1_000_000_000;
        let time = rustix::fs::Timespec {
            tv_sec: ns.div_euclid(second),
            tv_nsec: ns.rem_euclid(second) as _,
        };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(&file, &times)?;
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))
    }

    fn canonical(&self, dir: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(dir)
    }

    fn is_os(&self) -> bool {
        true
    }
}

impl From<&fs::Metadata> for FileStat {
    fn from(metadata: &fs::Metadata) -> Self {
        let kind = match metadata.file_type() {
            kind if kind.is_file() => EntryKind::File,
            kind if kind.is_dir() => EntryKind::Directory,
            _ => EntryKind::Other,
        };
        let modified_ns = metadata.mtime().saturating_mul(1_000_000_000);
        Self {
            kind,
            len: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
            links: metadata.nlink(),
            modified_ns: modified_ns.saturating_add(metadata.mtime_nsec()),
            mode: metadata.mode(),
        }
    }
}

/// Opens a regular file for reading, with `flags`.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    // Not to hang on a pipe.
    let flags = (flags | OFlags::NONBLOCK).bits().cast_signed();
    regular(OpenOptions::new().read(true).custom_flags(flags).open(path)?)
}

/// Refuses what is no regular file.
pub(crate) fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let kind =
        if kind.is_dir() { io::ErrorKind::IsADirectory } else { io::ErrorKind::InvalidInput };
    Err(io::Error::new(kind, "expected a regular file"))
}

#[derive(Debug)]
struct OsFile(File);

impl ReadFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            // The system call itself: the C library's would also make it a cancellation
            // point, which no Rust thread needs and a short read feels.
            match rustix::io::pread(&self.0, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
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

#[derive(Debug)]
struct OsWriter {
    file: File,
    process: Process,
}

/// What a file's writer says in a forked child.
const FORKED: &str = "a forked child cannot go on writing its parent's file";

impl WriteFile for OsWriter {
    fn append(&mut self, buf: &[u8]) -> io::Result<()> {
        self.process.check(FORKED)?;
        io::Write::write_all(&mut self.file, buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.process.check(FORKED)?)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.process.check(FORKED)?;
        self.file.sync_data()
    }
}
