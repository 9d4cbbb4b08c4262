//! The registry: every kind of key there is, and the one place that lists them.
//!
//! A new provider is its folder here, its `mod` and entry in this file, its feature in
//! `Cargo.toml` and its row in `README.md`.

use std::sync::Arc;

use atrest::kms::{Kms, KmsError};

use crate::provider::Opening;

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "danger-internals")]
pub(crate) mod fuzz;
#[cfg(feature = "gcp")]
mod gcp;
#[cfg(feature = "kmip")]
mod kmip;
#[cfg(feature = "pkcs11")]
mod pkcs11;
#[cfg(feature = "vault")]
mod vault;

pub(crate) type Open = fn(&Opening<'_>) -> Result<Arc<dyn Kms>, KmsError>;

/// A kind of key, told apart by the scheme of its key URIs.
#[derive(Clone, Copy, Debug)]
pub struct Scheme {
    pub(crate) name: &'static str,
    pub(crate) feature: Option<&'static str>,
    pub(crate) about: &'static str,
    pub(crate) example: &'static str,
    /// `None` without the feature.
    pub(crate) open: Option<Open>,
}

impl Scheme {
    /// What stands before the first `:` of a key URI.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The feature of this crate that it needs; `None` for the local ones of the core.
    pub fn feature(&self) -> Option<&'static str> {
        self.feature
    }

    /// What holds such a key, in a few words.
    pub fn about(&self) -> &'static str {
        self.about
    }

    /// A key URI, with capitals for what is to be filled in.
    pub fn example(&self) -> &'static str {
        self.example
    }

    /// Whether this build opens such keys.
    pub fn is_built(&self) -> bool {
        self.open.is_some()
    }
}

/// The opener of a provider, where its feature is on.
macro_rules! open_with {
    ($feature:literal, $provider:path) => {{
        #[cfg(feature = $feature)]
        let open: Option<Open> = Some(crate::provider::open::<$provider>);
        #[cfg(not(feature = $feature))]
        let open: Option<Open> = None;
        open
    }};
}

/// All kinds of keys, the local ones first.
pub(crate) const SCHEMES: &[Scheme] = &[
    Scheme {
        name: "file",
        feature: None,
        about: "a key file",
        example: "file:///ABSOLUTE/PATH",
        open: Some(local),
    },
    Scheme {
        name: "env",
        feature: None,
        about: "64 hexadecimal digits in an environment variable",
        example: "env:NAME",
        open: Some(local),
    },
    Scheme {
        name: "passphrase",
        feature: None,
        about: "a passphrase, asked for or in ATREST_PASSPHRASE",
        example: "passphrase:",
        open: Some(local),
    },
    Scheme {
        name: "hcvault",
        feature: Some("vault"),
        about: "the Transit engine of Vault or OpenBao",
        example: "hcvault://HOST:8200/MOUNT/keys/NAME",
        open: open_with!("vault", vault::Vault),
    },
    Scheme {
        name: "aws-kms",
        feature: Some("aws"),
        about: "AWS Key Management Service",
        example: "aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID",
        open: open_with!("aws", aws::AwsKms),
    },
    Scheme {
        name: "gcp-kms",
        feature: Some("gcp"),
        about: "Google Cloud KMS",
        example: "gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K",
        open: open_with!("gcp", gcp::GcpKms),
    },
    Scheme {
        name: "azure-kms",
        feature: Some("azure"),
        about: "Azure Key Vault or Managed HSM",
        example: "azure-kms://VAULT.vault.azure.net/keys/NAME",
        open: open_with!("azure", azure::AzureKms),
    },
    Scheme {
        name: "pkcs11",
        feature: Some("pkcs11"),
        about: "a hardware module",
        example: "pkcs11:token=TOKEN;object=KEY?module-path=/PATH",
        open: open_with!("pkcs11", pkcs11::Pkcs11),
    },
    Scheme {
        name: "kmip",
        feature: Some("kmip"),
        about: "a KMIP server",
        example: "kmip://HOST:5696/UNIQUE_ID?ca=FILE&cert=FILE&key=FILE",
        open: open_with!("kmip", kmip::Kmip),
    },
];

/// The core's own providers, which keep to the process's environment.
fn local(opening: &Opening<'_>) -> Result<Arc<dyn Kms>, KmsError> {
    atrest::kms::from_uri(opening.uri.as_str())
}
