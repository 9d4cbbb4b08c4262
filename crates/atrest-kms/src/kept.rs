//! Credentials that last for a while: kept, shared, and renewed before they end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atrest::kms::{Credential, Deadline, KmsError};

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
    outdated: bool,
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
    /// due but still good, and not outdated. If then none is to be had, the kept one is good enough.
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
        let outdated = lock(&self.held).as_ref().is_some_and(|held| held.outdated);
        let result = match &last {
            // The call itself needs its time, whatever becomes of this one.
            Some(last) => {
                let last = Some(&**last).filter(|_| !outdated);
                fetch(last, Deadline::after(deadline.remaining() / 2))
            }
            None => fetch(None, deadline),
        };
        match (result, last) {
            (Ok(fresh), _) => Ok(self.keep(fresh)),
            (Err(_), Some(last)) => {
                if let Some(held) = &mut *lock(&self.held) {
                    held.renews = false;
                }
                Ok(last)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Takes a credential in.
    pub(crate) fn keep(&self, fresh: Fresh<T>) -> Arc<T> {
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
            })
        });
        *lock(&self.held) = held;
        value
    }

    /// The kept one while it is good, or while it need not be renewed yet.
    fn current(&self, not_due: bool) -> Option<Arc<T>> {
        let now = Instant::now();
        let held = lock(&self.held);
        let held = held.as_ref()?;
        let until = if not_due { held.renew_at } else { held.good_until };
        (now < until).then(|| held.value.clone())
    }

    /// The kept one, good or not.
    pub(crate) fn last(&self) -> Option<Arc<T>> {
        lock(&self.held).as_ref().map(|held| held.value.clone())
    }

    /// Drops the kept one; whether there was one.
    pub(crate) fn forget(&self) -> bool {
        lock(&self.held).take().is_some()
    }

    /// Lets the next call fetch another one, and not renew this one.
    pub(crate) fn outdate(&self) {
        if let Some(held) = &mut *lock(&self.held) {
            (held.renew_at, held.outdated) = (Instant::now(), true);
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is held is replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use atrest::kms::KmsErrorKind;

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

        // An outdated one is not renewed, but good until there is another one.
        kept.keep(fresh(1, None));
        kept.outdate();
        for result in [Err(fail(KmsErrorKind::Unreachable, "scripted")), Ok(fresh(2, None))] {
            let expected = if result.is_ok() { 2 } else { 1 };
            let obtained = kept.obtain(soon(), |last, _| {
                assert!(last.is_none());
                result
            });
            assert_eq!(*obtained.expect("one of them"), expected);
        }
        let obtained = kept.obtain(soon(), |_, _| panic!("it is kept"));
        assert_eq!(*obtained.expect("the new one"), 2);

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
}
