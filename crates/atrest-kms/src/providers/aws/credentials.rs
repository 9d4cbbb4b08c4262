//! Credentials of AWS: found in the order of AWS's own SDKs, kept until they expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use atrest::kms::{Credential, Deadline, KmsError, KmsErrorKind};
use serde::Deserialize;

use super::time;
use crate::environment::Environment;
use crate::fail::{fail, protocol};
use crate::kept::{Fresh, Kept, Lasts};
use crate::rest::{Answer, Rest};
use crate::secret::Secret;

mod container;
mod instance;
mod shared_file;
mod web_identity;

/// Credentials are fetched anew this long before they expire.
const EXPIRY_MARGIN: Duration = Duration::from_secs(300);

/// One set of credentials.
pub(super) struct Credentials {
    pub key_id: String,
    pub secret_key: Secret,
    pub session_token: Option<Secret>,
    /// When they end; `None` if they last.
    pub expires: Option<SystemTime>,
}

/// Where to look, and what was found.
pub(super) struct Chain {
    environment: Environment,
    profile: Option<String>,
    sts_endpoint: String,
    kept: Kept<Credentials>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain")
            .field("environment", &self.environment)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

impl Chain {
    pub(super) fn new(
        environment: Environment,
        profile: Option<String>,
        sts_endpoint: String,
    ) -> Self {
        Self { environment, profile, sts_endpoint, kept: Kept::default() }
    }

    /// Kept credentials while they are good, else new ones. Those without an end are not
    /// kept, so that a changed variable or file counts from the next call on.
    pub(super) fn obtain(&self, deadline: Deadline) -> Result<Arc<Credentials>, KmsError> {
        self.kept.obtain(deadline, |_, deadline| {
            let value = self.find(deadline)?;
            let good_for = value
                .expires
                .map(|expires| expires.duration_since(SystemTime::now()).unwrap_or_default());
            let lasts = good_for.map(|lifetime| Lasts {
                good_for: lifetime,
                lifetime,
                renew_before: Some(EXPIRY_MARGIN),
            });
            Ok(Fresh { value, lasts })
        })
    }

    /// Drops kept credentials; whether there were any.
    pub(super) fn forget(&self) -> bool {
        self.kept.forget()
    }

    pub(super) fn credential(&self) -> Option<Credential> {
        self.kept.credential()
    }

    fn find(&self, deadline: Deadline) -> Result<Credentials, KmsError> {
        if let Some(profile) = &self.profile {
            return shared_file::read(&self.environment, profile)?.ok_or_else(|| {
                let what = format!("expected the profile {profile} in the credentials file");
                fail(KmsErrorKind::Unauthenticated, what)
            });
        }
        if let Some(found) = self.variables() {
            return Ok(found);
        }
        let profile = self.environment.plain("AWS_PROFILE");
        let profile = profile.as_deref().unwrap_or("default");
        if let Some(found) = shared_file::read(&self.environment, profile)? {
            return Ok(found);
        }
        if let Some(found) = web_identity::assume(&self.environment, &self.sts_endpoint, deadline)?
        {
            return Ok(found);
        }
        if let Some(found) = container::fetch(&self.environment, deadline)? {
            return Ok(found);
        }
        instance::fetch(&self.environment, deadline)
    }

    fn variables(&self) -> Option<Credentials> {
        Some(Credentials {
            key_id: self.environment.plain("AWS_ACCESS_KEY_ID")?,
            secret_key: self.environment.var("AWS_SECRET_ACCESS_KEY")?,
            session_token: self.environment.var("AWS_SESSION_TOKEN"),
            expires: None,
        })
    }
}

/// What container and instance endpoints answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    access_key_id: String,
    secret_access_key: Secret,
    token: Option<Secret>,
    expiration: Option<String>,
}

/// Credentials from such an answer.
fn from_document(answer: &Answer, whose: &str) -> Result<Credentials, KmsError> {
    if answer.status != 200 {
        let said = format!("the {whose} gives no credentials");
        return Err(answer.fail(answer.kind_of_metadata(), &said, &[]));
    }
    let document: Document = answer.json()?;
    let expires = match document.expiration.as_deref() {
        Some(text) => Some(time::parse(text).ok_or_else(|| {
            protocol(format!("the {whose} gives credentials with a malformed end"))
        })?),
        None => None,
    };
    Ok(Credentials {
        key_id: document.access_key_id,
        secret_key: document.secret_access_key,
        session_token: document.token,
        expires,
    })
}

/// A client for endpoints that are reached without a proxy.
fn metadata() -> Rest {
    Rest::metadata()
}
