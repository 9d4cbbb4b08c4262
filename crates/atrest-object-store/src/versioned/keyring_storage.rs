//! The keyring in an object store, under conditional put. `docs/FORMAT.md` section 6.
//!
//! `_atrest/KEYRING` is the current image, `_atrest/KEYRING.<generation>` the last two
//! before it. Writers need no lock: each replaces just the image that it read, or learns
//! that another was first.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::object_store::path::Path;
use super::object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};
use atrest::keyring::{FilesBeside, KeyringImage, KeyringStorage, Location};
use atrest::names::{NameKind, kind_of};
use atrest::{Error, ErrorKind, Result};

use super::first_of;
use super::reserved::{KEYRING_FILE, KEYRING_PREFIX};
use crate::bridge::{Bridge, NoAnswer};
use commit::Put;

mod commit;

/// Longest keyring that is read, in bytes: the core's own limit.
const KEYRING_LEN_MAX: u64 = 64 << 20;
/// Older images that are kept.
const KEPT_IMAGES: u64 = 2;
/// Default time for one request, the store's own retries included.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A keyring in an object store.
///
/// Any number of processes may open it for writing. Of two that rotate at once one
/// commits, and the other uses the new key instead of rotating again.
///
/// The store **MUST** replace an object on condition (`PutMode::Update` with an ETag, and
/// `PutMode::Create`), as S3, GCS, Azure and memory do. Opening for writing tries it out
/// with eight requests for an object `_atrest/PROBE.*`, which has to be written, read and
/// deleted, and refuses a store that cannot, such as `LocalFileSystem`, or that ignores the
/// condition. A keyring beside a local store is kept in its directory by
/// [`DirectoryStorage`](atrest::keyring::DirectoryStorage).
///
/// A bucket that keeps older versions of its objects keeps older images of the keyring with
/// them, and in these what was destroyed or replaced since: let it expire noncurrent versions
/// below `_atrest/`, or do not count on the destruction of keys.
///
/// All methods block, also inside of a runtime: there, call them from a blocking thread.
/// Requests are made by a thread of this storage's own, so give it a store (an HTTP
/// client) that no single-threaded runtime shares.
#[derive(Debug)]
pub struct ObjectStoreKeyringStorage {
    store: Arc<dyn ObjectStore>,
    /// The directory of the images.
    dir: Path,
    location: [u8; 16],
    bridge: Bridge,
}

