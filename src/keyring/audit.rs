//! The audit trail: what happened to the keys, in order, unforgeable without the store
//! key. `docs/FORMAT.md` section 6.
//!
//! An event is a part of the commit that it tells of, so the two cannot come apart in a
//! crash. The keyring holds the last events and, under its MAC, the number and a hash
//! chain of those before; these stand in archives, written before the commit that takes
//! them out of the keyring, and never needed to open it. Each is named by the chain's hash
//! at its end and names the one before, so no two histories can share one, and an archive
//! that is cut, changed or replaced does not fit its name.

use std::ops::Range;

use serde::Serialize;
use sha2::{Digest, Sha256};
use wincode::config::Configuration;
use wincode::{ReadResult, SchemaRead, SchemaWrite};

use super::codec::{KEYRING_LEN_MAX, encode_error};
use super::storage::KeyringStorage;
use crate::decoding::decode_exact;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{StoreId, StoreKeyId};
use crate::names::KEYRING_FILE;

/// Events after which the oldest leave the keyring.
const TAIL_MAX: usize = 256;
/// Events that leave together: so many, whatever else a commit holds, that two writers make
/// the same archive.
const ARCHIVED_TOGETHER: usize = 128;
/// Begins an archive; then the store id, the first event's number, the chain's hash before
/// it, and the events.
const ARCHIVE_MAGIC: [u8; 8] = *b"\x89ATRA\r\n\x1a";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[repr(u8)]
pub enum AuditKind {
    /// The store's keyring was created.
    Created = 1,
    /// A new store key; the data keys were wrapped by it.
    StoreKeyRotated = 2,
    /// A slot got another customer's key.
    CmekReplaced = 3,
    /// A slot was added.
    SlotAdded = 4,
    /// A slot was removed.
    SlotRemoved = 5,
    /// A slot's key was wrapped anew, by the newest version of the same customer's key.
    SlotRewrapped = 6,
    /// A keyspace got a new data key.
    DataKeyRotated = 7,
    /// Encryption, or the customer's key, was switched on.
    Enabled = 8,
    /// The store returned to a locally managed key.
    Disabled = 9,
    /// Access was withdrawn on request.
    Revoked = 10,
    /// Access was given back on request.
    Restored = 11,
    /// The access state changed by what the key service said.
    Access = 12,
    /// A data key was destroyed.
    DataKeyDestroyed = 13,
    /// A keyspace was created.
    KeyspaceCreated = 14,
    /// All data keys of a keyspace were destroyed.
    KeyspaceShredded = 15,
    /// All data keys of the store were destroyed.
    StoreShredded = 16,
    /// An older image of the keyring was put back.
    Recovered = 20,
    /// What was due by itself, such as a rotation, failed in a new way. Told when a commit
    /// works again.
    UpkeepFailed = 21,
    /// The store was opened at another location than before.
    Moved = 22,
    /// An event of a newer version of this library.
    Unknown = 255,
}

impl AuditKind {
    const ALL: [Self; 19] = [
        Self::Created,
        Self::StoreKeyRotated,
        Self::CmekReplaced,
        Self::SlotAdded,
        Self::SlotRemoved,
        Self::SlotRewrapped,
        Self::DataKeyRotated,
        Self::Enabled,
        Self::Disabled,
        Self::Revoked,
        Self::Restored,
        Self::Access,
        Self::DataKeyDestroyed,
        Self::KeyspaceCreated,
        Self::KeyspaceShredded,
        Self::StoreShredded,
        Self::Recovered,
        Self::UpkeepFailed,
        Self::Moved,
    ];

    /// What happened in lower case, stable for logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::StoreKeyRotated => "store-key-rotated",
            Self::CmekReplaced => "cmek-replaced",
            Self::SlotAdded => "slot-added",
            Self::SlotRemoved => "slot-removed",
            Self::SlotRewrapped => "slot-rewrapped",
            Self::DataKeyRotated => "data-key-rotated",
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
            Self::Restored => "restored",
            Self::Access => "access",
            Self::DataKeyDestroyed => "data-key-destroyed",
            Self::KeyspaceCreated => "keyspace-created",
            Self::KeyspaceShredded => "keyspace-shredded",
            Self::StoreShredded => "store-shredded",
            Self::Recovered => "recovered",
            Self::UpkeepFailed => "upkeep-failed",
            Self::Moved => "moved",
            Self::Unknown => "unknown",
        }
    }

    fn from_number(number: u8) -> Self {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number).unwrap_or(Self::Unknown)
    }
}

