//! One commit: edit a draft, encode it, prove it, store it, publish it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::aside::has_slots_of;
use super::audit::{AuditKind, Event};
use super::body::check_live;
use super::{
    Body, Counts, DataKeyId, Fixed, Image, Inner, KeptSlotKey, KeyEntry, KeyRecord, KeyState,
    Location, Slot, Snapshot, StoreKey, StoreKeyId, StoredImage, Unlocked, active_keys, format,
    load, withdrawn,
};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::SlotKeyId;
use crate::secret::DataKey;

/// Conflicts with other writers before a commit gives up: each is a success of somebody else.
const ATTEMPTS_MAX: usize = 8;

/// The next generation while it is made.
pub(super) struct Draft {
    pub(super) now_ns: u64,
    /// What the draft will be.
    pub(super) generation: u64,
    pub(super) slots: Vec<Slot>,
    pub(super) body: Body,
    pub(super) store_key_id: StoreKeyId,
    pub(super) store_key: Arc<StoreKey>,
    /// Whether the draft has byte counts that the present generation does not.
    pub(super) counted: bool,
    keys: HashMap<DataKeyId, Arc<KeyEntry>>,
    /// Where in `body.keys` each record is, once somebody asked: a change of all keyspaces
    /// asks once for each.
    places: HashMap<[u8; 16], usize>,
    store_id: super::StoreId,
}

impl Draft {
    pub(super) fn new(snapshot: &Snapshot, unlocked: &Unlocked, now_ns: u64) -> Self {
        let mut draft = Self {
            now_ns,
            generation: snapshot.image.fixed.generation + 1,
            slots: snapshot.image.slots.clone(),
            body: snapshot.body.clone(),
            store_key_id: snapshot.image.fixed.store_key_id,
            store_key: unlocked.store_key.clone(),
            counted: false,
            keys: unlocked.keys.clone(),
            places: HashMap::new(),
            store_id: snapshot.image.fixed.store_id,
        };
        for record in &mut draft.body.keys {
            if let Some(entry) = draft.keys.get(&DataKeyId::from_bytes(record.id)) {
                let count = entry.count.get();
                draft.counted |= count > record.encrypted_bytes;
                record.encrypted_bytes = record.encrypted_bytes.max(count);
            }
        }
        draft
    }

    pub(super) fn store_id(&self) -> super::StoreId {
        self.store_id
    }

    /// Gives every keyspace that has one the active data key that is this location's: the one
    /// that it had here before, while that may still be used, or a new one.
    pub(super) fn move_to(&mut self, location: &Location) -> Result<()> {
        let left = self.body.location;
        let (mut new, mut again) = (0, 0);
        for index in 0..self.body.keyspaces.len() {
            if self.body.keyspaces[index].active == [0; 16] {
                continue;
            }
            let homes = self.body.keyspaces[index].homes(left);
            match homes.key_at(location).filter(|key| self.may_take_again(*key, index)) {
                Some(key) => {
                    self.activate(index, key);
                    again += 1;
                }
                None => {
                    self.rotate_data_key(index)?;
                    new += 1;
                }
            }
            self.body.keyspaces[index].settle(homes, location);
        }
        self.record(AuditKind::Moved, format!("data keys: {new} new, {again} of before"));
        Ok(())
    }

    /// Whether a data key that was replaced by a move may become active once more: nothing but
    /// the move took it out of use.
    fn may_take_again(&mut self, key: [u8; 16], keyspace: usize) -> bool {
        let settings = self.body.settings();
        self.place(&key).is_some_and(|place| {
            let record = &self.body.keys[place];
            record.keyspace as usize == keyspace
                && record.state == KeyState::DecryptOnly
                && !record.exposed
                && self
                    .now_ns
                    .checked_sub(record.created_ns)
                    .is_some_and(|age_ns| u128::from(age_ns) < settings.rotation_period.as_nanos())
                && settings.rotation_bytes.is_none_or(|limit| record.encrypted_bytes < limit)
        })
    }

