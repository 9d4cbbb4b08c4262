//! The keyring in a local directory, and its crash-safe commit. `docs/FORMAT.md`
//! section 6.
//!
//! `KEYRING` is the current image, `KEYRING.<generation>` the last two before it,
//! `KEYRING.lock` is locked by the one writer, `KEYRING.new` is a commit that did not
//! finish.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::format::KEYRING_LEN_MAX;
use super::rollback;
use super::storage::{FilesBeside, KEPT_IMAGES, KeyringStorage, Location, StoredImage};
use crate::error::{Error, ErrorKind, Result};
use crate::names::{KEYRING_FILE, LOCK_FILE, NEW_FILE, NameKind, RESTORE_DIR, kind_of};
use crate::vfs::{EntryKind, Links, OsVfs, Rename, Vfs, adopt_owner, keep_access};

/// Behind the name of an older image that is being copied.
pub(super) const COPY_SUFFIX: &str = ".new";

/// The keyring in a directory.
pub struct DirectoryStorage {
    pub(super) dir: PathBuf,
    /// Where the keyring is at home, with the store's files below: `dir`, but for a restore
    /// that is not finished.
    home: PathBuf,
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) mirror: Option<PathBuf>,
    lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl std::fmt::Debug for DirectoryStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectoryStorage").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl DirectoryStorage {
    /// The keyring in `dir`, which must exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::with_vfs(dir, Arc::new(OsVfs))
    }

    /// The same over another file system.
    pub fn with_vfs(dir: impl Into<PathBuf>, vfs: Arc<dyn Vfs>) -> Self {
        let dir = dir.into();
        Self { home: dir.clone(), dir, vfs, mirror: None, lock: Mutex::new(None) }
    }

    /// The keyring of a restore, which waits in a directory of its own until its files are
    /// all in `home`.
    pub(crate) fn of_restore(home: &Path, vfs: Arc<dyn Vfs>) -> Self {
        Self { dir: home.join(RESTORE_DIR), ..Self::with_vfs(home, vfs) }
    }

    pub(crate) fn file_system(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let fail = |source| Error::io("the keyring cannot be read", source).with_path(path);
        let file = match self.vfs.open(path, Links::Follow) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        let len = file.len().map_err(fail)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > KEYRING_LEN_MAX {
            let what = format!("expected a keyring of at most 64 MiB, found {len} bytes");
            return Err(Error::new(ErrorKind::KeyringCorrupt, what).with_path(path));
        }
        let mut bytes = vec![0; len];
        let read = file.read_at(&mut bytes, 0).map_err(fail)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    /// The numbers n of the files `KEYRING.<n><suffix>`, ascending.
    pub(super) fn numbered(&self, suffix: &str) -> Result<Vec<u64>> {
        let entries = self.vfs.list(&self.dir).map_err(|e| {
            Error::io("the store's directory cannot be listed", e).with_path(&self.dir)
        })?;
        let mut generations: Vec<u64> = entries
            .iter()
            .filter_map(|entry| {
                let name = entry.path.file_name()?.to_str()?;
                match kind_of(name.strip_suffix(suffix)?.as_bytes()) {
                    Some(NameKind::Older(generation)) => Some(generation),
                    _ => None,
                }
            })
            .collect();
        generations.sort_unstable();
        Ok(generations)
    }

    /// A restore that is not finished would find its place taken.
    fn check_no_restore(&self) -> Result<()> {
        let path = self.path(RESTORE_DIR);
        match self.vfs.stat(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("the directory cannot be used", error).with_path(&path)),
            Ok(_) => {
                let what = "an unfinished restore is here: finish it, or remove it";
                Err(Error::new(ErrorKind::KeyringExists, what).with_path(&path))
            }
        }
    }

    /// Makes durable what the directory says now.
    pub(super) fn settle(&self) -> Result<()> {
        self.vfs
            .sync_dir(&self.dir)
            .map_err(|e| Error::io("the directory cannot be synced", e).with_path(&self.dir))
    }

    pub(super) fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.vfs.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Removes what is where a file of ours is to be; a directory with something in it, which
    /// is nobody's to remove, gets a name that tells.
    fn make_way(&self, path: &Path) -> io::Result<()> {
        match self.remove_if_there(path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                let mut number = [0; 8];
                crate::random::fill(&mut number).map_err(|_| error)?;
                let name = format!("{KEYRING_FILE}.bad-{}", crate::hex::encode(&number));
                self.vfs.rename(path, &path.with_file_name(name), Rename::Replace)
            }
            other => other,
        }
    }

    /// Gives the current image a second name, under which it is kept. A file system
    /// without hard links gets a copy instead, durable before it has that name.
    pub(super) fn keep(&self, current: &Path, old: &Path, image: &StoredImage) -> io::Result<()> {
        self.remove_if_there(old)?;
        match self.vfs.hard_link(current, old) {
            Err(error) if has_no_links(&error) => {
                let mut copy = old.as_os_str().to_owned();
                copy.push(COPY_SUFFIX);
                let copy = PathBuf::from(copy);
                self.write_new(&copy, &image.bytes)?;
                // The first error is the one to tell.
                self.vfs
                    .rename(&copy, old, Rename::Replace)
                    .inspect_err(|_| drop(self.vfs.remove(&copy)))
            }
            other => other,
        }
    }

    /// Writes a new file beside the current image, durably, for those who may use that one.
    pub(super) fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.make_way(path)?;
        let mut file = self.vfs.create_new(path, 0o600)?;
        let written =
            file.append(bytes).and_then(|()| self.give_access(path)).and_then(|()| file.sync());
        if written.is_err() {
            // After a failed fsync the page cache lies: the file is given up, never
            // synced a second time. The first error is the one to tell.
            drop(self.vfs.remove(path));
        }
        written
    }
}

