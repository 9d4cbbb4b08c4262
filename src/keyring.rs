//! The key hierarchy: the customer's key wraps the store key, the store key wraps the
//! data keys, and each file's own key is derived from the data key that was active when
//! the file was created.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::cipher::{ByteCount, revoked};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DataKeyId, StoreId, StoreKeyId};
use crate::kms::{Deadline, Kms};
use crate::ledger::Ledger;
use crate::moves::Moves;
use crate::secret::{DataKey, StoreKey};
use access::{Gate, Monitor};
use audit::{Event, Trail};
use body::{Body, DEFAULT_KEYSPACE, KeyRecord, Keyspace};
use format::{Fixed, Image, Slot};
use handles::Handles;
use storage::StoredImage;
use unlock::Search;

mod access;
mod audit;
mod background;
mod body;
mod commit;
#[cfg(feature = "danger-internals")]
pub(crate) mod conformance;
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
mod recover;
mod retire;
mod rotation;
mod slots;
mod status;
mod storage;
mod unlock;

pub use access::{Access, AccessPolicy, AccessState, Grace, Transition};
pub use audit::{AuditEvent, AuditKind};
pub(crate) use body::RawSettings;
pub use body::{KeyState, PlaintextPolicy, Settings};
pub use directory::{DirectoryStorage, KEYRING_FILE};
pub use files::{Expect, FileSpec};
pub(crate) use handles::AccessFlag;
pub use holds::Hold;
pub use keyspaces::{KeyspaceId, KeyspaceStatus};
pub use recover::{ImageInfo, ImagePlace, Recovery};
pub use retire::{LiveKeys, RetireOutcome, RetiredKey, Retirement};
pub use status::{DataKeyStatus, KeyringInfo, KeyringStatus, SlotInfo};
pub use storage::{KeyringStorage, MemoryStorage, StoredImage as KeyringImage};

/// Name of the slot that a new keyring has.
pub const DEFAULT_SLOT: &str = "default";

/// How a process uses a keyring. What the store itself does is in [`Settings`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Settings of a new store; an existing one keeps its own.
    pub settings: Settings,
    /// Longest time for all calls to the key service in one operation. Default: 15 s.
    pub kms_deadline: Duration,
    /// When access to the customer's key is checked.
    pub access: AccessPolicy,
    /// Name of the CMEK slot to ask first, such as the region the process runs in.
    /// Default: none; the slots are asked in the order of the keys given.
    pub slot: Option<String>,
    /// Rotate data keys and check access in a background thread when they are due.
    /// Default: true. Without it the caller **MUST** call [`Keyring::maintain`] every few
    /// minutes, or a lost customer's key is never noticed.
    pub background: bool,
    /// Refuse a keyring older than this. Default: none.
    pub anchor: Option<Anchor>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            kms_deadline: Duration::from_secs(15),
            access: AccessPolicy::default(),
            slot: None,
            background: true,
            anchor: None,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Names one state of a keyring. Kept outside of the store, it shows when somebody put
/// the whole store back to an older state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Anchor {
    /// The store.
    pub store_id: StoreId,
    /// The generation: the number of commits.
    pub generation: u64,
    /// The MAC of that generation.
    pub mac: [u8; 32],
}

/// An open keyring. A clone is another handle on the same one: a rotation in one is seen
/// by all.
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

/// One generation, immutable.
struct Snapshot {
    image: Image,
    body: Body,
    /// The keys; none while access to the customer's key is lost.
    unlocked: Option<Arc<Unlocked>>,
}

struct Unlocked {
    store_key: Arc<StoreKey>,
    keys: HashMap<DataKeyId, Arc<KeyEntry>>,
    /// For each keyspace its active key; `None` for a destroyed keyspace.
    active: Vec<Option<ActiveKey>>,
}

/// An unwrapped data key. Outlives generations, so that its byte count does.
struct KeyEntry {
    key: DataKey,
    count: Arc<ByteCount>,
}

/// A keyspace's active data key: the id and the key as one value.
struct ActiveKey {
    id: DataKeyId,
    entry: Arc<KeyEntry>,
    created_ns: u64,
    clock_rebased_ns: u64,
    /// Its byte count as of the last commit.
    committed_bytes: u64,
}

