//! What a store's audit events tell: how many there are by kind, and whether its customer's key
//! is switched off.

use std::collections::BTreeMap;

use atrest::keyring::{AuditEvent, AuditKind};
use atrest::{Keyring, Result};

/// The counts, made anew only when the keyring changed: the older events stand in
/// archives on disk.
#[derive(Debug, Default)]
pub(crate) struct EventCounts {
    generation: u64,
    by_kind: BTreeMap<&'static str, u64>,
}

impl EventCounts {
    /// The counts as of now.
    pub(crate) fn of(&mut self, keyring: &Keyring) -> Result<&BTreeMap<&'static str, u64>> {
        let generation = keyring.status().info.generation;
        if self.generation != generation || self.by_kind.is_empty() {
            *self = Self { generation, by_kind: count(&keyring.audit().events()?) };
        }
        Ok(&self.by_kind)
    }
}

/// Whether a customer's key is switched off, by the newest event that tells. It is remembered,
/// since that event goes to an archive some day.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    off: bool,
    /// Events with lower numbers are known.
    next: u64,
}

impl Switch {
    pub(crate) fn is_off(&self) -> bool {
        self.off
    }

    /// Takes in a trail's last events. Whether that is enough: else one that tells may be among
    /// those before them, which nobody took in.
    pub(crate) fn take(&mut self, events: &[AuditEvent]) -> bool {
        let off = events.iter().rev().find_map(|event| match event.what {
            AuditKind::Disabled => Some(true),
            AuditKind::Enabled | AuditKind::CmekReplaced | AuditKind::Created => Some(false),
            _ => None,
        });
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return true };
        if off.is_none() && first.number > self.next {
            return false;
        }
        self.off = off.unwrap_or(self.off);
        self.next = last.number + 1;
        true
    }
}

/// Those that are told though none happened yet: an increase from nothing is not seen.
const KINDS: [AuditKind; 19] = [
    AuditKind::Created,
    AuditKind::StoreKeyRotated,
    AuditKind::CmekReplaced,
    AuditKind::SlotAdded,
    AuditKind::SlotRemoved,
    AuditKind::SlotRewrapped,
    AuditKind::DataKeyRotated,
    AuditKind::Enabled,
    AuditKind::Disabled,
    AuditKind::Revoked,
    AuditKind::Restored,
    AuditKind::Access,
    AuditKind::DataKeyDestroyed,
    AuditKind::KeyspaceCreated,
    AuditKind::KeyspaceShredded,
    AuditKind::StoreShredded,
    AuditKind::Recovered,
    AuditKind::UpkeepFailed,
    AuditKind::Moved,
];

fn count(events: &[AuditEvent]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::from(KINDS.map(|kind| (kind.as_str(), 0)));
    for event in events {
        *counts.entry(event.what.as_str()).or_default() += 1;
    }
    counts
}
