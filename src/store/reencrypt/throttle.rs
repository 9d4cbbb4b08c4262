//! A limit of bytes a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest sleep before the caller looks whether it was cancelled.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// Shared by the threads of one re-encryption.
pub(super) struct Throttle {
    start: Instant,
    bucket: Option<Mutex<Bucket>>,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { start: Instant::now(), bucket: bytes_per_second.map(Bucket::new).map(Mutex::new) }
    }

    /// Waits until `bytes` more may be worked on; false if `cancelled` meanwhile.
    pub(super) fn take(&self, bytes: u64, cancelled: impl Fn() -> bool) -> bool {
        let Some(bucket) = &self.bucket else { return !cancelled() };
        let until = {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.take(self.start.elapsed(), bytes)
        };
        loop {
            if cancelled() {
                return false;
            }
            let left = until.saturating_sub(self.start.elapsed());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(SLEEP_MAX));
        }
    }
}

/// Hands out bytes at an even rate. After a pause there is no more than a tenth of a
/// second's worth at once.
struct Bucket {
    bytes_per_second: u64,
    /// When all that was handed out is paid for.
    paid: Duration,
}

impl Bucket {
    fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid: Duration::ZERO }
    }

    /// When the caller may go on with `bytes`.
    fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        const BURST: Duration = Duration::from_millis(100);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let start = self.paid.max(now.saturating_sub(BURST));
        self.paid = start.saturating_add(cost);
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_at_an_even_rate() {
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::new(1000);
        assert_eq!(bucket.take(Duration::ZERO, 500), Duration::ZERO);
        assert_eq!(bucket.take(Duration::ZERO, 500), second / 2);
        assert_eq!(bucket.take(Duration::ZERO, 1), second);
        // A pause of an hour is worth a tenth of a second.
        let later = second * 3600;
        assert!(bucket.take(later, 100) <= later);
        assert_eq!(bucket.take(later, 1000), later);
        assert_eq!(bucket.take(later, 1), later + second);
    }
}
