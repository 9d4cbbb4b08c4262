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

fn count(events: &[AuditEvent]) -> BTreeMap<&'static str, u64> {
    let kinds = [
        (AuditKind::StoreKeyRotated, "store-key-rotated"),
        (AuditKind::CmekReplaced, "cmek-replaced"),
        (AuditKind::SlotAdded, "slot-added"),
        (AuditKind::SlotRemoved, "slot-removed"),
        (AuditKind::SlotRewrapped, "slot-rewrapped"),
        (AuditKind::DataKeyRotated, "data-key-rotated"),
        (AuditKind::Enabled, "enabled"),
        (AuditKind::Disabled, "disabled"),
        (AuditKind::Revoked, "revoked"),
        (AuditKind::Restored, "restored"),
        (AuditKind::Access, "access"),
    ];
    let of = |kind: AuditKind| events.iter().filter(|event| event.what == kind).count() as u64;
    kinds.into_iter().map(|(kind, name)| (name, of(kind))).collect()
}
