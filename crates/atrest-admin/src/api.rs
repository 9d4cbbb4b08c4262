//! The JSON of the API: CockroachDB Cloud's names, with the key types and actions that
//! this library adds. `openapi.json` says the same.

use serde::{Deserialize, Serialize};

use crate::rpc::RpcError;

/// Most regions in one specification: a keyring has at most that many slots.
const REGIONS_MAX: usize = 64;
/// Longest region name in bytes.
const REGION_LEN_MAX: usize = 64;
/// Longest principal in bytes; it is kept in memory and repeated.
const PRINCIPAL_LEN_MAX: usize = 1024;

/// The status of a cluster, a region or a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CmekStatus {
    /// Not encrypted, or under a locally managed key.
    Disabled,
    /// On the way to that.
    Disabling,
    /// The last attempt to disable failed; the customer's key is still in place.
    DisableFailed,
    /// Under the customer's key.
    Enabled,
    /// On the way to that, by enabling or restoring.
    Enabling,
    /// The last attempt to enable failed.
    EnableFailed,
    /// The key is being replaced or wrapped anew.
    Rotating,
    /// The last attempt to do so failed; the old key is still in place.
    RotateFailed,
    /// No key is in memory: revoked on request, or access to the customer's key is lost.
    Revoked,
    /// On the way to that.
    Revoking,
    /// The keys are gone from memory, and the store could not be marked as revoked.
    RevokeFailed,
}

/// Which service holds a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyType {
    /// AWS KMS. The URI may be a bare ARN.
    #[serde(rename = "AWS_KMS")]
    Aws,
    /// Google Cloud KMS. The URI may be a bare resource name.
    #[serde(rename = "GCP_CLOUD_KMS")]
    Gcp,
    /// Azure Key Vault or Managed HSM. The URI may be the key's `https:` one.
    #[serde(rename = "AZURE_KEY_VAULT")]
    Azure,
    /// Vault or OpenBao. Ours, as all that follow.
    #[serde(rename = "HASHICORP_VAULT")]
    Vault,
    /// A hardware module.
    #[serde(rename = "PKCS11")]
    Pkcs11,
    /// A KMIP server.
    #[serde(rename = "KMIP")]
    Kmip,
    /// A key file on the server.
    #[serde(rename = "KEY_FILE")]
    File,
    /// A variable of the server's environment.
    #[serde(rename = "ENVIRONMENT")]
    Environment,
    /// A passphrase.
    #[serde(rename = "PASSPHRASE")]
    Passphrase,
    /// None of these; never accepted.
    #[serde(rename = "UNKNOWN")]
    Unknown,
}

/// A customer's key and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// The service.
    #[serde(rename = "type")]
    pub key_type: KeyType,
    /// The key, as the service names it or as a key URI.
    pub uri: String,
    /// Who uses the key. Repeated, and not used: the credentials are those of the
    /// server's environment.
    #[serde(default)]
    pub auth_principal: String,
}

/// A region's key, as asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionSpec {
    /// The region.
    pub region: String,
    /// Its key.
    pub key_spec: KeySpec,
}

/// The body of `POST` and `PUT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// One for each region.
    pub region_specs: Vec<RegionSpec>,
}

/// What a customer can do to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CustomerAction {
    /// Takes all keys out of memory and marks the stores.
    Revoke,
    /// Unwraps them again. Ours.
    Restore,
    /// Returns to the locally managed key. Ours.
    Disable,
}

/// The body of `PATCH`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionRequest {
    /// The action.
    pub action: CustomerAction,
}

/// A key and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its status.
    pub status: CmekStatus,
    /// A sentence for people; empty when all is well.
    pub user_message: String,
    /// When it wrapped the store key, RFC 3339.
    pub created_at: String,
    /// When that, or its access state, last changed.
    pub updated_at: String,
    /// The key.
    pub spec: KeySpec,
}

/// A region and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionInfo {
    /// Its name.
    pub region: String,
    /// Its status.
    pub status: CmekStatus,
    /// Its keys.
    pub key_infos: Vec<KeyInfo>,
}

/// A cluster and how it stands: the answer to every method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Its status: the one of its regions that needs most attention.
    pub status: CmekStatus,
    /// Its regions, in the order of their names.
    pub region_infos: Vec<RegionInfo>,
}

impl KeyType {
    const SCHEMES: [(Self, &str); 9] = [
        (Self::Aws, "aws-kms"),
        (Self::Gcp, "gcp-kms"),
        (Self::Azure, "azure-kms"),
        (Self::Vault, "hcvault"),
        (Self::Pkcs11, "pkcs11"),
        (Self::Kmip, "kmip"),
        (Self::File, "file"),
        (Self::Environment, "env"),
        (Self::Passphrase, "passphrase"),
    ];

