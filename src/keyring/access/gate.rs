//! Taking the keys away and giving them back, whatever else is going on.
//!
//! Every new generation is published here, so that a rotation which ends after a
//! revocation cannot bring keys back.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::super::body::Body;
use super::super::format::Image;
use super::super::{Counts, Inner, Snapshot, Unlocked};
use crate::cipher::{KeySlot, revoked};
use crate::derive::{Purpose, derive};
use crate::error::Result;
use crate::ids::DataKeyId;
use crate::secret::StoreKey;

/// Whether keys may be in memory.
#[derive(Default)]
pub(in super::super) struct Gate {
    closed: bool,
    /// Withdrawals so far: what was unwrapped before the last one is not let in.
    epoch: u64,
    /// Where files that are open for writing count, while the keys are away.
    counts: Counts,
}

impl Gate {
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Inner {
    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        // No panic can leave it half changed.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a generation the present one, without its keys if they were withdrawn while
    /// it was made.
    pub(in super::super) fn publish(&self, mut snapshot: Snapshot) {
        let gate = self.gate();
        if gate.closed {
            snapshot.unlocked = None;
        }
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Takes all keys away. Returns the last generation that may have had some; the
    /// caller drops it as soon as it can.
    pub(super) fn withdraw_keys(&self) -> Arc<Snapshot> {
        let mut gate = self.gate();
        gate.closed = true;
        gate.epoch += 1;
        let old = self.snapshot.load_full();
        let mut body = old.body.clone();
        if let Some(unlocked) = &old.unlocked {
            // The byte counts outlive the keys.
            for record in &mut body.keys {
                let id = DataKeyId::from_bytes(record.id);
                if let Some(entry) = unlocked.keys.get(&id) {
                    record.encrypted_bytes = entry.count.get();
                    gate.counts.insert(id, entry.count.clone());
                }
            }
        }
        self.snapshot.store(Arc::new(Snapshot { image: old.image.clone(), body, unlocked: None }));
        self.handles.withdraw();
        old
    }

    /// Lets the keys of a generation in that were unwrapped since withdrawal `epoch`, and
    /// gives open files theirs back.
    pub(super) fn adopt(
        &self,
        epoch: u64,
        image: Image,
        store_key: Arc<StoreKey>,
        mut body: Body,
    ) -> Result<()> {
        let writer = self.writer();
        writer.check()?;
        let counted = &self.snapshot.load_full().body;
        for record in &mut body.keys {
            if let Some(counted) = counted.keys.iter().find(|counted| counted.id == record.id) {
                record.encrypted_bytes = record.encrypted_bytes.max(counted.encrypted_bytes);
            }
        }
        let counts = self.gate().counts.clone();
        let unlocked = Unlocked::new(store_key, &image, &body, None, &counts)?;
        let jitter = super::checker::jitter();
        let mut monitor = self.monitor();
        {
            let mut gate = self.gate();
            if gate.epoch != epoch {
                return Err(revoked());
            }
            gate.closed = false;
            gate.counts.clear();
            let unlocked = Some(Arc::new(unlocked));
            let snapshot = Arc::new(Snapshot { image, body, unlocked });
            self.snapshot.store(snapshot.clone());
            self.handles.give_back(|slot| give_back(&snapshot, slot));
        }
        let change = monitor.machine.restored(self.clock.since_boot(), jitter);
        monitor.hold = super::Hold::None;
        monitor.barrier = None;
        monitor.changed(change, self.clock.now_ns());
        Ok(())
    }
}

fn give_back(snapshot: &Snapshot, slot: &KeySlot) {
    let entry = snapshot.unlocked.as_ref().and_then(|u| u.keys.get(&slot.data_key_id()));
    if let Some(entry) = entry {
        slot.give_back(&derive(entry.key.expose(), Purpose::File, &[&slot.prefix]));
    }
}
