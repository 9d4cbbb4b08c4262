//! A clock that the demonstration moves, so that months pass in a second.

use std::sync::atomic::{AtomicU64, Ordering};

use atrest::{Clock, SystemClock};

const DAY_NS: u64 = 86_400 * 1_000_000_000;

/// The time of day, as far as the keyring is concerned.
#[derive(Debug)]
pub(super) struct DemoClock(AtomicU64);

impl DemoClock {
    /// Starts so many days ago.
    pub(super) fn days_ago(days: u64) -> Self {
        Self(AtomicU64::new(SystemClock.now_ns().saturating_sub(days * DAY_NS)))
    }

    pub(super) fn pass_days(&self, days: u64) {
        self.0.fetch_add(days * DAY_NS, Ordering::Relaxed);
    }
}

impl Clock for DemoClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