/// One audit event. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditEvent {
    /// Its number; the first is 0.
    pub number: u64,
    /// Nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// The keyring's generation that it came with.
    pub generation: u64,
    /// What happened.
    pub what: AuditKind,
    /// The store key since then.
    pub store_key_id: StoreKeyId,
    /// What it happened to: a slot and its key's URI, a keyspace and its data key's id,
    /// an old and a new state.
    pub detail: String,
}

/// An event as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct Event {
    pub(crate) at_ns: u64,
    pub(crate) generation: u64,
    /// A number of [`AuditKind`].
    pub(crate) what: u8,
    /// The store key since then.
    pub(crate) store_key_id: [u8; 16],
    pub(crate) detail: String,
}

impl Event {
    fn numbered(&self, number: u64) -> AuditEvent {
        AuditEvent {
            number,
            at_ns: self.at_ns,
            generation: self.generation,
            what: AuditKind::from_number(self.what),
            store_key_id: StoreKeyId::from_bytes(self.store_key_id),
            detail: self.detail.clone(),
        }
    }
}

/// The trail as the keyring holds it.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct Trail {
    /// Events that left the keyring.
    archived: u64,
    /// Their chain: `h = SHA-256(h || LE64 number || encoded event)` from zeros.
    archived_hash: [u8; 32],
    /// The events since.
    tail: Vec<Event>,
}

impl Trail {
    pub(crate) fn beginning_with(event: Event) -> Self {
        Self { archived: 0, archived_hash: [0; 32], tail: vec![event] }
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.tail.push(event);
    }

    /// Whether the last revocation was not followed by its end yet: one by a file alone is
    /// told of nowhere.
    pub(super) fn tells_of_revocation(&self) -> bool {
        let (revoked, restored) = (AuditKind::Revoked as u8, AuditKind::Restored as u8);
        let mut events = self.tail.iter().rev().map(|event| event.what);
        events.find(|what| [revoked, restored].contains(what)) == Some(revoked)
    }

    /// The events that the keyring holds, oldest first.
    pub(crate) fn recent(&self) -> Vec<AuditEvent> {
        self.tail
            .iter()
            .zip(self.archived..)
            .map(|(event, number)| event.numbered(number))
            .collect()
    }

    /// Whether each event has a number.
    pub(super) fn has_numbers(&self) -> bool {
        self.archived.checked_add(self.tail.len() as u64).is_some()
    }

    /// The events that the keyring holds.
    pub(super) fn tail_len(&self) -> usize {
        self.tail.len()
    }

    /// Moves the oldest events out of a keyring that has many, of the first `committed`:
    /// what no generation holds yet may never come to be.
    pub(super) fn archive(
        &mut self,
        storage: &dyn KeyringStorage,
        store_id: StoreId,
        mut committed: usize,
    ) -> Result<()> {
        while self.tail.len() > TAIL_MAX && committed >= ARCHIVED_TOGETHER {
            let (first, before) = (self.archived, self.archived_hash);
            let leaving = &self.tail[..ARCHIVED_TOGETHER];
            let after = chain_all(before, first, leaving)?;
            let bytes = encode(store_id, first, before, leaving)?;
            storage.put_beside(&archive_name(&after), &bytes)?;
            self.tail.drain(..ARCHIVED_TOGETHER);
            self.archived += ARCHIVED_TOGETHER as u64;
            self.archived_hash = after;
            committed -= ARCHIVED_TOGETHER;
        }
        Ok(())
    }

