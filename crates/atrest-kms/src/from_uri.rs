//! From a key URI to its provider.

use std::sync::Arc;

use atrest::kms::{KeyUri, Kms, KmsError};

use crate::environment::Environment;

/// Every remote scheme, so that one left out of this build is told apart from a typing error.
const REMOTE: [&str; 6] = ["hcvault", "aws-kms", "gcp-kms", "azure-kms", "pkcs11", "kmip"];

/// Opens the provider of a key URI, local or remote, with the process's environment.
///
/// Nothing is called yet: whether the key is usable shows at the first use.
///
/// # Errors
/// [`Misconfigured`](atrest::kms::KmsErrorKind::Misconfigured) for a malformed URI, an
/// unknown scheme, or one whose feature this build lacks.
pub fn from_uri(uri: &str) -> Result<Arc<dyn Kms>, KmsError> {
    from_uri_with(uri, &Environment::process())
}

/// Like [`from_uri`], with the credentials of `environment`. The local providers keep to
/// the process's environment.
///
/// # Errors
/// As [`from_uri`].
pub fn from_uri_with(uri: &str, environment: &Environment) -> Result<Arc<dyn Kms>, KmsError> {
    let parsed: KeyUri = uri.parse()?;
    // Unused when every remote provider is off.
    let _ = environment;
    match parsed.scheme() {
        #[cfg(feature = "vault")]
        "hcvault" => Ok(Arc::new(crate::Vault::from_uri(parsed, environment)?)),
        #[cfg(feature = "aws")]
        "aws-kms" => Ok(Arc::new(crate::AwsKms::from_uri(parsed, environment)?)),
        #[cfg(feature = "gcp")]
        "gcp-kms" => Ok(Arc::new(crate::GcpKms::from_uri(parsed, environment)?)),
        #[cfg(feature = "azure")]
        "azure-kms" => Ok(Arc::new(crate::AzureKms::from_uri(parsed, environment)?)),
        #[cfg(feature = "pkcs11")]
        "pkcs11" => Ok(Arc::new(crate::Pkcs11::from_uri(parsed, environment)?)),
        #[cfg(feature = "kmip")]
        "kmip" => Ok(Arc::new(crate::Kmip::from_uri(parsed, environment)?)),
        scheme if REMOTE.contains(&scheme) => {
            Err(crate::fail::misconfigured(format!("this build has no support for {scheme}")))
        }
        _ => atrest::kms::from_uri(uri),
    }
}
