//! Finding the files of a store by their headers: what each is, and under which key.
//!
//! One `pread` of 4096 bytes a file, by several threads. Directories are walked
//! recursively, symbolic links are not followed, the keyring's own files are skipped. A
//! file that disappears meanwhile is skipped; a directory that cannot be read fails the
//! scan, and a file that cannot is reported as such, since nobody knows what is in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, begins_encrypted};
use crate::vfs::{EntryKind, FileStat, Vfs};

mod os;
mod queue;

/// One file that a scan found.
pub(crate) struct Found<'a> {
    pub(crate) dir: &'a Path,
    /// The file's name, not UTF-8 by necessity.
    pub(crate) name: &'a [u8],
    pub(crate) stat: FileStat,
    pub(crate) what: What,
}

impl Found<'_> {
    pub(crate) fn path(&self) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.dir.join(std::ffi::OsStr::from_bytes(self.name))
    }
}

/// What a file's first bytes say.
pub(crate) enum What {
    /// A well-formed header; not proven by its key.
    Encrypted(Box<Header>),
    Plaintext,
    /// 0 bytes, or fewer than a header: nothing was ever readable in it.
    Torn,
    /// An encrypted file whose key nobody can tell, or a file that cannot be read.
    Unreadable(#[allow(dead_code, reason = "for messages")] ErrorKind),
}

impl What {
    /// Judges the first bytes of a file, at most 4096.
    pub(crate) fn of(start: &[u8]) -> Self {
        if start.is_empty() {
            return Self::Torn;
        }
        if !begins_encrypted(start) {
            return Self::Plaintext;
        }
        match Header::parse(start) {
            Ok(header) => Self::Encrypted(Box::new(header)),
            Err(error) if error.kind() == ErrorKind::TruncatedHeader => Self::Torn,
            Err(error) => Self::Unreadable(error.kind()),
        }
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
    fn file(&mut self, found: &Found<'_>);

    /// A good moment to pass on what was gathered.
    fn flush(&mut self) {}
}

/// State that the threads of one scan share.
struct Shared<'a> {
    files: AtomicU64,
    bytes: AtomicU64,
    on_scan: OnScan<'a>,
    error: Mutex<Option<Error>>,
}

impl Shared<'_> {
    fn add(&self, files: u64, bytes: u64) {
        let files = self.files.fetch_add(files, Ordering::Relaxed) + files;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.on_scan)(ScanProgress { files, bytes });
    }

    fn fail(&self, error: Error) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Scans `roots`, which **MUST NOT** contain each other, with one visitor a thread.
/// Returns the visitors.
///
/// # Errors
/// [`Io`](ErrorKind::Io) if a directory cannot be read.
pub(crate) fn scan<V: Visitor>(
    vfs: &Arc<dyn Vfs>,
    roots: &[PathBuf],
    on_scan: OnScan<'_>,
    visitor: impl Fn() -> V + Sync,
) -> Result<Vec<V>> {
    let shared = Shared {
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        on_scan,
        error: Mutex::new(None),
    };
    let visitors = if vfs.is_os() {
        os::scan(roots, &shared, &visitor)
    } else {
        let mut one = visitor();
        for root in roots {
            if let Err(error) = walk(&**vfs, root, &shared, &mut one) {
                shared.fail(error);
            }
        }
        one.flush();
        vec![one]
    };
    match shared.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(visitors),
    }
}

/// Threads worth having: opening files is all system calls.
pub(crate) fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(8)
}

/// The walk over a file system that is not the operating system's.
fn walk(vfs: &dyn Vfs, dir: &Path, shared: &Shared<'_>, to: &mut dyn Visitor) -> Result<()> {
    let fail = |e| Error::io("the directory cannot be listed", e).with_path(dir);
    for entry in vfs.list(dir).map_err(fail)? {
        let Some(name) = entry.path.file_name() else { continue };
        if !entry.is_file {
            match vfs.stat(&entry.path) {
                Ok(stat) if stat.kind == EntryKind::Directory => {
                    walk(vfs, &entry.path, shared, to)?;
                }
                _ => {}
            }
            continue;
        }
        if is_reserved(name.as_encoded_bytes()) {
            continue;
        }
        let Some((stat, what)) = look(vfs, &entry.path)? else { continue };
        to.file(&Found { dir, name: name.as_encoded_bytes(), stat, what });
        shared.add(1, stat.len);
    }
    Ok(())
}

/// Reads the header of one file through `vfs`; `None` if it is not there, or is no
/// regular file.
///
/// # Errors
/// [`Io`](ErrorKind::Io) if its attributes cannot be read.
pub(crate) fn look(vfs: &dyn Vfs, path: &Path) -> Result<Option<(FileStat, What)>> {
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
    match vfs.open(path).and_then(|file| file.read_at(&mut start, 0)) {
        Ok(read) => Ok(Some((stat, What::of(&start[..read])))),
        Err(error) if missing(&error) => Ok(None),
        Err(error) => Ok(Some((stat, What::Unreadable(ErrorKind::Io(error.kind()))))),
    }
}

/// Begins the names of files that a re-encryption works on.
const TEMPORARY: &[u8] = b".atrest-reencrypt-";

/// The name under which a file's successor is written.
pub(crate) fn temporary_name(name: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let mut text = String::from(".atrest-reencrypt-");
    // Names may have the greatest length there is, so theirs cannot be a part of it.
    for byte in &Sha256::digest(name)[..16] {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Whether a name is one of those.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    name.starts_with(TEMPORARY)
}

/// Whether a name is one of the keyring's own files.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    name == b"KEYRING" || name.starts_with(b"KEYRING.")
}
