//! Access tokens of Microsoft Entra ID.

use atrest::kms::{Deadline, KmsError};
use ureq::http::Method;

use crate::environment::{Environment, read_secret_file};
use crate::fail::{fail, misconfigured};
use crate::rest::{Call, FORM, Rest, Token, form};
use crate::uri::{endpoint, is_segment};

const AUTHORITY: &str = "https://login.microsoftonline.com";
/// Where a client secret may be sent.
const AUTHORITIES: [&str; 4] =
    ["microsoftonline.com", "microsoftonline.us", "partner.microsoftonline.cn", "chinacloudapi.cn"];
const METADATA: &str = "http://169.254.169.254";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A new token for `resource`.
pub(super) fn fetch(
    environment: &Environment,
    resource: &str,
    ca: Option<&str>,
    deadline: Deadline,
) -> Result<Token, KmsError> {
    if let Some(token) = environment.var("AZURE_ACCESS_TOKEN") {
        return Ok(Token::given(token));
    }
    let secret = environment.var("AZURE_CLIENT_SECRET");
    let assertion = environment.plain("AZURE_FEDERATED_TOKEN_FILE");
    match (environment.plain("AZURE_TENANT_ID"), environment.plain("AZURE_CLIENT_ID")) {
        (Some(tenant), Some(client)) if secret.is_some() || assertion.is_some() => {
            let (credential, is_secret) = match (secret, assertion) {
                (Some(secret), _) => (secret, true),
                (None, path) => {
                    let path = path.unwrap_or_default();
                    (read_secret_file(&path, "federated token file")?, false)
                }
            };
            let scope = format!("{resource}/.default");
            let mut fields = vec![
                ("grant_type", "client_credentials"),
                ("client_id", client.as_str()),
                ("scope", scope.as_str()),
            ];
            if is_secret {
                fields.push(("client_secret", credential.expose()));
            } else {
                fields.push(("client_assertion_type", ASSERTION_TYPE));
                fields.push(("client_assertion", credential.expose()));
            }
            let url = token_url(environment, &tenant)?;
            let body = form(&fields);
            let call = Call {
                method: Method::POST,
                url: &url,
                headers: &[FORM],
                body: body.expose().as_bytes(),
            };
            let answer = Rest::for_tokens(&url, ca)?.send(&call, deadline)?;
            Token::from_answer(&answer, "Entra ID", &[credential.expose()])
        }
        (_, client) => from_metadata(environment, resource, client.as_deref(), deadline),
    }
}

fn token_url(environment: &Environment, tenant: &str) -> Result<String, KmsError> {
    if !is_segment(tenant) {
        return Err(misconfigured("expected a tenant's id or domain in AZURE_TENANT_ID"));
    }
    let authority = environment.plain("AZURE_AUTHORITY_HOST");
    let authority = endpoint(authority.as_deref().unwrap_or(AUTHORITY), &AUTHORITIES)?;
    Ok(format!("{authority}/{tenant}/oauth2/v2.0/token"))
}

/// The managed identity, or the one of this client id where there are several.
fn from_metadata(
    environment: &Environment,
    resource: &str,
    client: Option<&str>,
    deadline: Deadline,
) -> Result<Token, KmsError> {
    let endpoint = environment.plain("AZURE_POD_IDENTITY_AUTHORITY_HOST");
    let endpoint = endpoint.as_deref().unwrap_or(METADATA).trim_end_matches('/');
    let mut url = format!(
        "{endpoint}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}"
    );
    if let Some(client) = client.filter(|client| is_segment(client)) {
        url += &format!("&client_id={client}");
    }
    let headers = [("metadata", "true")];
    let call = Call { method: Method::GET, url: &url, headers: &headers, body: &[] };
    let answer = Rest::metadata().send(&call, deadline).map_err(|source| {
        let what = "found no credentials, and the managed identity does not answer";
        fail(source.kind(), what).with_source(source)
    })?;
    Token::from_metadata(&answer, "the managed identity")
}
