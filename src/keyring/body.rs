//! The authenticated part of a keyring: data keys, settings, history.

use std::collections::HashSet;

use wincode::config::Configuration;
use wincode::{ReadResult, SchemaRead, SchemaWrite};

use super::audit::Trail;
use super::codec::{KEYRING_LEN_MAX, NAME_LEN_MAX, decode_error, encode_error};
use super::key_state::KeyState;
use crate::decoding::decode_exact;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{StoreId, StoreKeyId};
use crate::secret::{SlotKey, StoreKey};
use crate::tags::{Refused, Tags};

mod homes;
mod integrity;
mod record;
mod settings;
mod slot_key;

pub use integrity::IntegrityPolicy;
pub(crate) use record::KeyRecord;
pub(crate) use settings::RawSettings;
pub use settings::{PlaintextPolicy, Settings};
pub(crate) use slot_key::KeptSlotKey;

/// Name of the keyspace that every store has.
pub(crate) const DEFAULT_KEYSPACE: &str = "default";
/// Most keyspaces in one store.
const KEYSPACES_MAX: usize = 65_536;
/// Records of destroyed keys that a keyring keeps: 3 MiB of its 64.
const DESTROYED_KEPT: usize = 16_384;
/// Data keys that are not destroyed: with more a keyring would near its greatest length,
/// where nothing could be changed any more.
pub(super) const LIVE_MAX: usize = 1 << 18;

/// One line of data keys with an active one.
#[derive(Clone, Default, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct Keyspace {
    pub(crate) name: String,
    pub(crate) active: [u8; 16],
    /// When the clock was first seen to stand before the active key's creation; 0 if not.
    pub(crate) clock_rebased_ns: u64,
    /// What newer versions of this library say about it.
    pub(crate) tags: Tags,
}

/// Something outside of the store's directories, a backup or hard links, that needs data
/// keys.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct HoldRecord {
    pub(crate) name: String,
    pub(crate) created_ns: u64,
    /// The data keys it needs.
    pub(crate) keys: Vec<[u8; 16]>,
}

#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct Body {
    pub(crate) settings: RawSettings,
    /// Where the store was last written: tells a copied directory from the original.
    pub(crate) location: [u8; 16],
    /// When access was withdrawn on request; 0 if it is not.
    pub(crate) revoked_ns: u64,
    /// The keys of the slots, in their order.
    pub(crate) slot_keys: Vec<KeptSlotKey>,
    pub(crate) keyspaces: Vec<Keyspace>,
    pub(crate) keys: Vec<KeyRecord>,
    /// Directories of the store's files beside the keyring's own: absolute paths.
    pub(crate) directories: Vec<Vec<u8>>,
    pub(crate) holds: Vec<HoldRecord>,
    pub(crate) audit: Trail,
}

impl Body {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let config = Configuration::default().with_preallocation_size_limit::<KEYRING_LEN_MAX>();
        wincode::config::serialize(self, config).map_err(encode_error)
    }

    /// Decodes an authenticated body.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let body: ReadResult<Self> = decode_exact!(bytes, KEYRING_LEN_MAX);
        let body = body.map_err(decode_error)?;
        body.check().map_err(|refused| refused.or(ErrorKind::KeyringCorrupt))?;
        Ok(body)
    }

    /// The invariants of every body.
    fn check(&self) -> Result<(), Refused> {
        self.settings.check()?;
        self.check_keyspaces()?;
        self.check_keys()?;
        if !are_names(self.holds.iter().map(|hold| &*hold.name)) {
            return Err("a hold's name is empty, too long or not unique".into());
        }
        if self.directories.iter().any(|path| path.first() != Some(&b'/')) {
            return Err("a directory's path is not absolute".into());
        }
        if !self.audit.has_numbers() {
            return Err("2^64 audit events or more".into());
        }
        Ok(())
    }

    fn check_keyspaces(&self) -> Result<(), Refused> {
        if self.keyspaces.is_empty() || self.keyspaces.len() > KEYSPACES_MAX {
            return Err("expected 1 to 65536 keyspaces".into());
        }
        if !are_names(self.keyspaces.iter().map(|keyspace| &*keyspace.name)) {
            return Err("a keyspace's name is empty, too long or not unique".into());
        }
        self.keyspaces.iter().try_for_each(|keyspace| {
            keyspace.tags.check(&[homes::HOMES])?;
            Ok(keyspace.check_homes()?)
        })
    }

    fn check_keys(&self) -> Result<(), &'static str> {
        let mut ids = HashSet::with_capacity(self.keys.len());
        let mut active = 0;
        for key in &self.keys {
            if !ids.insert(key.id) {
                return Err("two data keys have one id");
            }
            let Some(keyspace) = self.keyspaces.get(key.keyspace as usize) else {
                return Err("a data key belongs to no keyspace");
            };
            let is_active = key.state == KeyState::Active;
            if is_active != (keyspace.active == key.id) {
                return Err("a keyspace's active data key is not marked so");
            }
            active += usize::from(is_active);
            key.check()?;
        }
        let shredded = self.keyspaces.iter().filter(|k| k.active == [0; 16]).count();
        if active + shredded != self.keyspaces.len() {
            return Err("a keyspace has no active data key");
        }
        Ok(())
    }

    /// Whether the slot keys are those of slots with these ids.
    pub(super) fn keeps_keys_of<'a>(&self, ids: impl Iterator<Item = &'a [u8; 16]>) -> bool {
        self.slot_keys.iter().map(|kept| &kept.id).eq(ids)
    }

    /// Drops the slot keys that are not those of slots with these ids, and brings the
    /// others into their order.
    pub(super) fn keep_keys_of<'a>(&mut self, ids: impl Iterator<Item = &'a [u8; 16]>) {
        let kept = ids.filter_map(|id| self.slot_keys.iter().find(|kept| kept.id == *id).cloned());
        self.slot_keys = kept.collect();
    }

    /// Leaves out the oldest records of destroyed keys where there are many, so that they
    /// never fill the keyring: nothing needs them, and the audit trail has their ends.
    pub(super) fn prune_destroyed(&mut self) {
        prune(&mut self.keys);
    }

    /// The key of a slot.
    pub(super) fn slot_key(
        &self,
        id: &[u8; 16],
        store_id: StoreId,
        store_key: (StoreKeyId, &StoreKey),
    ) -> Result<SlotKey> {
        let kept = self.slot_keys.iter().find(|kept| kept.id == *id).ok_or_else(|| {
            Error::new(ErrorKind::KeyringCorrupt, "the keyring lacks the key of a CMEK slot")
        })?;
        kept.unwrap(store_id, store_key)
    }

    pub(crate) fn settings(&self) -> Settings {
        // OK because a body is checked when it is decoded and built from valid settings.
        Settings::try_from(&self.settings).expect("checked settings")
    }
}