impl Keyring {
    /// Creates the keyring of a new store: a random store key wrapped by `kms`, and a
    /// first data key.
    ///
    /// # Errors
    /// [`KeyringExists`](ErrorKind::KeyringExists) if there is one, or older images of
    /// one; [`Kms`](ErrorKind::Kms); [`KeyringBusy`](ErrorKind::KeyringBusy);
    /// [`Io`](ErrorKind::Io). Nothing is written then.
    pub fn create(
        storage: impl KeyringStorage + 'static,
        kms: Arc<dyn Kms>,
        options: Options,
    ) -> Result<Self> {
        Self::create_as(storage, kms, options, AuditKind::Created)
    }

    fn create_as(
        storage: impl KeyringStorage + 'static,
        kms: Arc<dyn Kms>,
        options: Options,
        what: AuditKind,
    ) -> Result<Self> {
        storage.lock()?;
        if storage.load()?.is_some() {
            return Err(Error::new(ErrorKind::KeyringExists, "the store has a keyring already"));
        }
        let kept = storage.kept()?;
        if !kept.is_empty() {
            return Err(missing(&kept, ErrorKind::KeyringExists));
        }
        Self::create_locked(Box::new(storage), kms, options, what)
    }

    fn create_locked(
        storage: Box<dyn KeyringStorage>,
        kms: Arc<dyn Kms>,
        options: Options,
        what: AuditKind,
    ) -> Result<Self> {
        let now_ns = options.clock.now_ns();
        let store_id = StoreId::random()?;
        let (store_key_id, store_key) = (StoreKeyId::random()?, StoreKey::random()?);
        let deadline = Deadline::after(options.kms_deadline);
        let context = unlock::context(store_id, store_key_id);
        let slot = unlock::wrap_slot(&*kms, DEFAULT_SLOT, &store_key, &context, now_ns, deadline)?;
        let data_key = DataKey::random()?;
        let record = KeyRecord::new(&data_key, 0, now_ns, store_id, (store_key_id, &store_key))?;
        let body = Body {
            settings: RawSettings::from(&options.settings),
            location: storage.location(),
            keyspaces: vec![Keyspace {
                name: DEFAULT_KEYSPACE.into(),
                active: record.id,
                clock_rebased_ns: 0,
            }],
            revoked_ns: 0,
            keys: vec![record],
            directories: Vec::new(),
            holds: Vec::new(),
            audit: Trail::beginning_with(Event {
                at_ns: now_ns,
                generation: 1,
                what: what as u8,
                store_key_id: *store_key_id.as_bytes(),
                detail: slots::describe(&slot),
            }),
        };
        let fixed = Fixed {
            generation: 1,
            written_ns: now_ns,
            store_id,
            store_key_id,
            previous_mac: [0; 32],
        };
        let bytes = format::encode(&fixed, &[slot], &body, &store_key)?;
        let mut image = Image::parse(StoredImage { bytes, version: String::new() })?;
        let unlocked = Unlocked::new(Arc::new(store_key), &image, &body, None)?;
        image.stored.version =
            storage.commit(&image.stored.bytes, 1, None).map_err(|error| match error.kind() {
                ErrorKind::KeyringConflict => {
                    Error::new(ErrorKind::KeyringExists, "another writer created the keyring")
                        .with_source(error)
                }
                _ => error,
            })?;
        let snapshot = Snapshot { image, body, unlocked: Some(Arc::new(unlocked)) };
        Self::start(storage, vec![kms], options, snapshot, true)
    }

    /// Creates a keyring in a locked storage that has none.
    pub(crate) fn create_boxed(
        storage: Box<dyn KeyringStorage>,
        kms: Arc<dyn Kms>,
        options: Options,
    ) -> Result<Self> {
        Self::create_locked(storage, kms, options, AuditKind::Created)
    }

    /// Opens the keyring of a storage, which is locked if it is to be written.
    pub(crate) fn open_boxed(
        storage: Box<dyn KeyringStorage>,
        kms: Vec<Arc<dyn Kms>>,
        options: Options,
        writable: bool,
    ) -> Result<Self> {
        Self::open_locked(storage, kms, options, writable, Marks::Refuse)
    }

