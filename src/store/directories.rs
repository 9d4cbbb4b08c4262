//! The directories that hold a store's files: where to look before a data key is
//! destroyed.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Keyring;
use crate::names::marker_name;
use crate::vfs::{Attributes, EntryKind, Vfs, keep_attributes};

/// The directories that hold a store's files.
#[derive(Debug)]
pub struct Directories {
    keyring: Keyring,
    vfs: Arc<dyn Vfs>,
    /// Changes when a directory is taken off the list.
    serial: AtomicU64,
}

impl Directories {
    pub(super) fn new(keyring: Keyring, vfs: Arc<dyn Vfs>) -> Self {
        Self { keyring, vfs, serial: AtomicU64::new(0) }
    }

    /// The directories that hold the store's files, each with all below it: the keyring's
    /// own, and those registered. None contains another.
    pub fn list(&self) -> Vec<PathBuf> {
        let (own, registered) = self.keyring.roots();
        let registered = registered.iter().map(|path| path_of(path).to_owned());
        let mut all: Vec<_> = own.into_iter().chain(registered).collect();
        all.sort_unstable();
        // Sorted, a directory stands right before all below it.
        all.dedup_by(|below, above| below.starts_with(above));
        all
    }

    /// Adds a directory of the store's files, for good, under its canonical path, and puts
    /// a marker into it: an empty file `KEYRING.directory.<store id>`, without which nothing
    /// is taken for proven by what the directory holds. Done again it replaces a marker that
    /// was lost: the caller says that this is the right directory, mounted and whole. Does
    /// nothing else if the directory is below one that is known and on the same device.
    /// `EncryptedFs` registers by itself when a file is first created in a directory; a
    /// store with many may name their common parent first.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a relative path;
    /// [`Io`](ErrorKind::Io) if it is not there or cannot be written to; those of
    /// [`Keys::rotate`](crate::keyring::Keys::rotate).
    pub fn register(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        if !dir.is_absolute() {
            let what = "expected the absolute path of a directory";
            return Err(Error::new(ErrorKind::InvalidArgument, what).with_path(dir));
        }
        let dir = self.canonical(dir)?;
        let (_, registered) = self.keyring.roots();
        if registered.iter().any(|known| path_of(known) == dir) {
            return self.mark(&dir);
        }
        self.cover(&dir, self.device(&dir)?)
    }

    /// Registers the directory of this canonical path and device if scans of the store would not come
    /// by, or might not one day. A directory that is known gets no marker here: it may be
    /// the empty place where another one was mounted.
    ///
    /// # Errors
    /// Those of [`register`](Self::register).
    pub(super) fn cover(&self, dir: &Path, device: u64) -> Result<()> {
        let (own, registered) = self.keyring.roots();
        let known = own.iter().map(PathBuf::as_path).chain(registered.iter().map(|p| path_of(p)));
        let nearest =
            known.filter(|known| dir.starts_with(known)).max_by_key(|p| p.as_os_str().len());
        if let Some(nearest) = nearest {
            // A device of its own may one day not be mounted, and then looks empty.
            if nearest == dir || self.device(nearest)? == device {
                return Ok(());
            }
        }
        self.mark(dir)?;
        self.keyring.edit_roots(|directories| {
            let bytes = dir.as_os_str().as_bytes().to_vec();
            if directories.contains(&bytes) {
                return Ok(false);
            }
            directories.retain(|other| {
                let other = path_of(other);
                !other.starts_with(dir) || self.device(other).ok() != Some(device)
            });
            directories.push(bytes);
            Ok(true)
        })
    }

    /// Whether all registered directories are there, as what they were when they were
    /// registered: what a look at them finds missing is missing.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) for one that is not there;
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for one that is reached by a link
    /// now, or has no marker.
    pub(super) fn check_present(&self) -> Result<()> {
        self.absent().into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// The registered directories that are not there, or not as what they were when they
    /// were registered: a link leads elsewhere, or nothing is mounted. Each with what is
    /// wrong, as [`Renewal::retire`](super::Renewal::retire) would say it.
    pub fn absent(&self) -> Vec<(PathBuf, Error)> {
        let marker = marker_name(self.keyring.store_id());
        let registered = self.keyring.roots().1;
        let registered = registered.iter().map(|dir| path_of(dir).to_owned());
        let check = |dir: PathBuf| {
            let error = self.check(&dir, &marker).err()?;
            Some((dir, error))
        };
        registered.filter_map(check).collect()
    }

    fn check(&self, dir: &Path, marker: &str) -> Result<()> {
        let refuse = |what| Err(Error::new(ErrorKind::InvalidArgument, what).with_path(dir));
        if self.canonical(dir)? != dir {
            return refuse("a symbolic link has taken the place of this directory");
        }
        match self.vfs.stat(&dir.join(marker)) {
            Ok(stat) if stat.kind == EntryKind::File => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("the directory's marker is unknown", error).with_path(dir))
            }
            _ => refuse(
                "the directory has not the store's marker: another one may be mounted here, or \
                 none",
            ),
        }
    }

    /// Puts the marker into a directory, for good.
    fn mark(&self, dir: &Path) -> Result<()> {
        let path = dir.join(marker_name(self.keyring.store_id()));
        let marked = match self.vfs.create_new(&path, 0o644) {
            Ok(mut file) => file
                .sync()
                .and_then(|()| self.vfs.stat(dir))
                .and_then(|stat| {
                    let of_dir = Attributes { owner: stat.owner, ..Attributes::default() };
                    keep_attributes(&*self.vfs, &path, &of_dir)
                })
                .or_else(|error| match error.kind() {
                    // It says what it has to, whoever owns it.
                    io::ErrorKind::PermissionDenied => Ok(()),
                    _ => Err(error),
                }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        };
        marked
            .and_then(|()| self.vfs.sync_dir(dir))
            .map_err(|e| Error::io("the directory cannot be marked", e).with_path(dir))
    }

    fn device(&self, dir: &Path) -> Result<u64> {
        let stat = self.vfs.stat(dir);
        let fail = |e| Error::io("the directory's attributes are unknown", e).with_path(dir);
        stat.map(|stat| stat.device).map_err(fail)
    }

    fn canonical(&self, dir: &Path) -> Result<PathBuf> {
        let fail = |e| Error::io("where the directory is cannot be told", e).with_path(dir);
        self.vfs.canonical(dir).map_err(fail)
    }

    /// Takes a directory off the list. It **MUST** hold no file of the store: data keys
    /// may be destroyed that its files need.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if it is not on the list; those of
    /// [`Keys::rotate`](crate::keyring::Keys::rotate).
    pub fn unregister(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let result = self.keyring.edit_roots(|directories| {
            let before = directories.len();
            directories.retain(|other| path_of(other) != dir);
            if directories.len() == before {
                let what = "the directory is not registered";
                return Err(Error::new(ErrorKind::InvalidArgument, what).with_path(dir));
            }
            Ok(true)
        });
        self.serial.fetch_add(1, Ordering::Release);
        if result.is_ok() {
            // The directory may be gone, or never come back: a marker does no harm.
            drop(self.vfs.remove(&dir.join(marker_name(self.keyring.store_id()))));
        }
        result
    }

    /// What was true of the directories stays true while this number does.
    pub(super) fn serial(&self) -> u64 {
        self.serial.load(Ordering::Acquire)
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
