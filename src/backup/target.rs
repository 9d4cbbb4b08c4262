//! Where a backup goes: the trait, and the local directory.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{DirectoryStorage, KeyringStorage};
use crate::names::{KEYRING_FILE, OBJECT_DIR, is_keyring_name};
use crate::vfs::{DirEntry, EntryKind, Links, OsVfs, ReadFile, Rename, Vfs, WriteFile};

/// A place for one chain of backups. Names are relative, with at most one `/`; each is
/// written once, as a whole, and never changed.
///
/// One process at a time should write to a target; the lock of its
/// [`keyring`](Self::keyring) sees to that where there is one. Where there is none, the
/// second of two is refused its manifest.
pub trait BackupTarget: Send + Sync + Debug {
    /// The keyring of the chain, whether it exists already or not.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn keyring(&self) -> Result<Box<dyn KeyringStorage>>;

    /// Begins a file. It appears under its name when it is finished, as a whole.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn put(&self, name: &str) -> Result<Box<dyn PutFile>>;

    /// Opens a file.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), `NotFound` among others.
    fn open(&self, name: &str) -> Result<Box<dyn ReadFile>>;

    /// The names in the folder `folder` (without `/`), or at the top if it is empty, with
    /// their lengths, in no order. What is no file is left out, and so is the keyring's.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io); a folder that does not exist is empty.
    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn remove(&self, name: &str) -> Result<()>;

    /// Whether the lock of the keyring keeps all other writers out, so that what no
    /// manifest names belongs to nobody and may be removed. Default: true.
    fn is_exclusive(&self) -> bool {
        true
    }

    /// Whether nothing at all is here but what a chain that was killed at its very start
    /// leaves. Default: whether no file is at the top.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn is_empty(&self) -> Result<bool> {
        Ok(self.list("")?.is_empty())
    }

    /// Makes all finished files and removals durable.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn settle(&self) -> Result<()>;
}

#[deny(clippy::missing_trait_methods)]
impl<T: BackupTarget + ?Sized> BackupTarget for Box<T> {
    fn keyring(&self) -> Result<Box<dyn KeyringStorage>> {
        (**self).keyring()
    }

    fn put(&self, name: &str) -> Result<Box<dyn PutFile>> {
        (**self).put(name)
    }

    fn open(&self, name: &str) -> Result<Box<dyn ReadFile>> {
        (**self).open(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        (**self).list(folder)
    }

    fn remove(&self, name: &str) -> Result<()> {
        (**self).remove(name)
    }

    fn is_exclusive(&self) -> bool {
        (**self).is_exclusive()
    }

    fn is_empty(&self) -> Result<bool> {
        (**self).is_empty()
    }

    fn settle(&self) -> Result<()> {
        (**self).settle()
    }
}

/// A file on its way to a target. Dropped before its end it leaves nothing behind that
/// is listed, but in the folder `tmp`.
pub trait PutFile: Send {
    /// Tells before the first append about how many bytes will come. A hint: there may be
    /// more or fewer.
    fn will_append(&mut self, _len: u64) {}

    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// Makes the content durable and gives it its name.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), with `AlreadyExists` if the name is taken.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Files that are being written.
pub(super) const TMP: &str = "tmp";
/// Copied files.
pub(super) const FILES: &str = "files";

/// A chain of backups in a local directory.
#[derive(Clone, Debug)]
pub struct DirectoryTarget {
    dir: PathBuf,
    vfs: Arc<dyn Vfs>,
}

impl DirectoryTarget {
    /// The chain in `dir`, which must exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::with_vfs(dir, Arc::new(OsVfs))
    }

    /// The same over another file system.
    pub fn with_vfs(dir: impl Into<PathBuf>, vfs: Arc<dyn Vfs>) -> Self {
        Self { dir: dir.into(), vfs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What no backup names is removed from a folder, so it must not be somewhere else.
    fn check_folder(&self, folder: &Path) -> Result<()> {
        match self.vfs.stat(folder) {
            Ok(stat) => super::own::check_kind(folder, stat.kind),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(fail("the directory cannot be used", folder)(error)),
        }
    }
}

/// Whether an entry is the chain's keyring's.
fn is_own(entry: &DirEntry) -> bool {
    let name = entry.path.file_name();
    name.is_some_and(|name| is_keyring_name(name.as_encoded_bytes()))
}

fn fail<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::io(what, source).with_path(path)
}

impl BackupTarget for DirectoryTarget {
    fn keyring(&self) -> Result<Box<dyn KeyringStorage>> {
        let has_keyring = |dir: &Path| self.vfs.stat(&dir.join(KEYRING_FILE)).is_ok();
        let copied = self.dir.join(OBJECT_DIR);
        // Copied from an object store, which keeps it there.
        let is_copied = !has_keyring(&self.dir) && has_keyring(&copied);
        let dir = if is_copied { copied } else { self.dir.clone() };
        Ok(Box::new(DirectoryStorage::with_vfs(dir, self.vfs.clone())))
    }

