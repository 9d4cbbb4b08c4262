//! The operating system's files, through the page cache.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::{Attributes, DirEntry, FileStat, Links, Map, ReadFile, Rename, Vfs, WriteFile};
use crate::descriptors::patiently;
use crate::process::Process;

/// The operating system's files, through the page cache. A call that finds no descriptor left
/// waits for one, up to 5 seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsVfs;

impl Vfs for OsVfs {
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        let process = Process::current();
        let (file, straight) = create_new(path, mode)?;
        Ok(Box::new(OsWriter { file, straight, process }))
    }

    fn open(&self, path: &Path, links: Links) -> io::Result<Box<dyn ReadFile>> {
        let file = open(path, links, OFlags::NONBLOCK)?;
        let opened_len = regular_len(&file)?;
        Ok(Box::new(OsFile { file, opened_len }))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        Ok(FileStat::from(&fs::symlink_metadata(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in patiently(|| fs::read_dir(dir))? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) => entries.push(DirEntry {
                    path: entry.path(),
                    len: metadata.len(),
                    kind: metadata.file_type().into(),
                }),
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path, how: Rename) -> io::Result<()> {
        match how {
            Rename::Replace => fs::rename(from, to),
            Rename::Exchange => exchange(from, to),
        }
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            // Linux says the one of a directory, POSIX and macOS the other.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied
                ) && fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) =>
            {
                fs::remove_dir(path)
            }
            other => other,
        }
    }

    fn remove_in(&self, dir: &Path, expected: &FileStat, name: &OsStr) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = File::from(patiently(|| rustix::fs::open(dir, flags, Mode::empty()))?);
        let found = dir.metadata()?;
        if (found.dev(), found.ino()) != (expected.device, expected.inode) {
            return Err(io::Error::other("another directory took its place"));
        }
        Ok(rustix::fs::unlinkat(&dir, name, AtFlags::empty())?)
    }

    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        match fs::DirBuilder::new().mode(mode).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            other => other,
        }
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        // Not to hang on a pipe.
        let file = open(path, Links::Refuse, OFlags::NONBLOCK)?;
        let now = file.metadata()?;
        if let Some((user, group)) = attributes.owner.filter(|to| *to != (now.uid(), now.gid())) {
            std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
        }
        // After the owner, whose change takes bits away.
        if let Some(mode) = attributes.mode {
            file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
        }
        if let Some(ns) = attributes.modified_ns {
            let second = 1_000_000_000;
            let time = rustix::fs::Timespec {
                tv_sec: ns.div_euclid(second),
                tv_nsec: ns.rem_euclid(second) as _,
            };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::futimens(&file, &times)?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        patiently(|| File::open(dir))?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        // Not to hang on a pipe, nor to create a file elsewhere.
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed());
        let file = regular(patiently(|| options.open(path))?)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(Locked { file, process: Process::current() })),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        if is_canonical(path) { Ok(path.into()) } else { fs::canonicalize(path) }
    }
}

/// Whether something is at `path`, and this is its canonical name. False where that cannot be
/// told with one question to the system, as [`fs::canonicalize`] asks one for each part.
fn is_canonical(path: &Path) -> bool {
    // Opens nothing, where there is such a thing.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let flags = OFlags::PATH;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let flags = OFlags::empty();
    open_straight(path, flags | OFlags::CLOEXEC, Mode::empty()).is_some()
}

/// Opens what is at an absolute path that leads through no symbolic link, and is written in the
/// one way. `None` for any other, where it cannot be opened, and where the system cannot tell.
fn open_straight(path: &Path, flags: OFlags, mode: Mode) -> Option<File> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use std::os::unix::ffi::OsStrExt;

        use rustix::fs::{CWD, ResolveFlags, openat2};
        let bytes = path.as_os_str().as_bytes();
        // What follows a slash: no name.
        let is_odd = |rest: &[u8]| {
            matches!(rest, [] | [b'/', ..] | [b'.'] | [b'.', b'/', ..])
                || matches!(rest, [b'.', b'.'] | [b'.', b'.', b'/', ..])
        };
        let mut slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        if bytes.first() != Some(&b'/') || slashes.any(|(at, _)| is_odd(&bytes[at + 1..])) {
            return None;
        }
        openat2(CWD, path, flags, mode, ResolveFlags::NO_SYMLINKS).ok().map(File::from)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (path, flags, mode);
        None
    }
}

