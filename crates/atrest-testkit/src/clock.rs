//! A clock that stands where it is put.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atrest::Clock;

/// Moves when it is told to. It begins in November 2023.
#[derive(Debug)]
pub struct ManualClock {
    now_ns: AtomicU64,
    since_boot_ns: AtomicU64,
}

impl ManualClock {
    /// One day.
    pub const DAY: Duration = Duration::from_secs(86_400);

    /// A clock that stands.
    pub fn new() -> Arc<Self> {
        let (now_ns, since_boot_ns) = (1_700_000_000_000_000_000, 1_000_000_000_000);
        Arc::new(Self { now_ns: now_ns.into(), since_boot_ns: since_boot_ns.into() })
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.now_ns.fetch_add(ns(by), Ordering::SeqCst);
        self.since_boot_ns.fetch_add(ns(by), Ordering::SeqCst);
    }

    /// Sets the time of day forward, as an operator does; no time passes.
    pub fn set_forward(&self, by: Duration) {
        self.now_ns.fetch_add(ns(by), Ordering::SeqCst);
    }

    /// Sets the time of day back; no time passes.
    pub fn set_back(&self, by: Duration) {
        self.now_ns.fetch_sub(ns(by), Ordering::SeqCst);
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

impl Clock for ManualClock {
    fn now_ns(&self) -> u64 {
        self.now_ns.load(Ordering::SeqCst)
    }

    fn since_boot(&self) -> Duration {
        Duration::from_nanos(self.since_boot_ns.load(Ordering::SeqCst))
    }
}