    /// Opens a store for reading and writing. One process at a time.
    ///
    /// `kms` holds the customer's keys to try: one, or several for a keyring with several
    /// slots. A store whose directory is not where it was last written starts a new data
    /// key.
    ///
    /// # Errors
    /// [`KeyringMissing`](ErrorKind::KeyringMissing),
    /// [`KeyringBusy`](ErrorKind::KeyringBusy), [`Kms`](ErrorKind::Kms),
    /// [`WrongStoreKey`](ErrorKind::WrongStoreKey),
    /// [`KeyringRolledBack`](ErrorKind::KeyringRolledBack), the kinds of a damaged
    /// keyring, [`Io`](ErrorKind::Io). The store is as it was.
    pub fn open(
        storage: impl KeyringStorage + 'static,
        kms: impl Into<KmsSet>,
        options: Options,
    ) -> Result<Self> {
        storage.lock()?;
        Self::open_locked(Box::new(storage), kms.into().0, options, true, Marks::Refuse)
    }

    /// Opens a store for reading, beside a writer or not. Rotations by the writer are seen
    /// when a file under a new data key is opened.
    ///
    /// # Errors
    /// As [`open`](Self::open), without `KeyringBusy`.
    pub fn open_read_only(
        storage: impl KeyringStorage + 'static,
        kms: impl Into<KmsSet>,
        options: Options,
    ) -> Result<Self> {
        Self::open_locked(Box::new(storage), kms.into().0, options, false, Marks::Refuse)
    }

    /// Opens a store, or creates it if it has no keyring and no older images of one.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(
        storage: impl KeyringStorage + 'static,
        kms: Arc<dyn Kms>,
        options: Options,
    ) -> Result<Self> {
        storage.lock()?;
        if storage.load()?.is_none() && storage.kept()?.is_empty() {
            return Self::create_locked(Box::new(storage), kms, options, AuditKind::Created);
        }
        Self::open_locked(Box::new(storage), vec![kms], options, true, Marks::Refuse)
    }

    fn open_locked(
        storage: Box<dyn KeyringStorage>,
        kms: Vec<Arc<dyn Kms>>,
        options: Options,
        writable: bool,
        marks: Marks,
    ) -> Result<Self> {
        let image = load(&*storage)?;
        if marks == Marks::Refuse && access::revocation_requested(&*storage)? {
            return Err(withdrawn());
        }
        if let Some(name) = &options.slot
            && !image.slots.iter().any(|slot| slot.name == *name)
        {
            return Err(slots::no_such_slot(name));
        }
        let search = Search {
            prefer: options.slot.clone(),
            barrier: None,
            strict: true,
            deadline: Deadline::after(options.kms_deadline),
        };
        let (store_key, body) = search.unlock(&image, &kms)?;
        if marks == Marks::Refuse && body.revoked_ns != 0 {
            return Err(withdrawn());
        }
        if let Some(anchor) = &options.anchor {
            check_anchor(&image, anchor)?;
        }
        let unlocked = Unlocked::new(store_key, &image, &body, None)?;
        if writable {
            rotation::forget_stale(&*storage, &image);
        }
        let location = storage.location();
        let moved = writable && body.location != location && body.location != [0; 16];
        let snapshot = Snapshot { image, body, unlocked: Some(Arc::new(unlocked)) };
        let keyring = Self::start(storage, kms, options, snapshot, writable)?;
        if moved {
            // A copy must not go on under the original's data key.
            keyring.inner.rotate_all_data_keys()?;
        }
        Ok(keyring)
    }

    fn start(
        storage: Box<dyn KeyringStorage>,
        kms: Vec<Arc<dyn Kms>>,
        options: Options,
        snapshot: Snapshot,
        writable: bool,
    ) -> Result<Self> {
        let monitor = Monitor::new(options.access, options.clock.since_boot());
        let alarm = Arc::new(background::Alarm::default());
        let inner = Arc::new(Inner {
            store_id: snapshot.image.fixed.store_id,
            storage,
            kms: Mutex::new(kms),
            clock: options.clock,
            kms_deadline: options.kms_deadline,
            writable,
            snapshot: ArcSwap::from_pointee(snapshot),
            writer: Mutex::new(WriterState::default()),
            handles: Handles::default(),
            ledger: Ledger::default(),
            moves: Moves::default(),
            directories_serial: directories::Serial::default(),
            retiring: Mutex::new(()),
            reencrypting: Mutex::new(()),
            alarm,
            slot: options.slot,
            gate: Mutex::default(),
            monitor: Mutex::new(monitor),
            asking: Mutex::new(()),
            outstanding: Arc::default(),
        });
        let background = if options.background {
            Some(Arc::new(background::Background::start(&inner)?))
        } else {
            None
        };
        Ok(Self { inner, _background: background })
    }

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

