//! `azure-kms://` against the in-tree fake, which the official client checks.

use std::path::Path;
use std::sync::Arc;

use atrest::keyring::DirectoryStorage;
use atrest::kms::{KeyUri, Kms, KmsErrorKind, WrappedKey};
use atrest::{ErrorKind, Keyring, Options, Store};
use atrest_kms::{Environment, from_uri_with};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::conformance::{
    Denial, Limits, Service, assert_hides, assert_opens, check, check_denial, context, key, kind,
    soon,
};
use crate::servers::azure::{self, FakeAzure};
use crate::servers::metadata::Metadata;
use crate::servers::require;

const PROVEN: &str = "&proof=PS256";
const SECRET: &str = "client-secret-of-the-tests";

fn open(uri: &str, environment: &Environment) -> Arc<dyn Kms> {
    from_uri_with(uri, environment).unwrap_or_else(|e| panic!("{e}: {e:?}"))
}

fn by_token(token: &str) -> Environment {
    Environment::fixed([("AZURE_ACCESS_TOKEN", token)])
}

fn by_secret(server: &FakeAzure, secret: &str) -> Environment {
    Environment::fixed([
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_CLIENT_SECRET", secret),
        ("AZURE_AUTHORITY_HOST", &format!("https://127.0.0.1:{}", server.process.port)),
    ])
}

struct Vault {
    server: Arc<FakeAzure>,
    kind: &'static str,
}

impl Vault {
    fn algorithm(&self) -> &'static str {
        match self.kind {
            "oct" => "&alg=A256GCM",
            "proven" => PROVEN,
            _ => "",
        }
    }

    /// What the administrator makes.
    fn made(&self) -> &'static str {
        if self.kind == "oct" { "oct" } else { "rsa" }
    }
}

impl Service for Vault {
    fn new_key(&self) -> KeyUri {
        let uri = self.server.uri(&self.server.new_key(self.made())) + self.algorithm();
        uri.parse().expect("a URI")
    }

    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms> {
        open(uri.as_str(), &by_secret(&self.server, SECRET))
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned(), "eyJ0.".to_owned()]
    }

    fn limits(&self) -> Limits {
        Limits { no_context: self.kind == "rsa", ..Limits::default() }
    }

    fn rotate(&self, uri: &KeyUri) -> bool {
        self.server.call(self.made(), &json!({"name": name_of(uri)}));
        true
    }
}

fn name_of(uri: &KeyUri) -> String {
    let (location, _) = uri.as_str().split_once('?').expect("options");
    location.rsplit_once('/').expect("a path").1.to_owned()
}

#[test]
fn conforms_with_rsa() {
    let Some(server) = require("azure::conforms_with_rsa", azure::shared()) else { return };
    check(&Vault { server, kind: "rsa" });
}

#[test]
fn conforms_with_rsa_and_a_proof() {
    let suite = "azure::conforms_with_rsa_and_a_proof";
    let Some(server) = require(suite, azure::shared()) else { return };
    check(&Vault { server, kind: "proven" });
}

/// A blob with this value and proof, as somebody writes it who knows the format.
fn forged(name: &str, version: &str, value: &[u8], proof: &[u8]) -> WrappedKey {
    let len = u8::try_from(version.len()).expect("short");
    let mut blob = [&[1, 3, len], version.as_bytes(), value, proof].concat();
    let checksum = name
        .bytes()
        .chain([0])
        .chain(blob.iter().copied())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    blob.extend(checksum.to_be_bytes());
    WrappedKey { blob, key_version: version.to_owned() }
}

