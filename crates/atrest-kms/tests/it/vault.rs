//! `hcvault://` against a real OpenBao.

use std::path::Path;
use std::sync::{Arc, Mutex};

use atrest::kms::{KeyUri, Kms, KmsErrorKind};
use atrest::{ErrorKind, FileKind, FileSpec, Options, Store};
use atrest_kms::{Environment, from_uri_with};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::conformance::{
    Denial, Service, assert_hides, assert_opens, check, check_denial, context, key, kind, soon,
};
use crate::servers::certificates::Certificates;
use crate::servers::openbao::{self, OpenBao};
use crate::servers::require;

struct Vault {
    server: Arc<OpenBao>,
    tokens: Mutex<Vec<String>>,
}

/// A key with its own policy and token.
struct Key {
    name: String,
    token: String,
    kms: Arc<dyn Kms>,
}

impl Vault {
    fn start(suite: &str) -> Option<Self> {
        let server = require(suite, openbao::shared())?;
        Some(Self { server, tokens: Mutex::default() })
    }

    fn token(&self, policy: &str) -> String {
        let token = self.server.new_token(policy);
        self.tokens.lock().unwrap().push(token.clone());
        token
    }

    fn key(&self) -> Key {
        let name = self.server.new_key();
        let token = self.token(&name);
        let kms = open(&self.server.uri(&name), &token);
        Key { name, token, kms }
    }

    fn config(&self, name: &str, config: &Value) {
        self.server.admin("POST", &format!("transit/keys/{name}/config"), config);
    }
}

fn open(uri: &str, token: &str) -> Arc<dyn Kms> {
    from_uri_with(uri, &Environment::fixed([("VAULT_TOKEN", token)])).expect("a provider")
}

fn name_of(uri: &KeyUri) -> String {
    let (location, _) = uri.as_str().split_once('?').expect("options");
    location.rsplit_once('/').expect("a path").1.to_owned()
}

impl Service for Vault {
    fn new_key(&self) -> KeyUri {
        self.server.uri(&self.server.new_key()).parse().expect("a URI")
    }

    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms> {
        open(uri.as_str(), &self.token(&name_of(uri)))
    }

    fn secrets(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }

    fn rotate(&self, uri: &KeyUri) -> bool {
        let path = format!("transit/keys/{}/rotate", name_of(uri));
        self.server.admin("POST", &path, &Value::Null);
        true
    }
}

#[test]
fn conforms() {
    let Some(vault) = Vault::start("vault::conforms") else { return };
    check(&vault);
}

#[test]
fn denials_by_policy() {
    let Some(vault) = Vault::start("vault::denials_by_policy") else { return };
    let key = vault.key();
    // A token that may not look itself up, and one that may.
    let body = json!({"policies": [key.name, "default"]});
    let answer = vault.server.admin("POST", "auth/token/create-orphan", &body);
    let with_default = answer["auth"]["client_token"].as_str().expect("a token");
    for kms in [&key.kms, &open(&vault.server.uri(&key.name), with_default)] {
        check_denial(
            &**kms,
            &vault.secrets(),
            &Denial {
                name: "the policy no longer names the key",
                deny: &|| vault.server.deny(&key.name),
                expected: KmsErrorKind::AccessDenied,
                restore: Some(&|| vault.server.allow(&key.name)),
            },
        );
    }
}

#[test]
fn denials_by_the_key() {
    let Some(vault) = Vault::start("vault::denials_by_the_key") else { return };
    let key = vault.key();
    let secrets = vault.secrets();
    let path = format!("transit/keys/{}", key.name);
    check_denial(
        &*key.kms,
        &secrets,
        &Denial {
            name: "soft-deleted",
            deny: &|| {
                vault.server.admin("DELETE", &format!("{path}/soft-delete"), &Value::Null);
            },
            expected: KmsErrorKind::PendingDeletion,
            restore: Some(&|| {
                vault.server.admin("POST", &format!("{path}/soft-delete-restore"), &Value::Null);
            }),
        },
    );
    check_denial(
        &*key.kms,
        &secrets,
        &Denial {
            name: "the version is retired",
            deny: &|| {
                vault.server.admin("POST", &format!("{path}/rotate"), &Value::Null);
                vault.config(&key.name, &json!({"min_decryption_version": 2}));
            },
            expected: KmsErrorKind::VersionRetired,
            restore: Some(&|| vault.config(&key.name, &json!({"min_decryption_version": 1}))),
        },
    );
    check_denial(
        &*key.kms,
        &secrets,
        &Denial {
            name: "deleted",
            deny: &|| vault.server.delete_key(&key.name),
            expected: KmsErrorKind::NotFound,
            restore: None,
        },
    );
}

