//! One store: a keyring that an engine has open, or a directory that this process opens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use atrest::keyring::{
    Access, DEFAULT_SLOT, DirectoryStorage, KeyringInfo, KeyringStorage as _, SlotInfo,
};
use atrest::kms::Kms;
use atrest::{Error, ErrorKind, Keyring, Options, Result};

use crate::events::{EventCounts, Switch};

/// One store of a cluster, in a region.
pub struct Store {
    region: String,
    directory: Option<Directory>,
    state: RwLock<State>,
    /// Serialises opening. A revocation does not wait for it, since it may hang in a key
    /// service.
    opening: Mutex<()>,
    /// Revocations so far: an opening that one of them overtook ends without keys.
    revocations: AtomicU64,
    pub(crate) events: Mutex<EventCounts>,
    switch: Mutex<Switch>,
}

struct Directory {
    path: PathBuf,
    mirror: Option<PathBuf>,
    kms: Vec<Arc<dyn Kms>>,
    options: Options,
}

/// What this process has of the store.
#[derive(Clone)]
pub(crate) enum State {
    /// There is no keyring.
    Plain,
    /// The keyring did not open: no key is in memory.
    Closed(Closed),
    Open(Keyring),
}

/// Why a keyring did not open.
#[derive(Clone)]
pub(crate) struct Closed {
    /// [`CmekRevoked`](ErrorKind::CmekRevoked) or [`Kms`](ErrorKind::Kms): what else fails, such
    /// as a disk, says nothing about access.
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    /// Those last read, without a key, so not authenticated. There is one at least.
    pub(crate) slots: Vec<SlotInfo>,
}

impl Store {
    /// The store of a keyring that the caller has open for writing.
    pub fn of_keyring(region: impl Into<String>, keyring: Keyring) -> Self {
        Self::new(region.into(), None, State::Open(keyring))
    }

    /// The store in a directory, opened for writing if it can be: `kms` holds the
    /// customer's keys to try. One that is revoked is served as revoked until a client
    /// restores it; one whose key service refuses or does not answer also until that
    /// unwraps again, which is tried each `recovery_interval` of the options; one without a
    /// keyring, and without older images of one, is served as disabled.
    ///
    /// `mirror` is what [`DirectoryStorage::with_mirror`] takes. Without it no key of a store that
    /// has one can be changed: it would keep the old ones.
    ///
    /// # Errors
    /// Those of [`Keyring::open`], except [`CmekRevoked`](ErrorKind::CmekRevoked),
    /// [`Kms`](ErrorKind::Kms), and [`KeyringMissing`](ErrorKind::KeyringMissing) of an
    /// existing directory that has no older images either.
    pub fn in_directory(
        region: impl Into<String>,
        path: impl Into<PathBuf>,
        mirror: Option<PathBuf>,
        kms: Vec<Arc<dyn Kms>>,
        options: Options,
    ) -> Result<Self> {
        let directory = Directory { path: path.into(), mirror, kms, options };
        let state = directory.open()?;
        Ok(Self::new(region.into(), Some(directory), state))
    }

    fn new(region: String, directory: Option<Directory>, state: State) -> Self {
        Self {
            region,
            directory,
            state: RwLock::new(state),
            opening: Mutex::default(),
            revocations: AtomicU64::new(0),
            events: Mutex::default(),
            switch: Mutex::default(),
        }
    }

    /// The region it is in.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The directory that this process opens.
    pub(crate) fn path(&self) -> Option<&Path> {
        Some(&self.directory.as_ref()?.path)
    }

    /// The keyring, if it is open.
    pub fn keyring(&self) -> Option<Keyring> {
        match self.state() {
            State::Open(keyring) => Some(keyring),
            State::Plain | State::Closed(_) => None,
        }
    }

