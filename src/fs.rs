//! Encrypted files over a file system: what a storage engine needs, and no more.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::classify::begins_plaintext;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{
    HEADER_LEN, Header, LAYOUT_LEN, begins_encrypted, claimed_layout, is_unwritten,
};
use crate::keyring::{Expect, FileSpec, Keyring, PlaintextPolicy};
use crate::names::{is_partial_path, is_reserved_path, kind_of};
use crate::store::places::{Places, Target};
use crate::suite::source::Scratch;
use crate::vfs::{EntryKind, Links, ReadFile, Rename, Vfs};

mod buffer;
#[cfg(any(test, feature = "danger-internals"))]
pub(crate) mod fuzz;
pub(crate) mod pieces;
mod reader;
mod source;
mod torn;
mod writer;

pub use crate::suite::log::{Torn, TornReason};
pub use reader::Reader;
use source::FileBody;
pub use source::ReadPath;
pub use torn::TornFile;
pub use writer::{Sealed, Writer};

/// Most bytes behind the header that are read together with it.
const START_LEN_MAX: usize = 256 << 10;

/// Default size of a writer's buffer, in bytes.
pub const WRITE_BUFFER_LEN: usize = 256 << 10;

/// Encrypted files. A clone shares everything.
///
/// Directories and names are as without encryption. Each file has 4096 bytes in front on the
/// disk. Suite 2 adds 16 bytes for each chunk and for the end, suite 3 adds 20 for each append.
/// Renames and hard links need nothing special: a file carries its own header.
#[derive(Clone, Debug)]
pub struct EncryptedFs {
    keyring: Keyring,
    vfs: Arc<dyn Vfs>,
    write_buffer_len: usize,
    read_path: ReadPath,
    counts: Arc<Counts>,
    places: Arc<Places>,
}

#[derive(Debug, Default)]
struct Counts {
    created: AtomicU64,
    encrypted_opened: AtomicU64,
    plaintext_opened: AtomicU64,
}

/// What went through one [`EncryptedFs`] and its clones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct FsReport {
    /// Files created, all encrypted.
    pub files_created: u64,
    /// Encrypted files opened for reading.
    pub encrypted_files_opened: u64,
    /// Files opened that are not encrypted: from before encryption was switched on.
    pub plaintext_files_opened: u64,
}

/// One file of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Directory and name.
    pub path: PathBuf,
    /// Plaintext length in bytes: what a reader's [`len`](Reader::len) says.
    pub len: u64,
    /// Length on disk in bytes.
    pub physical_len: u64,
}

impl EncryptedFs {
    pub(crate) fn of_store(places: &Arc<Places>) -> Self {
        Self {
            keyring: places.keyring().clone(),
            vfs: places.vfs().clone(),
            write_buffer_len: WRITE_BUFFER_LEN,
            read_path: ReadPath::default(),
            counts: Arc::default(),
            places: places.clone(),
        }
    }

    /// The same files through other calls of the operating system, such as those of
    /// [`DirectVfs`](crate::vfs::DirectVfs). The report begins anew.
    #[must_use]
    pub fn through(&self, vfs: Arc<dyn Vfs>) -> Self {
        Self { vfs, counts: Arc::default(), ..self.clone() }
    }

    /// Sets the size of writers' buffers in bytes; at least 4096.
    #[must_use]
    pub fn write_buffer_len(mut self, len: usize) -> Self {
        self.write_buffer_len = len.max(HEADER_LEN);
        self
    }

    /// Sets how files that are opened from now on are read.
    #[must_use]
    pub fn read_path(mut self, read_path: ReadPath) -> Self {
        self.read_path = read_path;
        self
    }

    /// The keyring.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Creates a file that must not exist, under a fresh key. The first file in a directory
    /// that is not below the keyring's
    /// [registers](crate::store::Directories::register) it. Nothing is written before
    /// the buffer is full, or [`sync`](Writer::sync) or [`finish`](Writer::finish) is
    /// called: the header goes out with the first bytes.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), `AlreadyExists` among others; those of
    /// [`Keyring::encryptor`] and [`Directories::register`](crate::store::Directories::register);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a
    /// [reserved name](crate::names).
    pub fn create_new(&self, path: impl AsRef<Path>, spec: impl Into<FileSpec>) -> Result<Writer> {
        let path = path.as_ref();
        self.check_name(path)?;
        self.create_own(path, spec)
    }

