//! Access tokens of Google Cloud.

use atrest::kms::{Deadline, KmsError};
use serde::Deserialize;
use ureq::http::Method;

use crate::environment::{Environment, read_secret_file};
use crate::fail::{fail, misconfigured};
use crate::rest::{Call, FORM, Rest, Token, form};
use crate::secret::Secret;

use super::DOMAINS;

mod service_account;

const METADATA_HOST: &str = "metadata.google.internal";
const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
const USER_TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// The file of application default credentials.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum File {
    ServiceAccount(service_account::Account),
    AuthorizedUser(User),
    #[serde(other)]
    Unknown,
}

/// What `gcloud auth application-default login` writes.
#[derive(Deserialize)]
struct User {
    client_id: String,
    client_secret: Secret,
    refresh_token: Secret,
}

/// A new token, in the order of Google's own libraries.
pub(super) fn fetch(
    environment: &Environment,
    ca: Option<&str>,
    deadline: Deadline,
) -> Result<Token, KmsError> {
    if let Some(token) = environment.var("GOOGLE_OAUTH_ACCESS_TOKEN") {
        return Ok(Token::given(token));
    }
    if let Some(path) = environment.plain("GOOGLE_APPLICATION_CREDENTIALS") {
        return from_file(&path, ca, deadline);
    }
    let default = environment.home(".config/gcloud/application_default_credentials.json");
    if let Some(path) = default.as_ref().filter(|path| path.exists()).and_then(|path| path.to_str())
    {
        return from_file(path, ca, deadline);
    }
    from_metadata(environment, deadline)
}

fn from_file(path: &str, ca: Option<&str>, deadline: Deadline) -> Result<Token, KmsError> {
    let text = read_secret_file(path, "credentials file")?;
    let file = serde_json::from_str(text.expose())
        .map_err(|_| misconfigured(format!("expected Google credentials in {path}")))?;
    match file {
        File::ServiceAccount(account) => service_account::exchange(&account, ca, deadline),
        File::AuthorizedUser(user) => {
            let fields = [
                ("grant_type", "refresh_token"),
                ("client_id", &user.client_id),
                ("client_secret", user.client_secret.expose()),
                ("refresh_token", user.refresh_token.expose()),
            ];
            let secrets = [user.client_secret.expose(), user.refresh_token.expose()];
            post(USER_TOKEN_URI, &fields, &secrets, ca, deadline)
        }
        File::Unknown => Err(misconfigured(format!(
            "expected credentials of a service account or user in {path}, found another type"
        ))),
    }
}

/// Asks a token endpoint.
fn post(
    url: &str,
    fields: &[(&str, &str)],
    secrets: &[&str],
    ca: Option<&str>,
    deadline: Deadline,
) -> Result<Token, KmsError> {
    let body = form(fields);
    let call = Call { method: Method::POST, url, headers: &[FORM], body: body.expose().as_bytes() };
    let rest = Rest::for_tokens(url, ca)?;
    Token::from_answer(&rest.send(&call, deadline)?, "Google's token endpoint", secrets)
}

fn from_metadata(environment: &Environment, deadline: Deadline) -> Result<Token, KmsError> {
    let host = environment.plain("GCE_METADATA_HOST");
    let url = format!("http://{}{METADATA_PATH}", host.as_deref().unwrap_or(METADATA_HOST));
    let headers = [("metadata-flavor", "Google")];
    let call = Call { method: Method::GET, url: &url, headers: &headers, body: &[] };
    let answer = Rest::metadata().send(&call, deadline).map_err(|source| {
        let what = "found no credentials, and the metadata server does not answer";
        fail(source.kind(), what).with_source(source)
    })?;
    Token::from_metadata(&answer, "the metadata server")
}
