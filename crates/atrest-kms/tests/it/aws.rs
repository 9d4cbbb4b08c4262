//! `aws-kms://` against ministack (states, IAM, signatures) and moto (cryptography).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use atrest::kms::{KeyUri, Kms, KmsErrorKind};
use atrest_kms::{Environment, from_uri_with};
use serde_json::json;
use tempfile::TempDir;

use crate::conformance::{
    Denial, Limits, Service, assert_hides, assert_opens, check, check_denial, context, key, kind,
    same, soon,
};
use crate::servers::aws::{self, Aws};
use crate::servers::metadata::Metadata;
use crate::servers::require;

/// An emulator with one user in it.
struct Account {
    server: Arc<Aws>,
    user: String,
    key_id: String,
    secret_key: String,
    limits: Limits,
}

static NEXT_USER: AtomicU32 = AtomicU32::new(0);

impl Account {
    fn new(server: Arc<Aws>, limits: Limits) -> Self {
        let user = format!("user-{}", NEXT_USER.fetch_add(1, Ordering::SeqCst));
        let (key_id, secret_key) = server.new_user(&user);
        Self { server, user, key_id, secret_key, limits }
    }

    fn ministack(suite: &str) -> Option<Self> {
        let limits = Limits { no_authentication: true, ..Limits::default() };
        Some(Self::new(require(suite, aws::ministack())?, limits))
    }

    fn moto(suite: &str) -> Option<Self> {
        // It reads the key from the blob and compares first.
        let another_key = Some(KmsErrorKind::AccessDenied);
        let limits = Limits { another_key, ..Limits::default() };
        Some(Self::new(require(suite, aws::moto())?, limits))
    }

    fn environment(&self) -> Environment {
        Environment::fixed([
            ("AWS_ACCESS_KEY_ID", &self.key_id),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_key),
        ])
    }

    fn key(&self) -> (String, Arc<dyn Kms>) {
        let arn = self.server.new_key();
        let kms = self.open_with(&self.server.uri(&arn), &self.environment());
        (arn, kms)
    }

    fn open_with(&self, uri: &str, environment: &Environment) -> Arc<dyn Kms> {
        from_uri_with(uri, environment).unwrap_or_else(|e| panic!("{e}"))
    }
}

impl Service for Account {
    fn new_key(&self) -> KeyUri {
        self.server.uri(&self.server.new_key()).parse().expect("a URI")
    }

    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms> {
        self.open_with(uri.as_str(), &self.environment())
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.secret_key.clone()]
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn rotate(&self, uri: &KeyUri) -> bool {
        if self.limits.no_authentication {
            return false; // ministack has no rotation on demand.
        }
        let (location, _) = uri.as_str().split_once('?').expect("options");
        let arn = location.trim_start_matches("aws-kms://");
        self.server.call("kms", "rotate_key_on_demand", json!({"KeyId": arn}));
        true
    }
}

#[test]
fn conforms_on_ministack() {
    let Some(account) = Account::ministack("aws::conforms_on_ministack") else { return };
    check(&account);
}

#[test]
fn conforms_on_moto() {
    let Some(account) = Account::moto("aws::conforms_on_moto") else { return };
    check(&account);
}

#[test]
fn denials_by_the_key() {
    let Some(account) = Account::ministack("aws::denials_by_the_key") else { return };
    let (arn, kms) = account.key();
    let call = |name: &str| drop(account.server.call("kms", name, json!({"KeyId": arn})));
    let secrets = account.secrets();
    check_denial(
        &*kms,
        &secrets,
        &Denial {
            name: "disabled",
            deny: &|| call("disable_key"),
            expected: KmsErrorKind::KeyDisabled,
            restore: Some(&|| call("enable_key")),
        },
    );
    check_denial(
        &*kms,
        &secrets,
        &Denial {
            name: "scheduled for deletion",
            deny: &|| call("schedule_key_deletion"),
            expected: KmsErrorKind::PendingDeletion,
            restore: Some(&|| {
                call("cancel_key_deletion");
                call("enable_key");
            }),
        },
    );
    // A key that does not exist, to encrypt with: emulators find it by the blob to decrypt.
    let missing = arn.rsplit_once('/').expect("a key ARN").0.to_owned()
        + "/11111111-2222-3333-4444-555555555555";
    let missing = account.open_with(&account.server.uri(&missing), &account.environment());
    let refused = kind(missing.wrap(&key(1), &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::NotFound));
}

