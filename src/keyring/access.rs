//! Access to the customer's key: watching it, withdrawing all keys, bringing them back.
//!
//! `access/machine.rs` decides, `access/checker.rs` asks the key service, `access/gate.rs`
//! takes the keys away and gives them back, `access/monitor.rs` remembers and tells.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::audit::AuditKind;
use super::body::Body;
use super::unlock::Search;
use super::{Inner, Keyring, KeyringStorage, Marks, Options, Snapshot};
use crate::cipher::revoked;
use crate::error::{Error, ErrorKind, KmsErrorKind, Result};
use crate::kms::Deadline;

mod checker;
mod gate;
mod machine;
mod monitor;
mod policy;
#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod residue;

pub(super) use gate::Gate;
pub use machine::AccessState;
pub(super) use monitor::Monitor;
pub use monitor::Transition;
pub use policy::{AccessPolicy, Grace};

use monitor::Hold;

/// Asks the store's processes to give their keys up. Not authenticated: whoever can write
/// it can destroy the store too.
const REVOKE_REQUEST: &str = "revoke";

/// What is known of access to the customer's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Access {
    /// The state.
    pub state: AccessState,
    /// How long it has lasted, time asleep included.
    #[serde(serialize_with = "seconds", rename = "in_state_s")]
    pub in_state: Duration,
    /// Since the last check that unwrapped the store key; opening the store counts.
    #[serde(serialize_with = "seconds", rename = "since_good_check_s")]
    pub since_good_check: Duration,
    /// Until the keys are given up unless a good check comes first; `None` for never, or
    /// when there are none.
    #[serde(serialize_with = "seconds_or_none", rename = "keys_expire_in_s")]
    pub keys_expire_in: Option<Duration>,
    /// Whether access was withdrawn on request, so that only a request restores it.
    pub revoked_on_request: bool,
    /// What the last check met; `None` if it was good.
    #[serde(serialize_with = "kind_or_none")]
    pub kms_error: Option<KmsErrorKind>,
    /// Checks since the store was opened.
    pub checks: u64,
    /// Those that were not good.
    pub checks_failed: u64,
    /// How long the last one took.
    #[serde(serialize_with = "seconds", rename = "last_check_took_s")]
    pub last_check_took: Duration,
    /// [`AccessPolicy::worst_case`].
    #[serde(serialize_with = "seconds", rename = "worst_case_s")]
    pub worst_case: Duration,
    /// [`AccessPolicy::worst_case_unreachable`].
    #[serde(serialize_with = "seconds_or_none", rename = "worst_case_unreachable_s")]
    pub worst_case_unreachable: Option<Duration>,
}

fn seconds<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
fn seconds_or_none<S: serde::Serializer>(
    duration: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(to)
}

#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
fn kind_or_none<S: serde::Serializer>(
    kind: &Option<KmsErrorKind>,
    to: S,
) -> Result<S::Ok, S::Error> {
    kind.map(KmsErrorKind::as_str).serialize(to)
}

impl Keyring {
    /// What is known of access to the customer's key. Asks nobody.
    pub fn access(&self) -> Access {
        let now = self.inner.clock.since_boot();
        self.inner.monitor().access(now)
    }

    /// Checks access now and acts on the answer, as the background thread does every few
    /// minutes. Takes at most [`AccessPolicy::check_deadline`], or twice that if a check
    /// is running already.
    pub fn check_now(&self) -> Access {
        self.inner.check();
        self.access()
    }

    /// Calls `hook` at every change of the [access state](AccessState), so that an engine
    /// can drop its caches when keys are withdrawn and go on when they are back.
    ///
    /// Hooks run one after the other, in the order of the changes, in the thread that
    /// noticed the change, which holds no lock: they may call this keyring. When keys are
    /// withdrawn they are gone before the hook runs. A hook **MUST NOT** own a `Keyring`
    /// or what contains one, since neither would ever be freed. A hook that panics is
    /// called again at the next change.
    pub fn on_transition(&self, hook: impl Fn(&Transition) + Send + Sync + 'static) {
        self.inner.monitor().hooks.push(Arc::new(hook));
    }

