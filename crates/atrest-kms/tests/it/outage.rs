//! Outages: nothing answers, answers break off, or the service says it cannot. The
//! deadline holds and the kind says "retry", whatever the failure.
//!
//! Times are generous: they tell a bounded call from one that hangs, nothing finer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atrest::kms::{Deadline, Kms, KmsErrorKind, WrappedKey};
use atrest_kms::{Environment, from_uri_with};

use crate::conformance::{assert_opens, context, key, soon};
use crate::servers::openbao::OpenBao;
use crate::servers::proxy::{Mode, Proxy};
use crate::servers::{free_port, require};

/// How long over its deadline a call may return on a busy machine.
const SLACK: Duration = Duration::from_secs(20);

/// That unwrap fails with `expected` before deadline and slack have passed.
pub(crate) fn assert_fails(
    kms: &dyn Kms,
    wrapped: &WrappedKey,
    deadline: Duration,
    expected: KmsErrorKind,
    why: &str,
) {
    let start = Instant::now();
    let result = kms.unwrap(wrapped, &context(1), Deadline::after(deadline));
    let took = start.elapsed();
    let error = result.err().unwrap_or_else(|| panic!("{why}: unwrapped"));
    assert_eq!(error.kind(), expected, "{why}: {error}: {error:?}");
    assert!(took < deadline + SLACK, "{why}: took {took:?} of {deadline:?}");
}

fn vault(port: u16, name: &str, ca: &str, token: &str) -> Arc<dyn Kms> {
    let uri = format!("hcvault://127.0.0.1:{port}/transit/keys/{name}?ca={ca}");
    from_uri_with(&uri, &Environment::fixed([("VAULT_TOKEN", token)])).expect("a provider")
}

#[test]
fn a_frozen_server_and_a_dead_one() {
    let Some(mut server) = require("outage::a_frozen_server_and_a_dead_one", OpenBao::start())
    else {
        return;
    };
    let name = server.new_key();
    let (ca, token) = (server.ca(), server.new_token(&name));
    let kms = vault(server.process.port, &name, &ca, &token);
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    server.process.freeze();
    let unreachable = KmsErrorKind::Unreachable;
    assert_fails(&*kms, &wrapped, Duration::from_secs(2), unreachable, "frozen");
    // A deadline longer than one try: tries again, and still ends.
    assert_fails(&*kms, &wrapped, Duration::from_secs(7), unreachable, "frozen, two tries");
    server.process.thaw();
    assert_opens(&*kms, &wrapped, &key(1));
    server.process.kill();
    assert_fails(&*kms, &wrapped, Duration::from_secs(60), unreachable, "killed");
}

#[test]
fn nobody_listens() {
    let kms = from_uri_with(
        &format!("hcvault://127.0.0.1:{}/transit/keys/k?tls=false", free_port()),
        &Environment::fixed([("VAULT_TOKEN", "t")]),
    )
    .expect("a provider");
    let wrapped = WrappedKey { key_version: String::new(), blob: b"vault:v1:AAAA".to_vec() };
    let unreachable = KmsErrorKind::Unreachable;
    assert_fails(&*kms, &wrapped, Duration::from_secs(60), unreachable, "refused");
}

#[test]
fn connections_that_fail_on_the_way() {
    let Some(server) = require("outage::connections_that_fail_on_the_way", OpenBao::start()) else {
        return;
    };
    let name = server.new_key();
    let (ca, token) = (server.ca(), server.new_token(&name));
    let proxy = Proxy::new(server.process.port, Mode::Pass);
    let kms = vault(proxy.port, &name, &ca, &token);
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let unreachable = KmsErrorKind::Unreachable;
    for (mode, deadline_secs) in [
        (Mode::Stall, 2),
        (Mode::Cut, 60),
        (Mode::CutAnswerAfter(1), 60),
        (Mode::CutAnswerAfter(200), 60),
        // Inside the encrypted answer.
        (Mode::CutAnswerAfter(1400), 60),
        (Mode::Drip, 2),
    ] {
        proxy.set(mode.clone());
        let why = format!("{mode:?}");
        assert_fails(&*kms, &wrapped, Duration::from_secs(deadline_secs), unreachable, &why);
    }
    proxy.set(Mode::Pass);
    assert_opens(&*kms, &wrapped, &key(1));
}

/// An HTTP answer, whole.
pub(crate) fn http_answer(status: &str, headers: &str, body: &str) -> Mode {
    let len = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {len}\r\nconnection: close");
    Mode::Answer(format!("{head}\r\n\r\n{body}").into_bytes())
}

#[test]
fn answers_of_a_service_in_trouble() {
    let proxy = Proxy::new(0, Mode::Cut);
    let token = "s.token-that-a-proxy-echoes";
    let kms = from_uri_with(
        &format!("hcvault://127.0.0.1:{}/transit/keys/k?tls=false", proxy.port),
        &Environment::fixed([("VAULT_TOKEN", token)]),
    )
    .expect("a provider");
    let wrapped = WrappedKey { key_version: String::new(), blob: b"vault:v1:AAAA".to_vec() };
    let echo = format!("{{\"errors\":[\"bad request with {token}\"]}}");
    let long = "x".repeat(100_000);
    use KmsErrorKind as K;
    for (why, mode, expected, tries) in [
        ("502", http_answer("502 Bad Gateway", "", "<html>"), K::Unreachable, 3),
        ("503", http_answer("503 Service Unavailable", "", "{}"), K::Unreachable, 3),
        ("429", http_answer("429 Too Many Requests", "retry-after: 0\r\n", ""), K::Throttled, 3),
        ("429, later", http_answer("429 No", "retry-after: 999999\r\n", ""), K::Throttled, 1),
        ("418", http_answer("418 Teapot", "", ""), K::Protocol, 1),
        ("401", http_answer("401 No", "retry-after: 0\r\n", &echo), K::Unreachable, 3),
        ("307", http_answer("307 Go", "location: http://127.0.0.1:1/\r\n", ""), K::Protocol, 1),
        ("not JSON", http_answer("200 OK", "", "<html>"), K::Protocol, 1),
        ("other JSON", http_answer("200 OK", "", "{\"data\":[]}"), K::Protocol, 1),
        (
            "not a key",
            http_answer("200 OK", "", "{\"data\":{\"plaintext\":\"AAAA\"}}"),
            K::Integrity,
            1,
        ),
        ("too long", http_answer("200 OK", "", &long), K::Protocol, 1),
        ("not HTTP", Mode::Answer(b"220 mail ready\r\n".to_vec()), K::Unreachable, 3),
    ] {
        proxy.set(mode);
        let before = proxy.connections();
        let error = kms.unwrap(&wrapped, &context(1), soon()).err().expect(why);
        assert_eq!(error.kind(), expected, "{why}: {error}: {error:?}");
        assert_eq!(proxy.connections() - before, tries, "{why}: tries");
        crate::conformance::assert_hides(&error, &[token.to_owned()]);
        if why == "429, later" {
            // Believed up to an hour.
            assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
        }
    }
}
