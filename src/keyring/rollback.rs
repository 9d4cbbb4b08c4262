//! A keyring that was put back, told by the newer images beside it.
//!
//! They may be the only holders of keys: nothing of ours touches them, and nobody writes
//! the store until a recovery was asked for one line or the other.

use super::storage::{KeyringStorage, StoredImage};
use super::{Image, KeyringInfo};
use crate::error::{Error, ErrorKind, Result};
use crate::names::KEYRING_FILE;

/// The images among `kept` that cannot be from before this one: those of later
/// generations, and one of the same that is another.
fn newer(storage: &dyn KeyringStorage, image: &Image, kept: &[u64]) -> Result<Vec<u64>> {
    let generation = image.fixed.generation;
    let mut found: Vec<_> = kept.iter().copied().filter(|at| *at >= generation).collect();
    if found.first() == Some(&generation) {
        let same = storage.load_kept(generation)?;
        if same.is_none_or(|bytes| bytes == image.stored.bytes) {
            found.remove(0);
        }
    }
    Ok(found)
}

/// Refuses to write a store whose keyring was put back. `kept` was listed before `image`
/// was read, so that a commit in between does not look like one.
///
/// # Errors
/// [`KeyringRolledBack`](ErrorKind::KeyringRolledBack), [`Io`](ErrorKind::Io).
pub(super) fn refuse(storage: &dyn KeyringStorage, image: &Image, kept: &[u64]) -> Result<()> {
    let found = newer(storage, image, kept)?;
    if found.is_empty() {
        return Ok(());
    }
    Err(error(image.fixed.generation, &found))
}

fn error(generation: u64, newer: &[u64]) -> Error {
    let names: Vec<_> = newer.iter().map(|at| format!("{KEYRING_FILE}.{at}")).collect();
    let what = format!(
        "expected the newest keyring, found generation {generation} beside {}",
        names.join(", ")
    );
    Error::new(ErrorKind::KeyringRolledBack, what)
}

impl KeyringInfo {
    /// Generations of the images beside this keyring that are newer than it is: somebody put
    /// an old one back. Empty for a store in order. Needs no key.
    ///
    /// # Errors
    /// [`KeyringMissing`](ErrorKind::KeyringMissing), the kinds of a damaged keyring,
    /// [`Io`](ErrorKind::Io).
    pub fn newer_images(&self, storage: &dyn KeyringStorage) -> Result<Vec<u64>> {
        let kept = storage.kept()?;
        if kept.iter().all(|at| *at < self.generation) {
            return Ok(Vec::new());
        }
        // Or a writer was faster: the present image tells.
        let image = super::load(storage)?;
        newer(storage, &image, &kept)
    }
}

/// Refuses to commit `generation` in the place of `previous` where the images `kept` are of
/// another line: a storage calls it before it changes anything.
///
/// # Errors
/// [`KeyringRolledBack`](ErrorKind::KeyringRolledBack).
pub(super) fn refuse_commit(
    generation: u64,
    previous: Option<&StoredImage>,
    kept: &[u64],
) -> Result<()> {
    let found: Vec<_> = kept.iter().copied().filter(|at| *at >= generation).collect();
    match previous {
        Some(_) if !found.is_empty() => Err(error(generation.saturating_sub(1), &found)),
        _ => Ok(()),
    }
}
