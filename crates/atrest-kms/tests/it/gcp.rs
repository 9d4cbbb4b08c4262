//! `gcp-kms://` against drongo (wire format) and the in-tree fake (all the rest).

use std::sync::Arc;

use atrest::kms::{KeyUri, Kms, KmsErrorKind};
use atrest_kms::{Environment, from_uri_with};
use serde_json::json;

use crate::conformance::{
    Denial, Limits, Service, assert_hides, assert_opens, check, check_denial, context, key, kind,
    soon,
};
use crate::encoding::{base64, from_base64};
use crate::servers::gcp::{self, Drongo, FakeGcp};
use crate::servers::metadata::Metadata;
use crate::servers::require;

fn open(uri: &str, environment: &Environment) -> Arc<dyn Kms> {
    from_uri_with(uri, environment).unwrap_or_else(|e| panic!("{e}: {e:?}"))
}

fn by_token(token: &str) -> Environment {
    Environment::fixed([("GOOGLE_OAUTH_ACCESS_TOKEN", token)])
}

fn by_account(file: &str) -> Environment {
    Environment::fixed([("GOOGLE_APPLICATION_CREDENTIALS", file)])
}

struct OnDrongo(Arc<Drongo>);

impl Service for OnDrongo {
    fn new_key(&self) -> KeyUri {
        self.0.new_key().parse().expect("a URI")
    }

    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms> {
        open(uri.as_str(), &by_token("token-of-nobody"))
    }

    fn secrets(&self) -> Vec<String> {
        vec!["token-of-nobody".to_owned()]
    }

    fn limits(&self) -> Limits {
        Limits { no_authentication: true, deterministic: true, ..Limits::default() }
    }
}

#[test]
fn conforms_on_drongo() {
    let Some(server) = require("gcp::conforms_on_drongo", gcp::drongo()) else { return };
    check(&OnDrongo(server.clone()));
    let missing = server.new_key().replace("cryptoKeys/k", "cryptoKeys/missing");
    let refused = kind(open(&missing, &by_token("t")).wrap(&key(1), &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::NotFound));
}

struct OnFake(Arc<FakeGcp>);

impl OnFake {
    fn environment(&self) -> Environment {
        by_account(&self.0.account_file("account.key"))
    }
}

fn name_of(uri: &KeyUri) -> String {
    let (location, _) = uri.as_str().split_once('?').expect("options");
    location.trim_start_matches("gcp-kms://").to_owned()
}

impl Service for OnFake {
    fn new_key(&self) -> KeyUri {
        self.0.uri(&self.0.new_key()).parse().expect("a URI")
    }

    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms> {
        open(uri.as_str(), &self.environment())
    }

    fn secrets(&self) -> Vec<String> {
        vec!["ya29.".to_owned(), "PRIVATE KEY".to_owned(), "eyJ".to_owned()]
    }

    fn rotate(&self, uri: &KeyUri) -> bool {
        self.0.call("rotate", json!({"key": name_of(uri)}));
        true
    }
}

#[test]
fn conforms_on_the_fake() {
    let Some(server) = require("gcp::conforms_on_the_fake", gcp::fake()) else { return };
    check(&OnFake(server));
}

/// What the fake is worth: Google's client and this one open each other's ciphertexts,
/// and Google's client sees the same refusals.
#[test]
fn the_fake_satisfies_googles_client() {
    let Some(server) = require("gcp::the_fake_satisfies_googles_client", gcp::fake()) else {
        return;
    };
    let name = server.new_key();
    let kms = open(&server.uri(&name), &by_token("admin-token"));
    let aad = base64(&context(1).to_bytes());
    let plaintext = base64(key(1).expose());
    let theirs = server.call("encrypt", json!({"key": name, "plaintext": plaintext, "aad": aad}));
    let blob = from_base64(theirs.as_str().expect("text"));
    let theirs = atrest::kms::WrappedKey { key_version: String::new(), blob };
    assert_opens(&*kms, &theirs, &key(1));
    let ours = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    assert_eq!(ours.key_version, "1");
    let with = json!({"key": name, "ciphertext": base64(&ours.blob), "aad": aad});
    assert_eq!(server.call("decrypt", with.clone()), plaintext);
    let version = format!("{name}/cryptoKeyVersions/1");
    for (call, state, expected) in [
        ("state", "DISABLED", "current state is: DISABLED"),
        ("state", "ENABLED", ""),
        ("destroy", "", "current state is: DESTROY_SCHEDULED"),
        ("restore", "", ""),
    ] {
        server.call(call, json!({"version": version, "state": state}));
        let answer = server.try_call("decrypt", with.clone());
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{answer}");
    }
    let wrong = json!({"key": name, "ciphertext": base64(&ours.blob), "aad": ""});
    let answer = server.try_call("decrypt", wrong);
    assert!(
        answer["error"].as_str().unwrap_or_default().contains("verify that 'name'"),
        "{answer}"
    );
}

