//! Credentials of AWS: found in the order of AWS's own SDKs, kept until they expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use atrest::kms::{Credential, Deadline, KmsError, KmsErrorKind};
use serde::Deserialize;

use crate::environment::Environment;
use crate::fail::{fail, protocol};
use crate::kept::{Fresh, Kept, Lasts};
use crate::rest::{Answer, Rest};
use crate::secret::Secret;
use crate::time;

mod container;
mod instance;
mod shared_file;
mod web_identity;

/// Credentials are fetched anew this long before they expire.
const EXPIRY_MARGIN: Duration = Duration::from_secs(300);

/// How long a session lasts as a rule: what `AssumeRole` gives by default. Of one in variables
/// nobody knows when it began.
const SESSION: Duration = Duration::from_secs(3600);

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

    /// Kept credentials while they are good, else new ones. Those of variables, and those
    /// without an end, are not kept, so that a changed variable or file counts from the next
    /// call on.
    pub(super) fn obtain(&self, deadline: Deadline) -> Result<Arc<Credentials>, KmsError> {
        if self.profile.is_none()
            && let Some(value) = self.variables()
        {
            // What is kept only tells of the end.
            let lasts = good_for(&value).map(|good_for| Lasts {
                good_for,
                lifetime: good_for.max(SESSION),
                renew_before: None,
            });
            return Ok(self.kept.keep(Fresh { value, lasts }));
        }
        self.kept.obtain(deadline, |_, deadline| {
            let value = self.find(deadline)?;
            let lasts = good_for(&value).map(|lifetime| Lasts {
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

    pub(super) fn outdate(&self) {
        self.kept.outdate();
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
            // As `aws configure export-credentials` writes it; another text says nothing.
            expires: self
                .environment
                .plain("AWS_CREDENTIAL_EXPIRATION")
                .as_deref()
                .and_then(time::parse),
        })
    }
}

/// For how long credentials are good from now on, if they end.
fn good_for(credentials: &Credentials) -> Option<Duration> {
    let expires = credentials.expires?;
    Some(expires.duration_since(SystemTime::now()).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(expiration: &str) -> Chain {
        let environment = Environment::fixed([
            ("AWS_ACCESS_KEY_ID", "A"),
            ("AWS_SECRET_ACCESS_KEY", "B"),
            ("AWS_SESSION_TOKEN", "C"),
            ("AWS_CREDENTIAL_EXPIRATION", expiration),
        ]);
        Chain::new(environment, None, "https://sts.example".into())
    }

    /// A time as the variable has it.
    fn after(from_now: Duration) -> String {
        let text = time::format(SystemTime::now() + from_now);
        let (date, clock) = (&text[..8], &text[9..15]);
        let date = format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]);
        format!("{date}T{}:{}:{}Z", &clock[..2], &clock[2..4], &clock[4..])
    }

    fn credential(expiration: &str) -> Option<Credential> {
        let chain = chain(expiration);
        assert!(chain.credential().is_none(), "nothing was asked yet");
        let found = chain.obtain(Deadline::after(Duration::ZERO)).expect("credentials");
        assert_eq!((found.key_id.as_str(), found.secret_key.expose()), ("A", "B"));
        chain.credential()
    }

    #[test]
    fn a_session_in_variables_tells_its_end() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (left, lifetime, ending) in [(10, 60, true), (30, 60, false), (600, 600, false)] {
            let told = credential(&after(minutes(left))).expect("an end");
            let about = |found: Duration, minute: u64| {
                found <= minutes(minute) && found > minutes(minute - 1)
            };
            assert!(about(told.expires_in, left), "{told:?}");
            assert!(about(told.lifetime, lifetime) && !told.renews, "{told:?}");
            assert_eq!(told.is_ending(), ending, "{told:?}");
        }
        // One that ended is still tried: the service says so better.
        let ended = credential("2020-01-01T00:00:00Z").expect("an end");
        assert!(ended.expires_in.is_zero() && ended.is_ending());
        assert!(credential("soon").is_none());
    }
}
