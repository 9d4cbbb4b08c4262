//! The keys of all open files, so that they can be withdrawn and given back.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::cipher::{KeySlot, SlotKey, revoked};
use crate::error::Result;
use crate::header::PREFIX_LEN;
use crate::ids::DataKeyId;
use crate::sync::{AtomicBool, Mutex, unless_held};

/// Keys that are made before they are put back together.
const AT_ONCE: usize = 64;

#[derive(Default)]
pub(super) struct Handles {
    table: Mutex<Table>,
    withdrawn: AccessFlag,
    closed: Closed,
    /// Held by the one retirement under way.
    closing: Mutex<Graces>,
}

/// When the times of grace that began in this process end, since boot.
pub(super) type Graces = HashMap<DataKeyId, Duration>;

/// Whether keys are withdrawn: for what is served without a key, and is to stop with the
/// rest. Keeps no keyring open.
// Written under the table's lock.
#[derive(Clone, Debug, Default)]
pub struct AccessFlag(Arc<AtomicBool>);

impl AccessFlag {
    /// Costs one load, and asks nobody.
    ///
    /// # Errors
    /// [`CmekRevoked`](crate::ErrorKind::CmekRevoked) while keys are withdrawn.
    pub fn check(&self) -> Result<()> {
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
    reading: ByKey,
    /// Apart, since of these one is looked for, and there are few.
    writing: ByKey,
    /// How often all keys were withdrawn.
    withdrawals: u64,
}

/// Open files that wait for their keys, as of one return of access.
pub(super) struct Waiting {
    files: Vec<Weak<KeySlot>>,
    withdrawals: u64,
}

type ByKey = HashMap<DataKeyId, Vec<Weak<KeySlot>>>;

impl Table {
    fn add(&mut self, slot: &Arc<KeySlot>) {
        let table = if slot.writing { &mut self.writing } else { &mut self.reading };
        let slots = table.entry(slot.data_key_id()).or_default();
        if slots.len() == slots.capacity() {
            // Growing only when the closed files are gone makes this constant on average.
            slots.retain(|slot| slot.strong_count() > 0);
            let live = slots.len();
            slots.reserve(live + 4);
        }
        slots.push(Arc::downgrade(slot));
    }

    /// The files open under one key.
    fn under(&self, id: DataKeyId) -> impl Iterator<Item = Arc<KeySlot>> + '_ {
        let slots = [&self.reading, &self.writing].map(|table| table.get(&id));
        slots.into_iter().flatten().flatten().filter_map(Weak::upgrade)
    }

    fn all(&self) -> impl Iterator<Item = &Weak<KeySlot>> + '_ {
        self.reading.values().chain(self.writing.values()).flatten()
    }

    /// Whether there may be files under the key: not once it was withdrawn for good.
    fn holds(&self, id: DataKeyId) -> bool {
        self.reading.contains_key(&id) || self.writing.contains_key(&id)
    }

    /// Takes what is open under one key out, where it needs to be found no more.
    fn take(&mut self, id: DataKeyId) -> impl Iterator<Item = Vec<Weak<KeySlot>>> + use<> {
        [self.reading.remove(&id), self.writing.remove(&id)].into_iter().flatten()
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
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.withdrawn.0.store(true, Ordering::Release);
        table.withdrawals += 1;
        for slot in table.all().filter_map(Weak::upgrade) {
            slot.withdraw();
        }
    }

    /// Lets files be opened again. Those that are open wait for [`give_back`](Self::give_back).
    pub(super) fn let_in(&self) -> Waiting {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.withdrawn.0.store(false, Ordering::Release);
        Waiting { files: table.all().cloned().collect(), withdrawals: table.withdrawals }
    }

    /// Puts the keys back that `key` makes, unless they were withdrawn meanwhile. Neither an
    /// opening nor a withdrawal waits while they are made.
    pub(super) fn give_back(&self, waiting: &Waiting, key: impl Fn(&KeySlot) -> Option<SlotKey>) {
        for some in waiting.files.chunks(AT_ONCE) {
            let slots = some.iter().filter_map(Weak::upgrade);
            let keys: Vec<_> = slots.filter_map(|slot| key(&slot).map(|key| (slot, key))).collect();
            let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            if table.withdrawals != waiting.withdrawals {
                return;
            }
            for (slot, key) in keys {
                if table.holds(slot.data_key_id()) {
                    slot.put_back(key);
                }
            }
        }
    }

    /// Makes the caller the only one who closes keys; `None` beside another.
    pub(super) fn try_closing(&self) -> Option<MutexGuard<'_, Graces>> {
        unless_held(self.closing.try_lock())
    }

    /// Refuses new files under these data keys from now on, with `readers` the opening of
    /// old ones too. Returns those of the keys that files open now hold.
    pub(super) fn close(&self, keys: &[DataKeyId], readers: bool) -> HashSet<DataKeyId> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.any.store(true, Ordering::Relaxed);
        let mut closed = self.closed.keys.lock().unwrap_or_else(PoisonError::into_inner);
        closed.extend(keys.iter().map(|id| (*id, readers)));
        drop(closed);
        let is_open = |id: &DataKeyId| {
            let open = table.under(*id).next().is_some();
            if !open {
                drop(table.take(*id));
            }
            open
        };
        keys.iter().copied().filter(is_open).collect()
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
        // Nobody opens a file meanwhile, but for as long as it takes to find them.
        let taken: Vec<_> = {
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            keys.iter().flat_map(|id| table.take(*id)).collect()
        };
        taken.iter().flatten().filter_map(Weak::upgrade).for_each(|slot| slot.withdraw());
    }

    /// Whether the file with this header is still being written.
    pub(super) fn is_being_written(&self, prefix: &[u8; PREFIX_LEN]) -> bool {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = table.writing.get(&crate::header::data_key_id(prefix));
        let mut live = slots.into_iter().flatten().filter_map(Weak::upgrade);
        live.any(|slot| slot.prefix == *prefix)
    }
}

#[cfg(test)]
mod tests;
