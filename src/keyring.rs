//! The key hierarchy: the customer's key wraps the store key, the store key wraps the
//! data keys, and each file's own key is derived from the data key that was active when
//! the file was created.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DataKeyId, StoreId, StoreKeyId};
use crate::kms::{Deadline, Kms};
use crate::ledger::Ledger;
use crate::moves::Moves;
use crate::secret::StoreKey;
use access::{Gate, Monitor};
use body::{Body, KeyRecord, Keyspace};
use format::{Fixed, Image, Slot};
use handles::Handles;
use options::check_anchor;
use snapshot::{ActiveKey, Counts, KeyEntry, Snapshot, Unlocked, active_keys};
use storage::StoredImage;
use unlock::Search;

mod access;
mod audit;
mod background;
mod body;
mod close;
mod commit;
mod directories;
mod directory;
mod files;
mod format;
#[cfg(any(test, feature = "danger-internals"))]
pub(crate) mod fuzz;
mod handles;
mod holds;
mod keyspaces;
mod lifecycle;
mod mirror;
mod open;
mod options;
mod recover;
mod retire;
mod rotation;
mod slots;
mod snapshot;
mod status;
mod storage;
mod unlock;

pub use crate::names::KEYRING_FILE;
pub use access::{Access, AccessPolicy, AccessState, Grace, Transition};
pub use audit::{AuditEvent, AuditKind};
pub(crate) use body::RawSettings;
pub use body::{KeyState, PlaintextPolicy, Settings};
pub use directory::DirectoryStorage;
pub use files::{Expect, FileSpec};
pub(crate) use handles::AccessFlag;
pub use holds::Hold;
pub use keyspaces::{KeyspaceId, KeyspaceStatus};
pub use options::{Anchor, KmsSet, Options};
pub use recover::{ImageInfo, ImagePlace, Recovery};
pub use retire::{LiveKeys, RetireOutcome, RetiredKey, Retirement};
pub use status::{DataKeyStatus, KeyringInfo, KeyringStatus, SlotInfo};
pub use storage::{
    FilesBeside, KEPT_IMAGES, KeyringStorage, Location, MemoryStorage, StoredImage as KeyringImage,
};

/// Name of the slot that a new keyring has.
pub const DEFAULT_SLOT: &str = "default";

/// An open keyring. A clone is another handle on the same one: a rotation in one is seen
/// by all. An engine that stops calls [`close`](Self::close).
///
/// Nothing on the path of a file takes a lock, writes the keyring or calls the key
/// service; the first file under a data key this process has not seen reads the keyring
/// once.
#[derive(Clone)]
pub struct Keyring {
    inner: Arc<Inner>,
    // Ends the background thread with the last handle of the user's.
    _background: Option<Arc<background::Background>>,
}

struct Inner {
    store_id: StoreId,
    storage: Box<dyn KeyringStorage>,
    kms: Mutex<Vec<Arc<dyn Kms>>>,
    clock: Arc<dyn Clock>,
    kms_deadline: Duration,
    writable: bool,
    snapshot: ArcSwap<Snapshot>,
    /// Serialises commits.
    writer: Mutex<WriterState>,
    /// The keys of open files.
    handles: Handles,
    /// Which files are under which key.
    ledger: Ledger,
    moves: Moves,
    directories_serial: directories::Serial,
    /// Held by the one retirement under way.
    retiring: Mutex<()>,
    /// Held by the one re-encryption under way.
    reencrypting: Mutex<()>,
    alarm: Arc<background::Alarm>,
    /// The slot to ask first.
    slot: Option<String>,
    gate: Mutex<Gate>,
    monitor: Mutex<Monitor>,
    /// Serialises checks.
    asking: Mutex<()>,
    /// Whether a check's call has not returned, be it long after its deadline.
    outstanding: Arc<AtomicBool>,
    /// The process that opened it: a forked child commits nothing when it ends.
    process: u32,
}

/// What opening does with a store that is marked as revoked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marks {
    Refuse,
    Remove,
}

#[derive(Default)]
struct WriterState {
    /// After a commit whose outcome nobody knows.
    poisoned: bool,
}

impl Keyring {
    /// The store's id.
    pub fn store_id(&self) -> StoreId {
        self.inner.store_id
    }

    /// The store's settings.
    pub fn settings(&self) -> Settings {
        self.inner.snapshot.load().body.settings()
    }

    /// The id of the data key that a file created now gets.
    ///
    /// # Errors
    /// [`CmekRevoked`](ErrorKind::CmekRevoked).
    pub fn active_data_key_id(&self) -> Result<DataKeyId> {
        Ok(self.inner.snapshot.load().active(0)?.id)
    }

