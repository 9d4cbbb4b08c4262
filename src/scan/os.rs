//! The fast walk: `openat` relative to the directory, `fstat`, one `pread`, `close`; no
//! allocation for a file beyond its name in a batch.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::queue::Queue;
use super::{Found, Shared, Visitor, is_staging};
use crate::classify::Contents;
use crate::descriptors::{SystemError, patiently};
use crate::error::{Error, ErrorKind};
use crate::header::HEADER_LEN;
use crate::names::{KEYRING_FILE, is_keyring_name};
use crate::parallel;
use crate::vfs::{EntryKind, FileStat, OsVfs};
use crate::walk::is_lost_found;

/// Bytes of names handed to a thread at once: some hundred files.
const BATCH_LEN: usize = 8 << 10;
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

enum Work {
    Directory {
        path: PathBuf,
        role: Role,
    },
    /// Files of an open directory, each name ended by a zero byte.
    Files {
        dir: Arc<Directory>,
        names: Vec<u8>,
    },
}

/// What a directory to list is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It must be there, and its keyring is the store's.
    Root,
    Below,
    /// It holds the links of a running backup.
    Staging,
}

struct Directory {
    path: PathBuf,
    fd: OwnedFd,
    role: Role,
}

pub(super) fn scan<V: Visitor>(
    roots: &[PathBuf],
    shared: &Shared<'_>,
    visitor: &(impl Fn() -> V + Sync),
) -> Vec<V> {
    let roots = roots.iter().map(|path| Work::Directory { path: path.clone(), role: Role::Root });
    let queue = Queue::new(roots);
    // So many batches may wait, of as many open directories; past that the thread that lists
    // works them off itself. So nobody has more open than `descriptors::threads` reckons with: a
    // directory, one that waits, a file.
    let count = parallel::thread_count();
    parallel::on_threads(count, || {
        let mut visitor = visitor();
        let mut start = vec![0; HEADER_LEN];
        queue.work(|work| match work {
            Work::Directory { path, role } => {
                if let Err(error) =
                    list(path, role, (&queue, count), shared, &mut start, &mut visitor)
                {
                    shared.fail(error);
                }
            }
            Work::Files { dir, names } => {
                read_files(&dir, &names, shared, &mut start, &mut visitor);
            }
        });
        visitor.flush();
        visitor
    })
}

fn list<V: Visitor>(
    path: PathBuf,
    role: Role,
    (queue, queue_len_max): (&Queue<Work>, usize),
    shared: &Shared<'_>,
    start: &mut [u8],
    visitor: &mut V,
) -> Result<(), Error> {
    let fail = |path: &Path, errno: Errno| {
        Error::io("the directory cannot be listed", errno.into()).with_path(path)
    };
    let root = role == Role::Root;
    let flags = if root { OFlags::DIRECTORY | OFlags::CLOEXEC } else { FLAGS | OFlags::DIRECTORY };
    let fd = match patiently(|| rustix::fs::open(&path, flags, Mode::empty())) {
        Ok(fd) => fd,
        // Removed, or replaced by something else, since its parent was listed.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !root => return Ok(()),
        Err(Errno::ACCESS) if role == Role::Below && is_lost_found(&OsVfs, &path) => {
            shared.pass_by(|to| to.lost_found.push(path));
            return Ok(());
        }
        Err(errno) => return Err(fail(&path, errno)),
    };
    if role == Role::Below && has_keyring(&fd).map_err(|errno| fail(&path, errno))? {
        shared.pass_by(|to| to.nested_stores.push(path));
        return Ok(());
    }
    let dir = Arc::new(Directory { path, fd, role });
    let mut links = Vec::new();
    let mut names = Vec::with_capacity(BATCH_LEN);
    let mut hand_over = |names: Vec<u8>| {
        let work = Work::Files { dir: dir.clone(), names };
        if let Some(Work::Files { names, .. }) = queue.push(work, queue_len_max) {
            read_files(&dir, &names, shared, start, visitor);
        }
    };
    let mut each = |name: &CStr, file_type: FileType| {
        let path = || path_in(&dir, name);
        match file_type {
            FileType::Directory if is_staging(name.to_bytes()) => {
                queue.push(Work::Directory { path: path(), role: Role::Staging }, usize::MAX);
            }
            _ if is_keyring_name(name.to_bytes()) => {}
            // Directories always wait: taking one inside another would recurse.
            FileType::Directory => {
                queue.push(Work::Directory { path: path(), role: Role::Below }, usize::MAX);
            }
            FileType::RegularFile => names.extend_from_slice(name.to_bytes_with_nul()),
            FileType::Symlink => links.push(path()),
            _ => {}
        }
        if names.len() >= BATCH_LEN - 256 {
            hand_over(std::mem::replace(&mut names, Vec::with_capacity(BATCH_LEN)));
        }
    };
    entries(&dir.fd, &mut each).map_err(|errno| fail(&dir.path, errno))?;
    if !names.is_empty() {
        hand_over(names);
    }
    if role != Role::Staging {
        links.iter().for_each(|link| visitor.link(link));
    }
    Ok(())
}