/// What is left of a destroyed key where somebody kept the keyring and the file: all, for who
/// may use the customer's key; nothing, once the version that wrapped it ends at the service.
#[test]
fn an_old_copy_opens_what_was_destroyed_until_its_key_version_ends() {
    let suite = "vault::an_old_copy_opens_what_was_destroyed_until_its_key_version_ends";
    let Some(vault) = Vault::start(suite) else { return };
    let key = vault.key();
    let dir = tempfile::tempdir().expect("a directory");
    let [now, old] = ["now", "old"].map(|name| dir.path().join(name));
    for place in [&now, &old] {
        std::fs::create_dir(place).expect("made");
    }
    let store = Store::open_or_create(&now, key.kms.clone(), Options::default()).expect("a store");
    let tenant = store.keyspaces().create("tenant").expect("a keyspace");
    let spec = FileSpec::new(FileKind::Table).keyspace(tenant);
    let mut writer = store.files().create_new(now.join("f"), spec).expect("a file");
    writer.append(b"secrets").expect("appended");
    writer.finish().expect("finished");
    for name in ["KEYRING", "f"] {
        std::fs::copy(now.join(name), old.join(name)).expect("copied");
    }
    let read = |place: &Path| -> atrest::Result<u64> {
        let store = Store::open_read_only(place, key.kms.clone(), Options::default())?;
        store.files().open(place.join("f"))?.len()
    };
    store.keyspaces().danger_shred("tenant").expect("shredded");
    let kind = |place: &Path| read(place).map_err(|error| error.kind());
    assert_eq!(kind(&now), Err(ErrorKind::KeyDestroyed));
    assert_eq!(kind(&old), Ok(7), "the old copy knows nothing of it");
    // A new version of the customer's key, with which the store goes on.
    vault.server.admin("POST", &format!("transit/keys/{}/rotate", key.name), &Value::Null);
    assert_eq!(store.slots().rewrap(None).expect("wrapped anew"), 1);
    assert_eq!(kind(&old), Ok(7), "the service still has the old version");
    vault.config(&key.name, &json!({"min_decryption_version": 2}));
    assert_eq!(kind(&old), Err(ErrorKind::Kms(KmsErrorKind::VersionRetired)));
    assert_eq!(kind(&now), Err(ErrorKind::KeyDestroyed), "which opens as before");
    // Who administers the service takes a setting back. What was trimmed nobody brings back.
    vault.config(&key.name, &json!({"min_decryption_version": 1}));
    assert_eq!(kind(&old), Ok(7), "the old version was only locked");
    let both = json!({"min_decryption_version": 2, "min_encryption_version": 2});
    vault.config(&key.name, &both);
    let path = format!("transit/keys/{}", key.name);
    vault.server.admin("POST", &format!("{path}/trim"), &json!({"min_available_version": 2}));
    let body = json!({"min_decryption_version": 1});
    let (status, _) =
        vault.server.call("POST", &format!("{path}/config"), "root-token-of-the-tests", &body);
    assert_eq!(status, 400, "an administrator cannot go back behind it");
    assert!(matches!(kind(&old), Err(ErrorKind::Kms(reason)) if reason.denies_access()));
    assert_eq!(kind(&now), Err(ErrorKind::KeyDestroyed), "which opens as before");
}

