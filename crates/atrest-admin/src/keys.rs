//! Which customer's keys a client may name.
//!
//! Whoever names a key makes this process call its service with this process's
//! credentials, and hands it a slot key: a client must not send either to a host, a
//! file or a library of its own choice.

use std::fmt;
use std::sync::Arc;

use atrest::kms::{Kms, KmsError};
use atrest::{Error, ErrorKind, Result};

use crate::api::{KeySpec, KeyType};
use crate::metered::KmsMetrics;
use crate::rpc::{Code, RpcError};

type Open = Box<dyn Fn(&str) -> Result<Arc<dyn Kms>, KmsError> + Send + Sync>;

/// The keys that clients may name: those given, and those that begin with an allowed
/// prefix. None by default.
pub struct Keys {
    open: Open,
    known: Vec<Arc<dyn Kms>>,
    prefixes: Vec<String>,
    metrics: Arc<KmsMetrics>,
}

impl Keys {
    /// No key yet; `open` makes the provider of a key URI that an allowed prefix matches.
    pub fn new(
        open: impl Fn(&str) -> Result<Arc<dyn Kms>, KmsError> + Send + Sync + 'static,
    ) -> Self {
        let metrics = Arc::default();
        Self { open: Box::new(open), known: Vec::new(), prefixes: Vec::new(), metrics }
    }

    /// Allows `kms`, and counts its calls: give what [`meter`](Self::meter) returned to
    /// the keyring.
    #[must_use]
    pub fn with_key(mut self, kms: Arc<dyn Kms>) -> Self {
        self.known.push(kms);
        self
    }

    /// Counts the calls of `kms` in these keys' metrics.
    pub fn meter(&self, kms: Arc<dyn Kms>) -> Arc<dyn Kms> {
        self.metrics.meter(kms)
    }

    /// Allows every key whose URI begins with `prefix`, which ends with `/`, `:`, `;` or
    /// `=`, so that `kmip://good.example` does not allow `kmip://good.example.evil`. What
    /// follows it may hold no `?`, `#`, `%`, `;`, `\` nor `..`: options and other paths
    /// could lead elsewhere.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for another prefix, or one that is
    /// a scheme alone.
    pub fn allow(mut self, prefix: impl Into<String>) -> Result<Self> {
        let prefix = prefix.into();
        let rest = prefix.split_once(':').map_or("", |(_, rest)| rest);
        let names_something = rest.trim_start_matches('/').len() > 1;
        if !names_something || !prefix.ends_with(['/', ':', ';', '=']) {
            let what = format!(
                "expected the beginning of a key URI, such as hcvault://HOST:PORT/transit/keys/, \
                 found {prefix:?}"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        self.prefixes.push(prefix);
        Ok(self)
    }

    pub(crate) fn metrics(&self) -> &KmsMetrics {
        &self.metrics
    }

    /// The key that a client names.
    pub(crate) fn resolve(&self, spec: &KeySpec) -> Result<Arc<dyn Kms>, RpcError> {
        let uri = spec.key_uri();
        let known = self.known.iter().find(|kms| kms.key_uri().as_str() == uri);
        if known.is_none() && !self.is_allowed(&uri) {
            let what = "the key is none of those that this server was told to allow";
            return Err(RpcError::new(Code::PermissionDenied, what));
        }
        let scheme = uri.split(':').next().unwrap_or_default();
        if spec.key_type != KeyType::of_scheme(scheme) {
            let what = format!("expected the type of a {scheme} key, found another");
            return Err(RpcError::invalid(what));
        }
        match known {
            Some(kms) => Ok(kms.clone()),
            None => match (self.open)(&uri) {
                Ok(kms) => Ok(self.meter(kms)),
                Err(error) => Err(RpcError::invalid(error.to_string())),
            },
        }
    }

    fn is_allowed(&self, uri: &str) -> bool {
        self.prefixes.iter().any(|prefix| {
            uri.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                !rest.is_empty()
                    && !rest.contains(['?', '#', '%', ';', '\\'])
                    && !rest.contains("..")
                    && !rest.contains(|c: char| c.is_control() || c.is_whitespace())
            })
        })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<_> = self.known.iter().map(|kms| kms.key_uri().as_str()).collect();
        f.debug_struct("Keys")
            .field("known", &known)
            .field("prefixes", &self.prefixes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_allows_what_is_below_it_and_nothing_beside_it() {
        let keys = Keys::new(atrest::kms::from_uri)
            .allow("hcvault://good.example:8200/transit/keys/")
            .and_then(|keys| keys.allow("aws-kms://arn:aws:kms:eu-central-1:111122223333:"))
            .expect("prefixes");
        for good in [
            "hcvault://good.example:8200/transit/keys/orders",
            "aws-kms://arn:aws:kms:eu-central-1:111122223333:key/k",
        ] {
            assert!(keys.is_allowed(good), "{good}");
        }
        for bad in [
            "hcvault://good.example:8200/transit/keys/",
            "hcvault://good.example:8200/transit/keys/../../x",
            "hcvault://good.example:8200/transit/keys/k?ca=/etc/evil",
            "hcvault://good.example:8200/transit/keys/%2e%2e/x",
            "hcvault://good.example:8200/other/keys/k",
            "hcvault://good.example:8200.evil/transit/keys/k",
            "aws-kms://arn:aws:kms:eu-central-1:111122223333:key/k?endpoint=http://evil",
            "file:///etc/passwd",
            "",
        ] {
            assert!(!keys.is_allowed(bad), "{bad}");
        }
        for bad in ["", "file:", "file://", "file:///", "hcvault://good.example", "https"] {
            drop(Keys::new(atrest::kms::from_uri).allow(bad).expect_err(bad));
        }
    }
}
