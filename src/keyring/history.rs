//! Reading the audit trail of a store.

use super::audit::AuditEvent;
use super::client::Client;
use super::unlock::Search;
use super::{Keyring, KeyringStorage, KmsSet, Options, load};
use crate::error::Result;

/// The audit trail of an open keyring.
#[derive(Clone, Copy, Debug)]
pub struct Audit<'a>(pub(super) &'a Keyring);

impl Audit<'_> {
    /// All that happened to the store's keys, oldest first, verified: what the keyring
    /// holds by its MAC, older events by the hash of their chain in it.
    ///
    /// # Errors
    /// [`Authentication`](crate::ErrorKind::Authentication) if an archive is missing or was
    /// changed, [`Io`](crate::ErrorKind::Io).
    pub fn events(&self) -> Result<Vec<AuditEvent>> {
        let inner = &self.0.inner;
        inner.vault.load().body.audit.all(&*inner.storage, inner.store_id)
    }

    /// [`events`](Self::events) of a store that is not opened otherwise: of one that was
    /// revoked on request, too.
    ///
    /// # Errors
    /// Those of [`events`](Self::events) and [`Keyring::open`], `CmekRevoked` apart.
    pub fn read(
        storage: &dyn KeyringStorage,
        kms: impl Into<KmsSet>,
        options: &Options,
    ) -> Result<Vec<AuditEvent>> {
        let image = load(storage)?;
        super::check_store(&image, options)?;
        let search = Search::opening(options, true);
        let (_, body) = search.unlock(&image, &Client::all(kms.into().0))?;
        if let Some(anchor) = &options.anchor {
            super::check_anchor(&image, anchor)?;
        }
        body.audit.all(storage, image.fixed.store_id)
    }
}