#[test]
fn an_unmounted_engine_is_a_missing_key() {
    let Some(vault) = Vault::start("vault::an_unmounted_engine_is_a_missing_key") else { return };
    let mount = vault.server.fresh_name();
    vault.server.admin("POST", &format!("sys/mounts/{mount}"), &json!({"type": "transit"}));
    vault.server.admin("POST", &format!("{mount}/keys/k"), &json!({}));
    let uri = vault.server.uri("k").replace("/transit/", &format!("/{mount}/"));
    let kms = open(&uri, "root-token-of-the-tests");
    check_denial(
        &*kms,
        &[],
        &Denial {
            name: "the engine is unmounted",
            deny: &|| {
                vault.server.admin("DELETE", &format!("sys/mounts/{mount}"), &Value::Null);
            },
            expected: KmsErrorKind::NotFound,
            restore: None,
        },
    );
}

#[test]
fn wrapping_never_brings_a_deleted_key_back() {
    let Some(vault) = Vault::start("vault::wrapping_never_brings_a_deleted_key_back") else {
        return;
    };
    let key_of_test = vault.key();
    let name = &key_of_test.name;
    // A token that may create, as a careless policy gives.
    let policy = format!(
        "path \"transit/encrypt/{name}\" {{ capabilities = [\"create\", \"update\"] }}\n\
         path \"transit/decrypt/{name}\" {{ capabilities = [\"create\", \"update\"] }}"
    );
    vault.server.admin("POST", &format!("sys/policies/acl/{name}"), &json!({"policy": policy}));
    let old = key_of_test.kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    vault.server.delete_key(name);
    let refused = kind(key_of_test.kms.wrap(&key(1), &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::NotFound));
    let path = format!("transit/keys/{name}");
    let (status, _) = vault.server.call("GET", &path, "root-token-of-the-tests", &Value::Null);
    assert_eq!(status, 404, "the key was created again");

    // Created again under the same name, it is another key.
    vault.server.admin("POST", &path, &json!({}));
    let refused = kind(key_of_test.kms.unwrap(&old, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::Integrity));
}

#[test]
fn a_key_that_cannot_bind_the_context_is_refused() {
    let Some(vault) = Vault::start("vault::a_key_that_cannot_bind_the_context_is_refused") else {
        return;
    };
    for body in [json!({"type": "rsa-2048"}), json!({"type": "ed25519"}), json!({"derived": true})]
    {
        let name = vault.server.fresh_name();
        vault.server.admin("POST", &format!("transit/keys/{name}"), &body);
        vault.server.allow(&name);
        let kms = open(&vault.server.uri(&name), &vault.token(&name));
        let error = kms.wrap(&key(1), &context(1), soon()).expect_err("refused");
        assert_eq!(error.kind(), KmsErrorKind::Misconfigured, "{body}: {error:?}");
    }
}

#[test]
fn the_token_file_is_read_at_each_use() {
    let Some(vault) = Vault::start("vault::the_token_file_is_read_at_each_use") else { return };
    let name = vault.server.new_key();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("token");
    let uri = format!("{}&token_file={}", vault.server.uri(&name), file.display());
    let kms = from_uri_with(&uri, &Environment::fixed([("VAULT_TOKEN", "not this")])).unwrap();

    let missing = kind(kms.wrap(&key(1), &context(1), soon()));
    assert_eq!(missing, Some(KmsErrorKind::Unauthenticated));
    std::fs::write(&file, vault.token(&name) + "\n").unwrap();
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    std::fs::write(&file, "s.nobody-has-this-token").unwrap();
    let error = kms.unwrap(&wrapped, &context(1), soon()).err().expect("a bad token");
    assert_eq!(error.kind(), KmsErrorKind::Unauthenticated, "{error:?}");
    assert_hides(&error, &["s.nobody-has-this-token".to_owned()]);
    std::fs::write(&file, "two\nlines").unwrap();
    let malformed = kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(malformed, Some(KmsErrorKind::Misconfigured));
    std::fs::write(&file, vault.token(&name)).unwrap();
    assert_opens(&*kms, &wrapped, &key(1));
}

#[test]
fn without_a_token_nothing_is_sent() {
    let kms =
        from_uri_with("hcvault://127.0.0.1:1/t/keys/k", &Environment::fixed::<&str, &str>([]))
            .unwrap();
    let refused = kind(kms.wrap(&key(1), &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::Unauthenticated));
}

