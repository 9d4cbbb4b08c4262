//! Requests to one server of Vault or OpenBao.

use atrest::kms::{Deadline, KmsError};
use serde::Serialize;
use ureq::http::Method;

use crate::rest::{Answer, Call, Rest, to_json};

#[derive(Debug)]
pub(super) struct Client {
    pub rest: Rest,
    /// `https://HOST:PORT/v1`.
    pub api: String,
    pub namespace: Option<String>,
}

impl Client {
    /// Sends a request with a token, or without one.
    pub(super) fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        request: Option<&impl Serialize>,
        deadline: Deadline,
    ) -> Result<Answer, KmsError> {
        let mut headers = vec![("content-type", "application/json"), ("x-vault-request", "true")];
        headers.extend(token.map(|token| ("x-vault-token", token)));
        headers.extend(self.namespace.as_deref().map(|name| ("x-vault-namespace", name)));
        let url = format!("{}/{path}", self.api);
        let body = match request {
            Some(request) => to_json(request)?,
            None => Default::default(),
        };
        self.rest.send(&Call { method, url: &url, headers: &headers, body: &body }, deadline)
    }

    pub(super) fn get(
        &self,
        path: &str,
        token: &str,
        deadline: Deadline,
    ) -> Result<Answer, KmsError> {
        self.send(Method::GET, path, Some(token), None::<&()>, deadline)
    }
}