fn path_in(dir: &Directory, name: &CStr) -> PathBuf {
    dir.path.join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

/// As a walk sees it: a directory of that name is no keyring.
fn has_keyring(dir: &OwnedFd) -> Result<bool, Errno> {
    match rustix::fs::statat(dir, KEYRING_FILE, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) != FileType::Directory),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Calls `each` for every entry but `.` and `..`, its type resolved.
fn entries(fd: &OwnedFd, each: &mut dyn FnMut(&CStr, FileType)) -> Result<(), Errno> {
    let resolve = |name: &CStr, file_type: FileType| {
        if file_type != FileType::Unknown {
            return Ok(file_type);
        }
        match rustix::fs::statat(fd, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::NOENT) => Ok(FileType::Unknown),
            Err(errno) => Err(errno),
        }
    };
    #[cfg(target_os = "linux")]
    {
        let mut buffer = vec![std::mem::MaybeUninit::uninit(); 64 << 10];
        let mut raw = rustix::fs::RawDir::new(fd, &mut buffer);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                each(name, resolve(name, entry.file_type())?);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    for entry in rustix::fs::Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            each(name, resolve(name, entry.file_type())?);
        }
    }
    Ok(())
}

fn read_files<V: Visitor>(
    dir: &Directory,
    names: &[u8],
    shared: &Shared<'_>,
    start: &mut [u8],
    visitor: &mut V,
) {
    let (mut files, mut bytes) = (0, 0);
    for name in names.split_inclusive(|byte| *byte == 0) {
        // OK because every name was copied with its one zero byte, at its end.
        let name = CStr::from_bytes_with_nul(name).expect("a zero-ended name");
        let (stat, what) = match read_file(&dir.fd, name, start) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            // A link took the file's place since the directory was listed.
            Err(Errno::LOOP) if dir.role != Role::Staging => {
                visitor.link(&path_in(dir, name));
                continue;
            }
            Err(errno) if errno.is_exhaustion() => {
                let error = Error::io("the file cannot be opened", errno.into());
                shared.fail(error.with_path(path_in(dir, name)));
                continue;
            }
            Err(errno) => {
                let kind = ErrorKind::Io(io::Error::from(errno).kind());
                (FileStat::default(), Contents::Unreadable(kind))
            }
        };
        files += 1;
        bytes += stat.len;
        let found = Found { dir: &dir.path, name: name.to_bytes(), stat, what };
        match dir.role {
            Role::Staging => visitor.staged(&found),
            _ => visitor.file(&found),
        }
    }
    visitor.flush();
    shared.add(files, bytes);
}

/// `None` if the file is gone, or is no regular file any more.
fn read_file(
    dir: &OwnedFd,
    name: &CStr,
    start: &mut [u8],
) -> Result<Option<(FileStat, Contents)>, Errno> {
    // Not to hang on a pipe that took a file's place.
    let flags = FLAGS | OFlags::NONBLOCK;
    let fd = match patiently(|| rustix::fs::openat(dir, name, flags, Mode::empty())) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let mut read = 0;
    while read < start.len() {
        match rustix::io::pread(&fd, &mut start[read..], read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(Some((file_stat(&stat), Contents::of(&start[..read]))))
}

#[allow(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "the types of these fields differ between systems"
)]
fn file_stat(stat: &rustix::fs::Stat) -> FileStat {
    let modified_ns = (stat.st_mtime as i64).saturating_mul(1_000_000_000);
    FileStat {
        kind: EntryKind::File,
        len: u64::try_from(stat.st_size).unwrap_or(0),
        device: stat.st_dev as u64,
        inode: stat.st_ino as u64,
        links: stat.st_nlink as u64,
        modified_ns: modified_ns.saturating_add(stat.st_mtime_nsec as i64),
        mode: stat.st_mode as u32,
        owner: Some((stat.st_uid, stat.st_gid)),
    }
}