    /// Withdraws access at once: when this returns, every open file of this keyring
    /// refuses with [`CmekRevoked`](ErrorKind::CmekRevoked), and store key, data keys and
    /// file keys are zeroized, or will be when the operations in flight end. The wrapped
    /// keys stay.
    ///
    /// A keyring open for writing marks the store as revoked, so that every opening
    /// refuses until [`restore`](Self::restore) or
    /// [`open_and_restore`](Self::open_and_restore), and other processes that have it
    /// open give their keys up at their next check. One open for reading gives up its own
    /// keys alone.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) and the other kinds of a failed commit: the keys are gone,
    /// and the store is not marked.
    pub fn revoke(&self) -> Result<()> {
        self.inner.revoke(AuditKind::Revoked, "on request")
    }

    /// Asks the key service again; if it unwraps the store key, open files go on where
    /// they were, and the mark of [`revoke`](Self::revoke) is removed.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Poisoned`](ErrorKind::Poisoned) after a commit with
    /// an unknown outcome; [`CmekRevoked`](ErrorKind::CmekRevoked) if the store is marked
    /// as revoked and the keyring is open for reading only, or if access was withdrawn
    /// meanwhile. Nothing changes then.
    pub fn restore(&self) -> Result<()> {
        self.inner.restore()
    }

    /// Opens a store that was marked by [`revoke`](Self::revoke), and removes the mark.
    /// Opens any other store as [`open`](Self::open) does.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), `CmekRevoked` apart.
    pub fn open_and_restore(
        storage: impl KeyringStorage + 'static,
        kms: impl Into<super::KmsSet>,
        options: Options,
    ) -> Result<Self> {
        storage.lock()?;
        let keyring =
            Self::open_locked(Box::new(storage), kms.into().0, options, true, Marks::Remove)?;
        keyring.inner.remove_marks()?;
        Ok(keyring)
    }

    /// Asks whichever process has the store open for writing to give its keys up and to
    /// mark the store as revoked, which it does at its next check; until then every
    /// opening refuses. Needs no key. For a store that no process has open,
    /// [`revoke`](Self::revoke) is better: its mark cannot be removed by somebody who can
    /// only write to the disk.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io); [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) from a
    /// storage that keeps nothing beside the keyring: open the store and revoke it.
    pub fn request_revocation(storage: &dyn KeyringStorage) -> Result<()> {
        if storage.put_beside(REVOKE_REQUEST, b"")? {
            return Ok(());
        }
        let what = "expected a storage that can hold a request beside the keyring";
        Err(Error::new(ErrorKind::UnsupportedFeature, what))
    }
}

impl Keyring {
    /// Whether a [request](Self::request_revocation) is waiting beside the keyring. Needs
    /// no key.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    pub fn is_revocation_requested(storage: &dyn KeyringStorage) -> Result<bool> {
        revocation_requested(storage)
    }
}

/// Whether somebody asked for the keys to be given up.
pub(super) fn revocation_requested(storage: &dyn KeyringStorage) -> Result<bool> {
    Ok(storage.load_beside(REVOKE_REQUEST)?.is_some())
}

impl Inner {
    pub(super) fn revoke(&self, what: AuditKind, detail: &str) -> Result<()> {
        let old = self.give_up(Hold::Here);
        let marked = if self.writable { self.mark(old, what, detail) } else { Ok(()) };
        self.deliver();
        marked
    }

    /// Takes the keys away at once, until a request restores them. Returns the last
    /// generation that may have had some.
    fn give_up(&self, hold: Hold) -> Arc<Snapshot> {
        let mut monitor = self.monitor();
        let change = monitor.machine.revoke(self.clock.since_boot());
        monitor.hold = hold;
        let old = self.withdraw_keys();
        monitor.changed(change, self.clock.now_ns());
        old
    }

