//! Access to the customer's key: watching it, withdrawing all keys, bringing them back.
//!
//! `access/machine.rs` decides, `access/checker.rs` asks the key service,
//! `access/follow.rs` looks what other processes did, `access/withdrawal.rs` takes the keys
//! away and gives them back, `access/monitor.rs` and `access/view.rs` remember,
//! `access/watch.rs` tells, `access/patience.rs` waits for an opening.
//!
//! Two threads, so that neither waits for the other: the watch gives keys up and asks the
//! key service, and touches neither the storage nor the writer's lock; the rest follows the
//! storage.

use std::sync::Arc;

use super::audit::AuditKind;
use super::client::NEVER;
use super::{AccessFlag, Keyring, KeyringStorage, KmsSet, Marks, Options};
use crate::error::Result;

mod checker;
mod follow;
mod machine;
mod monitor;
mod patience;
mod policy;
#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod residue;
mod status;
mod view;
mod watch;
mod withdrawal;

pub use machine::AccessState;
pub use monitor::Transition;
pub(super) use monitor::{Monitor, jitter};
pub(super) use patience::Pauses;
pub use policy::{AccessPolicy, Grace};
pub use status::{AccessStatus, CredentialStatus};
pub(super) use watch::Watch;
use withdrawal::Request;
pub(super) use withdrawal::revocation_requested;

/// Access to the customer's key of an open keyring.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a>(pub(super) &'a Keyring);

impl Access<'_> {
    /// What is known. Asks nobody.
    pub fn status(&self) -> AccessStatus {
        let inner = &self.0.inner;
        let now = inner.clock.since_boot();
        let mut status = inner.watch.monitor().status(now);
        let keys = inner.customers.all();
        status.credentials = keys.iter().filter_map(|kms| CredentialStatus::of(kms)).collect();
        status
    }

    /// Tells at any time whether access lasts.
    pub fn flag(&self) -> AccessFlag {
        self.0.inner.vault.handles.flag()
    }

    /// Checks access now and acts on the answer, then on what other processes did to the
    /// store, as the background threads do every few minutes. The first takes at most
    /// [`AccessPolicy::check_deadline`], or twice that if a check is running already; the
    /// second as long as the storage.
    pub fn check_now(&self) -> AccessStatus {
        self.0.inner.check();
        self.status()
    }

    /// Gives the keys up if their time is over, and asks the key service if a check is due:
    /// the part of [`Keyring::maintain`] that keeps the [stated bound](AccessPolicy::worst_case).
    /// It touches no storage and waits for no other operation, so for at most
    /// [`AccessPolicy::check_deadline`]. Without the [background threads](Options::background)
    /// a thread calls it that does nothing else.
    pub fn watch(&self) -> AccessStatus {
        self.0.inner.watch_access(NEVER);
        self.0.inner.watch.deliver();
        self.status()
    }

    /// Calls `hook` at every change of the [access state](AccessState), so that an engine
    /// can drop its caches when keys are withdrawn and go on when they are back.
    ///
    /// Hooks run one after the other, in the order of the changes, in the thread that
    /// noticed the change or in one of their own, which holds no lock: they may call this
    /// keyring. When keys are
    /// withdrawn they are gone before the hook runs. A hook **MUST NOT** own a `Keyring`
    /// or what contains one, since neither would ever be freed. A hook that panics is
    /// called again at the next change.
    pub fn on_transition(&self, hook: impl Fn(&Transition) + Send + Sync + 'static) {
        self.0.inner.watch.monitor().hooks.push(Arc::new(hook));
    }

    /// Withdraws access at once: when this returns, every open file of this keyring
    /// refuses with [`CmekRevoked`](crate::ErrorKind::CmekRevoked), and store key, data keys and
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
    /// [`Io`](crate::ErrorKind::Io): the keys are gone, and the store is neither marked, nor does a
    /// [request](Self::request_revocation) stand for the mark, as it does where the commit
    /// failed.
    pub fn revoke(&self) -> Result<()> {
        self.0.inner.revoke(AuditKind::Revoked, "on request")
    }

    /// Asks the key service again; if it unwraps its slot's key, open files go on where
    /// they were, and the mark of [`revoke`](Self::revoke) is removed.
    ///
    /// # Errors
    /// As [`Keyring::open`], and [`Poisoned`](crate::ErrorKind::Poisoned) after a commit with
    /// an unknown outcome; [`CmekRevoked`](crate::ErrorKind::CmekRevoked) if the store is marked
    /// as revoked and the keyring is open for reading only, or if access was withdrawn
    /// meanwhile. Nothing changes then.
    pub fn restore(&self) -> Result<()> {
        self.0.inner.restore()
    }

    /// Opens a store that was marked by [`revoke`](Self::revoke), and removes the mark.
    /// Opens any other store as [`Keyring::open`] does.
    ///
    /// # Errors
    /// Those of [`Keyring::open`], `CmekRevoked` apart.
    pub fn open_and_restore(
        storage: impl KeyringStorage + 'static,
        kms: impl Into<KmsSet>,
        options: Options,
    ) -> Result<Keyring> {
        storage.lock()?;
        // Before the key service is asked, which may take long.
        let request = Request::of(&storage)?;
        let keyring =
            Keyring::open_locked(Box::new(storage), kms.into().0, options, true, Marks::Remove)?;
        keyring.inner.remove_marks(&request)?;
        Ok(keyring)
    }

    /// Asks whichever process has the store open for writing to give its keys up and to
    /// mark the store as revoked, which it does at its next check; until then every
    /// opening refuses. Needs no key. For a store that no process has open,
    /// [`revoke`](Self::revoke) is better: its mark cannot be removed by somebody who can
    /// only write to the disk.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn request_revocation(storage: &dyn KeyringStorage) -> Result<()> {
        withdrawal::request_revocation(storage)
    }

    /// Whether a [request](Self::request_revocation) is waiting beside the keyring. Needs
    /// no key.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io).
    pub fn is_revocation_requested(storage: &dyn KeyringStorage) -> Result<bool> {
        revocation_requested(storage)
    }
}
