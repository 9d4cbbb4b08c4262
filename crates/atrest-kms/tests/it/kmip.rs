//! `kmip://` against PyKMIP.

use std::sync::Arc;
use std::time::Duration;

use atrest::kms::{KeyUri, Kms, KmsErrorKind};
use atrest_kms::{Environment, from_uri_with};
use serde_json::json;

use crate::conformance::{
    Denial, Service, assert_opens, check, check_denial, context, key, kind, soon,
};
use crate::outage::assert_fails;
use crate::servers::proxy::{Mode, Proxy};
use crate::servers::pykmip::{self, PyKmip};
use crate::servers::require;

struct Server(Arc<PyKmip>);

fn open(uri: &str) -> Arc<dyn Kms> {
    from_uri_with(uri, &Environment::process()).unwrap_or_else(|e| panic!("{e}: {e:?}"))
}

impl Server {
    fn start(suite: &str) -> Option<Self> {
        Some(Self(require(suite, pykmip::shared())?))
    }

    fn uri(&self, uid: &str) -> String {
        self.0.uri(uid, "client", "ca")
    }
}

impl Service for Server {
    fn new_key(&self) -> KeyUri {
        self.uri(&self.0.new_key()).parse().expect("a URI")
    }

    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms> {
        open(uri.as_str())
    }

    fn secrets(&self) -> Vec<String> {
        let pem = std::fs::read_to_string(self.0.certificates.path("client.key")).unwrap();
        pem.lines().filter(|line| !line.starts_with('-')).map(str::to_owned).collect()
    }
}

#[test]
fn conforms() {
    let Some(server) = Server::start("kmip::conforms") else { return };
    check(&server);
}

#[test]
fn the_certificates_end_is_told() {
    const DAY: Duration = Duration::from_secs(86_400);
    let Some(server) = Server::start("kmip::the_certificates_end_is_told") else { return };
    let kms = open(&server.uri("none"));
    // From a day before it was made until two days after.
    let credential = kms.credential().expect("an end");
    assert_eq!(credential.lifetime, 3 * DAY);
    assert!(credential.expires_in > DAY && credential.expires_in <= 2 * DAY, "{credential:?}");
    assert!(!credential.renews && !credential.is_ending());
}

#[test]
fn denials_by_the_key() {
    let Some(server) = Server::start("kmip::denials_by_the_key") else { return };
    for (reason, name) in
        [("CESSATION_OF_OPERATION", "deactivated"), ("KEY_COMPROMISE", "compromised")]
    {
        let uid = server.0.new_key();
        let kms = open(&server.uri(&uid));
        check_denial(
            &*kms,
            &server.secrets(),
            &Denial {
                name,
                deny: &|| drop(server.0.call("revoke", &json!({"uid": uid, "reason": reason}))),
                expected: KmsErrorKind::KeyDisabled,
                restore: None,
            },
        );
        check_destroyed(&server, &*kms, &uid);
    }
    let uid = server.0.create(&["encrypt", "decrypt"]);
    let kms = open(&server.uri(&uid));
    let refused = kind(kms.wrap(&key(1), &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::KeyDisabled), "not yet active");
    server.0.call("activate", &json!({"uid": uid}));
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    assert_opens(&*kms, &wrapped, &key(1));
}

fn check_destroyed(server: &Server, kms: &dyn Kms, uid: &str) {
    server.0.call("destroy", &json!({"uid": uid}));
    let refused = kind(kms.wrap(&key(1), &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::NotFound), "destroyed");
}

#[test]
fn rights_and_certificates() {
    let Some(server) = Server::start("kmip::rights_and_certificates") else { return };
    let uid = server.0.new_key();
    let kms = open(&server.uri(&uid));
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");

    let active = |usage| {
        let uid = server.0.create(&[usage]);
        server.0.call("activate", &json!({"uid": uid}));
        open(&server.uri(&uid))
    };
    let refused = kind(active("decrypt").wrap(&key(1), &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::AccessDenied), "an active key without Encrypt");
    let one_way = active("encrypt");
    let blob = one_way.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let refused = kind(one_way.unwrap(&blob, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::AccessDenied), "an active key without Decrypt");

    let stranger = open(&server.0.uri(&uid, "stranger", "ca"));
    let error = stranger.unwrap(&wrapped, &context(1), soon()).err().expect("another client");
    assert_eq!(error.kind(), KmsErrorKind::AccessDenied, "{error:?}");

    let distrusting = open(&server.0.uri(&uid, "client", "other-ca"));
    let error = distrusting.unwrap(&wrapped, &context(1), soon()).err().expect("a wrong CA");
    assert_eq!(error.kind(), KmsErrorKind::Unreachable, "{error:?}");

    // A certificate that the server's CA did not sign.
    let uri = server.0.uri(&uid, "self-signed", "ca");
    let error = open(&uri).unwrap(&wrapped, &context(1), soon()).err().expect("refused");
    assert_eq!(error.kind(), KmsErrorKind::Unauthenticated, "{error:?}");
    assert_opens(&*kms, &wrapped, &key(1));
}

#[test]
fn unusable_files() {
    let Some(server) = Server::start("kmip::unusable_files") else { return };
    let uri = server.uri("1");
    for (from, to) in [
        ("ca=", "ca=/nonexistent"),
        ("client.pem", "client.key"),
        ("client.key", "client.pem"),
        ("client.key", "server.key"),
        ("client.key", "missing.key"),
    ] {
        let broken = uri.replace(from, to);
        let error = from_uri_with(&broken, &Environment::process()).expect_err(&broken);
        assert_eq!(error.kind(), KmsErrorKind::Misconfigured, "{error:?}");
    }
}

#[test]
fn outages() {
    let Some(server) = Server::start("kmip::outages") else { return };
    let uid = server.0.new_key();
    let proxy = Proxy::new(server.0.process.port, Mode::Pass);
    let port = format!(":{}/", server.0.process.port);
    let kms = open(&server.uri(&uid).replace(&port, &format!(":{}/", proxy.port)));
    let wrapped = kms.wrap(&key(1), &context(1), soon()).unwrap_or_else(|e| panic!("{e:?}"));
    for (mode, deadline_secs) in [
        (Mode::Stall, 2),
        (Mode::Cut, 60),
        (Mode::CutAnswerAfter(100), 60),
        (Mode::CutAnswerAfter(1100), 60),
        (Mode::Answer(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), 60),
        (Mode::Drip, 2),
    ] {
        proxy.set(mode.clone());
        let deadline = Duration::from_secs(deadline_secs);
        assert_fails(&*kms, &wrapped, deadline, KmsErrorKind::Unreachable, &format!("{mode:?}"));
    }
    proxy.set(Mode::Pass);
    assert_opens(&*kms, &wrapped, &key(1));
}
