//! The keys of all open files, so that they can be withdrawn and given back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::cipher::{KeySlot, revoked};
use crate::error::Result;

#[derive(Default)]
pub(super) struct Handles {
    table: Mutex<Table>,
    withdrawn: AccessFlag,
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
}