    pub(crate) fn state(&self) -> State {
        // A state is replaced whole.
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Revocations so far, for [`restore`](Self::restore): a later one is newer than the
    /// wish to restore.
    pub(crate) fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::SeqCst)
    }

    fn opening(&self) -> MutexGuard<'_, ()> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the keyring that `open` gives, without its keys if the store was revoked
    /// after the first `revocations`.
    fn open_by(&self, revocations: u64, open: impl FnOnce() -> Result<Keyring>) -> Result<()> {
        if self.revocations() != revocations {
            return Err(withdrawn());
        }
        let keyring = open()?;
        self.set(State::Open(keyring.clone()));
        self.unless_revoked(revocations, &keyring)
    }

    fn unless_revoked(&self, revocations: u64, keyring: &Keyring) -> Result<()> {
        if self.revocations() == revocations {
            return Ok(());
        }
        keyring.access().revoke()?;
        Err(withdrawn())
    }

    /// Gives a store without a keyring one, under `kms`, unless it lost one.
    pub(crate) fn create(&self, kms: Arc<dyn Kms>) -> Result<()> {
        let revocations = self.revocations();
        let _opening = self.opening();
        let Some(directory) = &self.directory else { return Err(handed()) };
        self.open_by(revocations, || {
            // Not over the keyring alone, which looks at no file.
            let options = directory.options.clone().allowing_plaintext();
            let store = atrest::Store::create(directory.storage(), kms, options)?;
            Ok(store.keyring().clone())
        })
    }

    /// Takes the keys away, whatever else goes on.
    pub(crate) fn revoke(&self) -> Result<()> {
        // First, so that an opening that this does not see yet sees this.
        self.revocations.fetch_add(1, Ordering::SeqCst);
        match (self.state(), &self.directory) {
            (State::Open(keyring), _) => keyring.access().revoke(),
            (State::Plain, _) => Ok(()),
            (State::Closed(_), Some(directory)) => {
                // First in memory: what the disk does not take keeps the store closed too.
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                match &mut *state {
                    // Opened meanwhile.
                    State::Open(keyring) => {
                        let keyring = keyring.clone();
                        drop(state);
                        return keyring.access().revoke();
                    }
                    State::Closed(closed) => {
                        closed.kind = ErrorKind::CmekRevoked;
                        closed.message = crate::rpc::sentence(&withdrawn());
                    }
                    State::Plain => {}
                }
                drop(state);
                Access::request_revocation(&directory.storage())
            }
            (State::Closed(_), None) => Err(handed()),
        }
    }

    /// Gives the keys back, unless the store was revoked after the first `revocations`.
    pub(crate) fn restore(&self, revocations: u64) -> Result<()> {
        let _opening = self.opening();
        match (self.state(), &self.directory) {
            _ if self.revocations() != revocations => Err(withdrawn()),
            (State::Open(keyring), _) => {
                keyring.access().restore()?;
                self.unless_revoked(revocations, &keyring)
            }
            (State::Plain, _) => Ok(()),
            (State::Closed(_), Some(directory)) => {
                let restored = self.open_by(revocations, || {
                    let (storage, options) = (directory.storage(), directory.options.clone());
                    Access::open_and_restore(storage, directory.kms.clone(), options)
                });
                restored.inspect_err(|error| self.refused(directory, revocations, error))
            }
            (State::Closed(_), None) => Err(handed()),
        }
    }

    /// Opens the keyring if a key service is why it is closed: that may be back. One that
    /// was revoked on request stays closed. Whether a later try may help.
    pub(crate) fn reopen(&self) -> bool {
        let Some(directory) = &self.directory else { return false };
        let revocations = self.revocations();
        let _opening = self.opening();
        if matches!(self.state(), State::Closed(Closed { kind: ErrorKind::Kms(_), .. })) {
            let opened = self.open_by(revocations, || {
                let (storage, options) = (directory.storage(), directory.options.clone());
                Keyring::open(storage, directory.kms.clone(), options)
            });
            if let Err(error) = opened {
                self.refused(directory, revocations, &error);
            }
        }
        true
    }

    /// Notes why a closed store did not open, unless it was revoked after the first
    /// `revocations`. A failure that is no key service's leaves the reason why it is closed, and
    /// so whether it is tried again.
    fn refused(&self, directory: &Directory, revocations: u64, error: &Error) {
        let read = KeyringInfo::read(&directory.storage());
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let State::Closed(closed) = &mut *state else { return };
        if self.revocations() != revocations {
            return;
        }
        if let ErrorKind::CmekRevoked | ErrorKind::Kms(_) = error.kind() {
            closed.kind = error.kind();
        }
        closed.message = crate::rpc::sentence(error);
        if let Ok(info) = read {
            closed.slots = info.slots;
        }
    }

    /// Between two tries to [`reopen`](Self::reopen); `None` for a keyring that was handed.
    pub(crate) fn reopens_every(&self) -> Option<Duration> {
        Some(self.directory.as_ref()?.options.access.recovery_interval)
    }

    /// Whether the store is under a customer's key: not without a keyring, not under
    /// `local`, and not since a customer's key was switched off.
    pub(crate) fn is_managed(&self, local: Option<&str>) -> bool {
        let slots = match self.state() {
            State::Plain => return false,
            State::Closed(closed) => closed.slots,
            State::Open(keyring) => {
                let mut switch = self.switch();
                let status = keyring.status();
                switch.take(&status.history);
                if switch.is_off() {
                    return false;
                }
                status.info.slots
            }
        };
        local.is_none_or(|local| slots.iter().any(|slot| slot.key_uri != local))
    }

    /// Whether [`is_managed`](Self::is_managed) may go by old events: those since are in archives.
    pub(crate) fn is_behind(&self) -> bool {
        let State::Open(keyring) = self.state() else { return false };
        let mut switch = self.switch();
        !switch.take(&keyring.status().history)
    }

    /// Reads the archives if that is so. Where they cannot be read, what was known stays.
    pub(crate) fn catch_up(&self) {
        if self.is_behind()
            && let Some(keyring) = self.keyring()
            && let Ok(events) = keyring.audit().events()
        {
            self.switch().take(&events);
        }
    }

    /// Held for no look at a disk.
    fn switch(&self) -> MutexGuard<'_, Switch> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slots, where there are any.
    pub(crate) fn slots(&self) -> Vec<SlotInfo> {
        match self.state() {
            State::Plain => Vec::new(),
            State::Closed(closed) => closed.slots,
            State::Open(keyring) => keyring.slots().list(),
        }
    }

    /// The slot that holds the key of the store's own region.
    pub(crate) fn own_slot(&self) -> Option<SlotInfo> {
        let slots = self.slots();
        let only = slots.len() == 1;
        let named = |name: &str| slots.iter().find(|slot| slot.name == name).cloned();
        named(DEFAULT_SLOT)
            .or_else(|| named(&self.region))
            .or_else(|| slots.first().filter(|_| only).cloned())
    }
}