    /// All events, oldest first, the archived ones verified.
    pub(super) fn all(
        &self,
        storage: &dyn KeyringStorage,
        store_id: StoreId,
    ) -> Result<Vec<AuditEvent>> {
        let mut archives = Vec::new();
        let (mut number, mut hash) = (self.archived, self.archived_hash);
        while number > 0 {
            let name = archive_name(&hash);
            let broken = |what: &str| {
                Error::new(
                    ErrorKind::Authentication,
                    format!("the audit archive {KEYRING_FILE}.{name} {what}"),
                )
            };
            let bytes = storage.load_beside(&name)?.ok_or_else(|| broken("is missing"))?;
            let archive = decode(&bytes, store_id).ok_or_else(|| broken("is damaged"))?;
            let is_ours = archive.numbers.start < number
                && archive.numbers.end == number
                && chain_all(archive.before, archive.numbers.start, &archive.events)? == hash;
            if !is_ours {
                return Err(broken("is not the one that the keyring vouches for"));
            }
            (number, hash) = (archive.numbers.start, archive.before);
            archives.push(archive);
        }
        if hash != [0; 32] {
            let what = "the audit archives do not begin with the first event";
            return Err(Error::new(ErrorKind::Authentication, what));
        }
        let archived = archives.into_iter().rev();
        let archived = archived.flat_map(|archive| archive.numbers.zip(archive.events));
        let mut events: Vec<_> = archived.map(|(number, event)| event.numbered(number)).collect();
        events.extend(self.recent());
        Ok(events)
    }
}

fn archive_name(hash: &[u8; 32]) -> String {
    format!("audit.{}", crate::hex::encode(hash))
}

fn chain_all(mut hash: [u8; 32], first: u64, events: &[Event]) -> Result<[u8; 32]> {
    for (event, number) in events.iter().zip(first..) {
        hash = chain(&hash, number, event)?;
    }
    Ok(hash)
}

fn chain(hash: &[u8; 32], number: u64, event: &Event) -> Result<[u8; 32]> {
    let event =
        wincode::config::serialize(event, Configuration::default()).map_err(encode_error)?;
    let mut next = Sha256::new();
    next.update(hash);
    next.update(number.to_le_bytes());
    next.update(event);
    Ok(next.finalize().into())
}

struct Archive {
    /// Numbers of the events.
    numbers: Range<u64>,
    /// The chain before them.
    before: [u8; 32],
    events: Vec<Event>,
}

fn encode(store_id: StoreId, first: u64, before: [u8; 32], events: &[Event]) -> Result<Vec<u8>> {
    let config = Configuration::default().with_preallocation_size_limit::<KEYRING_LEN_MAX>();
    let mut bytes = ARCHIVE_MAGIC.to_vec();
    bytes.extend_from_slice(store_id.as_bytes());
    bytes.extend_from_slice(&first.to_le_bytes());
    bytes.extend_from_slice(&before);
    bytes.extend(wincode::config::serialize(events, config).map_err(encode_error)?);
    Ok(bytes)
}

fn decode(bytes: &[u8], store_id: StoreId) -> Option<Archive> {
    let rest = bytes.strip_prefix(&ARCHIVE_MAGIC)?.strip_prefix(store_id.as_bytes())?;
    let (first, rest) = rest.split_first_chunk()?;
    let (before, events) = rest.split_first_chunk()?;
    let events: ReadResult<Vec<Event>> = decode_exact!(events, KEYRING_LEN_MAX);
    let events = events.ok()?;
    let first = u64::from_le_bytes(*first);
    let numbers = first..first.checked_add(events.len() as u64)?;
    Some(Archive { numbers, before: *before, events })
}

/// Bytes as an archive: a good one is encoded to the same bytes again.
#[cfg(any(test, feature = "danger-internals"))]
pub(super) fn fuzz(bytes: &[u8], store_id: StoreId) -> Result<()> {
    if let Some(archive) = decode(bytes, store_id) {
        let first = archive.numbers.start;
        let again = encode(store_id, first, archive.before, &archive.events)?;
        assert_eq!(again, bytes);
        let last = chain_all(archive.before, first, &archive.events)?;
        assert!(archive.events.is_empty() || last != archive.before);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
