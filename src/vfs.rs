//! The few file operations the library needs, as a trait, so that tests can stop it
//! between any two of them.

use std::any::Any;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
mod direct;
mod extended;
mod map;
mod mount;
mod os;
#[cfg(test)]
mod tests;

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
pub use direct::DirectVfs;
pub use map::Map;
pub(crate) use mount::mount_of;
pub use os::OsVfs;
pub(crate) use os::regular;

/// A file system. Paths are used as given.
///
/// Nothing here has a default: a wrapper that forgets a method does not compile. What a file
/// system cannot do it answers with [`Unsupported`](io::ErrorKind::Unsupported), never with
/// a success. `atrest-testkit` holds an implementation to all of this.
pub trait Vfs: Any + Send + Sync + Debug {
    /// Creates a file that must not exist, for appending; `mode` is its Unix mode before
    /// the umask.
    ///
    /// # Errors
    /// `AlreadyExists`, for whatever is at `path`; `NotFound` without its directory.
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file for reading at offsets. Waits for nobody: a pipe is refused, and so is
    /// all else that is no regular file.
    ///
    /// # Errors
    /// `NotFound` among others; any kind for a symbolic link that is [refused](Links).
    fn open(&self, path: &Path, links: Links) -> io::Result<Box<dyn ReadFile>>;

    /// What is at `path`, symbolic links not followed.
    ///
    /// # Errors
    /// `NotFound` among others.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;

    /// The entries of a directory, in no order, without `.` and `..`.
    ///
    /// # Errors
    /// `NotFound` among others.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Gives what is at `from` the name `to`, atomically.
    ///
    /// # Errors
    /// `NotFound` among others; `Unsupported` for a [way](Rename) that there is not here.
    fn rename(&self, from: &Path, to: &Path, how: Rename) -> io::Result<()>;

    /// Makes a hard link; `to` must not exist.
    ///
    /// # Errors
    /// `AlreadyExists` among others; `Unsupported` where files have one name.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file, a symbolic link or an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `DirectoryNotEmpty` among others.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes the file or symbolic link `name` from the directory `dir`, which is not
    /// followed if it is a link itself, and only if it still is the one that had
    /// `expected`'s device and inode.
    ///
    /// # Errors
    /// `NotFound` among others; any kind for another directory, from which nothing is
    /// removed.
    fn remove_in(&self, dir: &Path, expected: &FileStat, name: &OsStr) -> io::Result<()>;

    /// Creates a directory whose parent exists; one that is there already is fine. A file
    /// system whose directories need no creation has nothing to do.
    ///
    /// # Errors
    /// `AlreadyExists` where something else is; `NotFound` without the parent.
    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()>;

    /// Changes those attributes of a file that are given. Symbolic links are not followed.
    ///
    /// # Errors
    /// `Unsupported` where files have none, which callers take for done; `PermissionDenied`
    /// among others.
    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()>;

    /// Makes creations, renames and removals in `dir` durable.
    ///
    /// # Errors
    /// Whatever the system says; the changes may then be lost in a crash.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Creates `path` if needed and locks it against other processes until the returned
    /// guard is dropped.
    ///
    /// # Errors
    /// `WouldBlock` if somebody else holds it; any kind for a symbolic link, which is not
    /// followed.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// The one absolute name, through all symbolic links, of what may be named in several
    /// ways.
    ///
    /// # Errors
    /// `NotFound` among others.
    fn canonical(&self, path: &Path) -> io::Result<PathBuf>;
}

/// What opening does with a symbolic link in a path's last place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Opens what it leads to.
    Follow,
    /// Fails.
    Refuse,
}

/// What a rename does with what is at the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rename {
    /// Replaces it, if it is there.
    Replace,
    /// Gives it the old name; it must be there.
    Exchange,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    #[default]
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A socket, device or pipe.
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
    /// User and group, where files have them.
    pub owner: Option<(u32, u32)>,
}

/// Device and inode.
pub(crate) type Inode = (u64, u64);

impl FileStat {
    /// `None` if the file has no other name, or its inode is unknown.
    pub(crate) fn shared_inode(&self) -> Option<Inode> {
        (self.links > 1 && self.inode != 0).then_some((self.device, self.inode))
    }
}

/// Attributes to give to a file: those that are `None` stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Unix mode: its lowest twelve bits.
    pub mode: Option<u32>,
    /// Last modification, nanoseconds since the Unix epoch.
    pub modified_ns: Option<i64>,
}

