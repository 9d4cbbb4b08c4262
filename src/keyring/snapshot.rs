//! One generation of the keyring in memory: what was committed, and the keys.

use std::collections::HashMap;
use std::sync::Arc;

use super::body::Body;
use super::format::Image;
use super::key_state::KeyState;
use crate::cipher::{ByteCount, revoked};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::DataKeyId;
use crate::secret::{DataKey, StoreKey};

/// One generation, immutable.
pub(super) struct Snapshot {
    pub(super) image: Image,
    pub(super) body: Body,
    /// The keys; none while access to the customer's key is lost.
    pub(super) unlocked: Option<Arc<Unlocked>>,
}

pub(super) struct Unlocked {
    pub(super) store_key: Arc<StoreKey>,
    pub(super) keys: HashMap<DataKeyId, Arc<KeyEntry>>,
    /// For each keyspace its active key; `None` for a destroyed keyspace.
    pub(super) active: Vec<Option<ActiveKey>>,
}

/// An unwrapped data key. Outlives generations, so that its byte count does.
pub(super) struct KeyEntry {
    pub(super) key: DataKey,
    pub(super) count: Arc<ByteCount>,
}

/// The byte counts of data keys, kept while the keys themselves are withdrawn: files that
/// are open for writing go on counting in the same place.
pub(super) type Counts = HashMap<DataKeyId, Arc<ByteCount>>;

/// A keyspace's active data key: the id and the key as one value.
pub(super) struct ActiveKey {
    pub(super) id: DataKeyId,
    pub(super) entry: Arc<KeyEntry>,
    pub(super) created_ns: u64,
    pub(super) clock_rebased_ns: u64,
    /// Its byte count as of the last commit.
    pub(super) committed_bytes: u64,
}

impl Snapshot {
    pub(super) fn unlocked(&self) -> Result<&Unlocked> {
        self.unlocked.as_deref().ok_or_else(revoked)
    }

    pub(super) fn active(&self, keyspace: usize) -> Result<&ActiveKey> {
        let refuse = |kind, what| Error::new(kind, what);
        let active = self.unlocked()?.active.get(keyspace);
        let active =
            active.ok_or_else(|| refuse(ErrorKind::UnknownKey, "there is no such keyspace"))?;
        active.as_ref().ok_or_else(|| refuse(ErrorKind::KeyDestroyed, "the keyspace was shredded"))
    }
}

impl Unlocked {
    /// Unwraps every data key, except those that `known` already has. What has a place in
    /// `counts` goes on counting there.
    pub(super) fn new(
        store_key: Arc<StoreKey>,
        image: &Image,
        body: &Body,
        known: Option<&Self>,
        counts: &Counts,
    ) -> Result<Self> {
        let mut keys = HashMap::with_capacity(body.keys.len());
        for record in body.keys.iter().filter(|record| record.state != KeyState::Destroyed) {
            let id = DataKeyId::from_bytes(record.id);
            let entry = match known.and_then(|known| known.keys.get(&id)) {
                Some(entry) => entry.clone(),
                None => {
                    let key = record.unwrap(image.fixed.store_id, &store_key)?;
                    let count = counts.get(&id).cloned().unwrap_or_else(|| ByteCount::new(0));
                    count.raise(record.encrypted_bytes);
                    Arc::new(KeyEntry { key, count })
                }
            };
            keys.insert(id, entry);
        }
        let active = active_keys(body, &keys);
        Ok(Self { store_key, keys, active })
    }
}

pub(super) fn active_keys(
    body: &Body,
    keys: &HashMap<DataKeyId, Arc<KeyEntry>>,
) -> Vec<Option<ActiveKey>> {
    let mut active: Vec<_> = body.keyspaces.iter().map(|_| None).collect();
    for record in body.keys.iter().filter(|record| record.state == KeyState::Active) {
        let id = DataKeyId::from_bytes(record.id);
        let keyspace = record.keyspace as usize;
        active[keyspace] = keys.get(&id).map(|entry| ActiveKey {
            id,
            entry: entry.clone(),
            created_ns: record.created_ns,
            clock_rebased_ns: body.keyspaces[keyspace].clock_rebased_ns,
            committed_bytes: record.encrypted_bytes,
        });
    }
    active
}
