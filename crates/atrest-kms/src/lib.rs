//! Key services for [`atrest`]: the customer's key in Vault or OpenBao, AWS KMS, Google
//! Cloud KMS, Azure Key Vault, a PKCS#11 module or a KMIP server.
//!
//! ```no_run
//! # fn main() -> Result<(), atrest::kms::KmsError> {
//! let kms = atrest_kms::from_uri("hcvault://vault.example.com:8200/transit/keys/orders")?;
//! # let _ = kms;
//! # Ok(())
//! # }
//! ```
//!
//! Each provider is a feature, off by default; [`from_uri`] also opens the local ones of
//! the core. Every call is blocking and ends by its deadline. Retries happen inside it
//! and only after answers that say nothing about the key.
//!
//! A key URI is stored, readable, in the keyring, so it holds no credential: those come
//! from the [`Environment`] and from the files it names, and are read anew as they expire.
//!
//! | feature | URI | context bound by the service |
//! |---|---|---|
//! | `vault` | `hcvault://HOST:PORT/MOUNT/keys/NAME` | yes, as associated data |
//! | `aws` | `aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID` | yes, as encryption context |
//! | `gcp` | `gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K` | yes, as AAD |
//! | `azure` | `azure-kms://VAULT.vault.azure.net/keys/NAME` | Managed HSM only |
//! | `pkcs11` | `pkcs11:token=T;object=K` | yes |
//! | `kmip` | `kmip://HOST:PORT/UNIQUE_ID` | yes, as AAD |

mod from_uri;

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcp")]
mod gcp;
#[cfg(feature = "kmip")]
mod kmip;
#[cfg(feature = "pkcs11")]
mod pkcs11;
#[cfg(feature = "vault")]
mod vault;

// What providers share; each uses its part, all of them together use all of it.
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod environment;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod fail;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod redact;
#[cfg(feature = "_rest")]
mod rest;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod retry;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod secret;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod uri;

#[cfg(feature = "aws")]
pub use aws::AwsKms;
#[cfg(feature = "azure")]
pub use azure::AzureKms;
pub use environment::Environment;
pub use from_uri::{from_uri, from_uri_with};
#[cfg(feature = "gcp")]
pub use gcp::GcpKms;
#[cfg(feature = "kmip")]
pub use kmip::Kmip;
#[cfg(feature = "pkcs11")]
pub use pkcs11::Pkcs11;
#[cfg(feature = "vault")]
pub use vault::Vault;