#[test]
fn what_anybody_wrapped_is_refused_where_a_proof_is_asked() {
    let suite = "azure::what_anybody_wrapped_is_refused_where_a_proof_is_asked";
    let Some(server) = require(suite, azure::shared()) else { return };
    let name = server.new_key("rsa");
    let plain = open(&server.uri(&name), &by_token("admin-token"));
    let kms = open(&(server.uri(&name) + PROVEN), &by_token("admin-token"));
    let real = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    assert_opens(&*kms, &real, &key(1));
    // With the public key alone: a key of the attacker's.
    let theirs = plain.wrap(&key(2), &context(1), soon()).expect("wrapped");
    let version = &real.key_version;
    let at = 3 + version.len();
    let (value, proof) = real.blob[at..real.blob.len() - 8].split_at(256);
    let again = forged(&name, version, value, proof);
    assert_eq!(again, real, "so the forger knows the format");
    let their_value = &theirs.blob[at..theirs.blob.len() - 8];
    let mut changed = proof.to_vec();
    changed[17] ^= 1;
    for (why, wrapped) in [
        ("no proof", theirs.clone()),
        ("the proof of another blob", forged(&name, version, their_value, proof)),
        ("the proof in the value's place", forged(&name, version, proof, value)),
        ("a changed proof", forged(&name, version, value, &changed)),
        ("no proof at all", forged(&name, version, value, &[0; 256])),
    ] {
        let refused = kind(kms.unwrap(&wrapped, &context(1), soon()));
        assert_eq!(refused, Some(KmsErrorKind::Integrity), "{why}");
    }
    // For another store; and a proof that is there counts, asked for or not.
    for kms in [&kms, &plain] {
        let refused = kind(kms.unwrap(&real, &context(2), soon()));
        assert_eq!(refused, Some(KmsErrorKind::Integrity));
        assert_opens(&**kms, &real, &key(1));
    }
    // By another version of the same key.
    server.call("rsa", &json!({"name": name}));
    let newer = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    assert_opens(&*kms, &newer, &key(1));
    assert_opens(&*kms, &real, &key(1));
    let newer_proof = &newer.blob[newer.blob.len() - 8 - 256..newer.blob.len() - 8];
    let mixed = forged(&name, version, value, newer_proof);
    assert_eq!(kind(kms.unwrap(&mixed, &context(1), soon())), Some(KmsErrorKind::Integrity));
}

/// A whole store of the attacker's in the place of the real one.
#[test]
fn a_store_of_somebody_with_the_public_key_opens_only_without_proofs() {
    let suite = "azure::a_store_of_somebody_with_the_public_key_opens_only_without_proofs";
    let Some(server) = require(suite, azure::shared()) else { return };
    let uri = server.uri(&server.new_key("rsa"));
    let kms = |uri: &str| vec![open(uri, &by_token("admin-token"))];
    let dir = tempfile::tempdir().expect("a directory");
    let proven = uri.clone() + PROVEN;
    let [ours, theirs] = ["ours", "theirs"].map(|name| dir.path().join(name));
    for (store, uri) in [(&ours, &proven), (&theirs, &uri)] {
        std::fs::create_dir(store).expect("made");
        let kms = open(uri, &by_token("admin-token"));
        drop(Store::open_or_create(store, kms, Options::default()).expect("created"));
    }
    let read = |store: &Path, uri: &str| {
        let storage = DirectoryStorage::new(store);
        Keyring::open_read_only(storage, kms(uri), Options::default()).map(drop)
    };
    read(&ours, &proven).expect("ours");
    std::fs::copy(theirs.join("KEYRING"), ours.join("KEYRING")).expect("replaced");
    read(&ours, &uri).expect("the fault: nothing tells whose it is");
    let error = read(&ours, &proven).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Integrity), "{error:?}");
}

#[test]
fn proofs_need_two_more_permissions_and_say_so() {
    let suite = "azure::proofs_need_two_more_permissions_and_say_so";
    let Some(server) = require(suite, FakeAzure::start()) else { return };
    let uri = server.uri(&server.new_key("rsa")) + PROVEN;
    let kms = open(&uri, &by_secret(&server, SECRET));
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let denied = |verbs: &[&str]| server.set(&json!({"denied": verbs}));
    for (verb, error) in [
        ("sign", {
            denied(&["sign"]);
            kms.wrap(&key(1), &context(1), soon()).err()
        }),
        ("get", {
            denied(&["get"]);
            kms.unwrap(&wrapped, &context(1), soon()).err()
        }),
    ] {
        let error = error.expect(verb);
        assert_eq!(error.kind(), KmsErrorKind::Misconfigured, "{verb}: {error:?}");
        assert!(error.to_string().contains(verb), "{error}");
    }
    // Who only opens needs no right to sign; the public key is asked for once.
    denied(&["sign"]);
    assert_opens(&*kms, &wrapped, &key(1));
    denied(&["sign", "get"]);
    assert_opens(&*kms, &wrapped, &key(1));
    denied(&["unwrapkey"]);
    let refused = kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::AccessDenied));
}

