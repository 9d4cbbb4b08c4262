//! The credentials endpoint of ECS tasks and EKS pods.

use atrest::kms::{Deadline, KmsError};
use ureq::http::Method;

use super::{Credentials, from_document, metadata};
use crate::environment::{Environment, read_secret_file};
use crate::fail::misconfigured;
use crate::rest::Call;
use crate::uri::HostPort;

/// The endpoint of ECS.
const ECS: &str = "http://169.254.170.2";
/// Hosts that may be asked, and given the token, without TLS: ECS and EKS.
const LINK_LOCAL: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// Credentials of the task or pod; `None` outside one.
pub(super) fn fetch(
    environment: &Environment,
    deadline: Deadline,
) -> Result<Option<Credentials>, KmsError> {
    let url = match (
        environment.plain("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        environment.plain("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    ) {
        (Some(path), _) if path.starts_with('/') => format!("{ECS}{path}"),
        (Some(_), _) => {
            return Err(misconfigured(
                "expected AWS_CONTAINER_CREDENTIALS_RELATIVE_URI to begin with /",
            ));
        }
        (None, Some(url)) => allowed(&url)?,
        (None, None) => return Ok(None),
    };
    let token = match environment.plain("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => Some(read_secret_file(&path, "container token file")?),
        None => environment.var("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    let headers: Vec<_> = token.iter().map(|token| ("authorization", token.expose())).collect();
    let call = Call { method: Method::GET, url: &url, headers: &headers, body: &[] };
    from_document(&metadata().send(&call, deadline)?, "container endpoint").map(Some)
}

/// The URL, unless it would send the token in clear over a network.
fn allowed(url: &str) -> Result<String, KmsError> {
    let host = |rest: &str| HostPort::parse(rest.split('/').next()?, 80);
    let good = match url.split_once("://") {
        Some(("https", _)) => true,
        Some(("http", rest)) => host(rest).is_some_and(|address| {
            address.is_loopback() || LINK_LOCAL.contains(&address.host.as_str())
        }),
        _ => false,
    };
    if good {
        return Ok(url.to_owned());
    }
    Err(misconfigured("expected AWS_CONTAINER_CREDENTIALS_FULL_URI to use https or this machine"))
}