impl DirectoryStorage {
    /// Lets those use `new` who may use the current image beside it: a process that runs as
    /// root must not lock an engine out. Before there is one, the directory's owner.
    fn give_access(&self, new: &Path) -> io::Result<()> {
        let vfs = &*self.vfs;
        let current = new.with_file_name(KEYRING_FILE);
        match vfs.stat(&current) {
            Ok(stat) if stat.kind == EntryKind::File => keep_access(vfs, &current, &stat, new),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => adopt_owner(vfs, new.parent().unwrap_or(&self.dir), new),
        }
    }
}

/// What file systems without hard links say: FAT and its like `EPERM`.
fn has_no_links(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), Unsupported | PermissionDenied | TooManyLinks)
}

impl DirectoryStorage {
    /// Keeps other writers out, and touches no mirror. True if it was not locked before.
    pub(super) fn lock_alone(&self) -> Result<bool> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            let path = self.path(LOCK_FILE);
            let held = self.vfs.lock(&path).map_err(|source| {
                if source.kind() == io::ErrorKind::WouldBlock {
                    let what = "another process has the store open for writing";
                    Error::new(ErrorKind::KeyringBusy, what).with_path(&path)
                } else {
                    Error::io("the keyring cannot be locked", source).with_path(&path)
                }
            })?;
            // Best effort: it may have been there, and another's.
            drop(self.give_access(&path));
            // A writer that died between its rename and its sync left an image that a
            // power failure may still take back: no key of it may be used before.
            self.settle()?;
            *lock = Some(held);
            return Ok(true);
        }
        Ok(false)
    }

    fn unlock(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl KeyringStorage for DirectoryStorage {
    fn lock(&self) -> Result<()> {
        if self.lock_alone()? {
            self.settle_mirror().inspect_err(|_| self.unlock())?;
        }
        Ok(())
    }

    fn load(&self) -> Result<Option<StoredImage>> {
        let bytes = self.read(&self.path(KEYRING_FILE))?;
        Ok(bytes.map(|bytes| StoredImage { bytes, version: String::new() }))
    }

    fn commit(
        &self,
        bytes: &[u8],
        generation: u64,
        previous: Option<&StoredImage>,
    ) -> Result<String> {
        let (current, new) = (self.path(KEYRING_FILE), self.path(NEW_FILE));
        let fail = |source| Error::io("the keyring cannot be written", source).with_path(&current);
        // The lock keeps other writers out; this catches a keyring replaced behind it.
        if self.load()?.as_ref() != previous {
            self.settle()?;
            self.settle_mirror()?;
            let what = "the keyring is not the one that was read";
            return Err(Error::new(ErrorKind::KeyringConflict, what).with_path(&current));
        }
        if previous.is_none() {
            self.check_no_restore()?;
        }
        let kept = self.kept()?;
        rollback::refuse_commit(generation, previous, &kept)
            .map_err(|error| error.with_path(&current))?;
        self.prepare_mirror(bytes)?;
        if let Err(source) = self.write_new(&new, bytes) {
            self.abandon_mirror();
            return Err(fail(source));
        }
        let old = self.path(&format!("{KEYRING_FILE}.{}", generation.saturating_sub(1)));
        let replaced = (|| {
            if let Some(previous) = previous {
                self.keep(&current, &old, previous)?;
            }
            self.vfs.rename(&new, &current, Rename::Replace)
        })();
        if let Err(source) = replaced {
            // A network may lose the answer of what was carried out: what is there tells.
            match self.load() {
                Ok(Some(image)) if image.bytes == bytes => {}
                Ok(image) if image.as_ref() == previous => {
                    // The first error is the one to tell. The link is the current image's.
                    drop(self.vfs.remove(&new));
                    drop(self.vfs.remove(&old));
                    self.abandon_mirror();
                    return Err(fail(source));
                }
                _ => {
                    let what = "nobody knows which keyring is there: open the store again";
                    let error = Error::new(ErrorKind::Poisoned, what).with_source(source);
                    return Err(error.with_path(&current));
                }
            }
        }
        self.vfs.sync_dir(&self.dir).map_err(|source| {
            let what = "the new keyring may not be durable: open the store again";
            Error::new(ErrorKind::Poisoned, what).with_source(source).with_path(&current)
        })?;
        self.publish_mirror()?;
        // The commit is done; what is left over is removed at the next one.
        let is_excess = |kept: &&u64| kept.saturating_add(KEPT_IMAGES as u64) < generation;
        for stale in kept.iter().filter(is_excess) {
            drop(self.vfs.remove(&self.path(&format!("{KEYRING_FILE}.{stale}"))));
        }
        Ok(String::new())
    }

    /// A directory whose fsync failed cannot be synced again to any effect.
    fn settle_unknown(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Poisoned, "the directory could not be synced"))
    }

    fn kept(&self) -> Result<Vec<u64>> {
        self.numbered("")
    }

    fn load_kept(&self, generation: u64) -> Result<Option<Vec<u8>>> {
        self.read(&self.path(&format!("{KEYRING_FILE}.{generation}")))
    }

    fn forget_kept(&self, before: u64) -> Result<()> {
        let mut paths = vec![self.path(NEW_FILE)];
        // A copy that a crash cut off holds what an older image does.
        for suffix in ["", COPY_SUFFIX] {
            let older = self.numbered(suffix)?.into_iter().filter(|kept| *kept < before);
            paths.extend(older.map(|at| self.path(&format!("{KEYRING_FILE}.{at}{suffix}"))));
        }
        for path in paths {
            self.remove_if_there(&path)
                .map_err(|e| Error::io("an older keyring cannot be removed", e).with_path(&path))?;
        }
        self.forget_restored()?;
        self.settle()
    }

    fn copies_aside(&self) -> Result<Vec<String>> {
        let below =
            |path: &PathBuf| path.strip_prefix(&self.dir).unwrap_or(path).display().to_string();
        Ok(self.aside_paths()?.iter().map(below).collect())
    }

    fn forget_aside(&self) -> Result<()> {
        self.remove_all(self.aside_paths()?)
    }

    fn check_mirrors(&self) -> Result<()> {
        self.check_noted_mirrors()
    }

    fn location(&self) -> Location {
        let directory = self.vfs.canonical(&self.home).unwrap_or_else(|_| self.home.clone());
        let (id, is_certain) = self.place();
        Location { id, is_certain, directory: Some(directory) }
    }
}

