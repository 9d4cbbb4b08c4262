//! The keys that are in memory: the present generation, and the keys of open files.
//!
//! Every new generation is published here, so that a rotation which ends after a
//! revocation cannot bring keys back. Taking keys away waits for nothing but other changes
//! made here.

use std::sync::{Arc, MutexGuard, PoisonError};

use arc_swap::Guard;

use super::handles::{Handles, Waiting};
use super::snapshot::{Counts, KeyEntry, Snapshot};
use crate::cipher::{ByteCount, revoked};
use crate::derive::{Purpose, derive};
use crate::error::Result;
use crate::ids::DataKeyId;
use crate::secret::DataKey;
use crate::sync::{ArcSwapAny, Mutex};

pub(super) struct Vault {
    snapshot: ArcSwapAny<Arc<Snapshot>>,
    gate: Mutex<Gate>,
    /// The keys of open files.
    pub(super) handles: Handles,
}

/// Whether keys may be in memory.
#[derive(Default)]
struct Gate {
    closed: bool,
    /// Withdrawals so far: what was unwrapped before the last one is not let in.
    epoch: u64,
    /// Where files that are open for writing count, while the keys are away.
    counts: Counts,
    /// The data key of temporary files, which is nowhere else.
    temporary: Option<(DataKeyId, Arc<KeyEntry>)>,
}

impl Vault {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        let snapshot = ArcSwapAny::new(Arc::new(snapshot));
        Self { snapshot, gate: Mutex::default(), handles: Handles::default() }
    }

    pub(super) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    pub(super) fn load_full(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The data key of new temporary files: made when the first one is.
    ///
    /// # Errors
    /// [`CmekRevoked`](crate::ErrorKind::CmekRevoked), [`Io`](crate::ErrorKind::Io) if the system
    /// has no randomness.
    pub(super) fn temporary(&self) -> Result<(DataKeyId, Arc<KeyEntry>)> {
        let mut gate = self.gate();
        if gate.closed {
            return Err(revoked());
        }
        if let Some(temporary) = &gate.temporary {
            return Ok(temporary.clone());
        }
        let entry = Arc::new(KeyEntry { key: DataKey::random()?, count: ByteCount::new(0) });
        Ok(gate.temporary.insert((DataKeyId::random()?, entry)).clone())
    }

    /// The data key of temporary files, if it is this one.
    pub(super) fn temporary_of(&self, id: DataKeyId) -> Option<Arc<KeyEntry>> {
        let gate = self.gate();
        gate.temporary.as_ref().filter(|(own, _)| *own == id).map(|(_, entry)| entry.clone())
    }

    /// Withdrawals so far.
    pub(super) fn epoch(&self) -> u64 {
        self.gate().epoch
    }

    /// The byte counts of the keys that were taken away.
    pub(super) fn counts(&self) -> Counts {
        self.gate().counts.clone()
    }

    /// Makes a generation the present one, without its keys if they were withdrawn while
    /// it was made. Open files under keys that it destroyed, whoever made it, refuse from then on.
    pub(super) fn publish(&self, mut snapshot: Snapshot) {
        let gate = self.gate();
        if gate.closed {
            snapshot.unlocked = None;
        }
        let (old, new) = (self.snapshot.load_full(), Arc::new(snapshot));
        self.snapshot.store(new.clone());
        drop(gate);
        if let (Some(old), Some(new)) = (&old.unlocked, &new.unlocked) {
            let ended = old.keys.keys().filter(|id| !new.keys.contains_key(id));
            self.handles.withdraw_keys(&ended.copied().collect());
        }
    }

    /// Takes all keys away. Returns the last generation that may have had some; the
    /// caller drops it as soon as it can.
    pub(super) fn withdraw(&self) -> Arc<Snapshot> {
        let mut gate = self.gate();
        gate.closed = true;
        gate.epoch += 1;
        // For good: it could be kept nowhere else.
        gate.temporary = None;
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

    /// Lets a generation in whose keys were unwrapped since withdrawal `epoch`. What is
    /// returned gives open files theirs back.
    ///
    /// # Errors
    /// [`CmekRevoked`](crate::ErrorKind::CmekRevoked) if there was a withdrawal since.
    pub(super) fn let_in(&self, epoch: u64, snapshot: Snapshot) -> Result<GivingBack<'_>> {
        let mut gate = self.gate();
        if gate.epoch != epoch {
            return Err(revoked());
        }
        gate.closed = false;
        gate.counts.clear();
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(snapshot.clone());
        Ok(GivingBack { handles: &self.handles, waiting: self.handles.let_in(), snapshot })
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // No panic can leave it half changed.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Open files whose keys are back but not yet with them.
#[must_use]
pub(super) struct GivingBack<'a> {
    handles: &'a Handles,
    waiting: Waiting,
    snapshot: Arc<Snapshot>,
}

impl GivingBack<'_> {
    /// Takes about a microsecond for each open file, for which the caller is to hold no lock.
    pub(super) fn run(self) {
        self.handles.give_back(&self.waiting, |slot| {
            let unlocked = self.snapshot.unlocked.as_ref()?;
            let entry = unlocked.keys.get(&slot.data_key_id())?;
            // OK because no background thread is in a forked child, whose own requests write
            // nothing.
            let key = entry.key.bytes().ok()?;
            Some(slot.again(&derive(key, Purpose::File, &[&slot.prefix])))
        });
    }
}
