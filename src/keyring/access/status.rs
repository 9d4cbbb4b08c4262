//! What a keyring tells about access to the customer's key. Field names are stable: they
//! are the JSON of the command line.

use std::time::Duration;

use serde::Serialize;

use super::super::client::Client;
use super::machine::AccessState;
#[allow(unused_imports, reason = "named in the docs")]
use super::policy::AccessPolicy;
use crate::error::KmsErrorKind;
use crate::secret::KeyMemory;

/// What is known of access to the customer's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AccessStatus {
    /// The state.
    pub state: AccessState,
    /// How long it has lasted, time asleep included.
    #[serde(serialize_with = "seconds", rename = "in_state_s")]
    pub in_state: Duration,
    /// Since the last check that unwrapped a slot's key; opening the store counts.
    #[serde(serialize_with = "seconds", rename = "since_good_check_s")]
    pub since_good_check: Duration,
    /// Until the keys are given up unless a good check comes first; `None` for never, or
    /// when there are none.
    #[serde(serialize_with = "seconds_or_none", rename = "keys_expire_in_s")]
    pub keys_expire_in: Option<Duration>,
    /// Whether access was withdrawn on request, so that only a request restores it.
    pub revoked_on_request: bool,
    /// What the last check met; `None` if it was good.
    #[serde(serialize_with = "kind_or_none")]
    pub kms_error: Option<KmsErrorKind>,
    /// The credentials that the key services are asked with, where they end.
    pub credentials: Vec<CredentialStatus>,
    /// Since the keyring in memory was last known to be the one in the storage.
    #[serde(serialize_with = "seconds", rename = "since_keyring_read_s")]
    pub since_keyring_read: Duration,
    /// Why it could not be read or followed since; `None` if it could.
    pub keyring_problem: Option<String>,
    /// Why the last rotation by itself failed; `None` if it did not.
    pub upkeep_problem: Option<String>,
    /// Where the keys of this process are, and what the system keeps them from.
    pub key_memory: KeyMemory,
    /// Checks since the store was opened.
    pub checks: u64,
    /// Those that were not good.
    pub checks_failed: u64,
    /// How long the last one took.
    #[serde(serialize_with = "seconds", rename = "last_check_took_s")]
    pub last_check_took: Duration,
    /// [`AccessPolicy::worst_case`].
    #[serde(serialize_with = "seconds", rename = "worst_case_s")]
    pub worst_case: Duration,
    /// [`AccessPolicy::worst_case_unreachable`].
    #[serde(serialize_with = "seconds_or_none", rename = "worst_case_unreachable_s")]
    pub worst_case_unreachable: Option<Duration>,
}

/// When a credential ends that a key service is asked with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CredentialStatus {
    /// The customer's key that is used with it.
    pub key_uri: String,
    /// Until it ends.
    #[serde(serialize_with = "seconds", rename = "expires_in_s")]
    pub expires_in: Duration,
    /// Whether it is renewed without anybody acting.
    pub renews: bool,
    /// Whether somebody has to act: less than a third of its time is left, and nothing
    /// renews it.
    pub ending: bool,
}

impl CredentialStatus {
    pub(super) fn of(kms: &Client) -> Option<Self> {
        let credential = kms.credential()?;
        Some(Self {
            key_uri: kms.key_uri().as_str().into(),
            expires_in: credential.expires_in,
            renews: credential.renews,
            ending: credential.is_ending(),
        })
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
fn seconds_or_none<S: serde::Serializer>(
    duration: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(to)
}

#[allow(clippy::ref_option, reason = "the signature that serde asks for")]
pub(super) fn kind_or_none<S: serde::Serializer>(
    kind: &Option<KmsErrorKind>,
    to: S,
) -> Result<S::Ok, S::Error> {
    kind.map(KmsErrorKind::as_str).serialize(to)
}
