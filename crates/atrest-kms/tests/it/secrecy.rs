//! Services that repeat everything they are sent: no credential and no key shows.

use std::sync::Arc;

use atrest::kms::{Kms, WrappedKey};
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
