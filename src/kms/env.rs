//! `env:NAME`: a key of 64 hexadecimal digits in an environment variable.

use zeroize::Zeroizing;

use super::{Deadline, KeyUri, Kms, KmsError, KmsErrorKind, WrapContext, WrappedKey, local};
use crate::secret::{CmekParent, KEY_LEN, SlotKey};

/// A customer's key in an environment variable: for CI and containers whose platform
/// injects secrets so. Other processes of the same user can read it.
#[derive(Debug)]
pub struct EnvKey {
    uri: KeyUri,
}

impl EnvKey {
    /// The key in the variable `name`, read at each use.
    ///
    /// # Errors
    /// [`KmsErrorKind::Misconfigured`] if the name is empty, has other characters than
    /// letters, digits and `_`, or looks like the key itself.
    pub fn new(name: &str) -> Result<Self, KmsError> {
        Self::from_uri(format!("env:{name}").parse()?)
    }

    pub(super) fn from_uri(uri: KeyUri) -> Result<Self, KmsError> {
        let name = uri.rest();
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // The URI is not shown: what is in it may be the key.
        let is_key = name.len() == 2 * KEY_LEN && name.chars().all(|c| c.is_ascii_hexdigit());
        if name.is_empty() || !name.chars().all(good) || is_key {
            let what = "expected the name of an environment variable, as in env:CMEK, not the key";
            return Err(KmsError::new(KmsErrorKind::Misconfigured, what));
        }
        Ok(Self { uri })
    }

    fn parent(&self) -> Result<CmekParent, KmsError> {
        let fail = |kind, what: &str| KmsError::new(kind, what).with_key_uri(&self.uri);
        let text = match std::env::var(self.uri.rest()) {
            Ok(text) => Zeroizing::new(text),
            Err(std::env::VarError::NotPresent) => {
                return Err(fail(KmsErrorKind::NotFound, "the variable is not set"));
            }
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(fail(KmsErrorKind::Misconfigured, "expected 64 hexadecimal digits"));
            }
        };
        let mut material = Zeroizing::new([0_u8; KEY_LEN]);
        if !crate::hex::decode(text.trim(), &mut material[..]) {
            return Err(fail(KmsErrorKind::Misconfigured, "expected 64 hexadecimal digits"));
        }
        let mut parent = CmekParent::zeroed();
        crate::derive::extract(b"", &material[..], parent.bytes_mut());
        Ok(parent)
    }
}

impl Kms for EnvKey {
    fn key_uri(&self) -> &KeyUri {
        &self.uri
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        _deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        let blob = local::wrap(&self.parent()?, key, context)
            .map_err(|e| e.with_key_uri(&self.uri))?
            .to_vec();
        Ok(WrappedKey { key_version: String::new(), blob })
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        _deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        local::unwrap(&self.parent()?, &wrapped.blob, context)
            .map_err(|e| e.with_key_uri(&self.uri))
    }
}
