//! What one open keyring remembers of access, and whom it tells.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::super::Inner;
use super::super::audit::AuditKind;
use super::machine::{AccessState, Change, Machine};
use super::{Access, AccessPolicy};
use crate::error::KmsErrorKind;

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
    #[serde(serialize_with = "super::kind_or_none")]
    pub kms_error: Option<KmsErrorKind>,
    /// Nanoseconds since the Unix epoch.
    pub at_ns: u64,
}

/// Who holds a revocation on request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nobody.
    None,
    /// The store's mark.
    Store,
    /// This process alone, which may not write to the store.
    Here,
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
    pub(super) hold: Hold,
    /// The slot whose key service denied access: no slot after it stands in for it.
    pub(super) barrier: Option<String>,
    pub(super) checks: u64,
    pub(super) checks_failed: u64,
    pub(super) last_check_took: Duration,
    pub(super) hooks: Vec<Hook>,
    notes: VecDeque<Note>,
    untold: VecDeque<Transition>,
    telling: bool,
}

impl Monitor {
    /// For a keyring that was unlocked at `now`.
    pub(in super::super) fn new(policy: AccessPolicy, now: Duration) -> Self {
        Self {
            machine: Machine::new(policy, now, super::checker::jitter()),
            hold: Hold::None,
            barrier: None,
            checks: 0,
            checks_failed: 0,
            last_check_took: Duration::ZERO,
            hooks: Vec::new(),
            notes: VecDeque::new(),
            untold: VecDeque::new(),
            telling: false,
        }
    }

    pub(super) fn access(&self, now: Duration) -> Access {
        let machine = &self.machine;
        Access {
            state: machine.state(),
            in_state: now.saturating_sub(machine.since()),
            since_good_check: now.saturating_sub(machine.last_good()),
            keys_expire_in: machine.deadline().map(|deadline| deadline.saturating_sub(now)),
            revoked_on_request: machine.is_held(),
            kms_error: machine.last_kind(),
            checks: self.checks,
            checks_failed: self.checks_failed,
            last_check_took: self.last_check_took,
            worst_case: machine.policy().worst_case(),
            worst_case_unreachable: machine.policy().worst_case_unreachable(),
        }
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

    pub(super) fn note(&mut self, at_ns: u64, what: AuditKind, detail: impl Into<String>) {
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

impl Inner {
    pub(in super::super) fn monitor(&self) -> MutexGuard<'_, Monitor> {
        // Nothing that can panic runs while it is held.
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the hooks what they do not know yet. Every entry point calls it at its end,
    /// when it holds no lock, since hooks call the keyring. If another thread, or a hook
    /// further up in this one, is telling already, it goes on with these.
    pub(in super::super) fn deliver(&self) {
        if std::mem::replace(&mut self.monitor().telling, true) {
            return;
        }
        loop {
            let (transition, hooks) = {
                let mut monitor = self.monitor();
                let Some(transition) = monitor.untold.pop_front() else {
                    monitor.telling = false;
                    return;
                };
                (transition, monitor.hooks.clone())
            };
            for hook in hooks {
                // A hook's panic must not end the thread that watches access. The panic
                // itself was reported when it happened.
                drop(catch_unwind(AssertUnwindSafe(|| hook(&transition))));
            }
        }
    }
}
