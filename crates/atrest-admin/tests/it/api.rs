//! Each method with each answer, on one store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::{AccessState, AuditEvent, AuditKind};
use atrest::kms::{Kms as _, KmsErrorKind};
use atrest::{ErrorKind, Keyring};
use atrest_admin::{Store, router};
use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL};
use serde_json::json;

use crate::support::{
    Bench, PATH, Scripted, act, call, get, keys, one, request, send, spec, state,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_shows_its_key_in_the_seed_systems_schema() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    let (router, _keyring) = one(&bench, &cmek, &[]);
    let answer = get(&router, PATH).await;
    assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
    let body = answer.shows("ENABLED");
    let key = &body["region_infos"][0]["key_infos"][0];
    let created = key["created_at"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.len() == 20, "{created}");
    assert_eq!(
        body,
        json!({
            "status": "ENABLED",
            "region_infos": [{
                "region": "eu",
                "status": "ENABLED",
                "key_infos": [{
                    "status": "ENABLED",
                    "user_message": "",
                    "created_at": created,
                    "updated_at": key["updated_at"],
                    "spec": {
                        "type": "FILE",
                        "uri": cmek.key_uri().as_str(),
                        "auth_principal": "",
                    },
                }],
            }],
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_store_refuses_until_it_is_restored() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    let (router, keyring) = one(&bench, &cmek, &[]);
    let body = act(&router, "REVOKE").await.shows("REVOKED");
    let message = &body["region_infos"][0]["key_infos"][0]["user_message"];
    assert_eq!(message, "revoked on request");
    assert_eq!(keyring.keys().active_id().unwrap_err().kind(), ErrorKind::CmekRevoked);
    act(&router, "REVOKE").await.shows("REVOKED");
    assert_eq!(get(&router, "/readyz").await.status.as_u16(), 503);
    // Nothing but a restoration gives access back.
    call(&router, "PUT", spec(&[("eu", &cmek)])).await.refuses(400, 9);
    get(&router, PATH).await.shows("REVOKED");

    cmek.fail(Some(KmsErrorKind::AccessDenied));
    let message = act(&router, "RESTORE").await.refuses(400, 9);
    assert!(message.contains("access denied: as the test told"), "{message}");
    get(&router, PATH).await.shows("REVOKED");
    cmek.fail(None);
    act(&router, "RESTORE").await.shows("ENABLED");
    keyring.keys().active_id().unwrap();
    assert_eq!(get(&router, "/readyz").await.status.as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_replaced_and_wrapped_anew() {
    let bench = Bench::new();
    let (first, second) = (bench.key("first"), bench.key("second"));
    let (router, keyring) = one(&bench, &first, &[&second]);
    call(&router, "POST", spec(&[("eu", &second)])).await.refuses(409, 6);

    let body = call(&router, "PUT", spec(&[("eu", &second)])).await.shows("ENABLED");
    let spec_shown = &body["region_infos"][0]["key_infos"][0]["spec"];
    assert_eq!(spec_shown["uri"], second.key_uri().as_str());
    assert_eq!(spec_shown["auth_principal"], "arn:aws:iam::1:role/r");
    assert_eq!(keyring.slots().list()[0].key_uri, second.key_uri().as_str());

    let before = keyring.status().info.generation;
    call(&router, "PUT", spec(&[("eu", &second)])).await.shows("ENABLED");
    assert_eq!(keyring.status().info.generation, before + 1);

    // A key that cannot be used changes nothing, and says so until one can.
    first.fail(Some(KmsErrorKind::KeyDisabled));
    call(&router, "PUT", spec(&[("eu", &first)])).await.refuses(400, 9);
    let body = get(&router, PATH).await.shows("ROTATE_FAILED");
    let message = body["region_infos"][0]["key_infos"][0]["user_message"].as_str().unwrap();
    assert!(message.contains("key disabled"), "{message}");
    assert_eq!(keyring.slots().list()[0].key_uri, second.key_uri().as_str());
    first.fail(Some(KmsErrorKind::Unreachable));
    call(&router, "PUT", spec(&[("eu", &first)])).await.refuses(503, 14);
    first.fail(None);
    call(&router, "PUT", spec(&[("eu", &first)])).await.shows("ENABLED");
    assert_eq!(keyring.slots().list()[0].key_uri, first.key_uri().as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_leaves_its_local_key_and_returns_to_it() {
    let bench = Bench::new();
    let (local, cmek) = (bench.key("local"), bench.key("cmek"));
    let keyring = bench.keyring("data", &local);
    let stores = vec![Store::of_keyring("eu", keyring.clone())];
    let router = router(state(keys(&[&cmek]), stores).with_local_key(local.clone()));
    get(&router, PATH).await.shows("DISABLED");
    for action in ["REVOKE", "RESTORE", "DISABLE"] {
        act(&router, action).await.refuses(400, 9);
    }
    cmek.fail(Some(KmsErrorKind::NotFound));
    call(&router, "POST", spec(&[("eu", &cmek)])).await.refuses(400, 9);
    get(&router, PATH).await.shows("ENABLE_FAILED");
    cmek.fail(None);
    let store_key = keyring.status().info.store_key_id;
    call(&router, "POST", spec(&[("eu", &cmek)])).await.shows("ENABLED");
    assert_ne!(keyring.status().info.store_key_id, store_key);
    cmek.fail(Some(KmsErrorKind::AccessDenied));
    act(&router, "DISABLE").await.refuses(400, 9);
    get(&router, PATH).await.shows("DISABLE_FAILED");
    cmek.fail(None);
    act(&router, "DISABLE").await.shows("DISABLED");
    assert_eq!(keyring.slots().list()[0].key_uri, local.key_uri().as_str());
    call(&router, "PUT", spec(&[("eu", &cmek)])).await.shows("ENABLED");
}

/// Switches the customer's key off, and goes on until only an archive tells of it.
fn disable_long_ago(bench: &Bench, keyring: &Keyring) {
    keyring.slots().disable_cmek(bench.key("local")).unwrap();
    let tells = |event: &AuditEvent| event.what == AuditKind::Disabled;
    for number in 0.. {
        if !keyring.status().history.iter().any(tells) {
            return;
        }
        keyring.keyspaces().create(&number.to_string()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_stays_disabled_when_its_keyring_does_not_tell_any_more() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    let (router, keyring) = one(&bench, &cmek, &[]);
    get(&router, PATH).await.shows("ENABLED");
    disable_long_ago(&bench, &keyring);
    get(&router, PATH).await.shows("DISABLED");
    act(&router, "RESTORE").await.refuses(400, 9);
    // What the other key may have leaked opens nothing written from now on.
    let store_key = keyring.status().info.store_key_id;
    call(&router, "PUT", spec(&[("eu", &cmek)])).await.shows("ENABLED");
    assert_ne!(keyring.status().info.store_key_id, store_key);
    call(&router, "POST", spec(&[("eu", &cmek)])).await.refuses(409, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_cannot_be_read_keeps_nothing_back() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    let keyring = bench.keyring("data", &cmek);
    disable_long_ago(&bench, &keyring);
    let names = std::fs::read_dir(bench.path("data")).unwrap().map(|entry| entry.unwrap().path());
    let is_archive = |path: &PathBuf| path.to_str().unwrap().contains("KEYRING.audit.");
    names.filter(is_archive).for_each(|archive| std::fs::remove_file(archive).unwrap());
    let router = router(state(keys(&[&cmek]), vec![Store::of_keyring("eu", keyring.clone())]));
    get(&router, PATH).await.shows("ENABLED");
    act(&router, "REVOKE").await.shows("REVOKED");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_local_key_nothing_is_disabled() {
    let bench = Bench::new();
    let (router, _keyring) = one(&bench, &bench.key("cmek"), &[]);
    act(&router, "DISABLE").await.refuses(400, 9);
    get(&router, PATH).await.shows("ENABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_shows_while_it_runs_and_only_a_revocation_gets_past_it() {
    let bench = Bench::new();
    let (first, second) = (bench.key("first"), bench.key("second"));
    let keyring = bench.keyring("data", &first);
    let stores = vec![Store::of_keyring("eu", keyring.clone())];
    let router = router(state(keys(&[&first, &second]), stores));
    let held = second.hold();
    let put = |kms: &Arc<Scripted>| {
        let (router, body) = (router.clone(), spec(&[("eu", kms)]));
        tokio::spawn(async move { call(&router, "PUT", body).await })
    };
    let rotating = put(&second);
    let called = second.clone();
    tokio::task::spawn_blocking(move || called.wait_for_call()).await.unwrap();
    get(&router, PATH).await.shows("ROTATING");
    for kms in [&first, &second] {
        let message = put(kms).await.unwrap().refuses(409, 10);
        assert!(message.contains("rotate"), "{message}");
    }
    let metrics = get(&router, "/metrics").await.text;
    let running = "atrest_operation_running{cluster=\"orders\",operation=\"rotate\"} 1\n";
    assert!(metrics.contains(running), "{metrics}");

    let revoking = {
        let router = router.clone();
        tokio::spawn(async move { act(&router, "REVOKE").await })
    };
    // The keys are gone though the other operation still waits for its key service.
    while keyring.access().status().state != AccessState::Revoked {
        tokio::task::yield_now().await;
    }
    assert!(keyring.keys().active_id().is_err());
    get(&router, PATH).await.shows("REVOKING");
    call(&router, "PATCH", json!({ "action": "RESTORE" })).await.refuses(409, 10);
    drop(held);
    revoking.await.unwrap();
    drop(rotating.await.unwrap());
    act(&router, "RESTORE").await.shows("ENABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_a_revocation_made_vain_is_not_shown() {
    let bench = Bench::new();
    let (eu, us) = (bench.key("eu"), bench.key("us"));
    let (router, _keyring) = one(&bench, &eu, &[&us]);
    // Before a slot is added, the present key's service is asked.
    let held = eu.hold_calls();
    let adding = tokio::spawn({
        let (router, body) = (router.clone(), spec(&[("us", &us)]));
        async move { call(&router, "PUT", body).await }
    });
    let called = eu.clone();
    tokio::task::spawn_blocking(move || called.wait_for_call()).await.unwrap();
    assert_eq!(get(&router, PATH).await.json()["status"], "ROTATING");
    act(&router, "REVOKE").await.shows("REVOKED");
    get(&router, PATH).await.shows("REVOKED");
    drop(held);
    adding.await.unwrap().refuses(400, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_takes_long_goes_on_after_its_answer() {
    let bench = Bench::new();
    let (first, second) = (bench.key("first"), bench.key("second"));
    let keyring = bench.keyring("data", &first);
    let stores = vec![Store::of_keyring("eu", keyring.clone())];
    let state = state(keys(&[&first, &second]), stores).with_answer_within(Duration::ZERO);
    let state = Arc::new(state);
    let router = router(state.clone());
    let held = second.hold();
    let answer = call(&router, "PUT", spec(&[("eu", &second)])).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    let called = second.clone();
    tokio::task::spawn_blocking(move || called.wait_for_call()).await.unwrap();
    get(&router, PATH).await.shows("ROTATING");
    // A process that ends waits for it.
    let ending = std::thread::spawn(move || state.wait_for_operations());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!ending.is_finished());
    drop(held);
    tokio::task::spawn_blocking(move || ending.join().unwrap()).await.unwrap();
    get(&router, PATH).await.shows("ENABLED");
    assert_eq!(keyring.slots().list()[0].key_uri, second.key_uri().as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_expected_is_refused() {
    let bench = Bench::new();
    let (cmek, stranger) = (bench.key("cmek"), bench.key("stranger"));
    let (router, _keyring) = one(&bench, &cmek, &[]);
    let good = spec(&[("eu", &cmek)]);
    for (change, value) in [
        ("/region_specs", json!([])),
        ("/region_specs", json!({})),
        ("/region_specs/0/region", json!("")),
        ("/region_specs/0/region", json!("a/b")),
        ("/region_specs/0/region", json!(7)),
        ("/region_specs/0/key_spec", json!(null)),
        ("/region_specs/0/key_spec/type", json!("NULL_KMS")),
        ("/region_specs/0/key_spec/type", json!("AWS_KMS")),
        ("/region_specs/0/key_spec/uri", json!("")),
        ("/region_specs/0/key_spec/auth_principal", json!("\u{7}")),
        ("/region_specs/0/key_spec/auth_principal", json!("x".repeat(1025))),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(change).unwrap() = value;
        for method in ["POST", "PUT"] {
            call(&router, method, bad.clone()).await.refuses(400, 3);
        }
    }
    let mut more = good.clone();
    more["region_specs"][0]["key_spec"]["more"] = json!(1);
    call(&router, "PUT", more).await.refuses(400, 3);
    call(&router, "PUT", spec(&[("eu", &cmek), ("eu", &cmek)])).await.refuses(400, 3);
    call(&router, "PUT", spec(&[("eu", &stranger)])).await.refuses(403, 7);
    call(&router, "PATCH", json!({ "action": "EXPLODE" })).await.refuses(400, 3);
    for text in ["", "{", "[]", "\u{0}", "{\"action\":\"REVOKE\"} x"] {
        for method in ["POST", "PUT", "PATCH"] {
            send(&router, request(method, PATH, text)).await.refuses(400, 3);
        }
    }
    get(&router, PATH).await.shows("ENABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_shows_nothing_of_the_body() {
    const SECRET: &str = "correct horse, expected battery";
    let bench = Bench::new();
    let (router, _keyring) = one(&bench, &bench.key("cmek"), &[]);
    let inside =
        |spec: serde_json::Value| json!({ "region_specs": [{ "region": "eu", "key_spec": spec }] });
    for (method, body, expected) in [
        ("PUT", json!(SECRET), "expected struct ClusterSpec at line 1 column "),
        ("PUT", json!({ "region_specs": SECRET }), "expected a sequence"),
        ("PUT", inside(json!(SECRET)), "expected struct KeySpec"),
        ("PUT", inside(json!({ SECRET: "x" })), "expected one of `type`, `uri`"),
        ("PUT", inside(json!({ "type": "x", "auth_principal": SECRET })), "missing field `uri`"),
        ("PATCH", json!({ "action": SECRET }), "expected one of `REVOKE`, `RESTORE`"),
    ] {
        let message = call(&router, method, body).await.refuses(400, 3);
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("horse") && !message.contains("battery"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_do_not_fit_http_are_refused() {
    let bench = Bench::new();
    let (router, _keyring) = one(&bench, &bench.key("cmek"), &[]);
    let long = format!("{{\"action\":\"REVOKE\"{}}}", " ".repeat(64 * 1024));
    send(&router, request("PATCH", PATH, long)).await.refuses(413, 3);
    let mut text = request("PATCH", PATH, "{\"action\":\"REVOKE\"}");
    text.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    send(&router, text).await.refuses(415, 3);
    let wrong = send(&router, request("DELETE", PATH, Body::empty())).await;
    wrong.refuses(405, 12);
    assert!(wrong.headers[ALLOW].to_str().unwrap().contains("PATCH"));
    get(&router, "/api/v1/clusters/other/cmek").await.refuses(404, 5);
    get(&router, "/api/v1/clusters/%ff/cmek").await.refuses(400, 3);
    get(&router, "/api/v1/clusters//cmek").await.refuses(404, 5);
    get(&router, "/nowhere").await.refuses(404, 5);
    get(&router, PATH).await.shows("ENABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    let stores = vec![Store::of_keyring("eu", bench.keyring("data", &cmek))];
    let state = state(keys(&[&cmek]), stores).with_request_time_max(Duration::from_millis(1));
    let never = Body::new(Never);
    send(&router(state), request("PATCH", PATH, never)).await.refuses(504, 4);
}

/// A body that never comes.
struct Never;

impl axum::body::HttpBody for Never {
    type Data = axum::body::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<axum::body::Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}
