//! What a keyring tells about itself. Field names are stable: they are the JSON of the
//! command line.

use serde::Serialize;

use super::audit::AuditEvent;
use super::body::Settings;
use super::format::Image;
use super::key_state::KeyState;
use super::snapshot::Snapshot;
use super::{KeyringStorage, load};
use crate::error::Result;
use crate::ids::{DataKeyId, StoreId, StoreKeyId};

/// What can be read without any key. **Not authenticated**: somebody who can write to the
/// disk can make it say anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyringInfo {
    /// The store.
    pub store_id: StoreId,
    /// The store key.
    pub store_key_id: StoreKeyId,
    /// Number of commits.
    pub generation: u64,
    /// Time of the last one, nanoseconds since the Unix epoch.
    pub written_ns: u64,
    /// The CMEK slots.
    pub slots: Vec<SlotInfo>,
}

/// One CMEK slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SlotInfo {
    /// Region or purpose.
    pub name: String,
    /// The customer's key.
    pub key_uri: String,
    /// Its version that wrapped the slot's key; empty where the service does not tell.
    pub key_version: String,
    /// When it was wrapped, nanoseconds since the Unix epoch.
    pub created_ns: u64,
}

/// One data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DataKeyStatus {
    /// Its id.
    pub id: DataKeyId,
    /// The keyspace it belongs to.
    pub keyspace: String,
    /// What may be done with it.
    pub state: KeyState,
    /// Whether it may be known outside.
    pub exposed: bool,
    /// Nanoseconds since the Unix epoch.
    pub created_ns: u64,
    /// When another key took its place; `None` while it is active.
    pub retired_ns: Option<u64>,
    /// When the grace of a retiring key ends.
    pub retire_after_ns: Option<u64>,
    /// When its wrapped bytes were erased.
    pub destroyed_ns: Option<u64>,
    /// Bytes of plaintext encrypted under it, in all files that ever were: this number or
    /// more, never fewer.
    ///
    /// It is this number if every process that wrote the store, one at a time,
    /// [closed](super::Keyring::close) it or dropped the last handle. Missing is what a process
    /// encrypted in the hour before it was killed, what several that wrote one store in an
    /// object store encrypted beside each other, what writers still held when the keyring
    /// was closed or access withdrawn for good, and up to a MiB of each file being written.
    /// None of that leaves a trace, so no store says that its number is exact.
    pub encrypted_bytes: u64,
}

/// What an opened keyring tells, authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyringStatus {
    /// Store, store key, generation, slots.
    #[serde(flatten)]
    pub info: KeyringInfo,
    /// Whether keys are in memory.
    pub unlocked: bool,
    /// The settings.
    pub settings: Settings,
    /// The data keys, oldest first.
    pub data_keys: Vec<DataKeyStatus>,
    /// The last audit events, oldest first; [`Audit::events`](super::Audit::events) has them all.
    pub history: Vec<AuditEvent>,
}

impl KeyringInfo {
    /// Reads what can be read without any key.
    ///
    /// # Errors
    /// [`KeyringMissing`](crate::ErrorKind::KeyringMissing), the kinds of a damaged
    /// keyring, [`Io`](crate::ErrorKind::Io).
    pub fn read(storage: &dyn KeyringStorage) -> Result<Self> {
        Ok(Self::from(&load(storage)?))
    }
}

impl From<&Snapshot> for KeyringStatus {
    fn from(snapshot: &Snapshot) -> Self {
        let body = &snapshot.body;
        let counted = |id: &DataKeyId| {
            snapshot.unlocked.as_ref().and_then(|u| u.keys.get(id)).map(|entry| entry.count.get())
        };
        let some = |ns: u64| (ns != 0).then_some(ns);
        let data_keys = body.keys.iter().map(|record| {
            let id = DataKeyId::from_bytes(record.id);
            DataKeyStatus {
                id,
                keyspace: body.keyspaces[record.keyspace as usize].name.clone(),
                state: record.state,
                exposed: record.exposed,
                created_ns: record.created_ns,
                retired_ns: some(record.retired_ns),
                retire_after_ns: some(record.retire_after_ns),
                destroyed_ns: some(record.destroyed_ns),
                encrypted_bytes: counted(&id).unwrap_or(record.encrypted_bytes),
            }
        });
        Self {
            info: KeyringInfo::from(&snapshot.image),
            unlocked: snapshot.unlocked.is_some(),
            settings: body.settings(),
            data_keys: data_keys.collect(),
            history: body.audit.recent(),
        }
    }
}

impl From<&Image> for KeyringInfo {
    fn from(image: &Image) -> Self {
        let slots = image.slots.iter().map(|slot| SlotInfo {
            name: slot.name.clone(),
            key_uri: slot.key_uri.clone(),
            key_version: slot.key_version.clone(),
            created_ns: slot.created_ns,
        });
        Self {
            store_id: image.fixed.store_id,
            store_key_id: image.fixed.store_key_id,
            generation: image.fixed.generation,
            written_ns: image.fixed.written_ns,
            slots: slots.collect(),
        }
    }
}
