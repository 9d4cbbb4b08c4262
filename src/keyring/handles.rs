//! The keys of all open files, so that they can be withdrawn and given back.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::cipher::KeySlot;

#[derive(Default)]
pub(super) struct Handles(Mutex<Table>);

#[derive(Default)]
struct Table {
    slots: Vec<Weak<KeySlot>>,
    withdrawn: bool,
}

impl Handles {
    /// Registers the key of a file that is being opened. False if keys were withdrawn
    /// meanwhile: the caller must then drop it.
    pub(super) fn register(&self, slot: &Arc<KeySlot>) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.withdrawn {
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
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.withdrawn = true;
        for slot in table.slots.iter().filter_map(Weak::upgrade) {
            slot.withdraw();
        }
    }

    /// Lets `give_back` put the keys of all open files back.
    pub(super) fn give_back(&self, give_back: impl Fn(&KeySlot)) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.withdrawn = false;
        for slot in table.slots.iter().filter_map(Weak::upgrade) {
            give_back(&slot);
        }
    }
}