impl ObjectStoreKeyringStorage {
    /// The keyring below `prefix` of a store: at `<prefix>/_atrest`.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if no thread can be started.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &Path) -> Result<Self> {
        let dir = prefix.clone().join(KEYRING_PREFIX);
        Ok(Self { store, dir, location: [0; 16], bridge: Bridge::new(TIMEOUT)? })
    }

    /// The same of a chain of backups, which may have been copied here from a directory: there
    /// its keyring is beside the rest.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and [`Io`](ErrorKind::Io).
    pub(crate) fn of_chain(store: Arc<dyn ObjectStore>, prefix: &Path) -> Result<Self> {
        let own = Self::new(store, prefix)?;
        let beside = prefix.clone().join(KEYRING_FILE);
        let is_copied = !own.is_there(&own.current())? && own.is_there(&beside)?;
        Ok(if is_copied { Self { dir: prefix.clone(), ..own } } else { own })
    }

    fn is_there(&self, path: &Path) -> Result<bool> {
        let (store, at) = (self.store.clone(), path.clone());
        match self.bridge.run(async move { store.head(&at).await }) {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(StoreError::NotFound { .. })) => Ok(false),
            Ok(Err(error)) => Err(failed("the keyring cannot be looked for", path, error)),
            Err(NoAnswer(error)) => Err(error.with_path(path.as_ref())),
        }
    }

    /// Names the place, so that a copy of the store elsewhere starts a new data key: the
    /// first 16 bytes of a hash of the bucket's URL, for instance. Default: no name.
    #[must_use]
    pub fn with_location(mut self, location: [u8; 16]) -> Self {
        self.location = location;
        self
    }

    /// Sets the longest time for one request, the store's own retries included. Default:
    /// 60 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.bridge.set_timeout(timeout);
        self
    }

    fn path(&self, name: &str) -> Path {
        self.dir.clone().join(name)
    }

    fn current(&self) -> Path {
        self.path(KEYRING_FILE)
    }

    fn kept_path(&self, generation: u64) -> Path {
        self.path(&format!("{KEYRING_FILE}.{generation}"))
    }

    fn beside(&self, name: &str) -> Path {
        self.path(&format!("{KEYRING_FILE}.{name}"))
    }

    fn read(&self, path: &Path) -> Result<Option<KeyringImage>> {
        let Some((bytes, version)) = self.read_any(path)? else { return Ok(None) };
        let version = version.ok_or_else(|| no_version(path))?;
        Ok(Some(KeyringImage { bytes, version }))
    }

    /// An object's bytes and what names this version of it.
    fn read_any(&self, path: &Path) -> Result<Option<(Vec<u8>, Option<String>)>> {
        let (store, at) = (self.store.clone(), path.clone());
        let read = self.bridge.run(async move {
            let result = store.get(&at).await?;
            let meta = result.meta.clone();
            if meta.size > KEYRING_LEN_MAX {
                return Ok::<_, StoreError>((meta, None));
            }
            // One more than there may be tells of more than the store claimed.
            let bytes = first_of(result, KEYRING_LEN_MAX as usize + 1).await?;
            let fits = bytes.len() as u64 <= KEYRING_LEN_MAX;
            Ok((meta, fits.then_some(bytes)))
        });
        match read {
            Ok(Ok((meta, Some(bytes)))) => {
                Ok(Some((bytes.into(), commit::version(meta.e_tag, meta.version))))
            }
            Ok(Ok((meta, None))) => {
                let size = meta.size;
                let what =
                    format!("expected a keyring of at most 64 MiB, found more; said: {size}");
                Err(Error::new(ErrorKind::KeyringCorrupt, what).with_path(path.as_ref()))
            }
            Ok(Err(StoreError::NotFound { .. })) => Ok(None),
            Ok(Err(error)) => Err(failed("the keyring cannot be read", path, error)),
            Err(NoAnswer(error)) => Err(error.with_path(path.as_ref())),
        }
    }

    fn delete(&self, path: &Path) -> Result<()> {
        let (store, at) = (self.store.clone(), path.clone());
        match self.bridge.run(async move { store.delete(&at).await }) {
            Ok(Ok(()) | Err(StoreError::NotFound { .. })) => Ok(()),
            Ok(Err(error)) => {
                Err(failed("what is beside the keyring cannot be removed", path, error))
            }
            Err(NoAnswer(error)) => Err(error.with_path(path.as_ref())),
        }
    }

    /// Names of what is beside the keyring.
    fn names(&self) -> Result<Vec<String>> {
        let (store, dir) = (self.store.clone(), self.dir.clone());
        let listed = self.bridge.run(async move { store.list_with_delimiter(Some(&dir)).await });
        let objects = match listed {
            Ok(Ok(listed)) => listed.objects,
            Ok(Err(error)) => {
                return Err(failed("older keyrings cannot be listed", &self.dir, error));
            }
            Err(NoAnswer(error)) => return Err(error.with_path(self.dir.as_ref())),
        };
        Ok(objects.iter().filter_map(|meta| Some(meta.location.filename()?.to_owned())).collect())
    }
}

impl ObjectStoreKeyringStorage {
    /// What is kept of a generation is the image that a commit puts aside, put there by
    /// another writer; or the keyring was put back, and this is of another line.
    fn check_kept(&self, generation: u64, image: &KeyringImage) -> Result<()> {
        let path = self.kept_path(generation);
        match self.read_any(&path)? {
            Some((bytes, _)) if bytes != image.bytes => {
                let what = format!("generation {generation} of the keyring is kept as another");
                Err(Error::new(ErrorKind::KeyringRolledBack, what).with_path(path.as_ref()))
            }
            _ => Ok(()),
        }
    }
}

impl KeyringStorage for ObjectStoreKeyringStorage {
    /// Needs no lock. Proves that the store replaces an object on condition, and only
    /// then, and names its versions alike: eight requests.
    fn lock(&self) -> Result<()> {
        self.probe()
    }

    fn load(&self) -> Result<Option<KeyringImage>> {
        self.read(&self.current())
    }

