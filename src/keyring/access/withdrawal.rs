//! Withdrawing all keys on request, the store's mark of it, and bringing them back.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::audit::AuditKind;
use super::super::body::Body;
use super::super::format::Image;
use super::super::snapshot::{Snapshot, Unlocked};
use super::super::{Inner, KeyringStorage};
use super::monitor::{RevokedBy, jitter};
use crate::cipher::revoked;
use crate::error::Result;
use crate::secret::StoreKey;

/// Asks the store's processes to give their keys up. Not authenticated: whoever can write
/// it can destroy the store too.
pub(super) const REVOKE_REQUEST: &str = "revoke";

/// Puts a request there, which differs from those before.
pub(super) fn request_revocation(storage: &dyn KeyringStorage) -> Result<()> {
    let mut number = [0; 16];
    let told_apart =
        crate::random::fill(&mut number).and_then(|()| storage.put_beside(REVOKE_REQUEST, &number));
    // On a full disk there may be room for a name.
    told_apart.or_else(|_| storage.put_beside(REVOKE_REQUEST, b""))
}

/// Whether somebody asked for the keys to be given up. A request that cannot be read, such as
/// another user's, counts.
pub(in super::super) fn revocation_requested(storage: &dyn KeyringStorage) -> Result<bool> {
    storage.exists_beside(REVOKE_REQUEST)
}

/// What stands beside the keyring at one moment, to be told apart from what others put there later.
#[derive(PartialEq, Eq)]
pub(super) enum Request {
    None,
    Number(Vec<u8>),
    /// One that cannot be read, and so is like any other such.
    SomeOther,
}

impl Request {
    pub(super) fn of(storage: &dyn KeyringStorage) -> Result<Self> {
        match storage.load_beside(REVOKE_REQUEST) {
            Ok(None) => Ok(Self::None),
            Ok(Some(number)) => Ok(Self::Number(number)),
            Err(_) if revocation_requested(storage)? => Ok(Self::SomeOther),
            Err(error) => Err(error),
        }
    }

    /// Removes it, unless another one has taken its place: that stays. Between the look and the
    /// removal are two calls of the storage.
    ///
    /// # Errors
    /// [`CmekRevoked`](crate::ErrorKind::CmekRevoked) for another one; [`Io`](crate::ErrorKind::Io).
    pub(super) fn remove(&self, storage: &dyn KeyringStorage) -> Result<()> {
        match (self, storage.load_beside(REVOKE_REQUEST)) {
            (_, Ok(None)) => Ok(()),
            (Self::Number(before), Ok(Some(now))) if *before == now => {
                storage.remove_beside(REVOKE_REQUEST)
            }
            (_, Ok(Some(_))) => Err(revoked()),
            (Self::SomeOther, Err(_)) => storage.remove_beside(REVOKE_REQUEST),
            (_, Err(error)) => Err(error),
        }
    }
}

impl Inner {
    pub(super) fn revoke(&self, what: AuditKind, detail: &str) -> Result<()> {
        let old = self.give_up(RevokedBy::ThisProcess);
        let by = RevokedBy::ThisProcess;
        let marked = if self.writable { self.mark(old, by, what, detail) } else { Ok(()) };
        self.watch.deliver();
        marked
    }

    /// Takes the keys away at once, until a request restores them. Returns the last
    /// generation that may have had some.
    pub(super) fn give_up(&self, by: RevokedBy) -> Arc<Snapshot> {
        let mut monitor = self.watch.monitor();
        let change = monitor.machine.revoke(self.clock.since_boot());
        monitor.revoked_by = by;
        let old = self.vault.withdraw();
        monitor.changed(change, self.clock.now_ns());
        old
    }

    /// Marks the store as revoked, with the last use of the keys that were withdrawn,
    /// which end here. Without a mark the keys stay withdrawn `by` whom they were.
    pub(super) fn mark(
        &self,
        old: Arc<Snapshot>,
        by: RevokedBy,
        what: AuditKind,
        detail: &str,
    ) -> Result<()> {
        let mut writer = self.writer();
        let mut marked = match &old.unlocked {
            Some(unlocked) => self.commit_with(&mut writer, Some(unlocked), |draft| {
                draft.body.revoked_ns = draft.now_ns.max(1);
                draft.record(what, detail);
                Ok(true)
            }),
            None => Err(revoked()),
        };
        drop(old);
        if marked.is_err() {
            // No key to authenticate a mark with: the request stands for it.
            self.watch.monitor().note(self.clock.now_ns(), what, detail);
            marked = request_revocation(&*self.storage);
        }
        // Whoever restored since the keys were withdrawn saw no mark.
        drop(self.give_up(if marked.is_ok() { RevokedBy::Mark } else { by }));
        marked
    }