#[test]
fn conforms_with_aes() {
    let Some(server) = require("azure::conforms_with_aes", azure::shared()) else { return };
    check(&Vault { server, kind: "oct" });
}

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the fake is worth: the official client opens what this one wraps, and sees the
/// same refusals.
#[test]
fn the_fake_satisfies_the_official_client() {
    let suite = "azure::the_fake_satisfies_the_official_client";
    let Some(server) = require(suite, azure::shared()) else { return };
    let name = server.new_key("rsa");
    let kms = open(&server.uri(&name), &by_token("admin-token"));
    let ours = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let kid = format!("https://127.0.0.1:{}/keys/{name}/{}", server.process.port, ours.key_version);
    let head = 3 + ours.key_version.len();
    let value = hex(&ours.blob[head..ours.blob.len() - 8]);
    let with = json!({"kid": kid, "value": value});
    assert_eq!(server.call("unwrap", &with), hex(key(1).expose()));
    let theirs = server.call("wrap", &json!({"kid": kid, "key": hex(key(1).expose())}));
    assert_eq!(theirs["kid"], kid.as_str());
    server.call("enable", &json!({"name": name, "enabled": false}));
    let refused = server.try_call("unwrap", &with);
    let refused = refused["error"].as_str().unwrap_or_default();
    assert!(refused.starts_with("403") && refused.contains("KeyDisabled"), "{refused}");
    // The trap: wrapping works with a disabled key.
    server.call("wrap", &json!({"kid": kid, "key": hex(key(1).expose())}));

    // Proofs: the official client verifies ours, and its own are right for ours.
    let name = server.new_key("rsa");
    let kms = open(&(server.uri(&name) + PROVEN), &by_token("admin-token"));
    let ours = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let kid = format!("https://127.0.0.1:{}/keys/{name}/{}", server.process.port, ours.key_version);
    let (value, proof) = ours.blob[3 + ours.key_version.len()..ours.blob.len() - 8].split_at(256);
    let message = [b"atrest.azure.1\0\0", &context(1).to_bytes()[..], value].concat();
    let digest = hex(&Sha256::digest(&message));
    let with = json!({"kid": kid, "digest": digest, "signature": hex(proof)});
    assert_eq!(server.call("verify", &with), true);
    let signed = server.call("sign", &json!({"kid": kid, "digest": digest}));
    let proof: Vec<u8> = bytes(signed.as_str().expect("hex"));
    assert_opens(&*kms, &forged(&name, &ours.key_version, value, &proof), &key(1));

    let name = server.new_key("oct");
    let kms = open(&(server.uri(&name) + "&alg=A256GCM"), &by_token("admin-token"));
    let ours = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let head = 3 + ours.key_version.len();
    let part = |from: usize, len: usize| hex(&ours.blob[head + from..head + from + len]);
    let aad = [&[1, 2], &context(1).to_bytes()[..]].concat();
    let kid = format!("https://127.0.0.1:{}/keys/{name}/{}", server.process.port, ours.key_version);
    let with = json!({"kid": kid, "iv": part(0, 12), "tag": part(12, 16), "value": part(28, 32),
        "aad": hex(&aad)});
    assert_eq!(server.call("decrypt", &with), hex(key(1).expose()));
}

#[test]
fn denials_by_the_key() {
    let Some(server) = require("azure::denials_by_the_key", azure::shared()) else { return };
    for kind in ["rsa", "oct"] {
        let vault = Vault { server: server.clone(), kind };
        let uri = vault.new_key();
        let (name, kms) = (name_of(&uri), vault.open(&uri));
        let call = |call: &str, enabled: bool| {
            drop(server.call(call, &json!({"name": name, "enabled": enabled})));
        };
        let secrets = vault.secrets();
        check_denial(
            &*kms,
            &secrets,
            &Denial {
                name: "disabled",
                deny: &|| {
                    call("enable", false);
                    // Why a wrap is no access check.
                    drop(kms.wrap(&key(2), &context(1), soon()).expect("wrapped"));
                },
                expected: KmsErrorKind::KeyDisabled,
                restore: Some(&|| call("enable", true)),
            },
        );
        check_denial(
            &*kms,
            &secrets,
            &Denial {
                name: "soft-deleted",
                deny: &|| call("delete", false),
                expected: KmsErrorKind::PendingDeletion,
                restore: Some(&|| call("recover", false)),
            },
        );
        check_denial(
            &*kms,
            &secrets,
            &Denial {
                name: "purged",
                deny: &|| {
                    call("delete", false);
                    call("purge", false);
                },
                expected: KmsErrorKind::NotFound,
                restore: None,
            },
        );
    }
}