    /// The same under any name: one of the library's, say.
    pub(crate) fn create_own(&self, path: &Path, spec: impl Into<FileSpec>) -> Result<Writer> {
        let known = self.places.known(&*self.vfs, path);
        let mut target = known.map_or_else(|| self.cover(path), Ok)?;
        let encryptor = self.keyring.encryptor(spec).map_err(|e| e.with_path(path))?;
        let file = {
            // A snapshot that ends must not meet ever more files.
            let _shared = self.places.moves().shared();
            let created = self.vfs.create_new(path, 0o666);
            created.map_err(|e| Error::io("the file cannot be created", e).with_path(path))?
        };
        if !target.holds(&self.places, &*file) {
            target = self.cover(path)?;
        }
        self.counts.created.fetch_add(1, Ordering::Relaxed);
        let (places, token) = (self.places.clone(), self.places.created(&target));
        Ok(Writer::new(path.into(), file, encryptor, self.write_buffer_len, places, token))
    }

    /// Deletes `path` if it exists and creates it anew under a fresh key: what recycling a
    /// log file has to be, since its old keystream must not be used again.
    ///
    /// # Errors
    /// Those of [`remove`](Self::remove) and [`create_new`](Self::create_new).
    pub fn reuse_for_write(
        &self,
        path: impl AsRef<Path>,
        spec: impl Into<FileSpec>,
    ) -> Result<Writer> {
        match self.remove(&path) {
            Err(error) if error.kind() != ErrorKind::Io(io::ErrorKind::NotFound) => Err(error),
            _ => self.create_new(path, spec),
        }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io); those of [`Header::parse`] and [`Keyring::decryptor`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Reader> {
        self.open_expecting(path, &Expect::default())
    }

    /// Opens a file that must be the one the engine means.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch).
    pub fn open_expecting(&self, path: impl AsRef<Path>, expect: &Expect) -> Result<Reader> {
        let path = path.as_ref();
        let file = self.open_raw(path)?;
        self.open_file(path, file, expect).map_err(|error| error.with_path(path))
    }

    /// [Opens](Self::open_expecting) a file and reads its first bytes, as many as fit into
    /// `buf` and the file has; returns how many. In suite 1 the one `pread` that brings the
    /// header brings up to 256 KiB of them, too.
    ///
    /// # Errors
    /// Those of [`open_expecting`](Self::open_expecting) and [`Reader::read_at`]. `buf` then
    /// holds zeros.
    pub fn open_and_read(
        &self,
        path: impl AsRef<Path>,
        expect: &Expect,
        buf: &mut [u8],
    ) -> Result<(Reader, usize)> {
        let path = path.as_ref();
        let opened = self.open_raw(path).and_then(|file| {
            let mut scratch = Scratch::take();
            let start = scratch.bytes(HEADER_LEN + buf.len().min(START_LEN_MAX));
            let read = read_start(&*file, start)?;
            let (header, body) = start[..read].split_at(read.min(HEADER_LEN));
            let reader = self.open_started(path, file, expect, header)?;
            let read = reader.read_from_start(body, buf)?;
            Ok((reader, read))
        });
        opened.map_err(|error| {
            buf.fill(0);
            error.with_path(path)
        })
    }

    fn open_raw(&self, path: &Path) -> Result<Box<dyn ReadFile>> {
        let opened = self.vfs.open(path, Links::Follow);
        opened.map_err(|e| Error::io("the file cannot be opened", e).with_path(path))
    }

    pub(crate) fn open_file(
        &self,
        path: &Path,
        file: Box<dyn ReadFile>,
        expect: &Expect,
    ) -> Result<Reader> {
        let mut start = [0; HEADER_LEN];
        let read = read_start(&*file, &mut start)?;
        self.open_started(path, file, expect, &start[..read])
    }

    /// Opens a file of which the first bytes, at most a header, are known.
    fn open_started(
        &self,
        path: &Path,
        file: Box<dyn ReadFile>,
        expect: &Expect,
        start: &[u8],
    ) -> Result<Reader> {
        let plain =
            begins_plaintext(start) && self.keyring.settings().plaintext == PlaintextPolicy::Allow;
        if plain {
            let access = self.keyring.access().flag();
            access.check()?;
            self.counts.plaintext_opened.fetch_add(1, Ordering::Relaxed);
            return Ok(Reader::plain(path.into(), file, access));
        }
        let header = Header::parse(start)?;
        let decryptor = self.keyring.decryptor(&header, expect)?;
        let reader = Reader::encrypted(path.into(), file, decryptor, self.read_path)?;
        self.counts.encrypted_opened.fetch_add(1, Ordering::Relaxed);
        Ok(reader)
    }

    /// Renames over whatever is at `to`. A [registered](crate::store::Directories::register)
    /// directory stays registered under its new name: that costs two commits, between which a
    /// retirement finds one of the names missing, and fails.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io); [`InvalidArgument`](ErrorKind::InvalidArgument) for a
    /// [reserved name](crate::names), or a registered directory without its marker, which may not
    /// be mounted; those of [`Directories::register`](crate::store::Directories::register).
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        self.check_name(from)?;
        self.check_name(to)?;
        let moving = self.places.moving(from, to).map_err(|e| e.with_path(from))?;
        let target = if moving.alone { None } else { Some(self.cover(to)?) };
        let renamed = {
            let moves = self.places.moves();
            let _shared = moves.shared();
            moves.note(to);
            let leaving = self.places.leaving(to);
            let renamed = self.vfs.rename(from, to, Rename::Replace);
            if renamed.is_ok() {
                self.places.renamed(from, to);
                self.places.unlinked(leaving);
            }
            renamed
        };
        let settled = self.places.directories().moved(&moving, renamed.is_ok());
        renamed.map_err(|e| Error::io("the file cannot be renamed", e).with_path(from))?;
        settled?;
        if target.is_some_and(|target| !target.stays(&self.places)) {
            self.cover(to)?;
        }
        Ok(())
    }

