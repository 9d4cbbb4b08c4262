//! Services that repeat everything they are sent: no credential and no key shows.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use atrest::kms::{Kms, KmsErrorKind, WrappedKey};
use atrest_kms::{Environment, from_uri_with};
use serde_json::json;

use crate::conformance::{assert_hides, context, key, soon};
use crate::servers::azure::FakeAzure;
use crate::servers::proxy::{Mode, Proxy};
use crate::servers::require;

/// Credentials of every kind, each with a text to look for.
fn environment() -> Environment {
    Environment::fixed([
        ("VAULT_TOKEN", "sentinel-vault-token"),
        ("AWS_ACCESS_KEY_ID", "AKIASENTINEL"),
        ("AWS_SECRET_ACCESS_KEY", "sentinel-secret-key"),
        ("AWS_SESSION_TOKEN", "sentinel-session-token"),
        ("GOOGLE_OAUTH_ACCESS_TOKEN", "sentinel-google-token"),
        ("AZURE_ACCESS_TOKEN", "sentinel-azure-token"),
        ("ATREST_PKCS11_PIN", "sentinel-pin"),
    ])
}

fn secrets() -> Vec<String> {
    ["sentinel-", "Signature="].map(str::to_owned).to_vec()
}

fn check(kms: &dyn Kms, blob: &[u8], why: &str) {
    let shown = format!("{kms:?} {kms:#?}");
    assert!(!shown.contains("sentinel"), "Debug shows a credential: {shown}");
    let wrapped = WrappedKey { key_version: String::new(), blob: blob.to_vec() };
    for byte in [1, 4] {
        let error = kms.wrap(&key(byte), &context(1), soon()).expect_err(why);
        assert_hides(&error, &secrets());
    }
    let error = kms.unwrap(&wrapped, &context(1), soon()).err().expect(why);
    assert_hides(&error, &secrets());
    let error = kms.rewrap(&wrapped, &context(1), soon()).expect_err(why);
    assert_hides(&error, &secrets());
}

#[test]
fn echoing_services() {
    let proxy = Proxy::new(0, Mode::Cut);
    let port = proxy.port;
    let providers: [(String, &[u8]); 3] = [
        (format!("hcvault://127.0.0.1:{port}/transit/keys/k?tls=false"), b"vault:v1:AAAA"),
        (format!("aws-kms://alias/k?region=eu-west-1&endpoint=http://127.0.0.1:{port}"), &[7; 100]),
        (
            format!(
                "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k\
                 ?endpoint=http://127.0.0.1:{port}"
            ),
            &[7; 100],
        ),
    ];
    for (uri, blob) in providers {
        let kms: Arc<dyn Kms> = from_uri_with(&uri, &environment()).expect("a provider");
        for status in [200, 400, 401, 403, 404, 409, 500] {
            proxy.set(Mode::Echo(status));
            check(&*kms, blob, &format!("{uri}: {status}"));
        }
    }
}

/// Keeps all that is logged by a thread that wants it.
struct Log(Mutex<String>);

static LOG: Log = Log(Mutex::new(String::new()));

thread_local! {
    static LOGGED: Cell<log::LevelFilter> = const { Cell::new(log::LevelFilter::Off) };
}

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= LOGGED.get()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            // Of rows that show bytes the part that is text, so that they join.
            let text = format!("{:?}", record.args());
            let at = text.char_indices().rev().nth(15).map_or(0, |(at, _)| at);
            LOG.0.lock().unwrap().push_str(&text[at..]);
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_log_of_all_that_is_sent_is_refused() {
    log::set_logger(&LOG).expect("no other logger");
    log::set_max_level(log::LevelFilter::Trace);
    let proxy = Proxy::new(0, Mode::Echo(200));
    let uri = format!("hcvault://127.0.0.1:{}/transit/keys/k?tls=false", proxy.port);
    let kms: Arc<dyn Kms> = from_uri_with(&uri, &environment()).expect("a provider");
    let wrap = |level| {
        LOGGED.set(level);
        let wrapped = kms.wrap(&key(1), &context(1), soon());
        LOGGED.set(log::LevelFilter::Off);
        wrapped.expect_err("an echo is no key").kind()
    };
    let kind = wrap(log::LevelFilter::Trace);
    let logged = std::mem::take(&mut *LOG.0.lock().unwrap());
    assert!(!logged.contains("sentinel"), "{logged}");
    assert_eq!((kind, proxy.connections()), (KmsErrorKind::Misconfigured, 0));
    // All else that is logged may be.
    assert_ne!(wrap(log::LevelFilter::Debug), KmsErrorKind::Misconfigured);
    assert_eq!(proxy.connections(), 1);
    let logged = LOG.0.lock().unwrap();
    assert!(!logged.is_empty() && !logged.contains("sentinel"), "{logged}");
}

#[test]
fn an_echoing_azure() {
    let Some(server) = require("secrecy::an_echoing_azure", FakeAzure::start()) else { return };
    for (kind, options) in [("rsa", ""), ("oct", "&alg=A256GCM")] {
        let uri = server.uri(&server.new_key(kind)) + options;
        let working = Environment::fixed([("AZURE_ACCESS_TOKEN", "admin-token")]);
        let working = from_uri_with(&uri, &working).expect("a provider");
        let blob = working.wrap(&key(1), &context(1), soon()).expect("wrapped").blob;
        server.set(&json!({"echo": true}));
        let kms = from_uri_with(&uri, &environment()).expect("a provider");
        check(&*kms, &blob, &uri);
        server.set(&json!({"echo": false}));
    }
}