#[test]
fn denials_by_policy_and_credentials() {
    let Some(account) = Account::ministack("aws::denials_by_policy_and_credentials") else {
        return;
    };
    let (arn, kms) = account.key();
    let secrets = account.secrets();
    check_denial(
        &*kms,
        &secrets,
        &Denial {
            name: "the user's policy is taken away",
            deny: &|| account.server.deny(&account.user),
            expected: KmsErrorKind::AccessDenied,
            restore: Some(&|| account.server.allow(&account.user)),
        },
    );
    let policy = |effect: &str| {
        let principal = json!({"AWS": "*"});
        let policy = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": effect, "Principal": principal, "Action": "kms:*", "Resource": "*"}]});
        let with = json!({"KeyId": arn, "PolicyName": "default", "Policy": policy.to_string()});
        account.server.call("kms", "put_key_policy", with);
    };
    check_denial(
        &*kms,
        &secrets,
        &Denial {
            name: "the key's policy denies",
            deny: &|| policy("Deny"),
            expected: KmsErrorKind::AccessDenied,
            restore: Some(&|| policy("Allow")),
        },
    );
    let set = |status: &str| {
        let with =
            json!({"UserName": account.user, "AccessKeyId": account.key_id, "Status": status});
        account.server.call("iam", "update_access_key", with);
    };
    check_denial(
        &*kms,
        &secrets,
        &Denial {
            name: "the access key is inactive",
            deny: &|| set("Inactive"),
            expected: KmsErrorKind::Unauthenticated,
            restore: Some(&|| set("Active")),
        },
    );
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    for (why, key_id, secret_key) in [
        ("a wrong secret", account.key_id.as_str(), "a-wrong-secret-access-key"),
        ("an unknown access key", "AKIAUNKNOWNUNKNOWN00", account.secret_key.as_str()),
    ] {
        let environment = Environment::fixed([
            ("AWS_ACCESS_KEY_ID", key_id),
            ("AWS_SECRET_ACCESS_KEY", secret_key),
        ]);
        let other = account.open_with(&account.server.uri(&arn), &environment);
        let error = other.unwrap(&wrapped, &context(1), soon()).err().expect(why);
        assert_eq!(error.kind(), KmsErrorKind::Unauthenticated, "{why}: {error:?}");
        assert_hides(&error, &[secret_key.to_owned()]);
    }
}

#[test]
fn garbage_with_success_is_not_the_key() {
    let Some(account) = Account::ministack("aws::garbage_with_success_is_not_the_key") else {
        return;
    };
    let (_, kms) = account.key();
    let mut wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let last = wrapped.blob.len() - 1;
    wrapped.blob[last] ^= 1;
    // Why the caller checks what it unwrapped: this emulator says 200.
    if let Ok(found) = kms.unwrap(&wrapped, &context(1), soon()) {
        assert!(!same(&found, &key(1)));
    }
}

#[test]
fn another_region_has_no_such_key() {
    let Some(account) = Account::moto("aws::another_region_has_no_such_key") else { return };
    let (arn, kms) = account.key();
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let elsewhere = arn.replace("us-east-1", "eu-west-1");
    let other = account.open_with(&account.server.uri(&elsewhere), &account.environment());
    let refused = kind(other.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::NotFound));
}