#[test]
fn sealed_and_unsealed() {
    // Its own server: sealing stops the others' tests.
    let Some(server) = require("vault::sealed_and_unsealed", OpenBao::start()) else { return };
    let name = server.new_key();
    let kms = open(&server.uri(&name), &server.new_token(&name));
    let unseal_key = server.unseal_key();
    check_denial(
        &*kms,
        std::slice::from_ref(&unseal_key),
        &Denial {
            name: "sealed",
            deny: &|| {
                server.admin("PUT", "sys/seal", &Value::Null);
            },
            expected: KmsErrorKind::Unreachable,
            restore: Some(&|| {
                server.admin("PUT", "sys/unseal", &json!({"key": unseal_key}));
            }),
        },
    );
}

#[test]
fn tls_problems_say_nothing_about_the_key() {
    let Some(vault) = Vault::start("vault::tls_problems_say_nothing_about_the_key") else { return };
    let key_of_test = vault.key();
    let wrapped = key_of_test.kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let dir = TempDir::new().unwrap();
    let certificates = Certificates::make(dir.path()).expect("certificates");
    let uri = vault.server.uri(&key_of_test.name);
    let (location, _) = uri.split_once('?').unwrap();
    let with = |options: &str| open(&format!("{location}{options}"), &key_of_test.token);
    for (why, options, expected) in [
        (
            "a wrong CA",
            format!("?ca={}", certificates.path("other-ca.pem")),
            KmsErrorKind::Unreachable,
        ),
        ("the web's CAs", String::new(), KmsErrorKind::Unreachable),
        ("no TLS", "?tls=false".to_owned(), KmsErrorKind::Misconfigured),
    ] {
        let error = with(&options).unwrap(&wrapped, &context(1), soon()).err().expect(why);
        assert_eq!(error.kind(), expected, "{why}: {error:?}");
        assert_hides(&error, &vault.secrets());
    }
    // A CA that was replaced is believed, and the one before it no longer; a file that is
    // away for a moment changes nothing.
    let file = dir.path().join("now.pem");
    let put = |ca: &str| std::fs::copy(ca, &file).map(drop).unwrap();
    let (other, good) = (certificates.path("other-ca.pem"), vault.server.ca());
    put(&other);
    let kms = with(&format!("?ca={}", file.display()));
    let refused = || kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused(), Some(KmsErrorKind::Unreachable));
    put(&good);
    assert_opens(&*kms, &wrapped, &key(1));
    std::fs::write(&file, "").unwrap();
    assert_opens(&*kms, &wrapped, &key(1));
    std::fs::remove_file(&file).unwrap();
    assert_opens(&*kms, &wrapped, &key(1));
    put(&other);
    assert_eq!(refused(), Some(KmsErrorKind::Unreachable));
    let missing = format!("{location}?ca=/nonexistent.pem");
    let refused = from_uri_with(&missing, &Environment::process()).expect_err("no such CA file");
    assert_eq!(refused.kind(), KmsErrorKind::Misconfigured);
}

#[test]
fn another_namespace_has_no_such_key() {
    let Some(vault) = Vault::start("vault::another_namespace_has_no_such_key") else { return };
    let namespace = vault.server.fresh_name();
    vault.server.admin("POST", &format!("sys/namespaces/{namespace}"), &json!({}));
    vault.server.admin(
        "POST",
        &format!("{namespace}/sys/mounts/transit"),
        &json!({"type": "transit"}),
    );
    vault.server.admin("POST", &format!("{namespace}/transit/keys/k"), &json!({}));
    let uri = vault.server.uri("k");
    let inside = open(&format!("{uri}&namespace={namespace}"), "root-token-of-the-tests");
    let wrapped = inside.wrap(&key(1), &context(1), soon()).unwrap_or_else(|e| panic!("{e:?}"));
    assert_opens(&*inside, &wrapped, &key(1));
    let outside = open(&uri, "root-token-of-the-tests");
    let refused = kind(outside.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::NotFound));
}
