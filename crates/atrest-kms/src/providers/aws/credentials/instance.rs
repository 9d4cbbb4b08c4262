//! Instance metadata, version 2 only: a token first, then the role's credentials.

use std::time::Duration;

use atrest::kms::{Deadline, KmsError, KmsErrorKind};
use ureq::http::Method;

use super::{Credentials, from_document, metadata};
use crate::environment::Environment;
use crate::fail::{fail, protocol};
use crate::rest::{Answer, Call};
use crate::uri::is_segment;

const ENDPOINT: &str = "http://169.254.169.254";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// It answers in milliseconds, or this is no instance.
const CALL_TIME_MAX: Duration = Duration::from_secs(2);

pub(super) fn fetch(
    environment: &Environment,
    deadline: Deadline,
) -> Result<Credentials, KmsError> {
    if environment.plain("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value == "true") {
        let what = "found no credentials in the environment, the shared file or the container";
        return Err(fail(KmsErrorKind::Unauthenticated, what));
    }
    let endpoint = environment
        .plain("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        .unwrap_or_else(|| ENDPOINT.to_owned());
    let endpoint = endpoint.trim_end_matches('/');
    let rest = metadata();
    let call = |method, path: &str, header: (&str, &str)| -> Result<Answer, KmsError> {
        let url = format!("{endpoint}{path}");
        let deadline = Deadline::after(deadline.remaining().min(CALL_TIME_MAX));
        rest.send(&Call { method, url: &url, headers: &[header], body: &[] }, deadline)
    };
    let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "300");
    let answer = call(Method::PUT, "/latest/api/token", ttl).map_err(|source| {
        let what = "found no credentials, and instance metadata does not answer";
        fail(source.kind(), what).with_source(source)
    })?;
    let token = text(&answer, "token")?.to_owned();
    let token = crate::secret::Secret::new(token);
    let header = ("x-aws-ec2-metadata-token", token.expose());
    let answer = call(Method::GET, ROLES, header)?;
    let role = text(&answer, "role")?;
    if !is_segment(role) {
        return Err(protocol("instance metadata names a malformed role"));
    }
    from_document(&call(Method::GET, &format!("{ROLES}{role}"), header)?, "instance metadata")
}

fn text<'a>(answer: &'a Answer, what: &str) -> Result<&'a str, KmsError> {
    if answer.status != 200 {
        let said = format!("found no credentials, and instance metadata gives no {what}");
        return Err(answer.fail(answer.kind_of_metadata(), &said, &[]));
    }
    std::str::from_utf8(answer.body())
        .ok()
        .and_then(|text| text.lines().next())
        .ok_or_else(|| protocol(format!("instance metadata gives a malformed {what}")))
}
