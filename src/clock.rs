//! The time of day, passed in so that tests can move it.

use std::fmt::Debug;
use std::time::SystemTime;

/// Tells the time of day.
pub trait Clock: Send + Sync + Debug {
    /// Nanoseconds since the Unix epoch. May jump either way.
    fn now_ns(&self) -> u64;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // A clock before 1970 reads as 1970; one after the year 2554 as 2554.
        since_epoch.map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}
