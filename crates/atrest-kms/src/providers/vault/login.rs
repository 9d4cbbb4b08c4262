//! How a process logs in to Vault or OpenBao: AppRole, a Kubernetes service account, a JWT.

use atrest::kms::{Deadline, KmsError, KmsErrorKind};
use serde::Serialize;
use ureq::http::Method;

use super::answer;
use super::client::Client;
use super::lease::{Lease, Leased};
use crate::environment::{Environment, read_secret_file};
use crate::fail::{fail, misconfigured};
use crate::kept::Fresh;
use crate::secret::Secret;
use crate::uri::{Parts, is_segment};

/// Where Kubernetes puts the token of a pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

#[derive(Debug)]
pub(super) struct Login {
    /// `auth/MOUNT/login`.
    path: String,
    role: String,
    credential: Source,
}

#[derive(Debug)]
enum Source {
    /// A JWT in a file, which others renew.
    Jwt(String),
    /// The secret id of an AppRole, in a file or in `VAULT_SECRET_ID`.
    SecretId(Option<String>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Request<'a> {
    Jwt { role: &'a str, jwt: &'a str },
    AppRole { role_id: &'a str, secret_id: &'a str },
}

impl Login {
    /// What the options `auth`, `auth_mount`, `role`, `jwt_file` and `secret_id_file` say;
    /// `None` without `auth`.
    pub(super) fn parse(parts: &mut Parts) -> Result<Option<Self>, KmsError> {
        let Some(method) = parts.take("auth") else { return Ok(None) };
        let credential = match method.as_str() {
            "kubernetes" => {
                Source::Jwt(parts.take("jwt_file").unwrap_or_else(|| SERVICE_ACCOUNT.to_owned()))
            }
            "jwt" => Source::Jwt(
                parts.take("jwt_file").ok_or_else(|| misconfigured("expected jwt_file=PATH"))?,
            ),
            "approle" => Source::SecretId(parts.take("secret_id_file")),
            _ => return Err(misconfigured("expected auth=approle, auth=kubernetes or auth=jwt")),
        };
        let role = parts.take("role").ok_or_else(|| misconfigured("expected role=NAME"))?;
        let mount = parts.take("auth_mount").unwrap_or(method);
        if !is_segment(&role) || !mount.split('/').all(is_segment) {
            return Err(misconfigured("expected the names of a role and of an auth mount"));
        }
        Ok(Some(Self { path: format!("auth/{mount}/login"), role, credential }))
    }

    /// Logs in. The credential is read anew, since others renew it.
    pub(super) fn fetch(
        &self,
        client: &Client,
        environment: &Environment,
        deadline: Deadline,
    ) -> Result<Fresh<Lease>, KmsError> {
        let credential = self.credential(environment)?;
        let request = match &self.credential {
            Source::Jwt(_) => Request::Jwt { role: &self.role, jwt: credential.expose() },
            Source::SecretId(_) => {
                Request::AppRole { role_id: &self.role, secret_id: credential.expose() }
            }
        };
        let answer = client.send(Method::POST, &self.path, None, Some(&request), deadline)?;
        if answer.status != 200 {
            return Err(answer::login_error(&answer, &[credential.expose()]));
        }
        Ok(answer.json::<Leased>()?.auth.into_fresh(None))
    }

    /// What the URI's file holds is sent to the URI's host, and whoever edits a keyring edits
    /// both: so only what looks like such a credential is.
    fn credential(&self, environment: &Environment) -> Result<Secret, KmsError> {
        let (credential, good) = match &self.credential {
            Source::Jwt(path) => {
                let token = read_secret_file(path, "JWT file")?;
                let good = token.expose().split('.').count() == 3
                    && token.expose().split('.').all(is_segment);
                (token, good)
            }
            Source::SecretId(Some(path)) => {
                let id = read_secret_file(path, "secret id file")?;
                let good = id.expose().len() <= 128 && is_segment(id.expose());
                (id, good)
            }
            Source::SecretId(None) => {
                let id = environment.var("VAULT_SECRET_ID").ok_or_else(|| {
                    let what = "expected a secret id in VAULT_SECRET_ID, found none";
                    fail(KmsErrorKind::Unauthenticated, what)
                })?;
                (id, true)
            }
        };
        if good {
            Ok(credential)
        } else {
            Err(misconfigured("expected a file with a JWT or secret id"))
        }
    }
}
