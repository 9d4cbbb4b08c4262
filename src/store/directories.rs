//! The directories that hold a store's files: where to look before a data key is
//! destroyed.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Keyring;
use crate::names::marker_name;
use crate::vfs::{
    Attributes, EntryKind, Links, Rename, Vfs, adopt_owner, is_os, keep_attributes, mount_of,
};
use crate::walk::is_passed_by;

mod moved;

pub(crate) use moved::Moving;

/// Where a directory is: the device, and which of its mounts.
pub(super) type Device = (u64, u64);

/// The directories that hold a store's files.
#[derive(Debug)]
pub struct Directories {
    keyring: Keyring,
    vfs: Arc<dyn Vfs>,
    /// Changes when a directory is taken off the list.
    serial: AtomicU64,
    /// Held while a marker is written.
    marking: Mutex<()>,
}

impl Directories {
    pub(super) fn new(keyring: Keyring, vfs: Arc<dyn Vfs>) -> Self {
        Self { keyring, vfs, serial: AtomicU64::new(0), marking: Mutex::default() }
    }

    /// The directories that hold the store's files, each with all below it: the keyring's
    /// own, and those registered. One that is below another is left out, if a walk over that one
    /// comes by: it passes by the keyring's.
    pub fn list(&self) -> Vec<PathBuf> {
        let (own, registered) = self.keyring.roots();
        let registered = registered.iter().map(|path| path_of(path).to_owned());
        let mut all: Vec<_> = own.into_iter().chain(registered).collect();
        // Sorted, a directory stands before all below it.
        all.sort_unstable();
        let mut kept: BTreeSet<PathBuf> = BTreeSet::new();
        for dir in all {
            let above = dir.ancestors().find(|above| kept.contains(*above));
            let met = |above| matches!(is_passed_by(&*self.vfs, above, &dir), Ok(None));
            if !above.is_some_and(met) {
                kept.insert(dir);
            }
        }
        kept.into_iter().collect()
    }

    /// All registered directories, also those that [`list`](Self::list) leaves out.
    pub fn registered(&self) -> Vec<PathBuf> {
        let registered = self.keyring.registered();
        registered.iter().map(|dir| path_of(dir).to_owned()).collect()
    }

