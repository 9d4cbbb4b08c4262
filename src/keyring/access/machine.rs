//! The life cycle of access to the customer's key: no clock, no I/O.
//!
//! ```text
//! Active --no answer--> Unreachable --answer--> Active     --grace over--> Suspended
//! Active, Unreachable --denied--> Suspect --good--> Active
//! Suspect --denied n times--> Revoked, Disabled or Destroyed   --too long--> Suspended
//! Suspect --no answer--> Suspect: an outage must not launder a revocation
//! Revoked, Disabled, Destroyed, Suspended --keys unwrapped again--> Restored --good--> Active
//! any --revoked on request--> Revoked, until restored on request
//! ```
//!
//! Times count from any fixed moment, by a clock that runs while the machine sleeps.

use std::time::Duration;

use super::policy::AccessPolicy;
use crate::error::KmsErrorKind;

/// Shortest wait before a check, so that a policy of zeros does not spin.
const SHORTEST: Duration = Duration::from_millis(1);

/// Whether the customer's key may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AccessState {
    /// The last check was good.
    Active,
    /// The key service gives no clear answer; grace is running. Files work, keys do not
    /// rotate.
    Unreachable,
    /// The key service denied access, which is not yet confirmed. Files work, keys do not
    /// rotate.
    Suspect,
    /// Access was denied, or withdrawn on request. No key is in memory.
    Revoked,
    /// The key is disabled or about to be deleted. No key is in memory.
    Disabled,
    /// The key is gone. No key is in memory.
    Destroyed,
    /// The key service gave no clear answer for too long. No key is in memory.
    Suspended,
    /// Access is back and files work again; the next good check makes it `Active`.
    Restored,
}

impl AccessState {
    /// Whether files can be read and written.
    pub fn serves(self) -> bool {
        matches!(self, Self::Active | Self::Unreachable | Self::Suspect | Self::Restored)
    }

    /// The state in lower case, stable for logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Unreachable => "unreachable",
            Self::Suspect => "suspect",
            Self::Revoked => "revoked",
            Self::Disabled => "disabled",
            Self::Destroyed => "destroyed",
            Self::Suspended => "suspended",
            Self::Restored => "restored",
        }
    }
}

impl std::fmt::Display for AccessState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What one check gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The store key was unwrapped, and it is the right one.
    Good,
    /// The service denied access: a kind that [`denies_access`](KmsErrorKind::denies_access).
    Denied(KmsErrorKind),
    /// Nothing that says whether access is left.
    Unclear(KmsErrorKind),
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: AccessState,
    pub(crate) to: AccessState,
}

/// A random number that spreads the checks of many processes: 0 is the earliest moment, the
/// greatest the latest one.
pub(crate) type Jitter = u16;

#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Duration,
    denials: u32,
    kind: KmsErrorKind,
}

/// The machine of one open keyring.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    policy: AccessPolicy,
    state: AccessState,
    since: Duration,
    last_good: Duration,
    /// The last answer, unless it was good.
    last_kind: Option<KmsErrorKind>,
    /// First of the checks without an answer since the last good one.
    outage_since: Option<Duration>,
    suspicion: Option<Suspicion>,
    /// Revoked on request: only a request restores.
    held: bool,
    next_check: Duration,
}

impl Machine {
    /// A keyring that was unlocked at `now`.
    pub(crate) fn new(policy: AccessPolicy, now: Duration, jitter: Jitter) -> Self {
        let next_check = now.saturating_add(spread(policy.check_interval, jitter));
        Self {
            policy,
            state: AccessState::Active,
            since: now,
            last_good: now,
            last_kind: None,
            outage_since: None,
            suspicion: None,
            held: false,
            next_check,
        }
    }

    pub(crate) fn policy(&self) -> &AccessPolicy {
        &self.policy
    }

    pub(crate) fn state(&self) -> AccessState {
        self.state
    }

    /// When the present state began.
    pub(crate) fn since(&self) -> Duration {
        self.since
    }

    pub(crate) fn last_good(&self) -> Duration {
        self.last_good
    }

    pub(crate) fn last_kind(&self) -> Option<KmsErrorKind> {
        self.last_kind
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    pub(crate) fn next_check(&self) -> Duration {
        self.next_check
    }

    /// When the keys are given up unless a good check comes first; `None` for never, and
    /// when there are none.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let outage = self.deadline_of_outage();
        // A time that no clock can tell never comes.
        let lease = self.policy.lease().and_then(|lease| self.last_good.checked_add(lease));
        match self.state {
            AccessState::Active | AccessState::Restored => lease,
            AccessState::Unreachable => earliest(outage, lease),
            AccessState::Suspect => {
                let suspicion = self.suspicion.map(|suspicion| suspicion.since);
                let over = suspicion.and_then(|since| since.checked_add(self.policy.suspicion_max));
                earliest(outage, over)
            }
            _ => None,
        }
    }

    /// Gives the keys up if it is time, whether or not a check could run.
    pub(crate) fn tick(&mut self, now: Duration) -> Option<Change> {
        let over = self.deadline().is_some_and(|deadline| now >= deadline);
        if !over {
            return None;
        }
        // The next check is due at once: the machine may just have woken up.
        self.next_check = now;
        self.enter(AccessState::Suspended, now)
    }