/// Whether all are names that people may give, each once.
fn are_names<'a>(names: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = HashSet::new();
    { names }.all(|name| (1..=NAME_LEN_MAX).contains(&name.len()) && seen.insert(name))
}

/// Refuses `keys` if there are too many, and more than `before`: what makes them fewer, or
/// has nothing to do with them, goes on.
///
/// # Errors
/// [`InvalidArgument`](ErrorKind::InvalidArgument).
pub(super) fn check_live(keys: &[KeyRecord], before: &[KeyRecord]) -> Result<()> {
    let live = |keys: &[KeyRecord]| keys.iter().filter(|key| !is_destroyed(key)).count();
    let now = live(keys);
    if now <= LIVE_MAX || now <= live(before) {
        return Ok(());
    }
    let what = format!(
        "expected at most {LIVE_MAX} data keys that are not destroyed, found {now}: old ones \
         have to be retired before there are new ones"
    );
    Err(Error::new(ErrorKind::InvalidArgument, what))
}

fn is_destroyed(key: &KeyRecord) -> bool {
    key.state == KeyState::Destroyed
}

fn prune(keys: &mut Vec<KeyRecord>) {
    let destroyed = keys.iter().filter(|key| is_destroyed(key)).count();
    let mut excess = destroyed.saturating_sub(DESTROYED_KEPT);
    keys.retain(|key| {
        let leaves = excess > 0 && is_destroyed(key);
        excess -= usize::from(leaves);
        !leaves
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::secret::DataKey;

    #[test]
    fn records_of_destroyed_keys_never_fill_a_keyring() {
        let (store_id, by) = (StoreId::random().unwrap(), StoreKeyId::random().unwrap());
        let (key, store_key) = (DataKey::random().unwrap(), StoreKey::random().unwrap());
        let live = KeyRecord::new(&key, 0, 1, store_id, (by, &store_key)).unwrap();
        let destroyed = |number: usize| {
            let mut record = live.clone();
            record.id[..8].copy_from_slice(&number.to_le_bytes());
            record.destroy(1);
            record
        };
        let mut keys = vec![live.clone()];
        keys.extend((0..DESTROYED_KEPT + 3).map(destroyed));
        keys.push(live.clone());
        prune(&mut keys);
        assert_eq!(keys.len(), DESTROYED_KEPT + 2);
        // The live ones stay, and of the destroyed the last.
        assert!(keys[0] == live && keys[DESTROYED_KEPT + 1] == live);
        assert!(keys[1] == destroyed(3));
        let before = keys.len();
        prune(&mut keys);
        assert_eq!(keys.len(), before);

        // Live ones are never left out: there is a greatest number, which nothing exceeds
        // but what was there.
        let most = vec![live.clone(); LIVE_MAX];
        let more = vec![live.clone(); LIVE_MAX + 1];
        check_live(&most, &more[1..]).unwrap();
        assert_eq!(check_live(&more, &most).unwrap_err().kind(), ErrorKind::InvalidArgument);
        check_live(&more, &more).unwrap();
        let ended = [&most[..], &[destroyed(1), destroyed(2)]].concat();
        check_live(&ended, &most).unwrap();
    }
}
