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

#[derive(Default)]
struct Table {
    slots: Vec<Weak<KeySlot>>,
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
        if table.slots.len() == table.slots.capacity() {
            // Growing only when the closed files are gone makes this constant on average.
            table.slots.retain(|slot| slot.strong_count() > 0);
            let live = table.slots.len();
            table.slots.reserve(live + 16);
        }
        table.slots.push(Arc::downgrade(slot));
        true
    }

    /// Takes the keys of all open files away.
    pub(super) fn withdraw(&self) {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.withdrawn.0.store(true, Ordering::Release);
        for slot in table.slots.iter().filter_map(Weak::upgrade) {
            slot.withdraw();
        }
    }

    /// Lets `give_back` put the keys of all open files back.
    pub(super) fn give_back(&self, give_back: impl Fn(&KeySlot)) {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.withdrawn.0.store(false, Ordering::Release);
        for slot in table.slots.iter().filter_map(Weak::upgrade) {
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
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.any.store(true, Ordering::Relaxed);
        let mut closed = self.closed.keys.lock().unwrap_or_else(PoisonError::into_inner);
        closed.extend(keys.iter().map(|id| (*id, readers)));
        let live = table.slots.iter().filter_map(Weak::upgrade).map(|slot| slot.data_key_id());
        live.filter(|id| keys.contains(id)).collect()
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
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let live = table.slots.iter().filter_map(Weak::upgrade);
        live.filter(|slot| keys.contains(&slot.data_key_id())).for_each(|slot| slot.withdraw());
    }

    /// Whether the file with this header is still being written.
    pub(super) fn is_being_written(&self, prefix: &[u8; PREFIX_LEN]) -> bool {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut live = table.slots.iter().filter_map(Weak::upgrade);
        live.any(|slot| slot.writing && slot.prefix == *prefix)
    }
}
