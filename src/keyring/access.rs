//! Withdrawing all keys from memory, and bringing them back.

use std::sync::{Arc, PoisonError};

use super::{Inner, Keyring, Snapshot, Unlocked, load, unlock};
use crate::cipher::KeySlot;
use crate::derive::{Purpose, derive};
use crate::error::Result;
use crate::ids::DataKeyId;
use crate::kms::Deadline;

impl Keyring {
    /// Withdraws access at once: every open file refuses with
    /// [`CmekRevoked`](crate::ErrorKind::CmekRevoked), and store key, data keys and file
    /// keys are zeroized as soon as the operations in flight end. The wrapped keys stay.
    pub fn revoke(&self) {
        self.inner.revoke();
    }

    /// Asks the key service again; if it unwraps the store key, open files go on where
    /// they were.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Poisoned`](crate::ErrorKind::Poisoned) after a
    /// commit with an unknown outcome; nothing changes then.
    pub fn restore(&self) -> Result<()> {
        self.inner.restore()
    }
}

impl Inner {
    fn revoke(&self) {
        let _writer = self.writer();
        let old = self.snapshot.load_full();
        let mut body = old.body.clone();
        if let Some(unlocked) = &old.unlocked {
            // The byte counts outlive the keys.
            for record in &mut body.keys {
                if let Some(entry) = unlocked.keys.get(&DataKeyId::from_bytes(record.id)) {
                    record.encrypted_bytes = entry.count.get();
                }
            }
        }
        self.snapshot.store(Arc::new(Snapshot { image: old.image.clone(), body, unlocked: None }));
        self.handles.withdraw();
    }

    fn restore(&self) -> Result<()> {
        let writer = self.writer();
        let old = self.snapshot.load_full();
        if old.unlocked.is_some() {
            return Ok(());
        }
        writer.check()?;
        let image = load(&*self.storage)?;
        let kms = self.kms.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (store_key, mut body) =
            unlock::unlock(&image, &kms, Deadline::after(self.kms_deadline))?;
        for record in &mut body.keys {
            if let Some(counted) = old.body.keys.iter().find(|counted| counted.id == record.id) {
                record.encrypted_bytes = record.encrypted_bytes.max(counted.encrypted_bytes);
            }
        }
        let unlocked = Unlocked::new(store_key, &image, &body, None)?;
        let snapshot = Arc::new(Snapshot { image, body, unlocked: Some(unlocked) });
        self.snapshot.store(snapshot.clone());
        self.handles.give_back(|slot| give_back(&snapshot, slot));
        Ok(())
    }
}

fn give_back(snapshot: &Snapshot, slot: &KeySlot) {
    let mut id = [0; 16];
    id.copy_from_slice(&slot.prefix[48..64]);
    let entry = snapshot.unlocked.as_ref().and_then(|u| u.keys.get(&DataKeyId::from_bytes(id)));
    if let Some(entry) = entry {
        slot.give_back(&derive(entry.key.expose(), Purpose::File, &[&slot.prefix]));
    }
}
