//! Following the storage: what other processes did to the store, and access that is back.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::super::Inner;
use super::super::audit::AuditKind;
use super::super::body::Body;
use super::super::format::Image;
use super::super::snapshot::Snapshot;
use super::super::unlock::Refusal;
use super::machine::Answer;
use super::monitor::{RevokedBy, jitter};
use super::withdrawal::Request;
use crate::error::{ErrorKind, Result};
use crate::secret::StoreKey;

impl Inner {
    /// Follows the storage if it is time, and commits what waits for it.
    pub(in super::super) fn follow_if_due(&self, cancelled: &dyn Fn() -> bool) {
        if self.until_follow().is_zero() {
            self.follow(cancelled);
        } else {
            self.commit_notes();
        }
    }

    /// Until [`follow_if_due`](Self::follow_if_due) has something to do.
    pub(in super::super) fn until_follow(&self) -> Duration {
        let monitor = self.watch.monitor();
        let serves = monitor.machine.state().serves();
        let next = if serves { monitor.view.next } else { monitor.machine.next_check() };
        next.saturating_sub(self.clock.since_boot())
    }

    /// Heeds what others did or, without keys, looks whether they are back.
    pub(super) fn follow(&self, cancelled: &dyn Fn() -> bool) {
        if self.vault.load().unlocked.is_none() {
            self.look_for_access(cancelled);
        } else if let Err(error) = self.heed_others()
            && error.kind() != ErrorKind::CmekRevoked
        {
            let mut problem = error.to_string();
            if let Some(cause) = std::error::Error::source(&error) {
                problem = format!("{problem}: {cause}");
            }
            let now = self.clock.since_boot();
            self.watch.monitor().view.failed(now, problem, jitter());
        }
        self.commit_notes();
    }

    /// Asks the key service about what is stored now, and lets the keys in if it unwraps.
    fn look_for_access(&self, cancelled: &dyn Fn() -> bool) {
        let epoch = self.vault.epoch();
        let snapshot = self.vault.load_full();
        let image = match self.load_newer(&snapshot) {
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
        let asked = {
            let _asking = self.watch.asking.lock().unwrap_or_else(PoisonError::into_inner);
            self.ask_counted(&image, cancelled)
        };
        match asked {
            Some(Ok((store_key, body))) => self.bring_back(epoch, image, store_key, body),
            Some(Err(refusal)) => {
                let answer = refusal.answer();
                self.conclude(epoch, answer, refusal.denied_slot);
            }
            None => {}
        }
    }

    /// Access is back, and so are the keys, unless the store is marked as revoked.
    fn bring_back(&self, epoch: u64, image: Image, store_key: Arc<StoreKey>, body: Body) {
        match self.is_marked(&body) {
            Ok(false) => {
                // What changed meanwhile is looked at again at once: the check is still due.
                if let Err(error) = self.adopt(epoch, image, store_key, body) {
                    self.conclude(epoch, Refusal::from(error).answer(), None);
                }
            }
            Ok(true) => self.remember_mark(epoch, image, body),
            Err(error) => self.conclude(epoch, Refusal::from(error).answer(), None),
        }
    }

    /// Keeps the keys out of a store that is marked as revoked, and remembers the mark: until the
    /// keyring changes nobody asks the key service about it again.
    fn remember_mark(&self, epoch: u64, image: Image, body: Body) {
        let _writer = self.writer();
        // Unless access came and went meanwhile: the mark may be an old one.
        if self.vault.epoch() == epoch && self.vault.load().unlocked.is_none() {
            drop(self.give_up(RevokedBy::Mark));
            // A request goes without a change of the keyring.
            if body.revoked_ns != 0 {
                self.vault.publish(Snapshot { image, body, unlocked: None });
            }
            self.conclude(self.vault.epoch(), Answer::Good, None);
        }
    }

    /// Heeds what others did to the store: a request to revoke, a mark, a rotation.
    fn heed_others(&self) -> Result<()> {
        let request = match Request::of(&*self.storage) {
            Ok(Request::None) => {
                let now = self.clock.since_boot();
                self.watch.monitor().view.looked(now, jitter());
                return self.reload(&mut self.writer());
            }
            Ok(request) => request,
            Err(error) => {
                // It says nothing about access: the lease does.
                self.reload(&mut self.writer())?;
                return Err(error);
            }
        };
        let old = self.give_up(RevokedBy::Mark);
        if self.writable
            && self
                .mark(old, RevokedBy::Mark, AuditKind::Revoked, "on another process's request")
                .is_ok()
            && self.vault.load().body.revoked_ns != 0
        {
            // The mark stands for it now. If it stays, the mark is made once more.
            drop(request.remove(&*self.storage));
        }
        Ok(())
    }
}