    /// The scheme of its key URIs.
    pub(crate) fn scheme(self) -> &'static str {
        let found = Self::SCHEMES.iter().find(|(key_type, _)| *key_type == self);
        found.map_or("", |(_, scheme)| scheme)
    }

    fn of_scheme(scheme: &str) -> Self {
        let found = Self::SCHEMES.iter().find(|(_, other)| *other == scheme);
        found.map_or(Self::Unknown, |(key_type, _)| *key_type)
    }
}

impl KeySpec {
    /// The key URI of this library.
    pub(crate) fn key_uri(&self) -> String {
        match self.key_type {
            KeyType::Aws if self.uri.starts_with("arn:") => format!("aws-kms://{}", self.uri),
            KeyType::Gcp if self.uri.starts_with("projects/") => format!("gcp-kms://{}", self.uri),
            KeyType::Azure => match self.uri.strip_prefix("https://") {
                Some(rest) => format!("azure-kms://{rest}"),
                None => self.uri.clone(),
            },
            _ => self.uri.clone(),
        }
    }

    /// The key of a key URI, as its service names it.
    pub(crate) fn of_key_uri(key_uri: &str, auth_principal: String) -> Self {
        let key_type = KeyType::of_scheme(key_uri.split(':').next().unwrap_or_default());
        let rest = key_uri.split_once("://").map_or(key_uri, |(_, rest)| rest);
        let uri = match key_type {
            KeyType::Aws | KeyType::Gcp => rest.to_owned(),
            KeyType::Azure => format!("https://{rest}"),
            _ => key_uri.to_owned(),
        };
        Self { key_type, uri, auth_principal }
    }
}

impl ClusterSpec {
    /// Refuses what the schema refuses.
    pub(crate) fn check(&self) -> Result<(), RpcError> {
        let found = self.region_specs.len();
        if !(1..=REGIONS_MAX).contains(&found) {
            return Err(RpcError::invalid(format!(
                "expected 1 to {REGIONS_MAX} region_specs, found {found}"
            )));
        }
        for (index, spec) in self.region_specs.iter().enumerate() {
            check_region(&spec.region)?;
            if self.region_specs[..index].iter().any(|other| other.region == spec.region) {
                let what = format!("expected each region once, found {} twice", spec.region);
                return Err(RpcError::invalid(what));
            }
            let len = spec.key_spec.uri.len();
            if !(1..=atrest::kms::KeyUri::LEN_MAX).contains(&len) {
                return Err(RpcError::invalid(format!("expected a key's uri, found {len} bytes")));
            }
            let principal = &spec.key_spec.auth_principal;
            if principal.len() > PRINCIPAL_LEN_MAX || principal.contains(char::is_control) {
                let what =
                    format!("expected an auth_principal of at most {PRINCIPAL_LEN_MAX} bytes");
                return Err(RpcError::invalid(what));
            }
        }
        Ok(())
    }
}

/// Refuses a name that could not be a label or a slot.
pub(crate) fn check_region(region: &str) -> Result<(), RpcError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if region.is_empty() || region.len() > REGION_LEN_MAX || !region.chars().all(good) {
        return Err(RpcError::invalid(format!(
            "expected a region of 1 to {REGION_LEN_MAX} letters, digits, '-', '_' and '.'"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_their_services_name_them() {
        for (key_type, theirs, ours) in [
            (
                KeyType::Aws,
                "arn:aws:kms:eu-central-1:1:key/k",
                "aws-kms://arn:aws:kms:eu-central-1:1:key/k",
            ),
            (KeyType::Gcp, "projects/p/locations/l", "gcp-kms://projects/p/locations/l"),
            (
                KeyType::Azure,
                "https://v.vault.azure.net/keys/k",
                "azure-kms://v.vault.azure.net/keys/k",
            ),
            (KeyType::Vault, "hcvault://h:8200/t/keys/k", "hcvault://h:8200/t/keys/k"),
            (KeyType::File, "file:///k", "file:///k"),
            (KeyType::Pkcs11, "pkcs11:token=t", "pkcs11:token=t"),
        ] {
            let spec = KeySpec { key_type, uri: theirs.into(), auth_principal: "p".into() };
            assert_eq!(spec.key_uri(), ours);
            assert_eq!(KeySpec::of_key_uri(ours, "p".into()), spec);
        }
        assert_eq!(KeySpec::of_key_uri("new:k", String::new()).key_type, KeyType::Unknown);
    }
}
