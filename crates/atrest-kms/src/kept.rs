//! Credentials that last for a while: kept, shared, and renewed before they end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atrest::kms::{Credential, Deadline, KmsError, KmsErrorKind};

/// How long after another credential was fetched because of a denial the next denial may ask
/// for one: a denial that lasts is checked every minute, and what logs in may be good for a few
/// uses only. Longer, and access that was given back to a role would be noticed late.
const REST: Duration = Duration::from_secs(5 * 60);
/// The same after a refusal to give one: five refused log-ins lock a role of Vault out, and are
/// forgotten only when none has come for 15 minutes.
const REST_REFUSED: Duration = Duration::from_secs(16 * 60);

/// A credential, and for how long it is good.
pub(crate) struct Fresh<T> {
    pub value: T,
    /// `None` if that is not known: then it is not kept.
    pub lasts: Option<Lasts>,
}

/// How long a credential lasts, and when another one is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Lasts {
    /// From now on.
    pub good_for: Duration,
    /// How long such a credential lasts as a rule.
    pub lifetime: Duration,
    /// It is renewed when this much is left; `None` if it cannot be.
    pub renew_before: Option<Duration>,
}

/// The last credential. Its `Debug` shows nothing of it.
pub(crate) struct Kept<T> {
    held: Mutex<Option<Held<T>>>,
    /// Held while one is fetched, so that calls at the same time share it.
    fetching: Mutex<()>,
}

struct Held<T> {
    value: Arc<T>,
    good_until: Instant,
    renew_at: Instant,
    lifetime: Duration,
    renews: bool,
    /// It was denied, and the next call fetches another one before this one is due.
    outdated: bool,
    /// Until then a denial asks for no other one, since it or the one before was denied already.
    rests_until: Option<Instant>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { held: Mutex::new(None), fetching: Mutex::new(()) }
    }
}

impl<T> std::fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept(..)")
    }
}