#[test]
fn aliases_and_ids_name_the_key_too() {
    let Some(account) = Account::moto("aws::aliases_and_ids_name_the_key_too") else { return };
    let (arn, kms) = account.key();
    let alias = format!("alias/{}", account.user);
    account.server.call("kms", "create_alias", json!({"AliasName": alias, "TargetKeyId": arn}));
    let id = arn.rsplit_once('/').expect("a key ARN").1;
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    for name in [alias.as_str(), id] {
        let uri = account.server.uri(name) + "&region=us-east-1";
        let by_name = account.open_with(&uri, &account.environment());
        assert_opens(&*by_name, &wrapped, &key(1));
    }
}

#[test]
fn the_shared_file_is_read_at_each_use() {
    let Some(account) = Account::ministack("aws::the_shared_file_is_read_at_each_use") else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("credentials");
    let write = |secret_key: &str| {
        let text = format!(
            "[default]\naws_access_key_id = X\naws_secret_access_key = Y\n\n[app]\n\
             aws_access_key_id = {}\naws_secret_access_key = {secret_key}\n",
            account.key_id
        );
        std::fs::write(&file, text).unwrap();
    };
    let environment =
        Environment::fixed([("AWS_SHARED_CREDENTIALS_FILE", file.to_str().expect("UTF-8"))]);
    let uri = account.server.uri(&account.server.new_key()) + "&profile=app";
    let kms = account.open_with(&uri, &environment);
    let missing = kind(kms.wrap(&key(1), &context(1), soon()));
    assert_eq!(missing, Some(KmsErrorKind::Unauthenticated));
    write(&account.secret_key);
    let wrapped = kms.wrap(&key(1), &context(1), soon()).unwrap_or_else(|e| panic!("{e:?}"));
    write("rotated-away");
    let refused = kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::Unauthenticated));
    write(&account.secret_key);
    assert_opens(&*kms, &wrapped, &key(1));
}

#[test]
fn credentials_of_containers_and_instances() {
    let suite = "aws::credentials_of_containers_and_instances";
    let Some(account) = Account::ministack(suite) else { return };
    let Some(metadata) = require(suite, Metadata::start()) else { return };
    metadata.set_aws(&account.key_id, &account.secret_key, 3600);
    let port = metadata.process.port;
    let instance = format!("http://127.0.0.1:{port}");
    let container = format!("http://127.0.0.1:{port}/container");
    let uri = account.server.uri(&account.server.new_key());
    for (why, environment) in [
        ("IMDSv2", Environment::fixed([("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance)])),
        (
            "container",
            Environment::fixed([
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token".to_owned()),
            ]),
        ),
    ] {
        let kms = account.open_with(&uri, &environment);
        let before = metadata.requests();
        let wrapped =
            kms.wrap(&key(1), &context(1), soon()).unwrap_or_else(|e| panic!("{why}: {e}: {e:?}"));
        let fetched = metadata.requests();
        assert!(fetched > before, "{why}");
        assert_opens(&*kms, &wrapped, &key(1));
        assert_eq!(metadata.requests(), fetched, "{why}: kept until they expire");

        // Replaced before their time: fetched anew, once.
        account.server.call(
            "iam",
            "update_access_key",
            json!({"UserName": account.user, "AccessKeyId": account.key_id, "Status": "Inactive"}),
        );
        let refused = kind(kms.unwrap(&wrapped, &context(1), soon()));
        assert_eq!(refused, Some(KmsErrorKind::Unauthenticated), "{why}");
        assert!(metadata.requests() > fetched, "{why}");
        account.server.call(
            "iam",
            "update_access_key",
            json!({"UserName": account.user, "AccessKeyId": account.key_id, "Status": "Active"}),
        );
        assert_opens(&*kms, &wrapped, &key(1));
    }
    // About to expire: never kept.
    metadata.set_aws(&account.key_id, &account.secret_key, 60);
    let environment = Environment::fixed([(
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        format!("http://127.0.0.1:{port}"),
    )]);
    let kms = account.open_with(&uri, &environment);
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let before = metadata.requests();
    assert_opens(&*kms, &wrapped, &key(1));
    assert!(metadata.requests() > before);
}

/// EKS Pod Identity: the token is in a file that is written anew, and ends with a line end.
#[test]
fn the_identity_of_a_pod() {
    let suite = "aws::the_identity_of_a_pod";
    let Some(account) = Account::ministack(suite) else { return };
    let Some(metadata) = require(suite, Metadata::start()) else { return };
    metadata.set_aws(&account.key_id, &account.secret_key, 3600);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("eks-pod-identity-token");
    let container = format!("http://127.0.0.1:{}/container", metadata.process.port);
    let environment = Environment::fixed([
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().expect("UTF-8")),
    ]);
    let uri = account.server.uri(&account.server.new_key());
    let mut wrapped = None;
    for token in ["first.pod.token", "second.pod.token"] {
        metadata.set(&json!({"/container-token": token}));
        std::fs::write(&file, format!("{token}\n")).unwrap();
        let kms = account.open_with(&uri, &environment);
        let wrapped = wrapped.get_or_insert_with(|| {
            kms.wrap(&key(1), &context(1), soon()).unwrap_or_else(|e| panic!("{e:?}"))
        });
        assert_opens(&*kms, wrapped, &key(1));
    }
    // One request for eight calls at once.
    let (wrapped, kms) = (wrapped.expect("wrapped"), account.open_with(&uri, &environment));
    let before = metadata.requests();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_opens(&*kms, &wrapped, &key(1)));
        }
    });
    assert_eq!(metadata.requests(), before + 1);
    let credential = kms.credential().expect("an end");
    assert!(credential.renews && credential.expires_in.as_secs() > 3000, "{credential:?}");
    // Without the line end, and with the token of before: the endpoint refuses, not the key.
    metadata.set(&json!({"/container-token": "third.pod.token"}));
    let kms = account.open_with(&uri, &environment);
    let refused = kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::Unreachable));
    std::fs::write(&file, "third.pod.token").unwrap();
    assert_opens(&*kms, &wrapped, &key(1));
}

