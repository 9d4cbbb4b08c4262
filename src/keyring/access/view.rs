//! How old what this process knows of the keyring is.
//!
//! Another process may have removed a slot, replaced keys or withdrawn access. A process
//! that cannot read that, or not follow it, must not go on for ever: what it last saw
//! vouches for its keys only so long.

use std::time::Duration;

use super::AccessPolicy;
use super::machine::{Jitter, jittered, spread};

/// What one open keyring knows of its own image.
pub(super) struct View {
    /// When the image in memory was last known to be the present one.
    seen: Duration,
    /// When it was last known that no request to revoke is beside it.
    looked: Duration,
    /// When to look again, for a request beside the image too: what reads or commits the image
    /// alone does not put it off.
    pub(super) next: Duration,
    /// How long it vouches; `None` for ever.
    lease: Option<Duration>,
    interval: Duration,
    retry: Duration,
    /// What the last look met, unless it was good.
    pub(super) problem: Option<String>,
}

impl View {
    pub(super) fn new(policy: &AccessPolicy, now: Duration, jitter: Jitter) -> Self {
        let interval = policy.check_interval;
        let retry = policy.recovery_interval.min(interval);
        let (lease, next) = (policy.view_lease(), now.saturating_add(spread(interval, jitter)));
        Self { seen: now, looked: now, next, lease, interval, retry, problem: None }
    }

    /// The image in memory is the present one.
    pub(super) fn good(&mut self, now: Duration) {
        (self.seen, self.problem) = (now, None);
    }

    /// No request to revoke is beside the image. Comes before [`good`](Self::good).
    pub(super) fn looked(&mut self, now: Duration, jitter: Jitter) {
        // What is mended now may be mended for many at once.
        let spread = if self.problem.is_some() { spread } else { jittered };
        self.looked = now;
        self.next = now.saturating_add(spread(self.interval, jitter));
    }

    pub(super) fn failed(&mut self, now: Duration, problem: String, jitter: Jitter) {
        self.next = now.saturating_add(jittered(self.retry, jitter));
        self.problem = Some(problem);
    }

    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.seen)
    }

    /// When the keys are given up unless both were seen before; `None` for never.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.lease.and_then(|lease| self.seen.min(self.looked).checked_add(lease))
    }
}
