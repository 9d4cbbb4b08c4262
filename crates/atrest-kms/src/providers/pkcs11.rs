//! `pkcs11:token=T;object=K?module-path=/usr/lib/...`: a key in a hardware module.

use std::sync::Arc;

use atrest::kms::{Deadline, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey};
use zeroize::Zeroizing;

use crate::environment::{Environment, read_secret_file};
use crate::fail::{fail, slot_key};
use crate::provider::{Opening, Provider};
use crate::secret::Secret;

mod answer;
mod blob;
mod key_name;
mod module;
mod pin;
mod session;

use blob::Blob;
use key_name::{KeyName, Mechanism};
use module::Module;
use pin::WrongPin;

/// An AES key in a PKCS#11 module, named by an RFC 7512 URI.
///
/// `token` or `serial`, and `object` or `id`, name the key; `module-path` the library,
/// else the variable `ATREST_PKCS11_MODULE`, which wins where it is set. A library must be
/// an absolute path that only root or this user may write, since a keyring that somebody
/// edited could name another. The PIN comes from the file of `pin-source`, else from
/// `ATREST_PKCS11_PIN`; `pin-value` is refused, since key URIs are stored in clear.
///
/// Wraps with AES-GCM where token and key allow it, else with AES-KEY-WRAP-PAD
/// (RFC 5649), which also covers the context; `mechanism=` chooses. Each call opens a
/// session, logs in and finds the key, so that a key or right taken away is noticed. One
/// thread for each library makes all calls, one after another, and a call that the
/// library does not answer ends by its deadline all the same.
///
/// A PIN that was wrong is not tried again by this provider, since tokens lock themselves
/// after a few tries; one that a locked token did not look at is. The process **MUST NOT**
/// fork after the first call.
#[derive(Debug)]
pub(crate) struct Pkcs11 {
    key: Arc<KeyName>,
    module: Arc<Module>,
    environment: Environment,
    wrong_pin: Arc<WrongPin>,
}

impl Pkcs11 {
    fn pin(&self) -> Result<Secret, KmsError> {
        match &self.key.pin_source {
            Some(path) => read_secret_file(path, "PIN file"),
            None => self.environment.var("ATREST_PKCS11_PIN").ok_or_else(|| {
                let what = "expected a PIN in pin-source or ATREST_PKCS11_PIN, found none";
                fail(KmsErrorKind::Unauthenticated, what)
            }),
        }
    }

    /// Runs `work` in a session that is logged in, on the library's thread.
    fn call<T: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl FnOnce(&session::Open<'_>) -> Result<T, KmsError> + Send + 'static,
    ) -> Result<T, KmsError> {
        let (pin, wrong, key) = (self.pin()?, self.wrong_pin.clone(), self.key.clone());
        self.module.run(deadline, move |library| {
            wrong.check(&pin)?;
            session::open(library, &key, &pin, &wrong, work)
        })
    }
}

/// Bytes as a wrapped key.
#[cfg(feature = "danger-internals")]
pub(super) fn fuzz(data: &[u8]) {
    if let Ok(blob) = Blob::parse(data) {
        assert_eq!(blob.to_bytes(), data);
    }
}

impl Provider for Pkcs11 {
    fn open(opening: &Opening<'_>) -> Result<Self, KmsError> {
        let key = key_name::parse(opening)?;
        let module = module::find(key.module_path.as_deref(), opening.environment)?;
        Ok(Self {
            key: Arc::new(key),
            module,
            environment: opening.environment.clone(),
            wrong_pin: Arc::default(),
        })
    }

    fn wrap_once(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        let key = Zeroizing::new(*key.expose());
        let (context, chosen) = (context.to_bytes(), self.key.mechanism);
        let blob = self.call(deadline, move |open| {
            match chosen.map_or_else(|| open.best_mechanism(), Ok)? {
                Mechanism::Gcm => open.encrypt(&key, &context),
                Mechanism::KeyWrapPad => open.wrap(&key, &context),
            }
        })?;
        Ok(WrappedKey { key_version: String::new(), blob: blob.to_bytes() })
    }

    fn unwrap_once(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        let (blob, context) = (Blob::parse(&wrapped.blob)?, context.to_bytes());
        let key = self.call(deadline, move |open| match &blob {
            Blob::Gcm { iv, sealed } => open.decrypt(iv, sealed, &context),
            Blob::KeyWrapPad { wrapped } => open.unwrap(wrapped, &context),
        })?;
        slot_key(&key)
    }
}
