//! What the fuzz target calls: any requests to a router over one store in memory. The seeds in
//! `fuzz/seeds` are replayed by a unit test.
//!
//! Requests are from each other by a line `--`. Each is a line with method and path, one with
//! the `Authorization`, one with the content type, and the body.

use atrest::internals::fuzz::Bare;
use atrest::keyring::MemoryStorage;
use atrest::{Keyring, Options};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Request, Uri};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use crate::{AdminState, Keys, Store, Token, router};

#[cfg(test)]
mod tests;

const TOKEN: &str = "a-token-of-the-tests";
const BETWEEN: &[u8] = b"\n--\n";
/// Requests of one input.
const REQUESTS_MAX: usize = 4;

/// Any requests, one after the other.
///
/// # Panics
/// When one without the token is not refused or changes anything, when something inside of the
/// server failed, and when an answer shows the token or is not what it says.
pub fn requests(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(answer_all(data));
}

async fn answer_all(data: &[u8]) {
    let (customer, local) = (Bare::from_uri("fuzz:customer"), Bare::from_uri("fuzz:local"));
    let (customer, local) = (customer.expect("a URI"), local.expect("a URI"));
    let mut options = Options::default();
    options.background = false;
    let keyring = Keyring::create(MemoryStorage::new(), customer.clone(), options);
    let keyring = keyring.expect("a new keyring");
    let keys = Keys::new(Bare::from_uri).allow("fuzz:keys/").expect("a prefix").with_key(customer);
    let state = AdminState::new(Token::new(TOKEN).expect("a token"), keys)
        .with_cluster("orders", vec![Store::of_keyring("eu", keyring.clone())])
        .expect("a cluster")
        .with_local_key(local);
    let router = router(state);
    let (mut rest, mut sent) = (data, false);
    for _ in 0..REQUESTS_MAX {
        let end = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN);
        answer(&router, &keyring, &rest[..end.unwrap_or(rest.len())], &mut sent).await;
        let Some(end) = end else { break };
        rest = &rest[end + BETWEEN.len()..];
    }
}

/// `sent` says whether a body so far may have had the token in it.
async fn answer(router: &Router, keyring: &Keyring, data: &[u8], sent: &mut bool) {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (first, authorization, content_type, body) = (line(), line(), line(), line());
    let first = String::from_utf8_lossy(first);
    let (method, path) = first.split_once(' ').unwrap_or(("GET", &first));
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method.as_bytes()), path.parse::<Uri>()) else {
        return;
    };
    let has = |what: &[u8]| body.windows(what.len()).any(|window| window == what);
    *sent |= has(TOKEN.as_bytes()) || has(b"\\u");
    let mut request = Request::new(Body::from(body.to_vec()));
    (*request.method_mut(), *request.uri_mut()) = (method, uri.clone());
    for (name, value) in [(AUTHORIZATION, authorization), (CONTENT_TYPE, content_type)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            request.headers_mut().insert(name, value);
        }
    }
    let may = authorization
        .split_at_checked(7)
        .is_some_and(|(_, token)| token.trim_ascii() == TOKEN.as_bytes());
    let before = keyring.anchor().generation;
    let response = TowerToHyperService::new(router.clone()).call(request).await;
    let (parts, body) = response.expect("infallible").into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body in memory");
    let text = std::str::from_utf8(&body).expect("text");
    // What a specification says is repeated, a token in it too.
    assert!(*sent || !text.contains(TOKEN), "{text}");
    let status = parts.status.as_u16();
    assert!(status != 500, "{text}");
    let is_json = parts.headers.get(CONTENT_TYPE).is_some_and(|it| it == "application/json");
    if is_json && !body.is_empty() {
        serde_json::from_slice::<serde_json::Value>(&body).expect("JSON");
    }
    if !may {
        assert_eq!(keyring.anchor().generation, before, "changed without the token");
        let is_api = uri.path().starts_with("/api/v1/clusters/orders/cmek");
        assert!(!is_api || !parts.status.is_success(), "{text}");
    }
}