impl<T> Kept<T> {
    /// The kept credential, or a new one from `fetch`, which is given the kept one if that is
    /// due but still good, and not outdated. If then none is to be had, the kept one is good
    /// enough, and an outdated one is again renewed in its time: rights may be given back to it.
    pub(crate) fn obtain(
        &self,
        deadline: Deadline,
        fetch: impl FnOnce(Option<&T>, Deadline) -> Result<Fresh<T>, KmsError>,
    ) -> Result<Arc<T>, KmsError> {
        if let Some(value) = self.current(true) {
            return Ok(value);
        }
        let _fetching = lock(&self.fetching);
        // Somebody else may just have fetched it.
        if let Some(value) = self.current(true) {
            return Ok(value);
        }
        let last = self.current(false);
        let (outdated, rests_until) = match &*lock(&self.held) {
            Some(held) => (held.outdated, held.rests_until),
            None => (false, None),
        };
        let result = match &last {
            // The call itself needs its time, whatever becomes of this one.
            Some(last) => {
                let last = Some(&**last).filter(|_| !outdated);
                fetch(last, Deadline::after(deadline.remaining() / 2))
            }
            None => fetch(None, deadline),
        };
        match (result, last) {
            (Ok(fresh), _) => {
                let rests_until = if outdated { after(REST) } else { rests_until };
                Ok(self.put(fresh, rests_until))
            }
            (Err(error), Some(last)) => {
                if let Some(held) = &mut *lock(&self.held) {
                    if outdated {
                        let refused = error.kind() == KmsErrorKind::Unauthenticated;
                        held.outdated = false;
                        held.rests_until = after(if refused { REST_REFUSED } else { REST });
                    } else {
                        held.renews = false;
                    }
                }
                Ok(last)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Takes a credential in.
    pub(crate) fn keep(&self, fresh: Fresh<T>) -> Arc<T> {
        self.put(fresh, None)
    }

    fn put(&self, fresh: Fresh<T>, rests_until: Option<Instant>) -> Arc<T> {
        let (value, now) = (Arc::new(fresh.value), Instant::now());
        let held = fresh.lasts.and_then(|lasts| {
            let good_until = now.checked_add(lasts.good_for)?;
            let before = lasts.renew_before.unwrap_or_default();
            Some(Held {
                value: value.clone(),
                good_until,
                renew_at: good_until.checked_sub(before).unwrap_or(now).max(now),
                lifetime: lasts.lifetime,
                renews: lasts.renew_before.is_some(),
                outdated: false,
                rests_until,
            })
        });
        *lock(&self.held) = held;
        value
    }

    /// The kept one while it is good, or while neither its time nor a denial asks for another.
    fn current(&self, not_due: bool) -> Option<Arc<T>> {
        let now = Instant::now();
        let held = lock(&self.held);
        let held = held.as_ref()?;
        let current =
            if not_due { now < held.renew_at && !held.outdated } else { now < held.good_until };
        current.then(|| held.value.clone())
    }

    /// The kept one, good or not.
    pub(crate) fn last(&self) -> Option<Arc<T>> {
        lock(&self.held).as_ref().map(|held| held.value.clone())
    }

    /// Drops the kept one; whether there was one.
    pub(crate) fn forget(&self) -> bool {
        lock(&self.held).take().is_some()
    }

    /// Lets the next call fetch another one, and not renew this one, unless that was done
    /// a short while ago.
    pub(crate) fn outdate(&self) {
        if let Some(held) = &mut *lock(&self.held)
            && held.rests_until.is_none_or(|until| until <= Instant::now())
        {
            held.outdated = true;
        }
    }

    /// When the kept one ends. Waits for no fetch.
    pub(crate) fn credential(&self) -> Option<Credential> {
        let held = lock(&self.held);
        let held = held.as_ref()?;
        Some(Credential {
            expires_in: held.good_until.saturating_duration_since(Instant::now()),
            lifetime: held.lifetime,
            renews: held.renews,
        })
    }
}

fn after(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is held is replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::fail::fail;

    const HOUR: Duration = Duration::from_secs(3600);

    fn fresh(value: u32, renew_before: Option<Duration>) -> Fresh<u32> {
        let lasts = Some(Lasts { good_for: HOUR, lifetime: HOUR, renew_before });
        Fresh { value, lasts }
    }

    fn soon() -> Deadline {
        Deadline::after(HOUR)
    }

    #[test]
    fn calls_at_the_same_time_share_one_fetch() {
        let (kept, fetches) = (Kept::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let obtained = kept.obtain(soon(), |_, _| {
                        std::thread::sleep(Duration::from_millis(20));
                        Ok(fresh(fetches.fetch_add(1, Ordering::SeqCst), None))
                    });
                    assert_eq!(*obtained.expect("a credential"), 0);
                });
            }
        });
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_is_due_is_good_until_it_ends() {
        let kept = Kept::default();
        // Due at once, and good for an hour.
        kept.keep(fresh(1, Some(HOUR)));
        assert!(!kept.credential().expect("kept").is_ending());
        let away = |last: Option<&u32>, deadline: Deadline| {
            assert_eq!(last, Some(&1));
            assert!(deadline.remaining() <= HOUR / 2, "the call needs its own time");
            Err(fail(KmsErrorKind::Unreachable, "scripted"))
        };
        assert_eq!(*kept.obtain(soon(), away).expect("the old one"), 1);
        let credential = kept.credential().expect("kept");
        assert!(!credential.renews && !credential.is_ending(), "{credential:?}");
        assert_eq!(*kept.obtain(soon(), |_, _| Ok(fresh(2, None))).expect("a new one"), 2);

        let lasts = Lasts { good_for: HOUR / 4, lifetime: HOUR, renew_before: None };
        kept.keep(Fresh { value: 3, lasts: Some(lasts) });
        assert!(kept.credential().expect("kept").is_ending());
        kept.keep(Fresh { value: 4, lasts: None });
        assert!(kept.credential().is_none() && !kept.forget());
        let refused = kept.obtain(soon(), |last, _| {
            assert!(last.is_none());
            Err(fail(KmsErrorKind::Unauthenticated, "scripted"))
        });
        assert_eq!(refused.err().map(|e| e.kind()), Some(KmsErrorKind::Unauthenticated));
    }