#[test]
fn web_identities() {
    let Some(account) = Account::moto("aws::web_identities") else { return };
    let trust = json!({"Version": "2012-10-17", "Statement": []}).to_string();
    let role = account.server.call(
        "iam",
        "create_role",
        json!({"RoleName": account.user, "AssumeRolePolicyDocument": trust}),
    );
    let role = role["Role"]["Arn"].as_str().expect("an ARN");
    let dir = TempDir::new().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "header.payload.signature").unwrap();
    let environment = Environment::fixed([
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().expect("UTF-8")),
        ("AWS_ROLE_ARN", role),
        ("AWS_ENDPOINT_URL_STS", &format!("http://127.0.0.1:{}", account.server.process.port)),
    ]);
    let kms = account.open_with(&account.server.uri(&account.server.new_key()), &environment);
    let wrapped = kms.wrap(&key(1), &context(1), soon()).unwrap_or_else(|e| panic!("{e:?}"));
    assert_opens(&*kms, &wrapped, &key(1));
}

#[test]
fn an_identity_that_sts_refuses() {
    let Some(account) = Account::ministack("aws::an_identity_that_sts_refuses") else { return };
    let dir = TempDir::new().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "header.payload.signature-to-hide").unwrap();
    let environment = Environment::fixed([
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().expect("UTF-8")),
        ("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/nobody"),
        ("AWS_ENDPOINT_URL_STS", &format!("http://127.0.0.1:{}", account.server.process.port)),
    ]);
    let kms = account.open_with(&account.server.uri(&account.server.new_key()), &environment);
    let error = kms.wrap(&key(1), &context(1), soon()).expect_err("refused");
    assert_eq!(error.kind(), KmsErrorKind::Unauthenticated, "{error:?}");
    assert_hides(&error, &["header.payload.signature-to-hide".to_owned()]);
}
