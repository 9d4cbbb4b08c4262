//! A web identity token (Kubernetes service accounts) against STS.

use atrest::kms::{Deadline, KmsError, KmsErrorKind};
use ureq::http::Method;

use super::super::answer;
use super::Credentials;
use crate::environment::{Environment, read_secret_file};
use crate::fail::{misconfigured, protocol};
use crate::rest::{Answer, Call, FORM, Rest, form};
use crate::secret::Secret;
use crate::time;

/// Credentials of the role in `AWS_ROLE_ARN`; `None` if no token file is named.
pub(super) fn assume(
    environment: &Environment,
    endpoint: &str,
    deadline: Deadline,
) -> Result<Option<Credentials>, KmsError> {
    let Some(file) = environment.plain("AWS_WEB_IDENTITY_TOKEN_FILE") else { return Ok(None) };
    let role = environment.plain("AWS_ROLE_ARN").ok_or_else(|| {
        misconfigured("expected a role in AWS_ROLE_ARN beside AWS_WEB_IDENTITY_TOKEN_FILE")
    })?;
    let session = environment.plain("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "atrest".to_owned());
    let token = read_secret_file(&file, "web identity token")?;
    let endpoint = environment.plain("AWS_ENDPOINT_URL_STS").unwrap_or_else(|| endpoint.to_owned());
    let body = form(&[
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", &role),
        ("RoleSessionName", &session),
        ("WebIdentityToken", token.expose()),
    ]);
    let url = format!("{}/", endpoint.trim_end_matches('/'));
    let body = body.expose().as_bytes();
    let call = Call { method: Method::POST, url: &url, headers: &[FORM], body };
    credentials(&Rest::new(&url, None)?.send(&call, deadline)?, &[token.expose()]).map(Some)
}

fn credentials(answer: &Answer, secrets: &[&str]) -> Result<Credentials, KmsError> {
    let malformed = || protocol("the STS answer is not the expected XML");
    let text = std::str::from_utf8(answer.body()).map_err(|_| malformed())?;
    if answer.status != 200 {
        // Other services of AWS have a `Code` too, without this element around it.
        let own = text.contains("<ErrorResponse");
        let field = |name| element(text, name).filter(|_| own);
        let (code, message) = (field("Code"), field("Message"));
        let (code, message) = (code.unwrap_or_default(), message.unwrap_or_default());
        let kind = answer::kind(code, message).unwrap_or_else(|| answer.kind_by_status());
        // It is the role that is refused here, and not the key.
        let kind = if kind.denies_access() { KmsErrorKind::Unauthenticated } else { kind };
        return Err(answer.fail(kind, &format!("STS: {code} {message}"), secrets));
    }
    let field = |name| element(text, name).ok_or_else(malformed);
    Ok(Credentials {
        key_id: field("AccessKeyId")?.to_owned(),
        secret_key: Secret::new(field("SecretAccessKey")?.to_owned()),
        session_token: Some(Secret::new(field("SessionToken")?.to_owned())),
        expires: Some(time::parse(field("Expiration")?).ok_or_else(malformed)?),
    })
}

/// The text of the first element of that name. STS's answers nest nothing twice, and
/// their values need no unescaping: base64, ids and dates.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = after.split_once(&format!("</{name}>"))?;
    Some(value.trim())
}
