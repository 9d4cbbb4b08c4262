//! Creating a keyring, and opening one.

use std::sync::Arc;

use super::access::{Monitor, Pauses, Watch, jitter};
use super::audit::{Event, Trail};
use super::body::{Body, DEFAULT_KEYSPACE, KeyRecord, Keyspace, PlaintextPolicy, RawSettings};
use super::client::Client;
use super::commit::WriterState;
use super::customers::CustomerKeys;
use super::format::{Fixed, Image};
use super::storage::StoredImage;
use super::unlock::Search;
use super::vault::Vault;
use super::{
    AuditKind, Counts, DEFAULT_SLOT, Inner, Keyring, KeyringStorage, KmsSet, Marks, Options,
    Snapshot, Unlocked, access, aside, background, check_anchor, check_store, format, load,
    missing, rollback, slots, unlock, withdrawn,
};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{StoreId, StoreKeyId};
use crate::kms::{Deadline, Kms, KmsErrorKind};
use crate::process::Process;
use crate::secret::{DataKey, StoreKey};
use crate::sync::Mutex;

impl Keyring {
    /// Creates the keyring of a new store: a random store key under the key of a slot, which
    /// `kms` wraps, and a first data key.
    ///
    /// # Errors
    /// [`KeyringExists`](ErrorKind::KeyringExists) if there is one, or older images of
    /// one; [`InvalidArgument`](ErrorKind::InvalidArgument) for a rotation period below
    /// [`Settings::ROTATION_PERIOD_MIN`](super::Settings::ROTATION_PERIOD_MIN);
    /// [`Kms`](ErrorKind::Kms); [`KeyringBusy`](ErrorKind::KeyringBusy);
    /// [`Io`](ErrorKind::Io). Nothing is written then.
    pub fn create(
        storage: impl KeyringStorage + 'static,
        kms: Arc<dyn Kms>,
        options: Options,
    ) -> Result<Self> {
        Self::create_in(Box::new(storage), kms, options)
    }

    pub(crate) fn create_in(
        storage: Box<dyn KeyringStorage>,
        kms: Arc<dyn Kms>,
        options: Options,
    ) -> Result<Self> {
        storage.lock()?;
        if storage.load()?.is_some() {
            return Err(Error::new(ErrorKind::KeyringExists, "the store has a keyring already"));
        }
        let kept = storage.kept()?;
        if !kept.is_empty() {
            return Err(missing(&kept, ErrorKind::KeyringExists));
        }
        Self::create_boxed(storage, kms, options)
    }