    /// Gives a keyspace a new active data key.
    pub(super) fn rotate_data_key(&mut self, keyspace: usize) -> Result<()> {
        let key = DataKey::random()?;
        let index = u32::try_from(keyspace).unwrap_or(u32::MAX);
        let store_key = (self.store_key_id, &*self.store_key);
        let record = KeyRecord::new(&key, index, self.now_ns, self.store_id, store_key)?;
        let entry = KeyEntry { key, count: crate::cipher::ByteCount::new(0) };
        let id = DataKeyId::from_bytes(record.id);
        self.keys.insert(id, Arc::new(entry));
        self.places.insert(record.id, self.body.keys.len());
        self.body.keys.push(record);
        self.activate(keyspace, *id.as_bytes());
        let name = &self.body.keyspaces[keyspace].name;
        self.record(AuditKind::DataKeyRotated, format!("{name} {id}"));
        Ok(())
    }

    /// Where the record of a data key is: edits leave each in its place.
    fn place(&mut self, id: &[u8; 16]) -> Option<usize> {
        if self.places.len() != self.body.keys.len() {
            let ids = self.body.keys.iter().enumerate().map(|(place, key)| (key.id, place));
            self.places = ids.collect();
        }
        self.places.get(id).copied()
    }

    /// Makes one of its data keys a keyspace's active one.
    fn activate(&mut self, keyspace: usize, key: [u8; 16]) {
        let before = self.body.keyspaces[keyspace].active;
        let states = [
            (before, KeyState::DecryptOnly, self.now_ns),
            // Last: it may be the same.
            (key, KeyState::Active, 0),
        ];
        for (id, state, retired_ns) in states {
            if let Some(place) = self.place(&id) {
                let record = &mut self.body.keys[place];
                (record.state, record.retired_ns) = (state, retired_ns);
            }
        }
        self.body.keyspaces[keyspace].active = key;
        self.body.keyspaces[keyspace].clock_rebased_ns = 0;
    }

    /// Erases a data key; its record stays as proof. The store key is the caller's to
    /// replace, so that no older image can bring the key back.
    pub(super) fn destroy_data_key(&mut self, index: usize) {
        let record = &mut self.body.keys[index];
        record.destroy(self.now_ns);
        let id = DataKeyId::from_bytes(record.id);
        let name = &self.body.keyspaces[record.keyspace as usize].name;
        let detail = format!("{name} {id}");
        self.keys.remove(&id);
        self.record(AuditKind::DataKeyDestroyed, detail);
    }

    /// Gives every keyspace that has one a new active data key.
    pub(super) fn rotate_all_data_keys(&mut self) -> Result<()> {
        for keyspace in 0..self.body.keyspaces.len() {
            if self.body.keyspaces[keyspace].active != [0; 16] {
                self.rotate_data_key(keyspace)?;
            }
        }
        Ok(())
    }

    /// Replaces the store key and wraps every data key by the new one, and the new one by
    /// every slot key.
    pub(super) fn replace_store_key(&mut self) -> Result<()> {
        let slot_keys: Vec<_> =
            self.slots.iter().map(|slot| self.slot_key(slot)).collect::<Result<_>>()?;
        let (id, key) = (StoreKeyId::random()?, Arc::new(StoreKey::random()?));
        self.body.slot_keys.clear();
        for (slot, slot_key) in self.slots.iter_mut().zip(&slot_keys) {
            slot.wrap_store_key(slot_key, self.store_id, (id, &key))?;
            let slot_key = (SlotKeyId::from_bytes(slot.slot_key_id), slot_key);
            self.body.slot_keys.push(KeptSlotKey::new(slot_key, self.store_id, (id, &key))?);
        }
        (self.store_key_id, self.store_key) = (id, key);
        for record in self.body.keys.iter_mut().filter(|key| key.state != KeyState::Destroyed) {
            let data_key = self.keys.get(&DataKeyId::from_bytes(record.id)).ok_or_else(|| {
                Error::new(ErrorKind::UnknownKey, "a data key of the keyring is not in memory")
            })?;
            record.wrap(&data_key.key, self.store_id, (id, &self.store_key))?;
        }
        Ok(())
    }

