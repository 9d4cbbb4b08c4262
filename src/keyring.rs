//! The key hierarchy: the customer's key wraps its slot's key, the slot's key wraps the store
//! key, the store key wraps the data keys, and each file's own key is derived from the data
//! key that was active when the file was created.

use std::sync::{Arc, Weak};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DataKeyId, StoreId, StoreKeyId};
use crate::process::Process;
use crate::secret::StoreKey;
use crate::sync::Mutex;
use access::Watch;
use body::{Body, KeptSlotKey, KeyRecord, Keyspace};
use claim::StoreFiles;
use client::NEVER;
use commit::WriterState;
use customers::CustomerKeys;
use format::{Fixed, Image, Slot};
use options::{check_anchor, check_store};
use snapshot::{ActiveKey, Counts, KeyEntry, Snapshot, Unlocked, active_keys};
use storage::StoredImage;
use vault::Vault;

mod absent;
mod access;
mod adoption;
mod alarm;
mod aside;
mod audit;
mod background;
mod body;
mod claim;
mod client;
mod codec;
mod commit;
mod customers;
mod directory;
mod files;
mod format;
#[cfg(any(test, feature = "danger-internals"))]
pub(crate) mod fuzz;
mod handles;
mod history;
mod holds;
mod key_state;
mod keys;
mod keyspaces;
mod mirror;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod models;
mod open;
mod options;
mod recover;
mod retire;
mod rollback;
mod rotation;
mod slots;
mod snapshot;
mod status;
mod storage;
mod unlock;
mod vault;
mod wrap;

pub use crate::names::KEYRING_FILE;
pub use access::{
    Access, AccessPolicy, AccessState, AccessStatus, CredentialStatus, Grace, Transition,
};
pub use audit::{AuditEvent, AuditKind};
pub use body::{IntegrityPolicy, PlaintextPolicy, Settings};
pub use directory::DirectoryStorage;
pub use files::{Expect, FileSpec};
pub use handles::AccessFlag;
pub use history::Audit;
pub use holds::{Hold, Holds};
pub use key_state::KeyState;
pub use keys::Keys;
pub use keyspaces::{KeyspaceId, KeyspaceStatus, Keyspaces};
pub use options::{Anchor, KmsSet, Options};
pub use recover::{ImageInfo, ImagePlace, Recovery};
pub use retire::{LiveKeys, RETIRE_GRACE, ReplacedKey, RetireOutcome, Retirement};
pub use slots::Slots;
pub use status::{DataKeyStatus, KeyringInfo, KeyringStatus, SlotInfo};
pub use storage::{
    FilesBeside, KEPT_IMAGES, KeyringStorage, Location, MemoryStorage, StoredImage as KeyringImage,
};

/// Name of the slot that a new keyring has.
pub const DEFAULT_SLOT: &str = "default";

/// An open keyring. A clone is another handle on the same one: a rotation in one is seen
/// by all. An engine that stops calls [`close`](Self::close). A forked child has no
/// keys of its parent's, and is refused: it opens one of its own, to write once the parent's is
/// closed.
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
    clock: Arc<dyn Clock>,
    writable: bool,
    /// The process that opened it, which alone may write.
    process: Process,
    /// Serialises commits.
    writer: Mutex<WriterState>,
    vault: Vault,
    customers: CustomerKeys,
    watch: Arc<Watch>,
    absent: absent::Absent,
    /// Those of the store over it.
    files: Mutex<Option<Weak<StoreFiles>>>,
}

/// What opening does with a store that is marked as revoked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marks {
    Refuse,
    Remove,
}

impl Keyring {
    /// The store's id.
    pub fn store_id(&self) -> StoreId {
        self.inner.store_id
    }

    /// The store's settings.
    pub fn settings(&self) -> Settings {
        self.inner.vault.load().body.settings()
    }

    /// Names the present generation, to be kept outside of the store and given to
    /// [`Options::anchor`].
    pub fn anchor(&self) -> Anchor {
        let snapshot = self.inner.vault.load();
        Anchor {
            store_id: self.inner.store_id,
            generation: snapshot.image.fixed.generation,
            mac: *snapshot.image.mac(),
        }
    }

    /// The clock of [`Options::clock`], which all its times are told by.
    pub fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    /// The present state.
    pub fn status(&self) -> KeyringStatus {
        KeyringStatus::from(&**self.inner.vault.load())
    }

    /// The store key and the data keys.
    pub fn keys(&self) -> Keys<'_> {
        Keys(self)
    }

    /// The CMEK slots.
    pub fn slots(&self) -> Slots<'_> {
        Slots(self)
    }

    /// Access to the customer's key: what is known of it, withdrawing it, restoring it.
    pub fn access(&self) -> Access<'_> {
        Access(self)
    }

    /// The keyspaces.
    pub fn keyspaces(&self) -> Keyspaces<'_> {
        Keyspaces(self)
    }

    /// The holds on data keys.
    pub fn holds(&self) -> Holds<'_> {
        Holds(self)
    }

    /// What happened to the store's keys.
    pub fn audit(&self) -> Audit<'_> {
        Audit(self)
    }

    /// Reads the keyring again, as after a rotation by another process. Open files whose data
    /// key was destroyed meanwhile refuse from then on.
    ///
    /// # Errors
    /// As [`open`](Self::open); the old state stays.
    pub fn reload(&self) -> Result<()> {
        let reloaded = self.inner.reload(&mut self.inner.writer());
        self.inner.watch.deliver();
        reloaded
    }

    /// Does what is due: checks access to the customer's key, rotates data keys by age or
    /// bytes, keeps the byte counts once an hour. The background threads do it; a caller
    /// that switched them off calls this. It waits for the storage, so that one that hangs
    /// holds up the next call: [`Access::watch`] from a thread of its own is held up by nothing.
    ///
    /// # Errors
    /// Those of [`Keys::rotate`].
    pub fn maintain(&self) -> Result<()> {
        self.inner.watch_access(NEVER);
        self.inner.follow_if_due(NEVER);
        self.inner.watch.deliver();
        self.inner.maintain()
    }

    /// Ends this handle and commits how much was encrypted since the last commit, so that
    /// the number in a data key's record is exact after it. One commit if anything was
    /// encrypted, none otherwise, and none of a keyring that was opened read-only or whose
    /// keys are withdrawn. Other handles go on.
    ///
    /// Dropping the last handle does the same for a keyring in a local directory, but
    /// cannot say that it failed; for one in an object store, where it would have to wait
    /// for the network, it does nothing. Files that are being written have to be finished
    /// or dropped before.
    ///
    /// # Errors
    /// Those of a commit: [`Io`](ErrorKind::Io), [`Poisoned`](ErrorKind::Poisoned),
    /// [`KeyringConflict`](ErrorKind::KeyringConflict). Only the counts are lost then.
    pub fn close(self) -> Result<()> {
        let kept = self.inner.keep_counts();
        // Another writer withdrew access for all.
        self.inner.watch.deliver();
        kept
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("store_id", &self.inner.store_id)
            .field("generation", &self.inner.vault.load().image.fixed.generation)
            .finish_non_exhaustive()
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

fn missing(kept: &[u64], kind: ErrorKind) -> Error {
    if kept.is_empty() {
        return Error::new(kind, "there is no keyring");
    }
    let names: Vec<_> = kept.iter().map(u64::to_string).collect();
    let what = format!("the keyring is missing, older images exist: {}", names.join(", "));
    Error::new(kind, what)
}