    /// Whether the store says that access was withdrawn on request.
    pub(super) fn is_marked(&self, body: &Body) -> Result<bool> {
        Ok(body.revoked_ns != 0 || revocation_requested(&*self.storage)?)
    }

    /// Removes what keeps the store from opening: the mark, and the request that stood there
    /// when somebody began to give access back.
    pub(super) fn remove_marks(&self, request: &Request) -> Result<()> {
        let mut writer = self.writer();
        let requested = *request != Request::None;
        self.commit(&mut writer, |draft| {
            let marked = draft.body.revoked_ns != 0 || requested;
            if marked {
                if !draft.body.audit.tells_of_revocation() {
                    draft.record(AuditKind::Revoked, "on another process's request");
                }
                draft.body.revoked_ns = 0;
                draft.record(AuditKind::Restored, "on request");
            }
            Ok(marked)
        })?;
        // Last, so that a crash before it leaves the store refusing.
        request.remove(&*self.storage)
    }

    pub(super) fn restore(&self) -> Result<()> {
        // The image that can be read now may be gone after a crash.
        self.settle(&mut self.writer())?;
        let epoch = self.vault.epoch();
        if self.vault.load().unlocked.is_some() {
            return Ok(());
        }
        // Before the key service is asked, which may take long.
        let request = Request::of(&*self.storage)?;
        let marked = loop {
            let image = self.load_newer(&self.vault.load_full())?;
            let search = self.customers.search(self.watch.monitor().barrier.clone());
            let (store_key, body) = search.unlock(&image, &self.customers.all())?;
            let marked = self.is_marked(&body)?;
            if marked && !self.writable {
                return Err(revoked());
            }
            if self.adopt(epoch, image, store_key, body)? {
                break marked;
            }
        };
        if marked && let Err(error) = self.remove_marks(&request) {
            drop(self.give_up(RevokedBy::Mark));
            self.watch.deliver();
            return Err(error);
        }
        self.commit_notes();
        self.watch.deliver();
        Ok(())
    }

    /// Lets the keys of a generation in that were unwrapped since withdrawal `epoch`, and
    /// gives open files theirs back. False if a commit that was under way then ended since: the
    /// image in the storage is another now.
    pub(super) fn adopt(
        &self,
        epoch: u64,
        image: Image,
        store_key: Arc<StoreKey>,
        mut body: Body,
    ) -> Result<bool> {
        let mut writer = self.writer();
        self.settle(&mut writer)?;
        let old = self.vault.load_full();
        if old.unlocked.is_some() {
            // Somebody else let them in, and what was committed since is in no older image.
            return Ok(true);
        }
        if image.fixed.generation < old.image.fixed.generation {
            return Ok(false);
        }
        let counted = old.body.keys.iter().map(|record| (record.id, record.encrypted_bytes));
        let counted: HashMap<_, _> = counted.collect();
        for record in &mut body.keys {
            let counted = counted.get(&record.id).copied().unwrap_or_default();
            record.encrypted_bytes = record.encrypted_bytes.max(counted);
        }
        drop(old);
        let unlocked = Unlocked::new(store_key, &image, &body, None, &self.vault.counts())?;
        let jitter = jitter();
        let mut monitor = self.watch.monitor();
        let snapshot = Snapshot { image, body, unlocked: Some(Arc::new(unlocked)) };
        let giving_back = self.vault.let_in(epoch, snapshot)?;
        let now = self.clock.since_boot();
        let change = monitor.machine.restored(now, jitter);
        // The caller looked for a request.
        monitor.view.looked(now, jitter);
        monitor.seen(now);
        monitor.revoked_by = RevokedBy::None;
        monitor.barrier = None;
        monitor.changed(change, self.clock.now_ns());
        // Hooks are told when open files work, too.
        monitor.giving_back += 1;
        drop(monitor);
        drop(writer);
        giving_back.run();
        self.watch.monitor().giving_back -= 1;
        self.watch.watcher.ring();
        Ok(true)
    }

    /// Gives the keys up because another process marked the store as revoked.
    pub(in super::super) fn heed_mark(&self) {
        drop(self.give_up(RevokedBy::Mark));
        // Its thread tells the hooks: here a lock is held.
        self.watch.alarm.ring();
    }

    /// Commits the audit events that wait, if there are any and keys to do it with.
    pub(super) fn commit_notes(&self) {
        if !self.writable || self.watch.monitor().notes().is_empty() {
            return;
        }
        // If it fails they wait for the next commit.
        drop(self.commit(&mut self.writer(), |_| Ok(true)));
    }
}