    /// Notes an audit event, which becomes durable with the draft.
    pub(super) fn record(&mut self, what: AuditKind, detail: impl Into<String>) {
        self.record_at(self.now_ns, what, detail);
    }

    fn record_at(&mut self, at_ns: u64, what: AuditKind, detail: impl Into<String>) {
        self.body.audit.push(Event {
            at_ns,
            generation: self.generation,
            what: what as u8,
            store_key_id: *self.store_key_id.as_bytes(),
            detail: detail.into(),
        });
    }

    /// Encodes the draft as the generation after `previous`, decodes it again and unwraps
    /// every record that is not, byte for byte, wrapped as in `previous`: what cannot be
    /// read back is never written.
    pub(super) fn prove(mut self, previous: &Snapshot) -> Result<Snapshot> {
        check_live(&self.body.keys, &previous.body.keys)?;
        self.body.keep_keys_of(self.slots.iter().map(|slot| &slot.slot_key_id));
        let fixed = Fixed {
            generation: self.generation,
            written_ns: self.now_ns,
            store_id: self.store_id,
            store_key_id: self.store_key_id,
            previous_mac: *previous.image.mac(),
        };
        let bytes = format::encode(&fixed, &self.slots, &self.body, &self.store_key)?;
        if bytes.len() > format::KEYRING_LEN_MAX {
            return Err(Error::new(ErrorKind::InvalidArgument, "the keyring exceeds 64 MiB"));
        }
        let image = Image::parse(StoredImage { bytes, version: String::new() })?;
        let body = image.authenticate(&self.store_key)?;
        self.prove_slots(&image, &body)?;
        // A draft under another store key than it thinks must not slip through.
        let carried = previous.image.is_under(&self.store_key)?;
        let mut before = previous.body.keys.iter();
        for record in body.keys.iter().filter(|key| key.state != KeyState::Destroyed) {
            // Records keep their order, so one pass over both finds each old one.
            let old = before.find(|old| old.id == record.id);
            if carried && old.is_some_and(|old| old.same_wrap(record)) {
                continue;
            }
            let key = record.unwrap(self.store_id, &self.store_key)?;
            let known = self.keys.get(&DataKeyId::from_bytes(record.id));
            if !known.is_some_and(|known| known.key.same(&key)) {
                return Err(reads_otherwise());
            }
        }
        let active = active_keys(&body, &self.keys);
        let unlocked = Unlocked { store_key: self.store_key, keys: self.keys, active };
        Ok(Snapshot { image, body, unlocked: Some(Arc::new(unlocked)) })
    }
}

impl Draft {
    /// Follows both wraps of every slot, as they were encoded: from the store key to the
    /// slot key and back.
    fn prove_slots(&self, image: &Image, body: &Body) -> Result<()> {
        for slot in &image.slots {
            let store_key = (self.store_key_id, &*self.store_key);
            let slot_key = body.slot_key(&slot.slot_key_id, self.store_id, store_key)?;
            let found = slot.unwrap_store_key(&slot_key, self.store_id, self.store_key_id)?;
            if !found.same(&self.store_key) {
                return Err(reads_otherwise());
            }
        }
        Ok(())
    }
}

fn reads_otherwise() -> Error {
    let what = "the new keyring does not read back as it was written";
    Error::new(ErrorKind::KeyringCorrupt, what)
}

impl Inner {
    /// Commits what `edit` makes of the present generation. `edit` returns false when
    /// there is nothing to do; it runs again on the newer generation when another writer
    /// was first.
    ///
    /// The new keys are handed out only after the commit is durable: no header on disk
    /// ever names a data key that is not.
    pub(super) fn commit(
        &self,
        writer: &mut WriterState,
        edit: impl FnMut(&mut Draft) -> Result<bool>,
    ) -> Result<()> {
        self.commit_with(writer, None, edit)
    }

