//! Retries inside a deadline, with full jitter, after transient errors only.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use atrest::kms::{Deadline, KmsError, KmsErrorKind};

use crate::fail::fail;

/// Most tries of one call.
const TRIES_MAX: u32 = 3;
/// Longest single try, so that a stalled connection leaves time for another.
const TRY_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest wait before the second try; doubles after each.
const WAIT_FIRST: Duration = Duration::from_millis(200);

/// Calls until success, a lasting error, the last try or the deadline; `call` gets the
/// deadline of the one try.
pub(crate) fn retry<T>(
    deadline: Deadline,
    mut call: impl FnMut(Deadline) -> Result<T, KmsError>,
) -> Result<T, KmsError> {
    let mut wait_max = WAIT_FIRST;
    let mut tries = 0;
    loop {
        let left = deadline.remaining();
        if left.is_zero() {
            return Err(fail(KmsErrorKind::Unreachable, "the deadline passed before an answer"));
        }
        let error = match call(Deadline::after(left.min(TRY_TIME_MAX))) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        tries += 1;
        if !error.kind().is_transient() || tries == TRIES_MAX {
            return Err(error);
        }
        let Some(wait) = wait(error.retry_after(), wait_max, deadline.remaining()) else {
            return Err(error);
        };
        std::thread::sleep(wait);
        wait_max = wait_max.saturating_mul(2);
    }
}

/// How long to wait, unless too little time is `left`; `after` is what the service asked for.
fn wait(after: Option<Duration>, wait_max: Duration, left: Duration) -> Option<Duration> {
    let least = after.unwrap_or_default();
    if least >= left {
        return None;
    }
    // Many clients may have been told the same.
    let spread = wait_max.max(least).min((left - least) / 2);
    Some(least + jitter(spread))
}

/// A random time up to `most`, so that many clients do not return at once.
fn jitter(most: Duration) -> Duration {
    // Spread is all this needs: the standard library's random hasher keys suffice.
    let random = RandomState::new().hash_one(0_u8);
    most.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn tries(kind: KmsErrorKind, deadline: Duration, after: Option<Duration>) -> (u32, Duration) {
        let mut tries = 0;
        let start = Instant::now();
        let result: Result<(), _> = retry(Deadline::after(deadline), |_| {
            tries += 1;
            let error = fail(kind, "scripted");
            Err(match after {
                Some(after) => error.with_retry_after(after),
                None => error,
            })
        });
        assert!(result.is_err());
        (tries, start.elapsed())
    }

    #[test]
    fn only_transient_errors_are_tried_again() {
        let long = Duration::from_secs(60);
        assert_eq!(tries(KmsErrorKind::Unreachable, long, None).0, 3);
        assert_eq!(tries(KmsErrorKind::Throttled, long, Some(Duration::ZERO)).0, 3);
        for kind in [
            KmsErrorKind::Unauthenticated,
            KmsErrorKind::AccessDenied,
            KmsErrorKind::NotFound,
            KmsErrorKind::Integrity,
            KmsErrorKind::Protocol,
        ] {
            assert_eq!(tries(kind, long, None).0, 1, "{kind}");
        }
    }

    #[test]
    fn a_wait_beyond_the_deadline_is_not_begun() {
        let hour = Some(Duration::from_secs(3600));
        let (tries, took) = tries(KmsErrorKind::Throttled, Duration::from_secs(30), hour);
        assert_eq!(tries, 1);
        assert!(took < Duration::from_secs(20));
    }

    #[test]
    fn clients_that_are_told_the_same_time_do_not_return_together() {
        let [s, left] = [1, 15].map(Duration::from_secs);
        let mut waits: Vec<_> = (0..1000).filter_map(|_| wait(Some(s), WAIT_FIRST, left)).collect();
        waits.sort_unstable();
        assert!(waits[0] >= s && waits[999] <= 2 * s);
        assert!(waits[900] - waits[100] > s / 2, "{:?}", waits[900] - waits[100]);
        // What is left is enough for another try.
        assert!(
            (0..1000)
                .all(|_| wait(Some(14 * s), WAIT_FIRST, left).expect("a wait") <= left - s / 2)
        );
        assert_eq!(wait(Some(left), WAIT_FIRST, left), None);
    }

    #[test]
    fn a_passed_deadline_makes_no_call() {
        assert_eq!(tries(KmsErrorKind::Unreachable, Duration::ZERO, None).0, 0);
    }

    #[test]
    fn jitter_stays_below_its_limit() {
        let most = Duration::from_millis(200);
        assert!((0..1000).all(|_| jitter(most) <= most));
    }
}