#[test]
fn denials_by_the_key() {
    let Some(server) = require("gcp::denials_by_the_key", gcp::fake()) else { return };
    let fake = OnFake(server.clone());
    let name = server.new_key();
    let kms = open(&server.uri(&name), &fake.environment());
    let version = format!("{name}/cryptoKeyVersions/1");
    let call = |call: &str, state: &str| {
        drop(server.call(call, json!({"version": version, "state": state})));
    };
    let secrets = fake.secrets();
    check_denial(
        &*kms,
        &secrets,
        &Denial {
            name: "version disabled",
            deny: &|| call("state", "DISABLED"),
            expected: KmsErrorKind::KeyDisabled,
            restore: Some(&|| call("state", "ENABLED")),
        },
    );
    check_denial(
        &*kms,
        &secrets,
        &Denial {
            name: "version scheduled for destruction",
            deny: &|| call("destroy", ""),
            expected: KmsErrorKind::PendingDeletion,
            restore: Some(&|| call("restore", "")),
        },
    );
    check_denial(
        &*kms,
        &secrets,
        &Denial {
            name: "version destroyed",
            deny: &|| server.set(&json!({"destroy": version})),
            expected: KmsErrorKind::Destroyed,
            restore: None,
        },
    );
    let missing = open(&server.uri(&(name + "-missing")), &fake.environment());
    let refused = kind(missing.wrap(&key(1), &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::NotFound));
}

#[test]
fn denials_by_rights_and_tokens() {
    // Its own server: rights and tokens are everyone's there.
    let Some(server) = require("gcp::denials_by_rights_and_tokens", FakeGcp::start()) else {
        return;
    };
    let uri = server.uri(&server.new_key());
    let kms = open(&uri, &by_account(&server.account_file("account.key")));
    let secrets = ["ya29.".to_owned(), "eyJ".to_owned()];
    check_denial(
        &*kms,
        &secrets,
        &Denial {
            name: "the role is taken away",
            deny: &|| server.set(&json!({"permitted": false})),
            expected: KmsErrorKind::AccessDenied,
            restore: Some(&|| server.set(&json!({"permitted": true}))),
        },
    );
    // A token revoked before its time is replaced.
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    server.set(&json!({"tokens": false}));
    assert_opens(&*kms, &wrapped, &key(1));

    let expired = open(&uri, &by_token("an-expired-token"));
    let error = expired.unwrap(&wrapped, &context(1), soon()).err().expect("an expired token");
    assert_eq!(error.kind(), KmsErrorKind::Unauthenticated, "{error:?}");
    assert_hides(&error, &["an-expired-token".to_owned()]);

    for (file, expected) in [
        (server.account_file("other-account.key"), KmsErrorKind::Unauthenticated),
        (server.account_file("server.key"), KmsErrorKind::Misconfigured),
        ("/nonexistent.json".to_owned(), KmsErrorKind::Unauthenticated),
    ] {
        let error = open(&uri, &by_account(&file)).unwrap(&wrapped, &context(1), soon());
        let error = error.err().expect("a wrong account");
        assert_eq!(error.kind(), expected, "{file}: {error:?}");
        assert_hides(&error, &secrets);
    }
}

#[test]
fn wrong_checksums_are_refused() {
    let Some(server) = require("gcp::wrong_checksums_are_refused", FakeGcp::start()) else {
        return;
    };
    let kms = open(&server.uri(&server.new_key()), &by_token("admin-token"));
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    for field in
        ["ciphertextCrc32c", "verifiedPlaintextCrc32c", "verifiedAdditionalAuthenticatedDataCrc32c"]
    {
        server.set(&json!({"corrupt": field}));
        let refused = kind(kms.wrap(&key(1), &context(1), soon()));
        assert_eq!(refused, Some(KmsErrorKind::Integrity), "{field}");
    }
    server.set(&json!({"corrupt": "plaintextCrc32c"}));
    let refused = kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::Integrity));
    server.set(&json!({"corrupt": null}));
    assert_opens(&*kms, &wrapped, &key(1));
}

#[test]
fn tokens_of_the_metadata_server() {
    let suite = "gcp::tokens_of_the_metadata_server";
    let Some(server) = require(suite, gcp::fake()) else { return };
    let Some(metadata) = require(suite, Metadata::start()) else { return };
    let port = metadata.process.port;
    let environment = Environment::fixed([("GCE_METADATA_HOST", format!("127.0.0.1:{port}"))]);
    let kms = open(&server.uri(&server.new_key()), &environment);
    let refused = kind(kms.wrap(&key(1), &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::Unreachable), "no service account");
    metadata.set(&json!({"/computeMetadata/v1/instance/service-accounts/default/token":
        {"access_token": "metadata-token", "expires_in": 3000, "token_type": "Bearer"}}));
    let wrapped = kms.wrap(&key(1), &context(1), soon()).unwrap_or_else(|e| panic!("{e:?}"));
    let before = metadata.requests();
    assert_opens(&*kms, &wrapped, &key(1));
    assert_eq!(metadata.requests(), before, "kept until it expires");
}
