//! The keys of all open files, so that they can be withdrawn and given back.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::cipher::{KeySlot, revoked};
use crate::error::Result;
use crate::header::PREFIX_LEN;
use crate::ids::DataKeyId;

#[derive(Default)]
pub(super) struct Handles {
    table: Mutex<Table>,
    withdrawn: AccessFlag,
    closed: Closed,
    /// Held by the one retirement under way.
    closing: Mutex<()>,
}

/// Whether keys are withdrawn; written under the table's lock.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessFlag(Arc<AtomicBool>);

impl AccessFlag {
    /// # Errors
    /// [`CmekRevoked`](crate::ErrorKind::CmekRevoked).
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Acquire) { Err(revoked()) } else { Ok(()) }
    }
}

/// Data keys that are being destroyed.
#[derive(Default)]
struct Closed {
    /// Whether there are any; changed under the table's lock.
    any: AtomicBool,
    /// Each with whether readers are refused too.
    keys: Mutex<HashMap<DataKeyId, bool>>,
}

/// By the data key, so that what concerns some keys does not cost all open files.
#[derive(Default)]
struct Table {
    by_key: HashMap<DataKeyId, Vec<Weak<KeySlot>>>,
}

impl Table {
    fn add(&mut self, slot: &Arc<KeySlot>) {
        let slots = self.by_key.entry(slot.data_key_id()).or_default();
        if slots.len() == slots.capacity() {
            // Growing only when the closed files are gone makes this constant on average.
            slots.retain(|slot| slot.strong_count() > 0);
            let live = slots.len();
            slots.reserve(live + 4);
        }
        slots.push(Arc::downgrade(slot));
    }

    /// The open files under one key; forgets those that were closed.
    fn under(&mut self, id: DataKeyId) -> impl Iterator<Item = Arc<KeySlot>> + '_ {
        let slots = self.by_key.get_mut(&id);
        let live = slots.map(|slots| {
            slots.retain(|slot| slot.strong_count() > 0);
            slots.iter().filter_map(Weak::upgrade)
        });
        live.into_iter().flatten()
    }

    fn all(&self) -> impl Iterator<Item = Arc<KeySlot>> + '_ {
        self.by_key.values().flatten().filter_map(Weak::upgrade)
    }
}

impl Handles {
    pub(super) fn flag(&self) -> AccessFlag {
        self.withdrawn.clone()
    }

    /// Registers the key of a file that is being opened. False if keys were withdrawn
    /// meanwhile: the caller must then drop it.
    pub(super) fn register(&self, slot: &Arc<KeySlot>) -> bool {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if self.withdrawn.check().is_err() {
            return false;
        }
        table.add(slot);
        true
    }

    /// Takes the keys of all open files away.
    pub(super) fn withdraw(&self) {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.withdrawn.0.store(true, Ordering::Release);
        for slot in table.all() {
            slot.withdraw();
        }
    }

    /// Lets `give_back` put the keys of all open files back.
    pub(super) fn give_back(&self, give_back: impl Fn(&KeySlot)) {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.withdrawn.0.store(false, Ordering::Release);
        for slot in table.all() {
            give_back(&slot);
        }
    }

    /// Makes the caller the only one who closes keys; `None` beside another.
    pub(super) fn try_closing(&self) -> Option<MutexGuard<'_, ()>> {
        self.closing.try_lock().ok()
    }

    /// Refuses new files under these data keys from now on, with `readers` the opening of
    /// old ones too. Returns those of the keys that files open now hold.
    pub(super) fn close(&self, keys: &[DataKeyId], readers: bool) -> HashSet<DataKeyId> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.any.store(true, Ordering::Relaxed);
        let mut closed = self.closed.keys.lock().unwrap_or_else(PoisonError::into_inner);
        closed.extend(keys.iter().map(|id| (*id, readers)));
        drop(closed);
        keys.iter().copied().filter(|id| table.under(*id).next().is_some()).collect()
    }

    /// Undoes [`close`](Self::close) for all keys.
    pub(super) fn reopen(&self) {
        let _table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.keys.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.closed.any.store(false, Ordering::Relaxed);
    }

    /// Whether a file under this data key is refused. To be asked after it was registered.
    pub(super) fn is_closed(&self, id: DataKeyId, writing: bool) -> bool {
        // The table's lock, taken by the registration, orders this.
        self.closed.any.load(Ordering::Relaxed) && {
            let closed = self.closed.keys.lock().unwrap_or_else(PoisonError::into_inner);
            closed.get(&id).is_some_and(|readers| writing || *readers)
        }
    }

    /// Takes the keys of all open files under these data keys away, for good.
    pub(super) fn withdraw_keys(&self, keys: &HashSet<DataKeyId>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        for id in keys {
            table.under(*id).for_each(|slot| slot.withdraw());
        }
    }

    /// Whether the file with this header is still being written.
    pub(super) fn is_being_written(&self, prefix: &[u8; PREFIX_LEN]) -> bool {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let id = crate::header::data_key_id(prefix);
        table.under(id).any(|slot| slot.writing && slot.prefix == *prefix)
    }
}
