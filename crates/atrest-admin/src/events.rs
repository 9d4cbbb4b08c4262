//! A store's audit events, counted by kind.

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
