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

/// Which service holds a key: a name of CockroachDB Cloud's where it has one
/// (`AWS_KMS`, `GCP_CLOUD_KMS`, `AZURE_KEY_VAULT`), else the scheme of the key's URI in
/// capitals, such as `HCVAULT` or `FILE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyType(String);

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
    /// When it wrapped its slot's key, RFC 3339.
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

/// A service that CockroachDB Cloud names too.
struct Theirs {
    key_type: &'static str,
    scheme: &'static str,
    /// How the service's own name of a key begins, and our URI of the same key.
    name: &'static str,
    uri: &'static str,
}

const THEIRS: [Theirs; 3] = [
    Theirs { key_type: "AWS_KMS", scheme: "aws-kms", name: "arn:", uri: "aws-kms://arn:" },
    Theirs {
        key_type: "GCP_CLOUD_KMS",
        scheme: "gcp-kms",
        name: "projects/",
        uri: "gcp-kms://projects/",
    },
    Theirs {
        key_type: "AZURE_KEY_VAULT",
        scheme: "azure-kms",
        name: "https://",
        uri: "azure-kms://",
    },
];

impl KeyType {
    /// The type of the keys whose URIs have this scheme.
    pub fn of_scheme(scheme: &str) -> Self {
        match THEIRS.iter().find(|theirs| theirs.scheme == scheme) {
            Some(theirs) => Self(theirs.key_type.to_owned()),
            None => Self(scheme.to_ascii_uppercase().replace(['-', '+', '.'], "_")),
        }
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn theirs(&self) -> Option<&'static Theirs> {
        THEIRS.iter().find(|theirs| theirs.key_type == self.0)
    }
}

impl KeySpec {
    /// The key URI of this library.
    pub(crate) fn key_uri(&self) -> String {
        let theirs = self.key_type.theirs();
        let rest = theirs.and_then(|theirs| Some((theirs, self.uri.strip_prefix(theirs.name)?)));
        match rest {
            Some((theirs, rest)) => format!("{}{rest}", theirs.uri),
            None => self.uri.clone(),
        }
    }

    /// The key of a key URI, as its service names it.
    pub(crate) fn of_key_uri(key_uri: &str, auth_principal: String) -> Self {
        let key_type = KeyType::of_scheme(key_uri.split(':').next().unwrap_or_default());
        let theirs = key_type.theirs();
        let rest = theirs.and_then(|theirs| Some((theirs, key_uri.strip_prefix(theirs.uri)?)));
        let uri = match rest {
            Some((theirs, rest)) => format!("{}{rest}", theirs.name),
            None => key_uri.to_owned(),
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
                "AWS_KMS",
                "arn:aws:kms:eu-central-1:1:key/k",
                "aws-kms://arn:aws:kms:eu-central-1:1:key/k",
            ),
            ("AWS_KMS", "aws-kms://alias/k?region=r", "aws-kms://alias/k?region=r"),
            ("GCP_CLOUD_KMS", "projects/p/locations/l", "gcp-kms://projects/p/locations/l"),
            (
                "AZURE_KEY_VAULT",
                "https://v.vault.azure.net/keys/k",
                "azure-kms://v.vault.azure.net/keys/k",
            ),
            ("HCVAULT", "hcvault://h:8200/t/keys/k", "hcvault://h:8200/t/keys/k"),
            ("FILE", "file:///k", "file:///k"),
            ("PKCS11", "pkcs11:token=t", "pkcs11:token=t"),
            ("NEW_KMS", "new-kms:k", "new-kms:k"),
        ] {
            let key_type = KeyType(key_type.into());
            let spec = KeySpec { key_type, uri: theirs.into(), auth_principal: "p".into() };
            assert_eq!(spec.key_uri(), ours);
            assert_eq!(KeySpec::of_key_uri(ours, "p".into()), spec);
        }
    }
}