impl Directory {
    fn storage(&self) -> DirectoryStorage {
        let storage = DirectoryStorage::new(&self.path);
        match &self.mirror {
            Some(mirror) => storage.with_mirror(mirror),
            None => storage,
        }
    }

    fn open(&self) -> Result<State> {
        exists(&self.path, "the store cannot be opened")?;
        // Where there is no keyring yet, nothing else would look at it before a client does.
        if let Some(mirror) = &self.mirror {
            exists(mirror, "the mirror cannot be used")?;
        }
        // Before opening, which leaves a lock file.
        let storage = self.storage();
        let slots = match KeyringInfo::read(&storage) {
            Ok(info) => info.slots,
            Err(error) => {
                let never = error.kind() == ErrorKind::KeyringMissing && storage.kept()?.is_empty();
                return if never { Ok(State::Plain) } else { Err(error.with_path(&self.path)) };
            }
        };
        match Keyring::open(self.storage(), self.kms.clone(), self.options.clone()) {
            Ok(keyring) => Ok(State::Open(keyring)),
            Err(error) => match error.kind() {
                kind @ (ErrorKind::CmekRevoked | ErrorKind::Kms(_)) => {
                    Ok(State::Closed(Closed { kind, message: crate::rpc::sentence(&error), slots }))
                }
                _ => Err(error.with_path(&self.path)),
            },
        }
    }
}

fn exists(path: &Path, otherwise: &'static str) -> Result<()> {
    let io = |error| Error::io(otherwise, error).with_path(path);
    if path.metadata().map_err(io)?.is_dir() {
        return Ok(());
    }
    let what = "expected a directory, found a file";
    Err(Error::new(ErrorKind::InvalidArgument, what).with_path(path))
}

fn withdrawn() -> Error {
    Error::new(ErrorKind::CmekRevoked, "access to the store was withdrawn on request")
}

fn handed() -> Error {
    let what = "expected a store that this process opens itself";
    Error::new(ErrorKind::UnsupportedFeature, what)
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("region", &self.region).finish_non_exhaustive()
    }
}