    /// Commits with keys that were withdrawn already, for the mark that tells of it.
    pub(super) fn commit_with(
        &self,
        writer: &mut WriterState,
        withdrawn: Option<&Unlocked>,
        mut edit: impl FnMut(&mut Draft) -> Result<bool>,
    ) -> Result<()> {
        self.check_may_write()?;
        self.settle(writer)?;
        for _ in 0..ATTEMPTS_MAX {
            let old = self.vault.load_full();
            let unlocked = withdrawn.map_or_else(|| old.unlocked(), Ok)?;
            let mut draft = Draft::new(&old, unlocked, self.clock.now_ns());
            let notes = self.watch.monitor().notes();
            for note in &notes {
                draft.record_at(note.at_ns, note.what, note.detail.as_str());
            }
            if !edit(&mut draft)? {
                return Ok(());
            }
            draft.body.prune_destroyed();
            draft.body.location = self.storage.location().id;
            let committed = old.body.audit.tail_len();
            draft.body.audit.archive(&*self.storage, self.store_id, committed)?;
            let mut new = draft.prove(&old)?;
            if !has_slots_of(&new.image, &old.image) {
                // Wrapped keys are replaced, as with every key that is destroyed.
                self.storage.check_mirrors()?;
            }
            let stored = &new.image.stored.bytes;
            let generation = new.image.fixed.generation;
            match self.storage.commit(stored, generation, Some(&old.image.stored)) {
                Ok(version) => {
                    new.image.stored.version = version;
                    self.vault.publish(new);
                    let mut monitor = self.watch.monitor();
                    monitor.forget_notes(notes.len());
                    monitor.seen(self.clock.since_boot());
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::KeyringConflict => {
                    let before = self.vault.load().image.fixed.generation;
                    self.reload(writer)?;
                    if self.vault.load().image.fixed.generation == before {
                        return Err(error);
                    }
                }
                Err(error) => {
                    writer.poisoned = error.kind() == ErrorKind::Poisoned;
                    return Err(error);
                }
            }
        }
        Err(Error::new(ErrorKind::KeyringConflict, "other writers kept committing first"))
    }

    /// Removes the older images, which hold what a commit replaced.
    pub(super) fn forget_older(&self) -> Result<()> {
        self.storage.forget_kept(self.vault.load().image.fixed.generation)
    }

    /// Goes on after a commit of unknown outcome, where the storage can.
    ///
    /// # Errors
    /// [`Poisoned`](ErrorKind::Poisoned).
    pub(super) fn settle(&self, writer: &mut WriterState) -> Result<()> {
        if writer.poisoned {
            let settled = self.storage.settle_unknown();
            settled.map_err(|error| writer.refusal().with_source(error))?;
            writer.poisoned = false;
        }
        Ok(())
    }

    /// Refuses what was opened for reading, and a forked child: its parent is the one writer,
    /// and would destroy the keys of files it never heard of.
    ///
    /// # Errors
    /// [`ReadOnly`](ErrorKind::ReadOnly), [`Poisoned`](ErrorKind::Poisoned).
    pub(super) fn check_may_write(&self) -> Result<()> {
        if !self.writable {
            return Err(Error::new(ErrorKind::ReadOnly, "the keyring was opened read-only"));
        }
        self.process.check(
            "a forked child, or a copy of the machine, cannot write this store: open it again",
        )
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, WriterState> {
        // A panic while it was held left the old generation in place.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored image, which may not be older than `old`.
    pub(super) fn load_newer(&self, old: &Snapshot) -> Result<Image> {
        let image = load(&*self.storage)?;
        if image.fixed.store_id != self.store_id {
            return Err(Error::new(
                ErrorKind::IdentityMismatch,
                format!("expected store {}, found {}", self.store_id, image.fixed.store_id),
            ));
        }
        if image.fixed.generation < old.image.fixed.generation {
            return Err(Error::new(
                ErrorKind::KeyringRolledBack,
                format!(
                    "expected keyring generation {} or later, found {}",
                    old.image.fixed.generation, image.fixed.generation
                ),
            ));
        }
        let same = image.fixed.generation == old.image.fixed.generation;
        if same && image.stored.bytes != old.image.stored.bytes {
            return Err(forked(image.fixed.generation));
        }
        Ok(image)
    }

    /// Refuses a newer image that does not come after `old`: one that another writer made
    /// without having read it. The storage let two commit over each other, and the newer
    /// image lacks what the other made, data keys among it. Told by the older images, as long
    /// as they are kept.
    fn check_descends(&self, image: &Image, old: &Snapshot) -> Result<()> {
        let generation = old.image.fixed.generation;
        if image.fixed.generation == generation {
            return Ok(());
        }
        match self.storage.load_kept(generation)? {
            Some(bytes) if bytes != old.image.stored.bytes => Err(forked(generation)),
            _ => Ok(()),
        }
    }

    /// Takes over a newer generation that another process committed. If that process
    /// revoked the store, gives the keys up.
    pub(super) fn reload(&self, writer: &mut WriterState) -> Result<()> {
        // The image that can be read now may be gone after a crash: its keys must not be used.
        self.settle(writer)?;
        let old = self.vault.load_full();
        let unlocked = old.unlocked()?;
        let image = self.load_newer(&old)?;
        if image.stored == old.image.stored {
            self.watch.monitor().seen(self.clock.since_boot());
            return Ok(());
        }
        self.check_descends(&image, &old)?;
        let (store_key, body) = if image.fixed.store_key_id == old.image.fixed.store_key_id {
            (unlocked.store_key.clone(), image.authenticate(&unlocked.store_key)?)
        } else {
            self.customers.search(None).unlock(&image, &self.customers.all())?
        };
        let marked = body.revoked_ns != 0;
        let unlocked = Unlocked::new(store_key, &image, &body, Some(unlocked), &Counts::new())?;
        self.vault.publish(Snapshot { image, body, unlocked: Some(Arc::new(unlocked)) });
        self.watch.monitor().seen(self.clock.since_boot());
        if marked {
            self.heed_mark();
            return Err(withdrawn());
        }
        Ok(())
    }

    /// Commits the byte counts, if there are new ones and keys to do it with.
    pub(super) fn keep_counts(&self) -> Result<()> {
        // A forked child encrypted nothing.
        if self.check_may_write().is_err() || self.vault.load().unlocked.is_none() {
            return Ok(());
        }
        match self.commit(&mut self.writer(), |draft| Ok(draft.counted)) {
            // Withdrawn meanwhile: without a key there is nothing to commit with.
            Err(error) if error.kind() == ErrorKind::CmekRevoked => Ok(()),
            other => other,
        }
    }
}

fn forked(generation: u64) -> Error {
    let what = format!(
        "found another keyring of generation {generation}: the storage let two writers commit \
         over each other, or somebody put it there"
    );
    Error::new(ErrorKind::KeyringRolledBack, what)
}

impl Drop for Inner {
    fn drop(&mut self) {
        let local = self.storage.location().directory.is_some();
        if local && !std::thread::panicking() {
            // Best effort: whoever wants to know calls `close`. A panic of the storage must
            // not become one of the drop.
            drop(catch_unwind(AssertUnwindSafe(|| self.keep_counts())));
        }
    }
}

#[derive(Default)]
pub(super) struct WriterState {
    /// After a commit whose outcome nobody knows, until the storage says what is there.
    poisoned: bool,
}

impl WriterState {
    fn refusal(&self) -> Error {
        let what = "an earlier commit had an unknown outcome: open the store again";
        Error::new(ErrorKind::Poisoned, what)
    }
}

#[cfg(test)]
mod tests;
