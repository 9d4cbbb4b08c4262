//! The place where the keyring of a restore waits until all files are there, and what may
//! be beside it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::manifest::{DirectoryEntry, Entry, Manifest};
use super::own::OwnDir;
use super::snapshot::Listing;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{DirectoryStorage, FilesBeside, KEYRING_FILE, KeyringStorage};
use crate::names::{NameKind, RESTORE_DIR, is_keyring_name, kind_of};
use crate::vfs::{EntryKind, Rename, Vfs};

/// Which backup is being restored: `KEYRING.from` in it.
const FROM: &str = "from";

/// The directory in which the new keyring waits.
pub(super) struct Waiting<'a> {
    vfs: &'a Arc<dyn Vfs>,
    dir: &'a Path,
    own: OwnDir,
    pub(super) is_published: bool,
}

impl<'a> Waiting<'a> {
    pub(super) fn enter(
        vfs: &'a Arc<dyn Vfs>,
        dir: &'a Path,
        note: &[u8],
        manifest: &Manifest,
    ) -> Result<Self> {
        let path = dir.join(RESTORE_DIR);
        let is_there = |path: &Path| vfs.stat(path).is_ok();
        let has_keyring = is_there(&dir.join(KEYRING_FILE));
        let found = OwnDir::find(vfs, path.clone())?;
        let noted = match &found {
            Some(_) => DirectoryStorage::of_restore(dir, vfs.clone()).load_beside(FROM)?,
            None => None,
        };
        let mut is_published = false;
        match &noted {
            Some(noted) if noted != note => {
                let what = "an unfinished restore of another backup is in the directory";
                return Err(Error::new(ErrorKind::IdentityMismatch, what).with_path(dir));
            }
            Some(_) => {
                let waits = DirectoryStorage::of_restore(dir, vfs.clone()).load()?;
                // A crash may leave it both of its names.
                is_published = has_keyring
                    && (waits.is_none()
                        || waits == DirectoryStorage::with_vfs(dir, vfs.clone()).load()?);
                if has_keyring && !is_published {
                    return Err(exists(dir));
                }
            }
            None if has_keyring => return Err(exists(dir)),
            None => {}
        }
        if !is_published {
            check_keyrings(&**vfs, dir, noted.is_some())?;
            check_strangers(&**vfs, dir, noted.is_some().then_some(manifest))?;
        }
        let own = match found {
            Some(own) if noted.is_none() => own.untouched()?,
            Some(own) => own,
            None => OwnDir::create(vfs, path)?,
        };
        let waiting = Self { vfs, dir, own, is_published };
        // Its own name, or what a killed run moved.
        let fail = |e| Error::io("the directory cannot be used", e).with_path(dir);
        vfs.sync_dir(dir).map_err(fail)?;
        if noted.is_none() {
            waiting.storage().put_beside(FROM, note)?;
        }
        Ok(waiting)
    }

    pub(super) fn storage(&self) -> DirectoryStorage {
        DirectoryStorage::of_restore(self.dir, self.vfs.clone())
    }

    /// Makes the directory a store.
    pub(super) fn publish(&self) -> Result<()> {
        self.own.check()?;
        // Whoever lost a keyring here meanwhile gets it back first.
        check_keyrings(&**self.vfs, self.dir, true)?;
        let names = self.own.list()?.into_iter();
        let names = names.filter_map(|entry| Some(entry.path.file_name()?.to_owned()));
        let is_archive = |name: &OsString| kind_of(name.as_bytes()) == Some(NameKind::Audit);
        // Before the keyring, which vouches for them.
        self.put_in_place(&names.filter(is_archive).collect::<Vec<_>>())?;
        self.put_in_place(&[KEYRING_FILE.into()])
    }

    /// Durably.
    fn put_in_place(&self, names: &[OsString]) -> Result<()> {
        let fail = |e, to: &Path| Error::io("the keyring cannot be put in place", e).with_path(to);
        for name in names {
            let (from, to) = (self.own.path().join(name), self.dir.join(name));
            self.vfs.rename(&from, &to, Rename::Replace).map_err(|e| fail(e, &to))?;
        }
        self.vfs.sync_dir(self.dir).map_err(|e| fail(e, self.dir))
    }

    pub(super) fn clear(&self) -> Result<()> {
        let path = self.own.path();
        let fail = |e| Error::io("what is left cannot be removed", e).with_path(path);
        // The note last: without it the rest would belong to nobody.
        let mut entries = self.own.list()?;
        entries.sort_by_key(|entry| entry.path.ends_with(format!("{KEYRING_FILE}.{FROM}")));
        for entry in entries {
            let Some(name) = entry.path.file_name() else { continue };
            // What else is there is not ours, and stays.
            if entry.kind == EntryKind::File && is_keyring_name(name.as_encoded_bytes()) {
                self.own.remove(name).map_err(fail)?;
            }
        }
        self.vfs.remove(path).map_err(fail)?;
        self.vfs.sync_dir(self.dir).map_err(fail)
    }
}

/// Refuses a directory with what a store has left of its keyring: the first rotations of a
/// new one would remove its last images.
fn check_keyrings(vfs: &dyn Vfs, dir: &Path, is_continued: bool) -> Result<()> {
    for entry in vfs.list(dir).map_err(|e| crate::walk::cannot_list(dir, e))? {
        let name = entry.path.file_name().unwrap_or_default().as_encoded_bytes();
        match kind_of(name) {
            None | Some(NameKind::Lock | NameKind::Reencrypt | NameKind::Marker) => {}
            // A killed run's.
            Some(NameKind::Partial | NameKind::Audit) if is_continued => {}
            Some(NameKind::Restore) if entry.kind == EntryKind::Directory => {}
            Some(_) => {
                let what = "expected an empty directory, found what is left of a store";
                return Err(Error::new(ErrorKind::KeyringExists, what).with_path(&entry.path));
            }
        }
    }
    Ok(())
}

/// Refuses whatever this restore did not put there.
fn check_strangers(vfs: &dyn Vfs, dir: &Path, manifest: Option<&Manifest>) -> Result<()> {
    let found = Listing::read(vfs, dir)?;
    let is_file = |path: &Path| {
        let bytes = path.as_os_str().as_bytes();
        let find = |file: &Entry| file.path.as_slice().cmp(bytes);
        manifest.is_some_and(|manifest| manifest.files.binary_search_by(find).is_ok())
    };
    let is_directory = |path: &Path| {
        let bytes = path.as_os_str().as_bytes();
        let find = |known: &DirectoryEntry| known.path.as_slice().cmp(bytes);
        // Every new ext file system has that one.
        path == Path::new("lost+found")
            || manifest.is_some_and(|it| it.directories.binary_search_by(find).is_ok())
    };
    let files = found.files.keys().filter(|path| !is_file(path));
    let directories = found.directories.keys().filter(|path| !is_directory(path));
    // Through a link files elsewhere would be written, or taken for restored ones.
    match files.chain(directories).chain(&found.links).next() {
        Some(stranger) => Err(not_empty(&dir.join(stranger))),
        None if found.others > 0 => Err(not_empty(dir)),
        None => Ok(()),
    }
}

fn exists(dir: &Path) -> Error {
    Error::new(ErrorKind::KeyringExists, "expected an empty directory, found a store")
        .with_path(dir)
}

fn not_empty(path: &Path) -> Error {
    let kind = ErrorKind::Io(io::ErrorKind::DirectoryNotEmpty);
    Error::new(kind, "expected an empty directory, found something in it").with_path(path)
}
