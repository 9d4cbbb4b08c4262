//! Where a keyring is kept: the trait, and the keyring in memory.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::PoisonError;

use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;

/// A keyring image as a storage gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What a later commit has to name, so that it replaces just this image: an ETag, or
    /// empty where a lock makes it needless.
    pub version: String,
}

/// Where a keyring is kept.
///
/// A commit is atomic: after a crash at any moment, [`load`](Self::load) gives the old
/// image or the new one, whole.
pub trait KeyringStorage: FilesBeside + Send + Sync + Debug {
    /// Keeps other writers out until the storage is dropped, and makes durable what an
    /// earlier writer may have left half done, so that [`load`](Self::load) gives an image
    /// that stays. A storage whose commits are conditional has nothing to do.
    ///
    /// # Errors
    /// [`KeyringBusy`](ErrorKind::KeyringBusy) if somebody else writes;
    /// [`Io`](ErrorKind::Io).
    fn lock(&self) -> Result<()>;

    /// The current image, `None` if there is none.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn load(&self) -> Result<Option<StoredImage>>;

    /// Durably replaces `previous` (`None`: nothing may be there) with `bytes`, whose
    /// generation is `generation`, and keeps the previous image as an older one. Returns
    /// the version of the new image.
    ///
    /// # Errors
    /// [`KeyringConflict`](ErrorKind::KeyringConflict) if another image is there now;
    /// [`Poisoned`](ErrorKind::Poisoned) if nobody knows which image will be there after
    /// a crash; [`KeyringRolledBack`](ErrorKind::KeyringRolledBack) if the commit would
    /// replace an image that is kept; any other kind means that nothing changed.
    fn commit(
        &self,
        bytes: &[u8],
        generation: u64,
        previous: Option<&StoredImage>,
    ) -> Result<String>;

    /// Called after a commit that ended [`Poisoned`](ErrorKind::Poisoned), before anything
    /// else: returns if [`load`](Self::load) gives an image that stays, whichever it is, or
    /// that only such a commit may still replace as names it. A storage that cannot know
    /// fails, and its keyring is to be opened again.
    ///
    /// # Errors
    /// [`Poisoned`](ErrorKind::Poisoned), [`Io`](ErrorKind::Io).
    fn settle_unknown(&self) -> Result<()>;

    /// Generations of the older images that are kept, oldest first. Reads none of them: nobody
    /// authenticated how many there are, and how long they are.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn kept(&self) -> Result<Vec<u64>>;

    /// The older image of a generation, `None` if there is none.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), [`KeyringCorrupt`](ErrorKind::KeyringCorrupt) for more bytes than a
    /// keyring may have.
    fn load_kept(&self, generation: u64) -> Result<Option<Vec<u8>>>;

    /// Removes the older images of generations below `before`, after a key they hold was
    /// replaced in that one, and what a commit left that did not finish. No commit is under way. Later images are of a keyring that is not there now, and may be
    /// all that is left of it: they **MUST** stay.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn forget_kept(&self, before: u64) -> Result<()>;

    /// Names of copies of the keyring beside it that are neither [kept](Self::kept) nor
    /// `KEYRING.new`: what a recovery put aside, say.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn copies_aside(&self) -> Result<Vec<String>>;

    /// Durably removes them.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn forget_aside(&self) -> Result<()>;

    /// Refuses to let a key be replaced or destroyed, or said to be gone, while another copy that
    /// every commit should write may lack the present image: a mirror that this storage was not
    /// given. A storage without such copies has nothing to do.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument), [`Io`](ErrorKind::Io).
    fn check_mirrors(&self) -> Result<()> {
        Ok(())
    }

    /// Where the keyring is.
    fn location(&self) -> Location;
}

/// Small files beside a keyring: archived audit events, requests.
pub trait FilesBeside {
    /// Durably keeps `bytes` beside the keyring as `KEYRING.<name>`, replacing what is
    /// there as a whole.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io); nothing changed then.
    fn put_beside(&self, name: &str, bytes: &[u8]) -> Result<()>;

    /// What [`put_beside`](Self::put_beside) keeps under this name.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn load_beside(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Whether something is there under this name, be it readable or not.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn exists_beside(&self, name: &str) -> Result<bool> {
        Ok(self.load_beside(name)?.is_some())
    }

    /// Durably removes it, if it is there.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn remove_beside(&self, name: &str) -> Result<()>;
}