    /// Creates a keyring in a locked storage that has none.
    pub(crate) fn create_boxed(
        storage: Box<dyn KeyringStorage>,
        kms: Arc<dyn Kms>,
        options: Options,
    ) -> Result<Self> {
        // Before anything is drawn: what a copy of the machine has too is not its own.
        let process = Process::current();
        options.settings.check()?;
        let kms = Client::new(kms);
        let what = match options.settings.plaintext {
            PlaintextPolicy::Require => AuditKind::Created,
            // There are files already.
            PlaintextPolicy::Allow => AuditKind::Enabled,
        };
        let now_ns = options.clock.now_ns();
        let store_id = StoreId::random()?;
        let (store_key_id, store_key) = (StoreKeyId::random()?, StoreKey::random()?);
        let deadline = Deadline::after(options.kms_deadline);
        let top = (store_key_id, &store_key);
        let (slot, kept) = unlock::wrap_slot(&kms, DEFAULT_SLOT, store_id, top, now_ns, deadline)?;
        let data_key = DataKey::random()?;
        let record = KeyRecord::new(&data_key, 0, now_ns, store_id, top)?;
        let body = Body {
            settings: RawSettings::from(&options.settings),
            location: storage.location().id,
            keyspaces: vec![Keyspace {
                name: DEFAULT_KEYSPACE.into(),
                active: record.id,
                ..Keyspace::default()
            }],
            revoked_ns: 0,
            slot_keys: vec![kept],
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
        let unlocked = Unlocked::new(Arc::new(store_key), &image, &body, None, &Counts::new())?;
        image.stored.version =
            storage.commit(&image.stored.bytes, 1, None).map_err(|error| match error.kind() {
                ErrorKind::KeyringConflict => {
                    Error::new(ErrorKind::KeyringExists, "another writer created the keyring")
                        .with_source(error)
                }
                _ => error,
            })?;
        let snapshot = Snapshot { image, body, unlocked: Some(Arc::new(unlocked)) };
        Self::start(storage, vec![kms], options, snapshot, true, process)
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
    /// key, or goes on under the one that it had right there. A keyring beside newer images of
    /// itself is refused: somebody put it back, and
    /// [`DirectoryStorage::recover`](super::DirectoryStorage::recover) goes on with the one
    /// or the other. Reading goes on; [`KeyringInfo::newer_images`](super::KeyringInfo::newer_images)
    /// tells.
    ///
    /// # Errors
    /// [`KeyringMissing`](ErrorKind::KeyringMissing),
    /// [`KeyringBusy`](ErrorKind::KeyringBusy), [`Kms`](ErrorKind::Kms),
    /// [`WrongStoreKey`](ErrorKind::WrongStoreKey),
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch) for another store than
    /// [`Options::store_id`], [`KeyringRolledBack`](ErrorKind::KeyringRolledBack), the kinds of a damaged
    /// keyring, [`Io`](ErrorKind::Io). The store is as it was.
    pub fn open(
        storage: impl KeyringStorage + 'static,
        kms: impl Into<KmsSet>,
        options: Options,
    ) -> Result<Self> {
        Self::open_in(Box::new(storage), kms.into(), options)
    }

    pub(crate) fn open_in(
        storage: Box<dyn KeyringStorage>,
        kms: KmsSet,
        options: Options,
    ) -> Result<Self> {
        storage.lock()?;
        Self::open_locked(storage, kms.0, options, true, Marks::Refuse)
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
        Self::open_or_create_in(Box::new(storage), kms, options)
    }

    pub(crate) fn open_or_create_in(
        storage: Box<dyn KeyringStorage>,
        kms: Arc<dyn Kms>,
        options: Options,
    ) -> Result<Self> {
        storage.lock()?;
        if storage.load()?.is_none() && storage.kept()?.is_empty() {
            return Self::create_boxed(storage, kms, options);
        }
        Self::open_locked(storage, vec![kms], options, true, Marks::Refuse)
    }

    pub(super) fn open_locked(
        storage: Box<dyn KeyringStorage>,
        kms: Vec<Arc<dyn Kms>>,
        options: Options,
        writable: bool,
        marks: Marks,
    ) -> Result<Self> {
        // Before anything is read, which a copy of the machine would go on with too.
        let process = Process::current();
        let kms = Client::all(kms);
        let look = || look(&*storage, &options, writable, marks);
        let (Look { kept, image }, store_key, body) = unlock_patiently(look, &kms, &options)?;
        if marks == Marks::Refuse && body.revoked_ns != 0 {
            return Err(withdrawn());
        }
        if let Some(anchor) = &options.anchor {
            check_anchor(&image, anchor)?;
        }
        let unlocked = Unlocked::new(store_key, &image, &body, None, &Counts::new())?;
        if writable {
            // A store whose old images cannot be removed still opens; the next opening tries
            // again, and nobody says meanwhile that a destroyed key is gone.
            drop(aside::forget_stale(&*storage, &image, &kept));
        }
        let location = storage.location();
        let moved = writable && body.location != location.id && body.location != [0; 16];
        let snapshot = Snapshot { image, body, unlocked: Some(Arc::new(unlocked)) };
        let keyring = Self::start(storage, kms, options, snapshot, writable, process)?;
        if moved {
            // A copy must not go on under the original's data key.
            let inner = &keyring.inner;
            inner.commit(&mut inner.writer(), |draft| draft.move_to(&location).map(|()| true))?;
        }
        Ok(keyring)
    }

    fn start(
        storage: Box<dyn KeyringStorage>,
        kms: Vec<Arc<Client>>,
        options: Options,
        snapshot: Snapshot,
        writable: bool,
        process: Process,
    ) -> Result<Self> {
        let customers = CustomerKeys::new(kms, &options);
        let monitor = Monitor::new(options.access, options.clock.since_boot());
        let inner = Arc::new(Inner {
            store_id: snapshot.image.fixed.store_id,
            storage,
            clock: options.clock,
            writable,
            process,
            writer: Mutex::new(WriterState::default()),
            vault: Vault::new(snapshot),
            customers,
            watch: Arc::new(Watch::new(monitor)),
            absent: super::absent::Absent::default(),
            files: Mutex::default(),
        });
        let background = if options.background {
            Some(Arc::new(background::Background::start(&inner)?))
        } else {
            None
        };
        Ok(Self { inner, _background: background })
    }
}

/// What is stored, for whoever may open it.
struct Look {
    /// The generations of the older images, if the keyring is to be written.
    kept: Vec<u64>,
    image: Image,
}

fn look(
    storage: &dyn KeyringStorage,
    options: &Options,
    writable: bool,
    marks: Marks,
) -> Result<Look> {
    // Before the image, which another writer may replace meanwhile.
    let kept = if writable { storage.kept()? } else { Vec::new() };
    let image = load(storage)?;
    check_store(&image, options)?;
    rollback::refuse(storage, &image, &kept)?;
    if marks == Marks::Refuse && access::revocation_requested(storage)? {
        return Err(withdrawn());
    }
    if let Some(name) = &options.slot
        && !image.slots.iter().any(|slot| slot.name == *name)
    {
        return Err(slots::no_such_slot(name));
    }
    Ok(Look { kept, image })
}

/// Unlocks; again and again while there is time to wait and no key service answers for or
/// against it. Looks once more when one did: somebody may have revoked the store, or replaced its
/// keys, meanwhile.
fn unlock_patiently(
    look: impl Fn() -> Result<Look>,
    kms: &[Arc<Client>],
    options: &Options,
) -> Result<(Look, Arc<StoreKey>, Body)> {
    let end = Deadline::after(options.kms_wait);
    let mut pauses = Pauses::default();
    let mut known: Option<(StoreKeyId, Arc<StoreKey>)> = None;
    loop {
        let seen = look()?;
        let id = seen.image.fixed.store_key_id;
        if let Some((_, store_key)) = known.take_if(|(known, _)| *known == id) {
            let body = seen.image.authenticate(&store_key)?;
            return Ok((seen, store_key, body));
        }
        let error: Error = match Search::opening(options, true).unlock(&seen.image, kms) {
            Ok((store_key, _)) => {
                known = Some((id, store_key));
                continue;
            }
            Err(refusal) => refusal.into(),
        };
        let silent = match error.kind() {
            ErrorKind::Kms(kind) => {
                kind.is_transient()
                    || (kind == KmsErrorKind::Unauthenticated
                        && !options.access.lapsed_credential.denies(kind))
            }
            _ => false,
        };
        if !silent || end.remaining().is_zero() {
            return Err(error);
        }
        std::thread::sleep(pauses.next(jitter()).min(end.remaining()));
    }
}