impl Attributes {
    /// Who may use a file, and how.
    #[must_use]
    pub fn access_of(stat: &FileStat) -> Self {
        Self { owner: stat.owner, mode: Some(stat.mode), modified_ns: None }
    }
}

/// Gives attributes to a file, if files have some here.
pub(crate) fn keep_attributes(
    vfs: &dyn Vfs,
    path: &Path,
    attributes: &Attributes,
) -> io::Result<()> {
    match vfs.set_attributes(path, attributes) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        other => other,
    }
}

/// Gives a file that is to take the place of `old`, whose attributes are these, all of who
/// may use it and how: owner, group and mode, and on the operating system's file systems
/// the access control list and the extended attributes too.
pub(crate) fn keep_access(
    vfs: &dyn Vfs,
    old: &Path,
    stat: &FileStat,
    new: &Path,
) -> io::Result<()> {
    keep_attributes(vfs, new, &Attributes::access_of(stat))?;
    // Behind the mode, which is a part of the list.
    if is_os(vfs) { extended::copy(old, new) } else { Ok(()) }
}

/// Gives a new file that replaces none the owner of its directory, if the process may: what
/// root adds to an engine's directory is the engine's.
pub(crate) fn adopt_owner(vfs: &dyn Vfs, dir: &Path, new: &Path) -> io::Result<()> {
    let Ok(stat) = vfs.canonical(dir).and_then(|dir| vfs.stat(&dir)) else { return Ok(()) };
    let owner = stat.owner;
    match keep_attributes(vfs, new, &Attributes { owner, ..Attributes::default() }) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Whether paths are the operating system's, so that they may be used past `vfs`. No other
/// implementation is passed by: it may do more.
pub(crate) fn is_os(vfs: &dyn Vfs) -> bool {
    let vfs: &dyn Any = vfs;
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    if vfs.is::<DirectVfs>() {
        return true;
    }
    vfs.is::<OsVfs>()
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Directory and name.
    pub path: PathBuf,
    /// Physical length in bytes.
    pub len: u64,
    /// What it is, symbolic links not followed.
    pub kind: EntryKind,
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

    /// What [`len`](Self::len) was when the file was opened, or is now: whichever costs less.
    ///
    /// # Errors
    /// Those of [`len`](Self::len).
    fn opened_len(&self) -> io::Result<u64> {
        self.len()
    }

    /// Tells the system which bytes will be read soon. A hint: failures are ignored.
    fn will_need(&self, _offset: u64, _len: u64) {}

    /// The file in memory, for who asks for [`ReadPath::Mapped`](crate::fs::ReadPath::Mapped).
    /// `None` where it cannot be, and for a wrapper that changes what is read: reads go on by
    /// [`read_at`](Self::read_at).
    fn map(&self) -> Option<Map> {
        None
    }
}

/// A file open for appending. Those of the operating system take nothing from a forked
/// child of the process that created them, which shares their place in the file.
pub trait WriteFile: Send + Sync + Debug {
    /// Appends all of `buf`.
    ///
    /// # Errors
    /// `StorageFull` among others; a part of `buf` may then be in the file.
    fn append(&mut self, buf: &[u8]) -> io::Result<()>;

    /// Hands to the system what the file kept back. One that keeps nothing back has nothing
    /// to do.
    ///
    /// # Errors
    /// Those of [`append`](Self::append).
    fn flush(&mut self) -> io::Result<()>;

    /// The device and the mount that the file is on, if the path at which it was created leads
    /// through no symbolic link. `None` where that is not known: it is asked otherwise then.
    fn straight_place(&self) -> Option<(u64, u64)> {
        None
    }

    /// Makes content and length durable. **MUST NOT** be called again after it failed.
    ///
    /// # Errors
    /// Whatever the system says; nothing is known about the file then.
    fn sync(&mut self) -> io::Result<()>;
}

impl From<fs::FileType> for EntryKind {
    fn from(kind: fs::FileType) -> Self {
        match kind {
            kind if kind.is_file() => Self::File,
            kind if kind.is_dir() => Self::Directory,
            kind if kind.is_symlink() => Self::Link,
            _ => Self::Other,
        }
    }
}

impl From<&fs::Metadata> for FileStat {
    fn from(metadata: &fs::Metadata) -> Self {
        let modified_ns = metadata.mtime().saturating_mul(1_000_000_000);
        Self {
            kind: metadata.file_type().into(),
            len: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
            links: metadata.nlink(),
            modified_ns: modified_ns.saturating_add(metadata.mtime_nsec()),
            mode: metadata.mode(),
            owner: Some((metadata.uid(), metadata.gid())),
        }
    }
}
