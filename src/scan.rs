//! Finding the files of a store by their headers: what each is, and under which key.
//!
//! One `pread` of 4096 bytes a file, by several threads, over what [`walk`] meets. A file
//! that disappears meanwhile is skipped; a directory that cannot be read fails the scan (but a
//! file system's `lost+found`), and a file that cannot is reported as such, since nobody knows
//! what is in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::classify::Contents;
use crate::descriptors::SystemError;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{NameKind, kind_of};
use crate::vfs::{EntryKind, FileStat, Links, Vfs, is_os};
use crate::walk::{Met, PassedBy, walk};

mod links;
mod os;
mod queue;

pub(crate) use links::look_through;

/// One file that a scan found.
pub(crate) struct Found<'a> {
    pub(crate) dir: &'a Path,
    /// The file's name, not UTF-8 by necessity.
    pub(crate) name: &'a [u8],
    pub(crate) stat: FileStat,
    pub(crate) what: Contents,
}

impl Found<'_> {
    pub(crate) fn path(&self) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.dir.join(std::ffi::OsStr::from_bytes(self.name))
    }
}

/// How far a scan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ScanProgress {
    /// Files whose header was read.
    pub files: u64,
    /// Their bytes on disk.
    pub bytes: u64,
}

/// Called now and then, from several threads.
pub type OnScan<'a> = &'a (dyn Fn(ScanProgress) + Sync);

/// What one thread of a scan does with what it finds.
pub(crate) trait Visitor: Send {
    /// A file of the store.
    fn file(&mut self, found: &Found<'_>);

    /// A file that a running backup keeps by a link of its own, and the engine may have
    /// removed.
    fn staged(&mut self, found: &Found<'_>);

    /// A symbolic link; nothing behind it is scanned.
    fn link(&mut self, path: &Path);

    /// A good moment to pass on what was gathered.
    fn flush(&mut self) {}
}

/// State that the threads of one scan share.
struct Shared<'a> {
    files: AtomicU64,
    bytes: AtomicU64,
    on_scan: OnScan<'a>,
    passed_by: Mutex<PassedBy>,
    error: Mutex<Option<Error>>,
}

impl Shared<'_> {
    fn add(&self, files: u64, bytes: u64) {
        let files = self.files.fetch_add(files, Ordering::Relaxed) + files;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.on_scan)(ScanProgress { files, bytes });
    }

    fn pass_by(&self, tell: impl FnOnce(&mut PassedBy)) {
        tell(&mut self.passed_by.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn fail(&self, error: Error) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Scans `roots`, which **MUST NOT** contain each other, with one visitor a thread.
/// Returns the visitors, and where nobody looked.
///
/// # Errors
/// [`Io`](ErrorKind::Io) if a directory cannot be read.
pub(crate) fn scan<V: Visitor>(
    vfs: &Arc<dyn Vfs>,
    roots: &[PathBuf],
    on_scan: OnScan<'_>,
    visitor: impl Fn() -> V + Sync,
) -> Result<(Vec<V>, PassedBy)> {
    let shared = Shared {
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        on_scan,
        passed_by: Mutex::default(),
        error: Mutex::new(None),
    };
    let visitors = if is_os(&**vfs) {
        os::scan(roots, &shared, &visitor)
    } else {
        let mut one = visitor();
        for root in roots {
            if let Err(error) = scan_by_walk(&**vfs, root, &shared, &mut one) {
                shared.fail(error);
            }
        }
        one.flush();
        vec![one]
    };
    match shared.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => {
            let passed_by = shared.passed_by.into_inner();
            let mut passed_by = passed_by.unwrap_or_else(PoisonError::into_inner);
            passed_by.settle(roots);
            Ok((visitors, passed_by))
        }
    }
}

/// The scan of a file system that is not the operating system's.
fn scan_by_walk<V: Visitor>(
    vfs: &dyn Vfs,
    root: &Path,
    shared: &Shared<'_>,
    to: &mut V,
) -> Result<()> {
    walk(vfs, root, &mut |met, entry| {
        let Some(name) = entry.path.file_name() else { return Ok(()) };
        match met {
            Met::File => tell(vfs, &entry.path, shared, &mut |found| to.file(found))?,
            Met::Link => to.link(&entry.path),
            Met::NestedStore => shared.pass_by(|to| to.nested_stores.push(entry.path.clone())),
            Met::LostFound => shared.pass_by(|to| to.lost_found.push(entry.path.clone())),
            Met::Own
                if entry.kind == EntryKind::Directory && is_staging(name.as_encoded_bytes()) =>
            {
                scan_staged(vfs, &entry.path, shared, to)?;
            }
            _ => {}
        }
        Ok(())
    })
}

/// Looks at the links of a running backup, which go at any time.
fn scan_staged<V: Visitor>(
    vfs: &dyn Vfs,
    dir: &Path,
    shared: &Shared<'_>,
    to: &mut V,
) -> Result<()> {
    let walked = walk(vfs, dir, &mut |met, entry| match met {
        Met::File => tell(vfs, &entry.path, shared, &mut |found| to.staged(found)),
        _ => Ok(()),
    });
    match walked {
        Err(error) if error.kind() == ErrorKind::Io(io::ErrorKind::NotFound) => Ok(()),
        other => other,
    }
}

fn tell(
    vfs: &dyn Vfs,
    path: &Path,
    shared: &Shared<'_>,
    to: &mut dyn FnMut(&Found<'_>),
) -> Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let Some((stat, what)) = look(vfs, path)? else { return Ok(()) };
    to(&Found { dir, name: name.as_encoded_bytes(), stat, what });
    shared.add(1, stat.len);
    Ok(())
}

fn is_staging(name: &[u8]) -> bool {
    kind_of(name) == Some(NameKind::Staging)
}

/// Reads the header of one file through `vfs`; `None` if it is not there, or is no
/// regular file.
///
/// # Errors
/// [`Io`](ErrorKind::Io) if its attributes cannot be read, or there is no descriptor left to
/// open it with.
pub(crate) fn look(vfs: &dyn Vfs, path: &Path) -> Result<Option<(FileStat, Contents)>> {
    let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let stat = match vfs.stat(path) {
        Ok(stat) if stat.kind == EntryKind::File => stat,
        Ok(_) => return Ok(None),
        Err(error) if missing(&error) => return Ok(None),
        Err(error) => {
            return Err(Error::io("the file's attributes are unknown", error).with_path(path));
        }
    };
    let mut start = [0; crate::header::HEADER_LEN];
    match vfs.open(path, Links::Refuse).and_then(|file| file.read_at(&mut start, 0)) {
        Ok(read) => Ok(Some((stat, Contents::of(&start[..read])))),
        Err(error) if missing(&error) => Ok(None),
        Err(error) if error.is_exhaustion() => {
            Err(Error::io("the file cannot be opened", error).with_path(path))
        }
        Err(error) => Ok(Some((stat, Contents::Unreadable(ErrorKind::Io(error.kind()))))),
    }
}
