//! The directory of hard links that keeps a snapshot's files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::names::{LOCK_FILE, STAGING_PREFIX};
use crate::vfs::{EntryKind, Vfs};

pub(super) struct Staging {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    next: AtomicU64,
    lock: Option<Box<dyn Send + Sync>>,
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Staging {
    pub(super) fn create(vfs: Arc<dyn Vfs>, root: &Path) -> Result<Self> {
        let mut random = [0; 8];
        crate::random::fill(&mut random)?;
        let dir = root.join(format!("{STAGING_PREFIX}{}", crate::hex::encode(&random)));
        let fail = |e| Error::io("the directory of links cannot be created", e).with_path(&dir);
        vfs.create_dir(&dir, 0o700).map_err(fail)?;
        let lock = Some(vfs.lock(&dir.join(LOCK_FILE)).map_err(fail)?);
        Ok(Self { vfs, dir, next: AtomicU64::new(0), lock })
    }

    /// Links a file; `None` if it is gone.
    pub(super) fn link(&self, from: &Path) -> Result<Option<PathBuf>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let link = self.dir.join(number.to_string());
        match self.vfs.hard_link(from, &link) {
            Ok(()) => Ok(Some(link)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(Error::io("the file cannot be linked, to keep it", error).with_path(from))
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What stays is taken away by the next snapshot.
        drop(clear(&*self.vfs, &self.dir, self.lock.take()));
    }
}

/// Removes what killed processes left.
pub(super) fn sweep(vfs: &dyn Vfs, root: &Path) -> Result<()> {
    let fail = |e| Error::io("the directory cannot be listed", e).with_path(root);
    for entry in vfs.list(root).map_err(fail)? {
        let named = entry.path.file_name().and_then(|name| name.to_str());
        if entry.kind != EntryKind::Directory
            || !named.is_some_and(|name| name.starts_with(STAGING_PREFIX))
        {
            continue;
        }
        let lock = match vfs.lock(&entry.path.join(LOCK_FILE)) {
            Ok(lock) => lock,
            // Its process lives; or it is being removed.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotFound) =>
            {
                continue;
            }
            Err(error) => {
                let what = "the links of a killed backup cannot be removed";
                return Err(Error::io(what, error).with_path(&entry.path));
            }
        };
        clear(vfs, &entry.path, Some(lock))?;
    }
    Ok(())
}

fn clear(vfs: &dyn Vfs, dir: &Path, lock: Option<Box<dyn Send + Sync>>) -> Result<()> {
    let fail = |e: io::Error| Error::io("a link cannot be removed", e).with_path(dir);
    for entry in vfs.list(dir).map_err(fail)? {
        if entry.path.file_name().is_some_and(|name| name != LOCK_FILE) {
            vfs.remove(&entry.path).map_err(fail)?;
        }
    }
    // The lock last, so that nobody else clears beside us.
    vfs.remove(&dir.join(LOCK_FILE)).map_err(fail)?;
    drop(lock);
    match vfs.remove(dir) {
        // Another process looked for its lock, and made one.
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(fail(error)),
        _ => Ok(()),
    }
}
