//! What one open keyring remembers of access, and whom it tells.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::super::audit::AuditKind;
use super::machine::{AccessState, Change, Jitter, Machine};
use super::view::View;
use super::{AccessPolicy, AccessStatus};
use crate::error::KmsErrorKind;
use crate::secret::KeyMemory;

/// Audit events that wait for a commit; more are dropped, the oldest first.
const NOTES_MAX: usize = 1024;

/// A change of the access state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Transition {
    /// The state before.
    pub from: AccessState,
    /// The state now.
    pub to: AccessState,
    /// What the key service said; `None` after a good check and on request.
    #[serde(serialize_with = "super::status::kind_or_none")]
    pub kms_error: Option<KmsErrorKind>,
    /// Nanoseconds since the Unix epoch.
    pub at_ns: u64,
}

/// Who keeps a revocation on request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RevokedBy {
    /// Nobody.
    None,
    /// The store's mark.
    Mark,
    /// This process alone, which may not write to the store.
    ThisProcess,
}

/// An audit event that waits for a commit.
#[derive(Clone)]
pub(in super::super) struct Note {
    pub(in super::super) at_ns: u64,
    pub(in super::super) what: AuditKind,
    pub(in super::super) detail: String,
}

type Hook = Arc<dyn Fn(&Transition) + Send + Sync>;

pub(in super::super) struct Monitor {
    pub(super) machine: Machine,
    pub(super) view: View,
    /// What the last rotation by itself met, unless it was good.
    pub(in super::super) upkeep_problem: Option<String>,
    pub(super) revoked_by: RevokedBy,
    /// The slot whose key service denied access: no slot after it stands in for it.
    pub(super) barrier: Option<String>,
    pub(super) checks: u64,
    pub(super) checks_failed: u64,
    pub(super) last_check_took: Duration,
    pub(super) hooks: Vec<Hook>,
    notes: VecDeque<Note>,
    pub(super) untold: VecDeque<Transition>,
    pub(super) telling: bool,
    /// Threads that are giving open files their keys back.
    pub(super) giving_back: u32,
}

impl Monitor {
    /// For a keyring that was unlocked at `now`.
    pub(in super::super) fn new(policy: AccessPolicy, now: Duration) -> Self {
        Self {
            view: View::new(&policy, now, jitter()),
            upkeep_problem: None,
            machine: Machine::new(policy, now, jitter()),
            revoked_by: RevokedBy::None,
            barrier: None,
            checks: 0,
            checks_failed: 0,
            last_check_took: Duration::ZERO,
            hooks: Vec::new(),
            notes: VecDeque::new(),
            untold: VecDeque::new(),
            telling: false,
            giving_back: 0,
        }
    }

    pub(super) fn status(&self, now: Duration) -> AccessStatus {
        let machine = &self.machine;
        AccessStatus {
            state: machine.state(),
            in_state: now.saturating_sub(machine.since()),
            since_good_check: now.saturating_sub(machine.last_good()),
            keys_expire_in: self.deadline().map(|deadline| deadline.saturating_sub(now)),
            revoked_on_request: machine.is_held(),
            kms_error: machine.last_kind(),
            credentials: Vec::new(),
            since_keyring_read: self.view.age(now),
            keyring_problem: self.view.problem.clone(),
            upkeep_problem: self.upkeep_problem.clone(),
            key_memory: KeyMemory::now(),
            checks: self.checks,
            checks_failed: self.checks_failed,
            last_check_took: self.last_check_took,
            worst_case: machine.policy().worst_case(),
            worst_case_unreachable: machine.policy().worst_case_unreachable(),
        }
    }

    /// When the keys are given up unless the key service and the storage say otherwise
    /// before; `None` for never, and when there are none.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let view = self.view.deadline().filter(|_| self.machine.state().serves());
        [self.machine.deadline(), view].into_iter().flatten().min()
    }

    /// The next change to tell the hooks of.
    pub(super) fn next_untold(&mut self) -> Option<Transition> {
        if self.giving_back == 0 { self.untold.pop_front() } else { None }
    }

    /// Gives the keys up if it is time.
    pub(super) fn tick(&mut self, now: Duration) -> Option<Change> {
        let over = self.view.deadline().is_some_and(|deadline| now >= deadline);
        let change = self.machine.tick(now);
        if change.is_none() && over { self.machine.suspend(now) } else { change }
    }

    /// The image in memory is the one in the storage.
    pub(in super::super) fn seen(&mut self, now: Duration) {
        self.view.good(now);
    }

    /// Takes note of a change, if there is one: for the audit, and for the hooks.
    pub(super) fn changed(&mut self, change: Option<Change>, at_ns: u64) {
        let Some(Change { from, to }) = change else { return };
        let kms_error = self.machine.last_kind();
        let detail = match kms_error {
            Some(kind) => format!("{from} -> {to}: {kind}"),
            None => format!("{from} -> {to}"),
        };
        self.note(at_ns, AuditKind::Access, detail);
        self.untold.push_back(Transition { from, to, kms_error, at_ns });
    }

    pub(in super::super) fn note(
        &mut self,
        at_ns: u64,
        what: AuditKind,
        detail: impl Into<String>,
    ) {
        if self.notes.len() == NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(Note { at_ns, what, detail: detail.into() });
    }

    pub(in super::super) fn notes(&self) -> Vec<Note> {
        self.notes.iter().cloned().collect()
    }

    /// The oldest `count` notes are durable.
    pub(in super::super) fn forget_notes(&mut self, count: usize) {
        self.notes.drain(..count.min(self.notes.len()));
    }
}

/// Spreads the checks of many processes. Not a secret: without randomness it is the
/// middle.
pub(in super::super) fn jitter() -> Jitter {
    let mut bytes = [0; 2];
    match crate::random::fill(&mut bytes) {
        Ok(()) => Jitter::from_le_bytes(bytes),
        Err(_) => Jitter::MAX / 2,
    }
}