    fn put(&self, name: &str) -> Result<Box<dyn PutFile>> {
        for folder in [TMP, FILES] {
            let folder = self.path(folder);
            let made = self.vfs.create_dir(&folder, 0o777);
            made.map_err(fail("the directory cannot be created", &folder))?;
            self.check_folder(&folder)?;
        }
        let mut random = [0; 16];
        crate::random::fill(&mut random)?;
        let temporary = self.path(TMP).join(crate::hex::encode(&random));
        let file = self.vfs.create_new(&temporary, 0o666);
        let file = file.map_err(fail("the file cannot be created", &temporary))?;
        Ok(Box::new(PutLocal {
            vfs: self.vfs.clone(),
            file: Some(file),
            temporary,
            path: self.path(name),
        }))
    }

    fn open(&self, name: &str) -> Result<Box<dyn ReadFile>> {
        let path = self.path(name);
        self.vfs.open(&path, Links::Follow).map_err(fail("the file cannot be opened", &path))
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        let dir = self.path(folder);
        if !folder.is_empty() {
            self.check_folder(&dir)?;
        }
        let entries = match self.vfs.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_empty() => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(fail("the directory cannot be listed", &dir)(error)),
        };
        let named =
            entries.into_iter().filter(|entry| entry.kind == EntryKind::File && !is_own(entry));
        Ok(named
            .filter_map(|entry| Some((entry.path.file_name()?.to_str()?.to_owned(), entry.len)))
            .collect())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        self.vfs.remove(&path).map_err(fail("the file cannot be removed", &path))
    }

    fn is_empty(&self) -> Result<bool> {
        let entries = self.vfs.list(&self.dir);
        let entries = entries.map_err(fail("the directory cannot be listed", &self.dir))?;
        Ok(entries.iter().all(|entry| {
            let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Every new ext file system has a lost+found.
            let is_ours =
                [TMP, FILES, "lost+found"].contains(&name) && entry.kind == EntryKind::Directory;
            is_ours || is_own(entry)
        }))
    }

    fn settle(&self) -> Result<()> {
        for dir in [self.path(FILES), self.dir.clone()] {
            match self.vfs.sync_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(fail("the directory cannot be synced", &dir))?,
            }
        }
        Ok(())
    }
}

struct PutLocal {
    vfs: Arc<dyn Vfs>,
    file: Option<Box<dyn WriteFile>>,
    temporary: PathBuf,
    path: PathBuf,
}

impl PutFile for PutLocal {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let what = "the file cannot be written";
        match &mut self.file {
            Some(file) => file.append(bytes).map_err(fail(what, &self.path)),
            None => Err(Error::new(ErrorKind::Poisoned, "the file is finished")),
        }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let fail = fail("the file cannot be made durable", &self.path);
        if let Some(mut file) = self.file.take() {
            match file.sync() {
                Ok(()) => {}
                Err(error) => return Err(fail(error)),
            }
        }
        // Unlike a rename, a link never replaces what is there.
        match self.vfs.hard_link(&self.temporary, &self.path) {
            // The drop removes the other name.
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(fail(error)),
            Err(error) => match self.vfs.stat(&self.path) {
                Ok(_) => Err(fail(io::ErrorKind::AlreadyExists.into())),
                // A file system without links, such as that of a memory stick.
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                    let renamed = self.vfs.rename(&self.temporary, &self.path, Rename::Replace);
                    renamed.map_err(fail)
                }
                Err(_) => Err(fail(error)),
            },
        }
    }
}

impl Drop for PutLocal {
    fn drop(&mut self) {
        // What stays is removed by the next backup.
        drop(self.vfs.remove(&self.temporary));
    }
}
