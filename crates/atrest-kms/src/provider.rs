//! What a provider does, and the one wrapper around all of them.

use std::fmt;
use std::sync::Arc;

use atrest::kms::{
    Credential, Deadline, KeyUri, Kms, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey,
};

use crate::environment::Environment;
use crate::fail::misconfigured;
use crate::retry::retry;

/// One key of one service. Each call is one try with a deadline of its own: what comes
/// back is tried again, and named after its key, by [`KeyService`].
pub(crate) trait Provider: fmt::Debug + Send + Sync + Sized {
    /// The key that `opening` names. Calls nothing.
    fn open(opening: &Opening<'_>) -> Result<Self, KmsError>;

    fn wrap_once(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError>;

    /// **MUST** refuse a blob that cannot be this service's with `Integrity`, rather than
    /// let the service call it a malformed request.
    fn unwrap_once(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError>;

    /// Wraps anew inside the service; `None` where it cannot, or may not.
    fn rewrap_once(
        &self,
        _wrapped: &WrappedKey,
        _context: &WrapContext,
        _deadline: Deadline,
    ) -> Result<Option<WrappedKey>, KmsError> {
        Ok(None)
    }

    /// Lets the next call get another credential in the place of a kept one, unless that was
    /// tried a short while ago.
    fn outdate_credential(&self) {}

    /// The credential of the last call, if its end is known. Calls nothing.
    fn credential(&self) -> Option<Credential> {
        None
    }
}

/// What a provider is opened from.
pub(crate) struct Opening<'a> {
    pub uri: &'a KeyUri,
    pub environment: &'a Environment,
    /// A URI of this kind, for errors.
    pub example: &'static str,
}

impl Opening<'_> {
    /// The error for a URI of another form. It does not repeat the URI, since whatever
    /// does not belong there may be a secret.
    pub(crate) fn malformed(&self) -> KmsError {
        misconfigured(format!("malformed key URI: expected {}", self.example))
    }
}

/// A provider with its key's name, its calls repeated until their deadline.
#[derive(Debug)]
struct KeyService<P> {
    uri: KeyUri,
    provider: P,
}

/// Opens a key.
pub(crate) fn open<P: Provider + 'static>(opening: &Opening<'_>) -> Result<Arc<dyn Kms>, KmsError> {
    Ok(Arc::new(KeyService { uri: opening.uri.clone(), provider: P::open(opening)? }))
}

impl<P: Provider> KeyService<P> {
    fn call<T>(
        &self,
        deadline: Deadline,
        once: impl FnMut(Deadline) -> Result<T, KmsError>,
    ) -> Result<T, KmsError> {
        retry(deadline, once).map_err(|error| {
            // What a credential may do can be fixed when it is made, as in a token of Vault:
            // with this one nobody would notice that access was given back.
            if error.kind() == KmsErrorKind::AccessDenied {
                self.provider.outdate_credential();
            }
            error.with_key_uri(&self.uri)
        })
    }
}

// A method added to the trait must reach the provider, not its default.
#[deny(clippy::missing_trait_methods)]
impl<P: Provider> Kms for KeyService<P> {
    fn key_uri(&self) -> &KeyUri {
        &self.uri
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.call(deadline, |deadline| self.provider.wrap_once(key, context, deadline))
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        self.call(deadline, |deadline| self.provider.unwrap_once(wrapped, context, deadline))
    }

    fn rewrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        let inside = |deadline| self.provider.rewrap_once(wrapped, context, deadline);
        match self.call(deadline, inside)? {
            Some(rewrapped) => Ok(rewrapped),
            None => self.wrap(&self.unwrap(wrapped, context, deadline)?, context, deadline),
        }
    }

    fn credential(&self) -> Option<Credential> {
        self.provider.credential()
    }
}