    /// Gives the keys up for another reason than what the key service says.
    pub(crate) fn suspend(&mut self, now: Duration) -> Option<Change> {
        if !self.state.serves() {
            return None;
        }
        self.next_check = now;
        self.enter(AccessState::Suspended, now)
    }

    /// Takes the answer of a check that ended at `now`. After `Good` in a state that does
    /// not serve the caller unwraps the keys first, or calls with `Unclear`.
    pub(crate) fn answer(
        &mut self,
        now: Duration,
        answer: Answer,
        jitter: Jitter,
    ) -> Option<Change> {
        let change = match answer {
            Answer::Good => self.good(now),
            Answer::Denied(kind) => self.denied(now, kind),
            Answer::Unclear(kind) => self.unclear(now, kind),
        };
        let policy = &self.policy;
        let wait = match self.state {
            // What ends here may have ended for many at once.
            AccessState::Active | AccessState::Restored if change.is_some() => {
                spread(policy.check_interval, jitter)
            }
            AccessState::Active | AccessState::Restored => jittered(policy.check_interval, jitter),
            AccessState::Suspect => policy.confirm_spacing(),
            // Whatever the service said: it may have been wrong.
            _ => jittered(policy.recovery_interval.min(policy.check_interval), jitter),
        };
        self.next_check = now.saturating_add(wait.max(SHORTEST));
        change.or_else(|| self.tick(now))
    }

    /// Withdraws access on request.
    pub(crate) fn revoke(&mut self, now: Duration) -> Option<Change> {
        self.held = true;
        self.enter(AccessState::Revoked, now)
    }

    /// The keys were unwrapped again at `now`.
    pub(crate) fn restored(&mut self, now: Duration, jitter: Jitter) -> Option<Change> {
        self.held = false;
        self.forgive(now);
        self.next_check = now.saturating_add(spread(self.policy.check_interval, jitter));
        self.enter(AccessState::Restored, now)
    }

    fn good(&mut self, now: Duration) -> Option<Change> {
        if self.held {
            self.last_kind = None;
            return None;
        }
        self.forgive(now);
        let to = if self.state.serves() { AccessState::Active } else { AccessState::Restored };
        self.enter(to, now)
    }

    fn denied(&mut self, now: Duration, kind: KmsErrorKind) -> Option<Change> {
        self.last_kind = Some(kind);
        if self.held {
            return None;
        }
        if !self.state.serves() {
            // What is lost already needs no confirmation to be called by its name.
            return self.enter(lost(kind), now);
        }
        let first = Suspicion { since: now, denials: 0, kind };
        let suspicion = self.suspicion.get_or_insert(first);
        suspicion.denials += 1;
        suspicion.kind = kind;
        let confirmed = suspicion.denials >= self.policy.confirmations
            && now.saturating_sub(suspicion.since) >= self.policy.confirm_over;
        let to = if confirmed || self.policy.confirmations <= 1 {
            lost(kind)
        } else {
            AccessState::Suspect
        };
        self.enter(to, now)
    }

    fn unclear(&mut self, now: Duration, kind: KmsErrorKind) -> Option<Change> {
        self.last_kind = Some(kind);
        if !self.state.serves() {
            return None;
        }
        self.outage_since.get_or_insert(now);
        if self.state == AccessState::Suspect {
            return None;
        }
        if self.deadline_of_outage().is_some_and(|deadline| now >= deadline) {
            return self.enter(AccessState::Suspended, now);
        }
        self.enter(AccessState::Unreachable, now)
    }

    fn deadline_of_outage(&self) -> Option<Duration> {
        self.outage_since?.checked_add(self.policy.grace()?)
    }

    fn forgive(&mut self, now: Duration) {
        self.last_good = now;
        self.last_kind = None;
        self.outage_since = None;
        self.suspicion = None;
    }

    fn enter(&mut self, to: AccessState, now: Duration) -> Option<Change> {
        let from = std::mem::replace(&mut self.state, to);
        if from == to {
            return None;
        }
        self.since = now;
        Some(Change { from, to })
    }
}

/// The state that a confirmed denial leads to.
fn lost(kind: KmsErrorKind) -> AccessState {
    match kind {
        KmsErrorKind::NotFound | KmsErrorKind::Destroyed => AccessState::Destroyed,
        KmsErrorKind::KeyDisabled
        | KmsErrorKind::PendingDeletion
        | KmsErrorKind::VersionRetired => AccessState::Disabled,
        _ => AccessState::Revoked,
    }
}

fn earliest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    [a, b].into_iter().flatten().min()
}

/// A tenth early to a tenth late.
pub(super) fn jittered(interval: Duration, jitter: Jitter) -> Duration {
    let tenth = interval / 10;
    between(interval - tenth, tenth * 2, jitter)
}

/// Anywhere in an interval, for what many processes begin in one moment: they would ask
/// together for hours otherwise. No later than [`jittered`], which the stated worst case
/// relies on, and not at once, since a process may be about to end.
pub(super) fn spread(interval: Duration, jitter: Jitter) -> Duration {
    between(interval / 10, interval, jitter)
}

pub(super) fn between(earliest: Duration, width: Duration, jitter: Jitter) -> Duration {
    let part = width.as_secs_f64() * f64::from(jitter) / f64::from(Jitter::MAX);
    let part = Duration::try_from_secs_f64(part).unwrap_or(width);
    earliest.saturating_add(part.min(width))
}

#[cfg(test)]
mod fleet;
#[cfg(test)]
mod tests;