/// Where a keyring is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// Names the place, so that a copy of the store elsewhere is told from the original;
    /// zeros where places have no names.
    pub id: [u8; 16],
    /// Whether no copy of the store can have this id, but one of the whole disk at the same
    /// path: then a store that comes back here goes on under the data keys it had here.
    pub is_certain: bool,
    /// The local directory the keyring is in, and below which the store's files are, if
    /// there is one. Of a restore that is not finished the one that is to be the store's.
    pub directory: Option<PathBuf>,
}

/// Older images a storage keeps.
pub const KEPT_IMAGES: usize = 2;

/// A keyring that lives as long as the process: for tests, and for stores in memory.
#[derive(Debug, Default)]
pub struct MemoryStorage(Mutex<Images>);

#[derive(Debug, Default)]
struct Images {
    current: Option<StoredImage>,
    kept: BTreeMap<u64, Vec<u8>>,
    beside: BTreeMap<String, Vec<u8>>,
    commits: u64,
}

impl MemoryStorage {
    /// An empty storage.
    pub fn new() -> Self {
        Self::default()
    }
}

impl KeyringStorage for MemoryStorage {
    fn lock(&self) -> Result<()> {
        Ok(())
    }

    fn load(&self) -> Result<Option<StoredImage>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).current.clone())
    }

    fn commit(
        &self,
        bytes: &[u8],
        generation: u64,
        previous: Option<&StoredImage>,
    ) -> Result<String> {
        let mut images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if images.current.as_ref().map(|image| &image.version)
            != previous.map(|image| &image.version)
        {
            return Err(Error::new(ErrorKind::KeyringConflict, "another writer committed first"));
        }
        images.commits += 1;
        let version = images.commits.to_string();
        let image = StoredImage { bytes: bytes.to_vec(), version: version.clone() };
        if let Some(old) = images.current.replace(image) {
            images.kept.insert(generation.saturating_sub(1), old.bytes);
            while images.kept.len() > KEPT_IMAGES {
                images.kept.pop_first();
            }
        }
        Ok(version)
    }

    fn settle_unknown(&self) -> Result<()> {
        Ok(())
    }

    fn kept(&self) -> Result<Vec<u64>> {
        let images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(images.kept.keys().copied().collect())
    }

    fn load_kept(&self, generation: u64) -> Result<Option<Vec<u8>>> {
        let images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(images.kept.get(&generation).cloned())
    }

    fn forget_kept(&self, before: u64) -> Result<()> {
        let mut images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        images.kept.retain(|generation, _| *generation >= before);
        Ok(())
    }

    fn copies_aside(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn forget_aside(&self) -> Result<()> {
        Ok(())
    }

    /// Nowhere in particular.
    fn location(&self) -> Location {
        Location::default()
    }
}

impl FilesBeside for MemoryStorage {
    fn put_beside(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        images.beside.insert(name.into(), bytes.into());
        Ok(())
    }

    fn load_beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).beside.get(name).cloned())
    }

    fn remove_beside(&self, name: &str) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).beside.remove(name);
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: KeyringStorage + ?Sized> KeyringStorage for std::sync::Arc<T> {
    fn lock(&self) -> Result<()> {
        (**self).lock()
    }

    fn load(&self) -> Result<Option<StoredImage>> {
        (**self).load()
    }

    fn commit(
        &self,
        bytes: &[u8],
        generation: u64,
        previous: Option<&StoredImage>,
    ) -> Result<String> {
        (**self).commit(bytes, generation, previous)
    }

    fn settle_unknown(&self) -> Result<()> {
        (**self).settle_unknown()
    }

    fn kept(&self) -> Result<Vec<u64>> {
        (**self).kept()
    }

    fn load_kept(&self, generation: u64) -> Result<Option<Vec<u8>>> {
        (**self).load_kept(generation)
    }

    fn forget_kept(&self, before: u64) -> Result<()> {
        (**self).forget_kept(before)
    }

    fn copies_aside(&self) -> Result<Vec<String>> {
        (**self).copies_aside()
    }

    fn forget_aside(&self) -> Result<()> {
        (**self).forget_aside()
    }

    fn check_mirrors(&self) -> Result<()> {
        (**self).check_mirrors()
    }

    fn location(&self) -> Location {
        (**self).location()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: FilesBeside + ?Sized> FilesBeside for std::sync::Arc<T> {
    fn put_beside(&self, name: &str, bytes: &[u8]) -> Result<()> {
        (**self).put_beside(name, bytes)
    }

    fn load_beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        (**self).load_beside(name)
    }

    fn exists_beside(&self, name: &str) -> Result<bool> {
        (**self).exists_beside(name)
    }

    fn remove_beside(&self, name: &str) -> Result<()> {
        (**self).remove_beside(name)
    }
}