    /// Makes a hard link; `to` must not exist.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io); [`InvalidArgument`](ErrorKind::InvalidArgument) for a
    /// [reserved name](crate::names).
    pub fn hard_link(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        self.check_name(from)?;
        self.check_name(to)?;
        let target = self.cover(to)?;
        let moves = self.places.moves();
        let _shared = moves.shared();
        moves.note(to);
        self.vfs
            .hard_link(from, to)
            .map_err(|e| Error::io("the file cannot be linked", e).with_path(from))?;
        self.places.linked(from, to);
        if !target.stays(&self.places) {
            self.cover(to)?;
        }
        Ok(())
    }

    fn cover(&self, path: &Path) -> Result<Target> {
        self.places.cover(path).map_err(|e| e.with_path(path))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io); [`InvalidArgument`](ErrorKind::InvalidArgument) for a
    /// [reserved name](crate::names).
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.check_name(path)?;
        self.remove_own(path)
    }

    /// The same under any name.
    pub(crate) fn remove_own(&self, path: &Path) -> Result<()> {
        let _shared = self.places.moves().shared();
        let leaving = self.places.leaving(path);
        self.vfs
            .remove(path)
            .map_err(|e| Error::io("the file cannot be removed", e).with_path(path))?;
        self.places.removed(path);
        self.places.unlinked(leaving);
        Ok(())
    }

    /// The files of a directory with their logical lengths, in no order, without the
    /// keyring's own and those a re-encryption works on. Opens each file and reads its first
    /// 16 bytes, which name the suite; a log of suite 3 is read through for the lengths of its
    /// frames. Nothing is verified:
    /// a length is a hint until the file is opened.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    pub fn list(&self, dir: impl AsRef<Path>) -> Result<Vec<FileEntry>> {
        let dir = dir.as_ref();
        let entries = self
            .vfs
            .list(dir)
            .map_err(|e| Error::io("the directory cannot be listed", e).with_path(dir))?;
        let mut files = Vec::with_capacity(entries.len());
        for entry in entries
            .into_iter()
            .filter(|entry| entry.kind == EntryKind::File && !is_ours(&entry.path))
        {
            match self.claimed_len(&entry.path) {
                Ok((len, physical_len)) => {
                    files.push(FileEntry { len, physical_len, path: entry.path });
                }
                // Removed since the directory was read.
                Err(error) if error.kind() == ErrorKind::Io(io::ErrorKind::NotFound) => {}
                Err(error) => return Err(error.with_path(&entry.path)),
            }
        }
        Ok(files)
    }

    /// The plaintext length that a file's first bytes and its length on disk claim, and the
    /// latter: that of the file which has the name now, not of one that was listed.
    fn claimed_len(&self, path: &Path) -> Result<(u64, u64)> {
        let fail = |error| Error::io("the file cannot be read", error);
        let file = self.vfs.open(path, Links::Follow).map_err(fail)?;
        let physical_len = file.opened_len().map_err(fail)?;
        let mut start = [0; LAYOUT_LEN];
        let read = file.read_at(&mut start, 0).map_err(fail)?;
        let encrypted = begins_encrypted(&start[..read]);
        if !encrypted && self.keyring.settings().plaintext == PlaintextPolicy::Allow {
            return Ok((physical_len, physical_len));
        }
        let body_len = physical_len.saturating_sub(HEADER_LEN as u64);
        let len = match claimed_layout(&start[..read]) {
            // A header that was never written, as far as can be told: nothing is readable.
            None if is_unwritten(&start[..read]) => 0,
            Some(layout) => layout.claimed_len(body_len, &FileBody::new(&*file))?,
            None => body_len,
        };
        Ok((len, physical_len))
    }

    /// Creates a directory for files of the store, whose parent exists; one that is there already
    /// is fine. Where none above it is [registered](crate::store::Directories::register) it is,
    /// by this and not by its first file: so no directory below it gets a marker, and an engine
    /// that clears one of those can remove it by itself.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io); those of
    /// [`Directories::register`](crate::store::Directories::register);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a [reserved name](crate::names).
    pub fn create_dir(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        self.check_name(dir)?;
        self.vfs
            .create_dir(dir, 0o777)
            .map_err(|e| Error::io("the directory cannot be created", e).with_path(dir))?;
        self.cover(&dir.join("file")).map(drop)
    }

    /// Removes an empty directory: one that holds nothing but the marker by which the store
    /// [knows](crate::store::Directories::register) it. The store no longer knows it then, which
    /// costs a commit. **MUST NOT** be called while files are created there.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), `DirectoryNotEmpty` or `NotADirectory` among others, for a symbolic
    /// link too; [`InvalidArgument`](ErrorKind::InvalidArgument) for a
    /// [reserved name](crate::names), or a registered directory without its marker, which may not
    /// be mounted;
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch) if it is the directory of a store at
    /// another place, of which this is a copy; those of
    /// [`Directories::unregister`](crate::store::Directories::unregister).
    pub fn remove_dir(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        self.check_name(dir)?;
        self.places.directories().remove(dir)
    }

    /// Makes creations, renames and removals in a directory durable.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    pub fn sync_dir(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        self.vfs
            .sync_dir(dir)
            .map_err(|e| Error::io("the directory cannot be synced", e).with_path(dir))
    }

    /// Refuses what is the library's: an engine that clears its directory must not lose
    /// every key with it, and what it puts in a directory of ours would be swept away.
    fn check_name(&self, path: &Path) -> Result<()> {
        if !is_reserved_path(path) || is_partial_path(path) {
            return Ok(());
        }
        // A whole store may lie below such a name: the copy of one in another's.
        let roots = self.places.directories().list();
        let inside = roots.iter().filter_map(|root| path.strip_prefix(root).ok());
        let inside = inside.min_by_key(|path| path.as_os_str().len());
        if inside.is_some_and(|path| !is_reserved_path(path) || is_partial_path(path)) {
            return Ok(());
        }
        let what = "expected an engine's file, found a name that is reserved";
        Err(Error::new(ErrorKind::InvalidArgument, what).with_path(path))
    }

    /// What went through this file system so far.
    pub fn report(&self) -> FsReport {
        FsReport {
            files_created: self.counts.created.load(Ordering::Relaxed),
            encrypted_files_opened: self.counts.encrypted_opened.load(Ordering::Relaxed),
            plaintext_files_opened: self.counts.plaintext_opened.load(Ordering::Relaxed),
        }
    }
}

fn read_start(file: &dyn ReadFile, start: &mut [u8]) -> Result<usize> {
    file.read_at(start, 0).map_err(|e| Error::io("the header cannot be read", e))
}

fn is_ours(path: &Path) -> bool {
    path.file_name().is_some_and(|name| kind_of(name.as_encoded_bytes()).is_some())
}