#[test]
fn a_key_created_again_is_another_one() {
    let suite = "azure::a_key_created_again_is_another_one";
    let Some(server) = require(suite, azure::shared()) else { return };
    let name = server.new_key("rsa");
    let kms = open(&server.uri(&name), &by_token("admin-token"));
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    server.call("delete", &json!({"name": name}));
    server.call("purge", &json!({"name": name}));
    server.call("rsa", &json!({"name": name}));
    // The blob names its version, which is gone with the old key.
    let refused = kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::NotFound));
}

#[test]
fn denials_by_rights_and_tokens() {
    let suite = "azure::denials_by_rights_and_tokens";
    let Some(server) = require(suite, FakeAzure::start()) else { return };
    let uri = server.uri(&server.new_key("rsa"));
    let kms = open(&uri, &by_secret(&server, SECRET));
    let secrets = [SECRET.to_owned(), "eyJ0.".to_owned()];
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

    for (why, environment) in [
        ("an expired token", by_token("an-expired-token")),
        ("a wrong secret", by_secret(&server, "a-wrong-client-secret")),
    ] {
        let error = open(&uri, &environment).unwrap(&wrapped, &context(1), soon());
        let error = error.err().expect(why);
        assert_eq!(error.kind(), KmsErrorKind::Unauthenticated, "{why}: {error:?}");
        let hidden = ["an-expired-token", "a-wrong-client-secret"].map(str::to_owned);
        assert_hides(&error, &hidden);
    }
    let wrong_ca = uri.replace("/ca.pem", "/other-ca.pem");
    let refused = kind(open(&wrong_ca, &by_token("t")).unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::Unreachable));
}

#[test]
fn federated_tokens_and_managed_identities() {
    let suite = "azure::federated_tokens_and_managed_identities";
    let Some(server) = require(suite, FakeAzure::start()) else { return };
    let Some(metadata) = require(suite, Metadata::start()) else { return };
    let uri = server.uri(&server.new_key("rsa"));
    let file = server.dir.path().join("federated-token");
    std::fs::write(&file, "federated-token-of-the-tests\n").unwrap();
    let environment = Environment::fixed([
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().expect("UTF-8")),
        ("AZURE_AUTHORITY_HOST", &format!("https://127.0.0.1:{}", server.process.port)),
    ]);
    let wrapped = open(&uri, &environment)
        .wrap(&key(1), &context(1), soon())
        .unwrap_or_else(|e| panic!("{e:?}"));

    metadata.set(&json!({"/metadata/identity/oauth2/token":
        {"access_token": "metadata-token", "expires_in": "3599", "token_type": "Bearer"}}));
    let identity = Environment::fixed([(
        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        format!("http://127.0.0.1:{}", metadata.process.port),
    )]);
    let kms = open(&uri, &identity);
    assert_opens(&*kms, &wrapped, &key(1));
    let before = metadata.requests();
    assert_opens(&*kms, &wrapped, &key(1));
    assert_eq!(metadata.requests(), before, "kept until it expires");
    // What it may do can be fixed in a token: one that was denied is replaced.
    server.set(&json!({"permitted": false}));
    let denied = kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!((denied, metadata.requests()), (Some(KmsErrorKind::AccessDenied), before));
    server.set(&json!({"permitted": true}));
    assert_opens(&*kms, &wrapped, &key(1));
    assert_eq!(metadata.requests(), before + 1);
}

#[test]
fn a_pinned_version_wraps() {
    let Some(server) = require("azure::a_pinned_version_wraps", azure::shared()) else { return };
    let name = server.new_key("rsa");
    let newest = open(&server.uri(&name), &by_token("admin-token"));
    let first: WrappedKey = newest.wrap(&key(1), &context(1), soon()).expect("wrapped");
    server.call("rsa", &json!({"name": name}));
    let second = newest.wrap(&key(1), &context(1), soon()).expect("wrapped");
    assert_ne!(first.key_version, second.key_version);
    let uri = server.uri(&format!("{name}/{}", first.key_version));
    let pinned = open(&uri, &by_token("admin-token"));
    let wrapped = pinned.wrap(&key(1), &context(1), soon()).expect("wrapped");
    assert_eq!(wrapped.key_version, first.key_version);
    assert_opens(&*pinned, &second, &key(1));
}