/// The customer's keys to try when a store is opened: one, or several.
#[derive(Clone, Debug)]
pub struct KmsSet(Vec<Arc<dyn Kms>>);

impl From<Arc<dyn Kms>> for KmsSet {
    fn from(kms: Arc<dyn Kms>) -> Self {
        Self(vec![kms])
    }
}

impl From<Vec<Arc<dyn Kms>>> for KmsSet {
    fn from(kms: Vec<Arc<dyn Kms>>) -> Self {
        Self(kms)
    }
}

impl<T: Kms + 'static> From<Arc<T>> for KmsSet {
    fn from(kms: Arc<T>) -> Self {
        Self(vec![kms])
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
        let unlocked = Unlocked::new(store_key, &image, &body, Some(unlocked))?;
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

impl Snapshot {
    fn unlocked(&self) -> Result<&Unlocked> {
        self.unlocked.as_deref().ok_or_else(revoked)
    }

    fn active(&self, keyspace: usize) -> Result<&ActiveKey> {
        self.unlocked()?
            .active
            .get(keyspace)
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::new(ErrorKind::UnknownKey, "the keyspace has no active data key"))
    }
}

impl Unlocked {
    /// Unwraps every data key, except those that `known` already has.
    fn new(
        store_key: Arc<StoreKey>,
        image: &Image,
        body: &Body,
        known: Option<&Self>,
    ) -> Result<Self> {
        let mut keys = HashMap::with_capacity(body.keys.len());
        for record in body.keys.iter().filter(|record| record.state != 3) {
            let id = DataKeyId::from_bytes(record.id);
            let entry = match known.and_then(|known| known.keys.get(&id)) {
                Some(entry) => entry.clone(),
                None => Arc::new(KeyEntry {
                    key: record.unwrap(image.fixed.store_id, &store_key)?,
                    count: ByteCount::new(record.encrypted_bytes),
                }),
            };
            keys.insert(id, entry);
        }
        let active = active_keys(body, &keys);
        Ok(Self { store_key, keys, active })
    }
}

fn active_keys(body: &Body, keys: &HashMap<DataKeyId, Arc<KeyEntry>>) -> Vec<Option<ActiveKey>> {
    let mut active: Vec<_> = body.keyspaces.iter().map(|_| None).collect();
    for record in body.keys.iter().filter(|record| record.state == 1) {
        let id = DataKeyId::from_bytes(record.id);
        let keyspace = record.keyspace as usize;
        active[keyspace] = keys.get(&id).map(|entry| ActiveKey {
            id,
            entry: entry.clone(),
            created_ns: record.created_ns,
            clock_rebased_ns: body.keyspaces[keyspace].clock_rebased_ns,
            committed_bytes: record.encrypted_bytes,
        });
    }
    active
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

fn check_anchor(image: &Image, anchor: &Anchor) -> Result<()> {
    let fixed = &image.fixed;
    if fixed.store_id != anchor.store_id {
        let what = format!("expected store {}, found {}", anchor.store_id, fixed.store_id);
        return Err(Error::new(ErrorKind::IdentityMismatch, what));
    }
    // The chain of MACs reaches one generation back.
    let forked = (fixed.generation == anchor.generation && *image.mac() != anchor.mac)
        || (fixed.generation == anchor.generation.saturating_add(1)
            && fixed.previous_mac != anchor.mac);
    if fixed.generation < anchor.generation || forked {
        return Err(Error::new(
            ErrorKind::KeyringRolledBack,
            format!(
                "expected keyring generation {} or one that follows it, found {}",
                anchor.generation, fixed.generation
            ),
        ));
    }
    Ok(())
}