    /// Names the present generation, to be kept outside of the store and given to
    /// [`Options::anchor`].
    pub fn anchor(&self) -> Anchor {
        let snapshot = self.inner.snapshot.load();
        Anchor {
            store_id: self.inner.store_id,
            generation: snapshot.image.fixed.generation,
            mac: *snapshot.image.mac(),
        }
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    pub(crate) fn moves(&self) -> &Moves {
        &self.inner.moves
    }

    /// Keeps other re-encryptions out.
    ///
    /// # Errors
    /// [`ReadOnly`](ErrorKind::ReadOnly), [`KeyringBusy`](ErrorKind::KeyringBusy).
    pub(crate) fn reencrypting(&self) -> Result<std::sync::MutexGuard<'_, ()>> {
        if !self.inner.writable {
            return Err(Error::new(ErrorKind::ReadOnly, "the keyring was opened read-only"));
        }
        self.inner.reencrypting.try_lock().map_err(|_| {
            Error::new(ErrorKind::KeyringBusy, "another thread is re-encrypting the store")
        })
    }

    pub(crate) fn is_being_written(&self, header: &crate::Header) -> bool {
        self.inner.handles.is_being_written(&header.prefix)
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.inner.clock.now_ns()
    }

    /// Reads the keyring again, as after a rotation by another process.
    ///
    /// # Errors
    /// As [`open`](Self::open); the old state stays.
    pub fn reload(&self) -> Result<()> {
        let reloaded = self.inner.reload(&mut self.inner.writer());
        self.inner.deliver();
        reloaded
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("store_id", &self.inner.store_id)
            .field("generation", &self.inner.snapshot.load().image.fixed.generation)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn writer(&self) -> std::sync::MutexGuard<'_, WriterState> {
        // A panic while it was held left the old generation in place.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kms(&self) -> Vec<Arc<dyn Kms>> {
        self.kms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The stored image, which may not be older than `old`.
    fn load_newer(&self, old: &Snapshot) -> Result<Image> {
        let image = load(&*self.storage)?;
        if image.fixed.store_id != self.store_id {
            return Err(Error::new(
                ErrorKind::IdentityMismatch,
                format!("expected store {}, found {}", self.store_id, image.fixed.store_id),
            ));
        }
        if image.fixed.generation < old.image.fixed.generation {
            return Err(Error::new(
                ErrorKind::KeyringRolledBack,
                format!(
                    "expected keyring generation {} or later, found {}",
                    old.image.fixed.generation, image.fixed.generation
                ),
            ));
        }
        Ok(image)
    }

    /// Takes over a newer generation that another process committed. If that process
    /// revoked the store, gives the keys up.
    fn reload(&self, writer: &mut WriterState) -> Result<()> {
        // The image that can be read now may be gone after a crash: its keys must not be
        // used.
        writer.check()?;
        let old = self.snapshot.load_full();
        let unlocked = old.unlocked()?;
        let image = self.load_newer(&old)?;
        if image.stored == old.image.stored {
            return Ok(());
        }
        let (store_key, body) = if image.fixed.store_key_id == old.image.fixed.store_key_id {
            (unlocked.store_key.clone(), image.authenticate(&unlocked.store_key)?)
        } else {
            let search = Search {
                prefer: self.slot.clone(),
                barrier: None,
                strict: true,
                deadline: Deadline::after(self.kms_deadline),
            };
            search.unlock(&image, &self.kms())?
        };
        let marked = body.revoked_ns != 0;
        let unlocked = Unlocked::new(store_key, &image, &body, Some(unlocked), &Counts::new())?;
        self.publish(Snapshot { image, body, unlocked: Some(Arc::new(unlocked)) });
        if marked {
            self.heed_mark();
            return Err(withdrawn());
        }
        Ok(())
    }
}

impl WriterState {
    fn check(&self) -> Result<()> {
        if !self.poisoned {
            return Ok(());
        }
        let what = "an earlier commit had an unknown outcome: open the store again";
        Err(Error::new(ErrorKind::Poisoned, what))
    }
}

fn withdrawn() -> Error {
    let what = "access to the store was withdrawn on request, and is to be restored on request";
    Error::new(ErrorKind::CmekRevoked, what)
}

fn load(storage: &dyn KeyringStorage) -> Result<Image> {
    match storage.load()? {
        Some(stored) => Image::parse(stored),
        None => Err(missing(&storage.kept()?, ErrorKind::KeyringMissing)),
    }
}

fn missing(kept: &[(u64, Vec<u8>)], kind: ErrorKind) -> Error {
    if kept.is_empty() {
        return Error::new(kind, "there is no keyring");
    }
    let names: Vec<_> = kept.iter().map(|(generation, _)| generation.to_string()).collect();
    let what = format!("the keyring is missing, older images exist: {}", names.join(", "));
    Error::new(kind, what)
}
