//! Copies of a keyring beside it that may hold keys which were destroyed since: what a recovery
//! put aside, what a restore that was killed left, and what a commit could not remove. With the
//! customer's key each gives the keys of its time.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::directory::{COPY_SUFFIX, DirectoryStorage};
use super::{Image, Inner, KEPT_IMAGES, KeyringStorage, Keys, Slot, StoredImage};
use crate::error::{Error, Result};
use crate::names::{KEYRING_FILE, NEW_FILE, NameKind, RESTORE_DIR, kind_of};

impl Keys<'_> {
    /// Names of the copies beside the keyring that may hold a key which was destroyed since, as
    /// long as one is there: what a [recovery](super::DirectoryStorage::recover) put aside, which
    /// may be all that is left of keys in use and is left alone, and older images whose removal
    /// failed, which the next retirement and the next opening for writing try again.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io); those of [`Keyring::reload`](super::Keyring::reload).
    pub fn copies_aside(&self) -> Result<Vec<String>> {
        let inner = &self.0.inner;
        let mut names = inner.storage.copies_aside()?;
        let snapshot = inner.vault.load_full();
        if !stale_names(&*inner.storage, &snapshot.image)?.is_empty() {
            // Or another writer went on meanwhile: the image that is there tells.
            names.extend(stale_names(&*inner.storage, &inner.load_newer(&snapshot)?)?);
        }
        Ok(names)
    }

    /// Refuses where a [mirror](super::DirectoryStorage::with_mirror) may hold such a key.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the storage was not given a mirror
    /// that the keyring has, or one does not have the present image;
    /// [`Io`](crate::ErrorKind::Io).
    pub fn check_mirrors(&self) -> Result<()> {
        self.0.inner.storage.check_mirrors()
    }

    /// Removes them for good: nothing under keys that only they hold can be read again.
    ///
    /// # Errors
    /// [`ReadOnly`](crate::ErrorKind::ReadOnly), [`Io`](crate::ErrorKind::Io).
    pub fn danger_forget_aside(&self) -> Result<()> {
        self.0.check_writable()?;
        let _writer = self.0.inner.writer();
        self.0.inner.storage.forget_aside()?;
        // What is left is of commits.
        if self.copies_aside()?.is_empty() { Ok(()) } else { self.0.inner.forget_older() }
    }
}

impl Inner {
    /// Removes older images with keys that were replaced since, where that failed before.
    pub(super) fn forget_stale(&self) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        let _writer = self.writer();
        forget_stale(&*self.storage, &self.vault.load().image, &self.storage.kept()?)
    }
}

/// Removes what is older than the images that commits keep, and those too if one of them may
/// hold a wrapped key that the current one does not: a rotation ended before it removed them.
pub(super) fn forget_stale(
    storage: &dyn KeyringStorage,
    current: &Image,
    kept: &[u64],
) -> Result<()> {
    let (last, stale) = (last(current), stale(storage, current, kept)?);
    let before = if stale.iter().any(|at| last.contains(at)) { last.end } else { last.start };
    let is_clean = stale.iter().all(|at| *at >= before) && !is_unfinished(storage, current)?;
    if is_clean { Ok(()) } else { storage.forget_kept(before) }
}

/// Generations of the images that commits keep beside this one.
fn last(current: &Image) -> Range<u64> {
    let generation = current.fixed.generation;
    generation.saturating_sub(KEPT_IMAGES as u64)..generation
}

/// The images among `kept` that may hold such a key. One is read at a time, and none of a
/// generation that no commit keeps.
fn stale(storage: &dyn KeyringStorage, current: &Image, kept: &[u64]) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for at in kept {
        // A commit that was cut off left its own generation that name already.
        let is_commits = last(current).contains(at) || *at == current.fixed.generation;
        let is_good =
            is_commits && storage.load_kept(*at)?.is_none_or(|bytes| is_within(bytes, current));
        if !is_good {
            found.push(*at);
        }
    }
    Ok(found)
}

/// Names of what a commit left and should have removed.
fn stale_names(storage: &dyn KeyringStorage, current: &Image) -> Result<Vec<String>> {
    let stale = stale(storage, current, &storage.kept()?)?;
    let mut names: Vec<_> = stale.iter().map(|at| format!("{KEYRING_FILE}.{at}")).collect();
    if is_unfinished(storage, current)? {
        names.push(NEW_FILE.into());
    }
    Ok(names)
}

/// Whether a commit that did not finish left an image that may hold such a key.
fn is_unfinished(storage: &dyn KeyringStorage, current: &Image) -> Result<bool> {
    let unfinished = storage.load_beside("new")?;
    Ok(unfinished.is_some_and(|bytes| !is_within(bytes, current)))
}

/// Whether an image has no wrapped key but those of the current one. What is damaged may be mended
/// by somebody.
fn is_within(bytes: Vec<u8>, current: &Image) -> bool {
    let stored = StoredImage { bytes, version: String::new() };
    Image::parse(stored).is_ok_and(|image| has_slots_of(current, &image))
}

/// Whether an image has every wrapped key that another one has.
pub(super) fn has_slots_of(image: &Image, other: &Image) -> bool {
    // The wrapped store key differs with every store key, the blob with every slot key.
    let same = |a: &Slot, b: &Slot| a.blob == b.blob && a.store_key == b.store_key;
    other.slots.iter().all(|slot| image.slots.iter().any(|own| same(own, slot)))
}

/// Whether what has such a name is neither the keyring nor a whole image of a commit.
fn is_aside(name: &str) -> bool {
    let is = |name: &str, kinds: fn(NameKind) -> bool| kind_of(name.as_bytes()).is_some_and(kinds);
    is(name, |kind| matches!(kind, NameKind::Bad | NameKind::Unknown))
        || name
            .strip_suffix(COPY_SUFFIX)
            .is_some_and(|of| is(of, |kind| matches!(kind, NameKind::Older(_))))
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

    pub(super) fn named(&self, dir: &Path, chosen: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
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
