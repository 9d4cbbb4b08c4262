//! Copies of a keyring beside it that no commit looks after: what a recovery put aside, and
//! what a restore that was killed left. With the customer's key each gives the keys of its
//! time, those destroyed since included.

use std::path::{Path, PathBuf};

use super::Keys;
use super::directory::DirectoryStorage;
use crate::error::{Error, Result};
use crate::names::{KEYRING_FILE, NameKind, RESTORE_DIR, kind_of};

impl Keys<'_> {
    /// Names of the copies beside the keyring that rotations and the destruction of keys
    /// leave alone, since they may be all that is left of keys in use: what a
    /// [recovery](super::DirectoryStorage::recover) put aside. As long as one is there, a
    /// destroyed key may still be in it.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn copies_aside(&self) -> Result<Vec<String>> {
        self.0.inner.storage.copies_aside()
    }

    /// Removes them for good: nothing under keys that only they hold can be read again.
    ///
    /// # Errors
    /// [`ReadOnly`](crate::ErrorKind::ReadOnly), [`Io`](crate::ErrorKind::Io).
    pub fn danger_forget_aside(&self) -> Result<()> {
        self.0.check_writable()?;
        self.0.inner.storage.forget_aside()
    }
}

/// Whether no commit looks after what has such a name.
pub(super) fn is_aside(name: &str) -> bool {
    matches!(kind_of(name.as_bytes()), Some(NameKind::Bad | NameKind::Unknown))
}

impl DirectoryStorage {
    /// Where copies of the keyring may be.
    pub(super) fn aside_paths(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for dir in [Some(&self.dir), self.mirror.as_ref()].into_iter().flatten() {
            found.extend(self.named(dir, is_aside)?);
        }
        let is_image = |name: &str| kind_of(name.as_bytes()).is_some_and(NameKind::may_hold_keys);
        found.extend(self.left_by_restore(is_image)?);
        found.sort_unstable();
        Ok(found)
    }

    /// What a restore left that gave the store its keyring and was killed before it removed
    /// what it had beside. One that is under way has its keyring in there: nothing then.
    fn left_by_restore(&self, chosen: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
        let restore = self.dir.join(RESTORE_DIR);
        let found = self.named(&restore, |name| name == KEYRING_FILE || chosen(name))?;
        let is_under_way = found.contains(&restore.join(KEYRING_FILE))
            || found.is_empty()
            || self.named(&self.dir, |name| name == KEYRING_FILE)?.is_empty();
        Ok(if is_under_way { Vec::new() } else { found })
    }

    /// Removes the images that a finished restore left: older ones of this keyring.
    pub(super) fn forget_restored(&self) -> Result<()> {
        let is_older = |name: &str| {
            matches!(kind_of(name.as_bytes()), Some(NameKind::Older(_) | NameKind::Unfinished))
        };
        self.remove_all(self.left_by_restore(is_older)?)
    }

    pub(super) fn remove_all(&self, paths: Vec<PathBuf>) -> Result<()> {
        for path in paths {
            self.remove_if_there(&path).map_err(|e| {
                Error::io("a copy of the keyring cannot be removed", e).with_path(&path)
            })?;
            if let Some(dir) = path.parent() {
                let synced = self.vfs.sync_dir(dir);
                synced
                    .map_err(|e| Error::io("the directory cannot be synced", e).with_path(dir))?;
            }
        }
        Ok(())
    }

    fn named(&self, dir: &Path, chosen: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
        let entries = match self.vfs.list(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                let what = "the directory of a copy of the keyring cannot be listed";
                return Err(Error::io(what, error).with_path(dir));
            }
        };
        let is_chosen =
            |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(&chosen);
        Ok(entries.into_iter().map(|entry| entry.path).filter(is_chosen).collect())
    }
}