impl FilesBeside for DirectoryStorage {
    fn put_beside(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(&format!("{KEYRING_FILE}.{name}"));
        let new = self.path(&format!("{KEYRING_FILE}.{name}.new"));
        let written = self.write_new(&new, bytes).and_then(|()| {
            self.vfs.rename(&new, &path, Rename::Replace)?;
            self.vfs.sync_dir(&self.dir)
        });
        written.map_err(|e| Error::io("the file cannot be written", e).with_path(&path))
    }

    fn load_beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.read(&self.path(&format!("{KEYRING_FILE}.{name}")))
    }

    fn exists_beside(&self, name: &str) -> Result<bool> {
        let path = self.path(&format!("{KEYRING_FILE}.{name}"));
        match self.vfs.stat(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("the file cannot be looked up", error).with_path(&path)),
        }
    }

    fn remove_beside(&self, name: &str) -> Result<()> {
        let path = self.path(&format!("{KEYRING_FILE}.{name}"));
        self.remove_if_there(&path)
            .and_then(|()| self.vfs.sync_dir(&self.dir))
            .map_err(|e| Error::io("the file cannot be removed", e).with_path(&path))
    }
}

impl DirectoryStorage {
    /// The directory's inode, time of birth and canonical path: a copy has another inode,
    /// a restored backup another birth even if it got the freed inode, a store moved to
    /// another machine another path. Each starts a new data key, which is harmless. And
    /// whether the time of birth is known, without which a restored backup may look like
    /// what it was made of.
    fn place(&self) -> ([u8; 16], bool) {
        use std::os::unix::fs::MetadataExt;
        let mut hash = Sha256::new();
        let (Ok(path), Ok(metadata)) = (self.home.canonicalize(), self.home.metadata()) else {
            return ([0; 16], false);
        };
        hash.update(metadata.ino().to_le_bytes());
        // Zero where the file system keeps none.
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let is_certain = born.is_some_and(|born| !born.is_zero());
        hash.update(born.unwrap_or_default().as_nanos().to_le_bytes());
        hash.update(path.as_os_str().as_encoded_bytes());
        let mut location = [0; 16];
        location.copy_from_slice(&hash.finalize()[..16]);
        (location, is_certain)
    }
}
