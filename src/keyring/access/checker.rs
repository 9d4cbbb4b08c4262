//! One check: ask the key service, act on the answer. Nothing here touches the storage or
//! the writer's lock: neither may hold up a revocation.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::super::Inner;
use super::super::body::Body;
use super::super::client::NEVER;
use super::super::format::Image;
use super::super::unlock::Refusal;
use super::machine::{AccessState, Answer, Change};
use super::monitor::{Monitor, jitter};
use crate::error::{Error, ErrorKind, KmsErrorKind, Result};
use crate::kms::Deadline;
use crate::secret::StoreKey;
use crate::sync::unless_held;

/// Until the watch looks again while somebody else asks.
const LOOK: Duration = Duration::from_millis(20);

type Asked = Result<(Arc<StoreKey>, Body), Refusal>;

impl Inner {
    /// Gives the keys up if their time is over, and asks the key service if a check is due.
    /// Waits for nothing but the service, and for that no longer than a check may take.
    pub(in super::super) fn watch_access(&self, cancelled: &dyn Fn() -> bool) {
        let now = self.clock.since_boot();
        self.tick(now);
        if self.watch.monitor().machine.next_check() <= now
            // Somebody else's check is as good.
            && let Some(_asking) = unless_held(self.watch.asking.try_lock())
        {
            self.check_alone(cancelled);
        }
    }

    /// Until [`watch_access`](Self::watch_access) has something to do; `None` while there
    /// are no keys to watch over.
    pub(in super::super) fn until_watch(&self) -> Option<Duration> {
        let monitor = self.watch.monitor();
        let next = monitor.machine.next_check();
        let next = monitor.deadline().map_or(next, |deadline| deadline.min(next));
        let serves = monitor.machine.state().serves();
        serves.then(|| match next.saturating_sub(self.clock.since_boot()) {
            // It is due, and somebody else asks.
            Duration::ZERO => LOOK,
            left => left,
        })
    }

    /// Checks now.
    pub(super) fn check(&self) {
        let asking = self.watch.asking.lock().unwrap_or_else(PoisonError::into_inner);
        self.tick(self.clock.since_boot());
        self.check_alone(NEVER);
        drop(asking);
        self.follow(NEVER);
        self.watch.deliver();
    }

    fn tick(&self, now: Duration) {
        let mut monitor = self.watch.monitor();
        let change = monitor.tick(now);
        if change.is_some() {
            drop(self.vault.withdraw());
        }
        self.changed(&mut monitor, change);
    }

    /// Asks about the image in use. What is lost is given back by [`follow`](Self::follow).
    fn check_alone(&self, cancelled: &dyn Fn() -> bool) {
        let epoch = self.vault.epoch();
        let image = {
            let snapshot = self.vault.load();
            if snapshot.unlocked.is_none() {
                return;
            }
            snapshot.image.clone()
        };
        match self.ask_counted(&image, cancelled) {
            Some(Ok(_)) => self.conclude(epoch, Answer::Good, None),
            Some(Err(refusal)) => {
                let answer = refusal.answer();
                self.conclude(epoch, answer, refusal.denied_slot);
            }
            None => {}
        }
    }

    pub(super) fn ask_counted(&self, image: &Image, cancelled: &dyn Fn() -> bool) -> Option<Asked> {
        let started = self.clock.since_boot();
        let asked = self.ask(image, cancelled)?;
        let mut monitor = self.watch.monitor();
        monitor.checks += 1;
        monitor.checks_failed += u64::from(asked.is_err());
        monitor.last_check_took = self.clock.since_boot().saturating_sub(started);
        Some(asked)
    }

    /// Takes note of a change; the thread that uses the storage makes it durable.
    fn changed(&self, monitor: &mut Monitor, change: Option<Change>) {
        monitor.changed(change, self.clock.now_ns());
        if change.is_some() {
            self.watch.watcher.ring();
            self.watch.alarm.ring();
        }
    }

    /// `None` if it was cancelled.
    fn ask(&self, image: &Image, cancelled: &dyn Fn() -> bool) -> Option<Asked> {
        let (barrier, within) = {
            let monitor = self.watch.monitor();
            (monitor.barrier.clone(), monitor.machine.policy().check_deadline)
        };
        let search = self.customers.lenient_search(barrier, Deadline::after(within));
        let asked = search.unlock_unless(image, &self.customers.all(), cancelled);
        (!cancelled()).then_some(asked)
    }

    pub(super) fn conclude(&self, epoch: u64, answer: Answer, denied_slot: Option<String>) {
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
        self.changed(&mut monitor, change);
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
        // Beside a check, which it must not hold up.
        match self.ask(&image, NEVER) {
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
    pub(super) fn answer(&self) -> Answer {
        match (self.error.kind(), &self.denied_slot) {
            (ErrorKind::Kms(kind), Some(_)) => Answer::Denied(kind),
            (ErrorKind::Kms(kind), None) => Answer::Unclear(kind),
            (ErrorKind::WrongStoreKey, _) => Answer::Unclear(KmsErrorKind::Integrity),
            _ => Answer::Unclear(KmsErrorKind::Protocol),
        }
    }
}
