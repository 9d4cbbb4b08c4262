//! Who may ask what.

use atrest_admin::{Store, router};
use axum::body::Body;
use axum::http::Request;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};

use crate::support::{Bench, PATH, TOKEN, get, keys, one, send, state};

fn with(method: &str, path: &str, authorization: &[&str]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for value in authorization {
        request = request.header(AUTHORIZATION, *value);
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_nothing_is_told() {
    let bench = Bench::new();
    let (router, _keyring) = one(&bench, &bench.key("cmek"), &[]);
    let good = format!("Bearer {TOKEN}");
    let basic = format!("Basic {TOKEN}");
    let cut = &good[..good.len() - 1];
    for authorization in
        [&[][..], &[""], &["Bearer"], &["Bearer x"], &[&basic], &[cut], &[&good, &good]]
    {
        // Not even whether there is such a cluster or method.
        for path in [PATH, "/api/v1/clusters/other/cmek", "/metrics"] {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let answer = send(&router, with(method, path, authorization)).await;
                answer.refuses(401, 16);
                assert_eq!(answer.headers[WWW_AUTHENTICATE], "Bearer");
            }
        }
    }
    let answer = send(&router, with("GET", PATH, &[&good])).await;
    answer.shows("ENABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_the_document_are_public_and_metrics_on_request() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    let stores = vec![Store::of_keyring("eu", bench.keyring("data", &cmek))];
    let router = router(state(keys(&[&cmek]), stores).with_public_metrics(true));
    for (path, content) in [
        ("/livez", "ok\n"),
        ("/readyz", "ok\n"),
        ("/openapi.json", "\"openapi\""),
        ("/metrics", "# HELP"),
    ] {
        let answer = send(&router, with("GET", path, &[])).await;
        assert_eq!(answer.status.as_u16(), 200, "{path}");
        assert!(answer.text.contains(content), "{path}");
    }
    send(&router, with("GET", PATH, &[])).await.refuses(401, 16);
    let document = get(&router, "/openapi.json").await.json();
    assert!(document["paths"]["/api/v1/clusters/{cluster_id}/cmek"]["patch"].is_object());
}