/// Creates a file, and tells whether it is known that its path leads through no symbolic link.
#[allow(clippy::unnecessary_cast, reason = "the type differs from system to system")]
pub(super) fn create_new(path: &Path, mode: u32) -> io::Result<(File, bool)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode as rustix::fs::RawMode);
    if let Some(file) = open_straight(path, flags, mode) {
        return Ok((file, true));
    }
    let open = || rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, mode));
    let created = patiently(open);
    Ok((created?.into(), false))
}

/// See [`WriteFile::straight_place`].
pub(super) fn straight_place(file: &File, straight: bool) -> Option<(u64, u64)> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if straight {
        use rustix::fs::{StatxFlags, makedev, statx};
        // Not the times: after those are asked for, the next write has to take a finer one.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = statx(file, c"", flags, StatxFlags::MNT_ID).ok()?;
        let told = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        // As of a directory: see `mount_of`.
        let mount = if told { stat.stx_mnt_id } else { 0 };
        return Some((makedev(stat.stx_dev_major, stat.stx_dev_minor), mount));
    }
    let _ = (file, straight);
    None
}

/// Opens for reading, with `flags` beside what `links` asks for.
pub(super) fn open(path: &Path, links: Links, flags: OFlags) -> io::Result<File> {
    let flags = match links {
        Links::Follow => flags,
        Links::Refuse => flags | OFlags::NOFOLLOW,
    };
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    let open = || rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()));
    Ok(patiently(open)?.into())
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        // File systems without it say `INVAL`, kernels without it `NOSYS`.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        other => Ok(other?),
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses what is no regular file. Opened without waiting, so as not to hang on a pipe.
pub(crate) fn regular(file: File) -> io::Result<File> {
    regular_len(&file)?;
    Ok(file)
}

/// Bytes of a regular file; refuses all else.
fn regular_len(file: &File) -> io::Result<u64> {
    let stat = rustix::fs::fstat(file)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        // The kernel's word for it is signed.
        FileType::RegularFile => return Ok(stat.st_size.cast_unsigned()),
        FileType::Directory => io::ErrorKind::IsADirectory,
        _ => io::ErrorKind::InvalidInput,
    };
    Err(io::Error::new(kind, "expected a regular file"))
}

/// Asked by going to the end, at less than half the price of a `stat`: nobody reads from the
/// position of a file that is open for reading at offsets.
pub(super) fn len(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?)
}

#[derive(Debug)]
struct OsFile {
    file: File,
    opened_len: u64,
}

impl ReadFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            // The system call itself: the C library's would also make it a cancellation
            // point, which no Rust thread needs and a short read feels.
            match rustix::io::pread(&self.file, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    fn len(&self) -> io::Result<u64> {
        len(&self.file)
    }

    fn opened_len(&self) -> io::Result<u64> {
        Ok(self.opened_len)
    }

    fn will_need(&self, offset: u64, len: u64) {
        #[cfg(target_os = "linux")]
        {
            let len = std::num::NonZeroU64::new(len);
            let advice = rustix::fs::Advice::WillNeed;
            // A hint: the read that follows reports whatever is wrong.
            let _ = rustix::fs::fadvise(&self.file, offset, len, advice);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, len);
    }

    fn map(&self) -> Option<Map> {
        // Whatever is in the way, it can still be read.
        Map::of(&self.file).ok().flatten()
    }
}

#[derive(Debug)]
struct OsWriter {
    file: File,
    straight: bool,
    process: Process,
}

/// A file that is locked until this is dropped.
struct Locked {
    file: File,
    process: Process,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing alone leaves the lock to a process that is just being started, which has a copy
        // of the descriptor until it runs its program. A forked child must not end its parent's.
        if self.process.has_same_memory() {
            let _ = self.file.unlock();
        }
    }
}

/// What a file's writer says in a forked child.
pub(super) const FORKED: &str =
    "a forked child, or a copy of the machine, cannot go on writing this file";

impl WriteFile for OsWriter {
    fn append(&mut self, buf: &[u8]) -> io::Result<()> {
        self.process.check(FORKED)?;
        // Through the C library, where those who look at what a program writes stand.
        io::Write::write_all(&mut self.file, buf)
    }

    fn straight_place(&self) -> Option<(u64, u64)> {
        straight_place(&self.file, self.straight)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.process.check(FORKED)?)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.process.check(FORKED)?;
        self.file.sync_data()
    }
}
