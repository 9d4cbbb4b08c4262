//! One check: ask the key service, act on the answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::super::Inner;
use super::super::audit::AuditKind;
use super::super::body::Body;
use super::super::format::Image;
use super::super::unlock::Refusal;
use super::machine::{AccessState, Answer};
use super::monitor::{RevokedBy, jitter};
use super::withdrawal::{REVOKE_REQUEST, revocation_requested};
use crate::error::{Error, ErrorKind, KmsErrorKind, Result};
use crate::kms::{Deadline, KmsError};
use crate::secret::StoreKey;

/// How often a wait for the key service looks whether it is cancelled.
const LOOK: Duration = Duration::from_millis(20);
/// Stack of the thread that asks, in bytes: what threads have by default.
const STACK_BYTES: usize = 2 << 20;

type Asked = Result<(Arc<StoreKey>, Body), Refusal>;

impl Inner {
    /// Gives the keys up if their time is over, and checks if a check is due.
    pub(in super::super) fn watch_access(&self, cancelled: &dyn Fn() -> bool) {
        let now = self.clock.since_boot();
        self.tick(now);
        if self.watch.monitor().machine.next_check() <= now
            // Somebody else's check is as good.
            && let Ok(_asking) = self.watch.asking.try_lock()
        {
            self.check_alone(cancelled);
        }
        self.watch.deliver();
    }

    /// Until [`watch_access`](Self::watch_access) has something to do.
    pub(in super::super) fn until_watch(&self) -> Duration {
        self.watch.monitor().machine.next_wake().saturating_sub(self.clock.since_boot())
    }

    /// Checks now.
    pub(super) fn check(&self) {
        let asking = self.watch.asking.lock().unwrap_or_else(PoisonError::into_inner);
        self.tick(self.clock.since_boot());
        self.check_alone(&|| false);
        drop(asking);
        self.watch.deliver();
    }

    fn tick(&self, now: Duration) {
        let mut monitor = self.watch.monitor();
        let change = monitor.machine.tick(now);
        if change.is_some() {
            drop(self.vault.withdraw());
        }
        monitor.changed(change, self.clock.now_ns());
    }

    fn check_alone(&self, cancelled: &dyn Fn() -> bool) {
        self.heed_others();
        let epoch = self.vault.epoch();
        let snapshot = self.vault.load_full();
        let serving = snapshot.unlocked.is_some();
        // A copy of the image in use; without keys, what is stored now.
        let image = if serving { Ok(snapshot.image.clone()) } else { self.load_newer(&snapshot) };
        let image = match image {
            Ok(image) => image,
            Err(error) => return self.conclude(epoch, Refusal::from(error).answer(), None),
        };
        let revoked_by = self.watch.monitor().revoked_by;
        let unchanged = image.stored == snapshot.image.stored;
        if revoked_by == RevokedBy::ThisProcess || (revoked_by == RevokedBy::Mark && unchanged) {
            // Nobody asked to restore: no key enters memory. Only counts as the next step.
            return self.conclude(epoch, Answer::Good, None);
        }
        drop(snapshot);
        let started = self.clock.since_boot();
        let Some(asked) = self.ask(&image, cancelled) else { return };
        {
            let mut monitor = self.watch.monitor();
            monitor.checks += 1;
            monitor.checks_failed += u64::from(asked.is_err());
            monitor.last_check_took = self.clock.since_boot().saturating_sub(started);
        }
        match asked {
            Ok((store_key, body)) if !serving => self.bring_back(epoch, image, store_key, body),
            Ok(_) => self.conclude(epoch, Answer::Good, None),
            Err(refusal) => {
                let answer = refusal.answer();
                self.conclude(epoch, answer, refusal.denied_slot);
            }
        }
        self.commit_notes();
    }