    /// Marks the store as revoked, with the last use of the keys that were withdrawn,
    /// which end here.
    fn mark(&self, old: Arc<Snapshot>, what: AuditKind, detail: &str) -> Result<()> {
        let mut marked = Err(revoked());
        if let Some(unlocked) = &old.unlocked {
            let mut writer = self.writer();
            marked = self.commit_with(&mut writer, Some(unlocked), |draft| {
                draft.body.revoked_ns = draft.now_ns.max(1);
                draft.record(what, detail);
                Ok(true)
            });
        }
        drop(old);
        if let Err(error) = marked {
            // No key to authenticate a mark with: the request stands for it.
            self.monitor().note(self.clock.now_ns(), what, detail);
            if !self.storage.put_beside(REVOKE_REQUEST, b"")? {
                return Err(error);
            }
        }
        self.monitor().hold = Hold::Store;
        Ok(())
    }

    /// Whether the store says that access was withdrawn on request.
    fn is_marked(&self, body: &Body) -> Result<bool> {
        Ok(body.revoked_ns != 0 || revocation_requested(&*self.storage)?)
    }

    /// Removes what keeps the store from opening.
    fn remove_marks(&self) -> Result<()> {
        let mut writer = self.writer();
        let requested = revocation_requested(&*self.storage)?;
        self.commit(&mut writer, |draft| {
            let marked = draft.body.revoked_ns != 0 || requested;
            draft.body.revoked_ns = 0;
            if marked {
                draft.record(AuditKind::Restored, "on request");
            }
            Ok(marked)
        })?;
        // Last, so that a crash before it leaves the store refusing.
        if requested { self.storage.remove_beside(REVOKE_REQUEST) } else { Ok(()) }
    }

    fn restore(&self) -> Result<()> {
        // The image that can be read now may be gone after a crash.
        self.writer().check()?;
        let epoch = self.gate().epoch();
        let old = self.snapshot.load_full();
        if old.unlocked.is_some() {
            return Ok(());
        }
        let image = self.load_newer(&old)?;
        let search = Search {
            prefer: self.slot.clone(),
            barrier: self.monitor().barrier.clone(),
            strict: true,
            deadline: Deadline::after(self.kms_deadline),
        };
        let (store_key, body) = search.unlock(&image, &self.kms())?;
        let marked = self.is_marked(&body)?;
        if marked && !self.writable {
            return Err(revoked());
        }
        self.adopt(epoch, image, store_key, body)?;
        if marked && let Err(error) = self.remove_marks() {
            drop(self.give_up(Hold::Store));
            self.deliver();
            return Err(error);
        }
        self.commit_notes();
        self.deliver();
        Ok(())
    }

    /// Gives the keys up because another process marked the store as revoked.
    pub(super) fn heed_mark(&self) {
        drop(self.give_up(Hold::Store));
        // Its thread tells the hooks: here a lock is held.
        self.alarm.ring();
    }

    /// Makes sure, before a change of who has access, that it was not denied meanwhile: an
    /// outage may be the reason for the change, a revocation must not be.
    ///
    /// # Errors
    /// [`CmekRevoked`](ErrorKind::CmekRevoked), [`Kms`](ErrorKind::Kms) with a kind that
    /// denies access.
    pub(super) fn check_not_denied(&self) -> Result<()> {
        let image = {
            let snapshot = self.snapshot.load();
            snapshot.unlocked()?;
            snapshot.image.clone()
        };
        if self.monitor().machine.state() == AccessState::Suspect {
            return self.check_may_rotate();
        }
        let _asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        match self.ask(&image, &|| false) {
            Some(Err(refusal)) if refusal.denied_slot.is_some() => Err(refusal.error),
            _ => Ok(()),
        }
    }

    /// Whether keys may rotate.
    ///
    /// # Errors
    /// [`Kms`](ErrorKind::Kms) while it is unclear whether access is left.
    pub(super) fn check_may_rotate(&self) -> Result<()> {
        let monitor = self.monitor();
        match (monitor.machine.state(), monitor.machine.last_kind()) {
            (AccessState::Unreachable | AccessState::Suspect, Some(kind)) => {
                let what = "keys do not rotate while access to the customer's key is unclear";
                Err(Error::new(ErrorKind::Kms(kind), what))
            }
            _ => Ok(()),
        }
    }
}