    /// As if this much time had passed.
    fn pass(kept: &Kept<u32>, time: Duration) {
        let mut held = lock(&kept.held);
        let held = held.as_mut().expect("kept");
        // The clock may not reach back that far.
        let earlier = |at: Instant| at.checked_sub(time).unwrap_or_else(Instant::now);
        held.good_until = earlier(held.good_until);
        held.renew_at = earlier(held.renew_at);
        held.rests_until = held.rests_until.map(earlier);
    }

    fn assert_keeps(kept: &Kept<u32>, expected: u32) {
        let obtained = kept.obtain(soon(), |_, _| panic!("it is kept"));
        assert_eq!(*obtained.expect("the kept one"), expected);
    }

    /// Obtains one after a denial.
    fn anew(kept: &Kept<u32>, result: Result<Fresh<u32>, KmsError>) -> u32 {
        kept.outdate();
        let mut fetched = false;
        let obtained = kept.obtain(soon(), |last, _| {
            fetched = true;
            assert!(last.is_none(), "a denied one is not renewed");
            result
        });
        assert!(fetched, "the denial asks for another one");
        *obtained.expect("one of them")
    }

    #[test]
    fn a_denied_one_that_cannot_be_replaced_is_renewed_in_its_time() {
        for kind in [KmsErrorKind::Unauthenticated, KmsErrorKind::Unreachable] {
            let kept = Kept::default();
            kept.keep(fresh(1, Some(HOUR / 2)));
            assert_eq!(anew(&kept, Err(fail(kind, "scripted"))), 1);
            assert!(kept.credential().expect("kept").renews, "nobody tried to renew it");
            // Not until it is due, whatever else is denied meanwhile.
            assert_keeps(&kept, 1);
            kept.outdate();
            assert_keeps(&kept, 1);

            pass(&kept, HOUR / 2);
            let renewed = kept.obtain(soon(), |last, _| {
                assert_eq!(last, Some(&1));
                Ok(fresh(2, Some(HOUR / 2)))
            });
            assert_eq!(*renewed.expect("the renewed one"), 2);
            // By then a denial may ask for another one.
            assert_eq!(anew(&kept, Ok(fresh(3, None))), 3);
        }
    }

    #[test]
    fn denials_ask_for_another_one_now_and_then() {
        let kept = Kept::default();
        kept.keep(fresh(1, Some(HOUR / 2)));
        let minute = Duration::from_secs(60);
        for (result, expected, rest) in [
            (Ok(fresh(2, Some(HOUR / 2))), 2, REST),
            (Err(fail(KmsErrorKind::Unreachable, "scripted")), 2, REST),
            (Err(fail(KmsErrorKind::Unauthenticated, "scripted")), 2, REST_REFUSED),
            (Ok(fresh(3, None)), 3, REST),
        ] {
            assert_eq!(anew(&kept, result), expected);
            for _ in 0..2 {
                kept.outdate();
                assert_keeps(&kept, expected);
                pass(&kept, rest / 2 - minute);
            }
            kept.outdate();
            assert_keeps(&kept, expected);
            pass(&kept, 2 * minute);
            // A denial that came too early asks for nothing later.
            assert_keeps(&kept, expected);
        }

        // One that was not fetched because of a denial is replaced after the first.
        assert!(kept.forget());
        assert_eq!(*kept.obtain(soon(), |_, _| Ok(fresh(4, None))).expect("a new one"), 4);
        assert_eq!(anew(&kept, Ok(fresh(5, None))), 5);

        // A renewal changes nothing of that.
        kept.keep(fresh(6, None));
        assert_eq!(anew(&kept, Ok(fresh(7, Some(HOUR)))), 7);
        let renewed = kept.obtain(soon(), |last, _| {
            assert_eq!(last, Some(&7));
            Ok(fresh(8, None))
        });
        assert_eq!(*renewed.expect("the renewed one"), 8);
        kept.outdate();
        assert_keeps(&kept, 8);
    }
}
