//! The time of day, passed in so that tests can move it.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

/// Tells the time of day.
pub trait Clock: Send + Sync + Debug {
    /// Nanoseconds since the Unix epoch. May jump either way.
    fn now_ns(&self) -> u64;

    /// Time since a fixed moment, never going back, counting while the machine sleeps
    /// where the system can tell.
    fn since_boot(&self) -> Duration {
        since_boot()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn since_boot() -> Duration {
    static START: crate::process::Made<std::time::Instant> = crate::process::Made::new();
    START.get_or_make(std::time::Instant::now).elapsed()
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