    fn commit(
        &self,
        bytes: &[u8],
        generation: u64,
        previous: Option<&KeyringImage>,
    ) -> Result<String> {
        let old = generation.saturating_sub(1);
        if let Some(previous) = previous {
            // Before the new image, so that no crash loses it. Never over one that is there.
            match self.put(&self.kept_path(old), &previous.bytes, None) {
                Put::Done(_) => {}
                Put::Refused(_) => self.check_kept(old, previous)?,
                Put::Failed(error) | Put::Unknown(error) => return Err(error),
            }
        }
        let outcome = self.replace(bytes, generation, previous);
        match (&outcome, previous) {
            (Err(error), Some(previous)) if error.kind() == ErrorKind::KeyringConflict => {
                // The conflict is the one to tell; an image left over goes with the next
                // rotation of the store key.
                drop(self.withdraw_kept(previous, old));
            }
            (Ok(_), _) => {
                // The commit is done; what is left over is removed at the next one.
                if let Ok(generations) = self.kept() {
                    let is_excess = |kept: &&u64| kept.saturating_add(KEPT_IMAGES) < generation;
                    for stale in generations.iter().filter(is_excess) {
                        drop(self.delete(&self.kept_path(*stale)));
                    }
                }
            }
            _ => {}
        }
        outcome
    }

    /// What can be read is durable, and a put that may still arrive replaces no image but
    /// the one it names: it loses against whoever commits first.
    fn settle_unknown(&self) -> Result<()> {
        self.load().map(drop)
    }

    fn kept(&self) -> Result<Vec<u64>> {
        let generation = |name: &String| match kind_of(name.as_bytes()) {
            Some(NameKind::Older(generation)) => Some(generation),
            _ => None,
        };
        let mut generations: Vec<u64> = self.names()?.iter().filter_map(generation).collect();
        generations.sort_unstable();
        Ok(generations)
    }

    fn load_kept(&self, generation: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.read_any(&self.kept_path(generation))?.map(|(bytes, _)| bytes))
    }

    fn forget_kept(&self, before: u64) -> Result<()> {
        let mut kept = self.kept()?.into_iter().filter(|kept| *kept < before);
        kept.try_for_each(|old| self.delete(&self.kept_path(old)))
    }

    fn copies_aside(&self) -> Result<Vec<String>> {
        let aside = self.names()?.into_iter().filter(|name| is_aside(name));
        Ok(aside.collect())
    }

    fn forget_aside(&self) -> Result<()> {
        self.copies_aside()?.iter().try_for_each(|name| self.delete(&self.path(name)))
    }

    fn location(&self) -> Location {
        Location { id: self.location, is_certain: false, directory: None }
    }
}

impl FilesBeside for ObjectStoreKeyringStorage {
    fn put_beside(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.beside(name);
        let (store, at, payload) = (self.store.clone(), path.clone(), bytes.to_vec().into());
        match self.bridge.run(async move { store.put(&at, payload).await }) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                Err(failed("what is beside the keyring cannot be written", &path, error))
            }
            Err(NoAnswer(error)) => Err(error.with_path(path.as_ref())),
        }
    }

    fn load_beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.read_any(&self.beside(name))?.map(|(bytes, _)| bytes))
    }

    /// Also what is too long to be read.
    fn exists_beside(&self, name: &str) -> Result<bool> {
        self.is_there(&self.beside(name))
    }

    fn remove_beside(&self, name: &str) -> Result<()> {
        self.delete(&self.beside(name))
    }
}

fn is_aside(name: &str) -> bool {
    matches!(kind_of(name.as_bytes()), Some(NameKind::Bad | NameKind::Unknown))
}

pub(crate) fn failed(what: &str, path: &Path, error: StoreError) -> Error {
    let kind = match &error {
        StoreError::NotFound { .. } => io::ErrorKind::NotFound,
        StoreError::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
            io::ErrorKind::Unsupported
        }
        _ => io::ErrorKind::Other,
    };
    Error::new(ErrorKind::Io(kind), what).with_source(error).with_path(path.as_ref())
}

fn no_version(path: &Path) -> Error {
    let what = "expected an object store with ETags, found none";
    Error::new(ErrorKind::InvalidArgument, what).with_path(path.as_ref())
}