    /// Asks in a thread of its own, so that a client which overstays its deadline or
    /// panics cannot keep the keys in memory. `None` if it was cancelled.
    fn ask(&self, image: &Image, cancelled: &dyn Fn() -> bool) -> Option<Asked> {
        let unclear = |kind, what: &str| Some(Err(Error::from(KmsError::new(kind, what)).into()));
        if self.watch.outstanding.swap(true, Ordering::AcqRel) {
            return unclear(KmsErrorKind::Unreachable, "an earlier call has not returned yet");
        }
        let (image, kms) = (image.clone(), self.customers.all());
        let (barrier, within) = {
            let monitor = self.watch.monitor();
            (monitor.barrier.clone(), monitor.machine.policy().check_deadline)
        };
        // A little less for the client, so that its own words arrive before time is up.
        let deadline = Deadline::after(within - within / 20);
        let search = self.customers.lenient_search(barrier, deadline);
        let returned = Returned(self.watch.outstanding.clone());
        let (sender, receiver) = channel();
        let spawned = std::thread::Builder::new()
            .name("atrest-kms".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let asked = search.unlock(&image, &kms);
                drop(returned);
                // Nobody may wait any more; then the key ends here.
                drop(sender.send(asked));
            });
        if spawned.is_err() {
            return unclear(KmsErrorKind::Unreachable, "no thread can be started to ask");
        }
        let started = Instant::now();
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(asked) => return Some(asked),
                Err(RecvTimeoutError::Disconnected) => {
                    return unclear(KmsErrorKind::Protocol, "the client panicked");
                }
                Err(RecvTimeoutError::Timeout) if cancelled() => return None,
                Err(RecvTimeoutError::Timeout) if started.elapsed() >= within => {
                    return unclear(KmsErrorKind::Unreachable, "no answer within the deadline");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn conclude(&self, epoch: u64, answer: Answer, denied_slot: Option<String>) {
        let mut monitor = self.watch.monitor();
        if self.vault.epoch() != epoch {
            // Keys were withdrawn while the service was asked: an answer to an old
            // question.
            return;
        }
        let change = monitor.machine.answer(self.clock.since_boot(), answer, jitter());
        if answer == Answer::Good && monitor.machine.state().serves() {
            monitor.barrier = None;
        } else if denied_slot.is_some() {
            monitor.barrier = denied_slot;
        }
        if change.is_some_and(|change| change.from.serves() && !change.to.serves()) {
            drop(self.vault.withdraw());
        }
        monitor.changed(change, self.clock.now_ns());
    }

    /// Access is back, and so are the keys, unless the store is marked as revoked.
    fn bring_back(&self, epoch: u64, image: Image, store_key: Arc<StoreKey>, body: Body) {
        match self.is_marked(&body) {
            Ok(false) => {
                if let Err(error) = self.adopt(epoch, image, store_key, body) {
                    self.conclude(epoch, Refusal::from(error).answer(), None);
                }
            }
            Ok(true) => drop(self.give_up(RevokedBy::Mark)),
            Err(error) => self.conclude(epoch, Refusal::from(error).answer(), None),
        }
    }

    /// Heeds what others did to the store: a request to revoke, a mark, a rotation.
    fn heed_others(&self) {
        if self.vault.load().unlocked.is_none() {
            return;
        }
        // A storage that cannot be read says nothing about access: the check goes on.
        if !revocation_requested(&*self.storage).unwrap_or(false) {
            drop(self.reload(&mut self.writer()));
            return;
        }
        let old = self.give_up(RevokedBy::Mark);
        if self.writable
            && self.mark(old, AuditKind::Revoked, "on another process's request").is_ok()
            && self.vault.load().body.revoked_ns != 0
        {
            // The mark stands for it now. If it stays, the mark is made once more.
            drop(self.storage.remove_beside(REVOKE_REQUEST));
        }
    }

    /// Makes sure, before a change of who has access, that it was not denied meanwhile: an
    /// outage may be the reason for the change, a revocation must not be.
    ///
    /// # Errors
    /// [`CmekRevoked`](ErrorKind::CmekRevoked), [`Kms`](ErrorKind::Kms) with a kind that
    /// denies access.
    pub(in super::super) fn check_not_denied(&self) -> Result<()> {
        let image = {
            let snapshot = self.vault.load();
            snapshot.unlocked()?;
            snapshot.image.clone()
        };
        if self.watch.monitor().machine.state() == AccessState::Suspect {
            return self.check_may_rotate();
        }
        let _asking = self.watch.asking.lock().unwrap_or_else(PoisonError::into_inner);
        match self.ask(&image, &|| false) {
            Some(Err(refusal)) if refusal.denied_slot.is_some() => Err(refusal.error),
            _ => Ok(()),
        }
    }

    /// Whether keys may rotate.
    ///
    /// # Errors
    /// [`Kms`](ErrorKind::Kms) while it is unclear whether access is left.
    pub(in super::super) fn check_may_rotate(&self) -> Result<()> {
        let monitor = self.watch.monitor();
        match (monitor.machine.state(), monitor.machine.last_kind()) {
            (AccessState::Unreachable | AccessState::Suspect, Some(kind)) => {
                let what = "keys do not rotate while access to the customer's key is unclear";
                Err(Error::new(ErrorKind::Kms(kind), what))
            }
            _ => Ok(()),
        }
    }
}

impl Refusal {
    fn answer(&self) -> Answer {
        match (self.error.kind(), &self.denied_slot) {
            (ErrorKind::Kms(kind), Some(_)) => Answer::Denied(kind),
            (ErrorKind::Kms(kind), None) => Answer::Unclear(kind),
            (ErrorKind::WrongStoreKey, _) => Answer::Unclear(KmsErrorKind::Integrity),
            _ => Answer::Unclear(KmsErrorKind::Protocol),
        }
    }
}

/// Tells that the call is over, however it ended.
struct Returned(Arc<AtomicBool>);

impl Drop for Returned {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
