//! The directories of hard links that keep a snapshot's files: one on each device, since no
//! link leads to another.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::own::OwnDir;
use crate::error::{Error, Result};
use crate::names::{LOCK_FILE, STAGING_PREFIX, staged_name};
use crate::vfs::{EntryKind, Vfs};

/// A hard link that keeps a file, whatever names that has. A million of them share few
/// directories.
#[derive(Clone, Debug)]
pub(super) struct StagedLink {
    dir: Arc<Path>,
    inode: u64,
}

impl StagedLink {
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(staged_name(self.inode))
    }
}

pub(super) struct Staging {
    vfs: Arc<dyn Vfs>,
    root: PathBuf,
    places: Vec<Place>,
    /// In the place of an inode that is unknown: counted down from numbers that none has.
    next: u64,
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Staging {
    pub(super) fn create(vfs: Arc<dyn Vfs>, root: &Path) -> Result<Self> {
        let places = vec![Place::create(&vfs, root)?];
        Ok(Self { vfs, root: root.into(), places, next: u64::MAX })
    }

    /// Links a file that was listed with this inode, or finds that it is; `None` if it is gone.
    pub(super) fn link(&mut self, from: &Path, mut inode: u64) -> Result<Option<StagedLink>> {
        if inode == 0 {
            (inode, self.next) = (self.next, self.next - 1);
        }
        for place in &self.places {
            match place.link(&self.vfs, from, inode) {
                Linking::OtherDevice(_) => {}
                Linking::Done(linked) => return linked,
            }
        }
        self.link_elsewhere(from, inode)
    }

    /// Links a file of a device that was not met before, in its uppermost directory below
    /// the root.
    fn link_elsewhere(&mut self, from: &Path, inode: u64) -> Result<Option<StagedLink>> {
        let mut dirs: Vec<&Path> =
            from.ancestors().skip(1).take_while(|dir| *dir != self.root).collect();
        dirs.reverse();
        let mut last = io::Error::from(io::ErrorKind::CrossesDevices);
        for dir in dirs {
            let place = match Place::create(&self.vfs, dir) {
                Ok(place) => place,
                // Removed meanwhile.
                Err(_) if self.vfs.stat(from).is_err_and(|e| is_missing(&e)) => return Ok(None),
                Err(error) => return Err(error),
            };
            match place.link(&self.vfs, from, inode) {
                Linking::OtherDevice(error) => last = error,
                Linking::Done(linked) => {
                    self.places.push(place);
                    return linked;
                }
            }
        }
        Err(cannot_link(from, last))
    }
}

fn cannot_link(from: &Path, source: io::Error) -> Error {
    Error::io("the file cannot be linked, to keep it", source).with_path(from)
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// What became of a link.
enum Linking {
    OtherDevice(io::Error),
    Done(Result<Option<StagedLink>>),
}

/// One directory of links, locked for as long as it is in use.
struct Place {
    dir: OwnDir,
    path: Arc<Path>,
    vfs: Arc<dyn Vfs>,
    lock: Option<Box<dyn Send + Sync>>,
}

impl Place {
    fn create(vfs: &Arc<dyn Vfs>, within: &Path) -> Result<Self> {
        let mut random = [0; 8];
        crate::random::fill(&mut random)?;
        let path = within.join(format!("{STAGING_PREFIX}{}", crate::hex::encode(&random)));
        let dir = OwnDir::create(vfs, path)?;
        let lock = vfs.lock(&dir.path().join(LOCK_FILE)).map_err(|e| {
            Error::io("the directory of links cannot be locked", e).with_path(dir.path())
        })?;
        Ok(Self { path: dir.path().into(), dir, vfs: vfs.clone(), lock: Some(lock) })
    }

    fn link(&self, vfs: &Arc<dyn Vfs>, from: &Path, inode: u64) -> Linking {
        let link = StagedLink { dir: self.path.clone(), inode };
        Linking::Done(match vfs.hard_link(from, &link.path()) {
            Ok(()) => Ok(Some(link)),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                return Linking::OtherDevice(error);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let at = |path: &Path| vfs.stat(path).ok().map(|stat| (stat.device, stat.inode));
                match at(from) {
                    // Under another of its names.
                    found if found == at(&link.path()) => Ok(found.map(|_| link)),
                    Some((_, found)) if found == inode => return Linking::OtherDevice(error),
                    // Another file took the name.
                    _ => Ok(None),
                }
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(cannot_link(from, error)),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is taken away by the next snapshot.
        drop(clear(&*self.vfs, &self.dir, self.lock.take()));
    }
}

/// Removes what a killed process left in one of the directories that a walk met.
pub(super) fn sweep(vfs: &Arc<dyn Vfs>, path: &Path) -> Result<()> {
    let fail = |e| Error::io("the links of a killed backup cannot be removed", e).with_path(path);
    let dir = match OwnDir::find(vfs, path.into()) {
        Ok(Some(dir)) => dir,
        Ok(None) => return Ok(()),
        // Not ours.
        Err(error) if error.kind() == crate::ErrorKind::Io(io::ErrorKind::PermissionDenied) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let lock = match vfs.lock(&path.join(LOCK_FILE)) {
        Ok(lock) => lock,
        // Its process lives; or it is being removed.
        Err(error) if is_missing(&error) || error.kind() == io::ErrorKind::WouldBlock => {
            return Ok(());
        }
        Err(error) => return Err(fail(error)),
    };
    clear(&**vfs, &dir, Some(lock))
}

fn clear(vfs: &dyn Vfs, dir: &OwnDir, lock: Option<Box<dyn Send + Sync>>) -> Result<()> {
    let fail = |e: io::Error| Error::io("a link cannot be removed", e).with_path(dir.path());
    for entry in dir.list()? {
        let Some(name) = entry.path.file_name() else { continue };
        // What else is there is not ours, and stays.
        if entry.kind == EntryKind::File && name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            dir.remove(name).map_err(fail)?;
        }
    }
    // The lock last, so that nobody else clears beside us.
    dir.remove(LOCK_FILE.as_ref()).map_err(fail)?;
    drop(lock);
    match vfs.remove(dir.path()) {
        // Another process looked for its lock, and made one; or something else is in it.
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(fail(error)),
        _ => Ok(()),
    }
}