    /// Adds a directory of the store's files, for good, under its canonical path, and puts
    /// a marker into it: a file `KEYRING.directory.<store id>` with the place of the keyring,
    /// without which nothing is taken for proven by what the directory holds. Done again it
    /// replaces a marker that was lost: the caller says that this is the right directory,
    /// mounted and whole. Does nothing else if the directory is below one that is known and on
    /// the same device. `EncryptedFs` registers by itself when a file is first created in a
    /// directory; a store with many may name their common parent first.
    ///
    /// A copy of the store knows the directories of its original, and a store that was moved
    /// looks like a copy. So where the marker of a known directory has another place, files
    /// there are read and written as ever, but [re-encryption](super::Renewal::reencrypt),
    /// [retirement](super::Renewal::retire) and
    /// [removal](super::Renewal::remove_temporary) refuse, until the store that was moved
    /// [takes over](Self::take_over), or the copy [lets go](Self::unregister). Keyrings
    /// without a [name](crate::keyring::Location::id) for their place are not told apart.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a relative path;
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch) if its marker has another place;
    /// [`Io`](ErrorKind::Io) if it is not there or cannot be written to; those of
    /// [`Keys::rotate`](crate::keyring::Keys::rotate).
    pub fn register(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = self.named(dir.as_ref())?;
        if self.is_registered(&dir) {
            self.mark(&dir)?;
            // It may have been on the list for a rename that failed meanwhile.
            if self.is_registered(&dir) {
                return Ok(());
            }
        }
        self.cover(&dir, self.device(&dir)?)
    }

    /// [Registers](Self::register) a directory although its marker has another place, for a
    /// store that was moved, or whose directory was restored. A copy **MUST NOT** take over
    /// what its original still uses: it would rewrite the original's files under keys that
    /// only the copy has, and destroy the keys of others.
    ///
    /// # Errors
    /// Those of [`register`](Self::register) but `IdentityMismatch`;
    /// [`ReadOnly`](ErrorKind::ReadOnly).
    pub fn take_over(&self, dir: impl AsRef<Path>) -> Result<()> {
        self.keyring.check_writable()?;
        let dir = self.named(dir.as_ref())?;
        self.put_marker(&dir)?;
        self.register(&dir)?;
        if !self.is_registered(&dir) {
            // It is below another one, and the old marker alone was in the way.
            self.remove_marker(&dir);
        }
        Ok(())
    }

    /// The canonical path of a directory that a caller names.
    fn named(&self, dir: &Path) -> Result<PathBuf> {
        if !dir.is_absolute() {
            let what = "expected the absolute path of a directory";
            return Err(Error::new(ErrorKind::InvalidArgument, what).with_path(dir));
        }
        self.canonical(dir)
    }

    /// Registers the directory of this canonical path and device if scans of the store would not
    /// come by, or might not one day. A directory that is known gets no marker here: it may be
    /// the empty place where another one was mounted.
    ///
    /// # Errors
    /// Those of [`register`](Self::register).
    pub(super) fn cover(&self, dir: &Path, device: Device) -> Result<()> {
        if self.covers(dir, device)? {
            return Ok(());
        }
        self.mark(dir)?;
        let mut below = Vec::new();
        self.keyring.edit_roots(|directories| {
            let bytes = bytes_of(dir);
            below.clear();
            if directories.contains(&bytes) {
                return Ok(false);
            }
            // One whose marker is not to be seen may be a device that is not mounted, or another
            // store's: this one must not speak for it. Nor for one that a walk passes by.
            directories.retain(|other| {
                let other = path_of(other);
                let known = other.starts_with(dir)
                    && self.device(other).ok() == Some(device)
                    && matches!(self.is_own(other), Ok(Some(true)))
                    && matches!(is_passed_by(&*self.vfs, dir, other), Ok(None));
                if known {
                    below.push(other.to_owned());
                }
                !known
            });
            directories.push(bytes);
            Ok(true)
        })?;
        below.iter().for_each(|dir| self.remove_marker(dir));
        Ok(())
    }

    /// From a directory that is not on the list: once the store is elsewhere it would say that
    /// the directory is another's.
    fn remove_marker(&self, dir: &Path) {
        // The directory may be gone, or never come back: a marker does no harm until then.
        if matches!(self.is_own(dir), Ok(Some(true))) {
            drop(self.vfs.remove(&self.marker(dir)));
        }
    }

    /// Whether scans of the store come by a directory of this canonical path, and will: what is
    /// mounted there, device or directory, may one day not be, and looks empty then.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) where they pass it by.
    fn covers(&self, dir: &Path, device: Device) -> Result<bool> {
        let (own, registered) = self.keyring.roots();
        let known = own.iter().map(PathBuf::as_path).chain(registered.iter().map(|p| path_of(p)));
        let nearest =
            known.filter(|known| dir.starts_with(known)).max_by_key(|p| p.as_os_str().len());
        let Some(nearest) = nearest else { return Ok(false) };
        if nearest != dir && self.device(nearest)? != device {
            return Ok(false);
        }
        match is_passed_by(&*self.vfs, nearest, dir)? {
            None => Ok(true),
            Some(store) => {
                let what = format!(
                    "expected a directory of this store, found one of what is in {}, where nobody \
                     looks for its files",
                    store.display()
                );
                Err(Error::new(ErrorKind::InvalidArgument, what).with_path(dir))
            }
        }
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

    /// The same, and whether they are this store's to change, and not its original's.
    ///
    /// # Errors
    /// Those of [`check_present`](Self::check_present);
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch).
    pub(super) fn check_own(&self) -> Result<()> {
        self.check_present()?;
        self.foreign().into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Whether all of these files are this store's to change: none is below a directory that a
    /// store at another place registered, and this one knows by one above it.
    ///
    /// # Errors
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch), [`Io`](ErrorKind::Io).
    pub(super) fn check_own_files<'a>(&self, files: impl Iterator<Item = &'a Path>) -> Result<()> {
        let roots = self.list();
        let mut asked = HashSet::new();
        for dir in files.filter_map(Path::parent) {
            // Those above one that was asked were asked too.
            for level in dir.ancestors().take_while(|level| asked.insert(level.as_os_str())) {
                if self.is_own(level)? == Some(false) {
                    return Err(foreign(level));
                }
                if roots.iter().any(|root| root == level) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The registered directories that are not there, or not as what they were when they
    /// were registered: a link leads elsewhere, or nothing is mounted. Each with what is
    /// wrong, as [`Renewal::retire`](super::Renewal::retire) would say it.
    pub fn absent(&self) -> Vec<(PathBuf, Error)> {
        self.failing(|dir| self.check(dir).map(drop))
    }

    /// The registered directories whose marker has another place: this is a copy, and they are
    /// its original's, or it was moved and has not [taken them over](Self::take_over). Each
    /// with what [`Renewal::retire`](super::Renewal::retire) would say.
    pub fn foreign(&self) -> Vec<(PathBuf, Error)> {
        self.failing(|dir| match self.is_own(dir) {
            Ok(Some(false)) => Err(foreign(dir)),
            _ => Ok(()),
        })
    }

    fn failing(&self, check: impl Fn(&Path) -> Result<()>) -> Vec<(PathBuf, Error)> {
        let registered = self.keyring.registered();
        let registered = registered.iter().map(|dir| path_of(dir).to_owned());
        let check = |dir: PathBuf| {
            let error = check(&dir).err()?;
            Some((dir, error))
        };
        registered.filter_map(check).collect()
    }

    /// Whether a registered directory that is there is this store's to change.
    fn check(&self, dir: &Path) -> Result<bool> {
        let refuse = |what| Err(Error::new(ErrorKind::InvalidArgument, what).with_path(dir));
        if self.canonical(dir)? != dir {
            return refuse("a symbolic link has taken the place of this directory");
        }
        match self.is_own(dir)? {
            Some(own) => Ok(own),
            None => refuse(
                "the directory has not the store's marker: another one may be mounted here, or \
                 none",
            ),
        }
    }

    /// Whether the marker in a directory has this place; `None` without one.
    fn is_own(&self, dir: &Path) -> Result<Option<bool>> {
        let path = self.marker(dir);
        let fail = |e| Error::io("the directory's marker is unknown", e).with_path(dir);
        match self.vfs.stat(&path) {
            Ok(stat) if stat.kind == EntryKind::File => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => return Ok(None),
        }
        let place = self.keyring.place();
        let mut found = vec![0; place.len() + 1];
        let read = self.vfs.open(&path, Links::Refuse).and_then(|it| it.read_at(&mut found, 0));
        Ok(Some(found[..read.map_err(fail)?] == *place.as_bytes()))
    }

    /// Puts the marker into a directory, for good, but not over that of another place.
    fn mark(&self, dir: &Path) -> Result<()> {
        match self.is_own(dir)? {
            Some(false) => Err(foreign(dir)),
            // Its writer may have died before it was durable.
            Some(true) => self.vfs.sync_dir(dir).map_err(|e| cannot_mark(dir, e)),
            None => self.put_marker(dir),
        }
    }

    fn put_marker(&self, dir: &Path) -> Result<()> {
        let _one = self.marking.lock().unwrap_or_else(PoisonError::into_inner);
        let vfs = &*self.vfs;
        let path = self.marker(dir);
        let new = dir.join(self.marker_names().1);
        let put = || {
            match vfs.remove(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = vfs.create_new(&new, 0o644)?;
            file.append(self.keyring.place().as_bytes())?;
            // Whoever may list the directory may know.
            let readable = Attributes { mode: Some(0o644), ..Attributes::default() };
            keep_attributes(vfs, &new, &readable)?;
            adopt_owner(vfs, dir, &new)?;
            file.sync()?;
            vfs.rename(&new, &path, Rename::Replace)?;
            vfs.sync_dir(dir)
        };
        put().map_err(|e| cannot_mark(dir, e))
    }

    fn marker(&self, dir: &Path) -> PathBuf {
        dir.join(self.marker_names().0)
    }

    /// Of the marker, and of one that is being written.
    fn marker_names(&self) -> (String, String) {
        let name = marker_name(self.keyring.store_id());
        let new = format!("{name}.new");
        (name, new)
    }

    fn device(&self, dir: &Path) -> Result<Device> {
        let stat = self.vfs.stat(dir);
        let fail = |e| Error::io("the directory's attributes are unknown", e).with_path(dir);
        stat.map(|stat| (stat.device, self.mount(dir))).map_err(fail)
    }

    pub(super) fn mount(&self, dir: &Path) -> u64 {
        if is_os(&*self.vfs) { mount_of(dir) } else { 0 }
    }

    fn canonical(&self, dir: &Path) -> Result<PathBuf> {
        let fail = |e| Error::io("where the directory is cannot be told", e).with_path(dir);
        self.vfs.canonical(dir).map_err(fail)
    }

    /// Takes a directory off the list. It **MUST** hold no file of the store: data keys
    /// may be destroyed that its files need. A marker of another place stays.
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
            self.remove_marker(dir);
        }
        result
    }

    fn is_registered(&self, dir: &Path) -> bool {
        self.keyring.registered().iter().any(|known| path_of(known) == dir)
    }

    /// What was true of the directories stays true while this number does.
    pub(super) fn serial(&self) -> u64 {
        self.serial.load(Ordering::Acquire)
    }
}

fn cannot_mark(dir: &Path, error: io::Error) -> Error {
    Error::io("the directory cannot be marked", error).with_path(dir)
}

fn foreign(dir: &Path) -> Error {
    let what = "expected a directory that the keyring registered from where it is, found the \
                marker of one at another place: take it over if the store or the directory was \
                moved or copied here, but never while the store at that place uses it";
    Error::new(ErrorKind::IdentityMismatch, what).with_path(dir)
}

fn bytes_of(dir: &Path) -> Vec<u8> {
    dir.as_os_str().as_bytes().to_vec()
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
