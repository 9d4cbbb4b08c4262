//! The token: given, or had by logging in; renewed while it is good; and whether a refusal
//! is about it or about the key.

use std::time::Duration;

use atrest::kms::{Credential, Deadline, KmsError, KmsErrorKind};
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use super::answer;
use super::client::Client;
use super::lease::{Lease, Leased, fresh};
use super::login::Login;
use crate::environment::{Environment, read_secret_file};
use crate::fail::fail;
use crate::kept::{Fresh, Kept};
use crate::secret::Secret;

#[derive(Debug)]
pub(super) struct Tokens {
    source: Source,
    environment: Environment,
    kept: Kept<Lease>,
}

#[derive(Debug)]
enum Source {
    /// `VAULT_TOKEN`.
    Variable,
    File(String),
    Login(Login),
}

/// What `lookup-self` answers.
#[derive(Deserialize)]
struct Known {
    data: Facts,
}

#[derive(Deserialize)]
struct Facts {
    /// Seconds left; 0 for ever.
    ttl: u64,
    #[serde(default)]
    creation_ttl: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Serialize)]
struct Nothing {}

impl Tokens {
    pub(super) fn new(
        file: Option<String>,
        login: Option<Login>,
        environment: Environment,
    ) -> Self {
        let source = match (login, file) {
            (Some(login), _) => Source::Login(login),
            (None, Some(path)) => Source::File(path),
            (None, None) => Source::Variable,
        };
        Self { source, environment, kept: Kept::default() }
    }

    /// The token to call with. A given one is read anew, since others renew it too.
    pub(super) fn obtain(&self, client: &Client, deadline: Deadline) -> Result<Secret, KmsError> {
        let given = match &self.source {
            Source::Login(login) => {
                let lease = self.kept.obtain(deadline, |last, deadline| {
                    self.renewed_or_new(login, last, client, deadline)
                })?;
                return Ok(lease.token.clone());
            }
            Source::File(path) => read_secret_file(path, "token file")?,
            Source::Variable => self.environment.var("VAULT_TOKEN").ok_or_else(|| {
                fail(KmsErrorKind::Unauthenticated, "expected a token in VAULT_TOKEN, found none")
            })?,
        };
        if self.kept.last().is_some_and(|lease| lease.token.expose() != given.expose()) {
            self.kept.forget();
        }
        Ok(given)
    }

    fn renewed_or_new(
        &self,
        login: &Login,
        last: Option<&Lease>,
        client: &Client,
        deadline: Deadline,
    ) -> Result<Fresh<Lease>, KmsError> {
        let half = Deadline::after(deadline.remaining() / 2);
        let renewed = last.and_then(|last| renew(last, client, half).ok());
        let lasts = |fresh: &Fresh<Lease>| fresh.lasts.is_some_and(|l| l.renew_before.is_some());
        if let Some(fresh) = renewed.filter(lasts) {
            return Ok(fresh);
        }
        let mut fresh = login.fetch(client, &self.environment, deadline)?;
        // Whether or not the token can be renewed, another log-in can.
        if let Some(lasts) = &mut fresh.lasts {
            lasts.renew_before = Some(lasts.lifetime / 2);
        }
        Ok(fresh)
    }

    /// Learns of a given token how long it lasts, and renews it in the middle of its life.
    /// What fails is tried again after the next call.
    pub(super) fn look_after(&self, client: &Client, deadline: Deadline) {
        let Ok(token) = self.obtain(client, deadline) else { return };
        if matches!(self.source, Source::Login(_)) {
            return;
        }
        // What cannot be told is not kept; what cannot be renewed is good until it ends.
        let _ = self.kept.obtain(deadline, |last, deadline| match last {
            Some(last) => renew(last, client, deadline),
            None => look_up(&token, client, deadline),
        });
    }

    /// What a call that was denied says, which Vault words alike for the key and for the
    /// token: the token is asked about itself.
    pub(super) fn why_denied(
        &self,
        denied: KmsError,
        token: &Secret,
        client: &Client,
        deadline: Deadline,
    ) -> KmsError {
        // Every token of the policy `default` may look itself up; what any token may see are
        // the names of engines, which the first fails to tell from a policy without that.
        for path in ["auth/token/lookup-self", "sys/internal/ui/mounts"] {
            match client.get(path, token.expose(), deadline) {
                Ok(answer) if answer.status == 200 => return denied,
                Ok(answer) if answer::is_denial(&answer) => {}
                Ok(answer) if answer.status == 429 || answer.status >= 500 => {
                    return answer::error(&answer, &[token.expose()]);
                }
                // Not the server's own words: what it said before stands.
                Ok(_) => return denied,
                Err(error) => return error,
            }
        }
        fail(KmsErrorKind::Unauthenticated, "the token is no longer accepted").with_source(denied)
    }

    /// Forgets the token; whether another one can be had by logging in.
    pub(super) fn log_in_anew(&self) -> bool {
        self.kept.forget() && matches!(self.source, Source::Login(_))
    }

    pub(super) fn outdate(&self) {
        self.kept.outdate();
    }

    pub(super) fn credential(&self) -> Option<Credential> {
        self.kept.credential()
    }
}

fn look_up(token: &Secret, client: &Client, deadline: Deadline) -> Result<Fresh<Lease>, KmsError> {
    let answer = client.get("auth/token/lookup-self", token.expose(), deadline)?;
    if answer.status != 200 {
        return Err(answer::error(&answer, &[token.expose()]));
    }
    let facts = answer.json::<Known>()?.data;
    let at_first = Duration::from_secs(facts.creation_ttl.max(facts.ttl));
    Ok(fresh(token.clone(), facts.ttl, at_first, facts.renewable))
}

fn renew(last: &Lease, client: &Client, deadline: Deadline) -> Result<Fresh<Lease>, KmsError> {
    let (path, token) = ("auth/token/renew-self", last.token.expose());
    let answer = client.send(Method::POST, path, Some(token), Some(&Nothing {}), deadline)?;
    if answer.status != 200 {
        return Err(answer::error(&answer, &[token]));
    }
    Ok(answer.json::<Leased>()?.auth.into_fresh(Some(last.lifetime)))
}
