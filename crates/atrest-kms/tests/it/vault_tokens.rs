//! Tokens of Vault: lapsed, renewed, had by logging in; against a real OpenBao.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use atrest::kms::{Kms, KmsErrorKind, WrappedKey};
use atrest_kms::{Environment, from_uri_with};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::conformance::{assert_hides, assert_opens, context, key, kind, soon};
use crate::outage::http_answer;
use crate::servers::openbao::{self, OpenBao};
use crate::servers::proxy::{Mode, Proxy};
use crate::servers::require;

fn open(uri: &str, variables: &[(&str, &str)]) -> Arc<dyn Kms> {
    from_uri_with(uri, &Environment::fixed(variables.iter().copied())).expect("a provider")
}

/// A token with the rights of `name`, and with more settings.
fn token(server: &OpenBao, name: &str, more: &Value) -> String {
    let mut body = json!({"policies": [name, "default"]});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let answer = server.admin("POST", "auth/token/create-orphan", &body);
    answer["auth"]["client_token"].as_str().expect("a token").to_owned()
}

/// Waits until `done`, at most a minute.
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_token_that_lapsed_or_was_revoked_says_nothing_of_the_key() {
    let suite = "vault_tokens::a_token_that_lapsed_or_was_revoked_says_nothing_of_the_key";
    let Some(server) = require(suite, openbao::shared()) else { return };
    let name = server.new_key();
    let lasting = open(&server.uri(&name), &[("VAULT_TOKEN", &server.new_token(&name))]);
    let wrapped = lasting.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let lapsing = token(&server, &name, &json!({"ttl": "2s", "explicit_max_ttl": "2s"}));
    let revoked = token(&server, &name, &json!({}));
    // Without the policy `default` a token may not even look itself up.
    let poor = json!({"policies": [name], "no_default_policy": true, "ttl": "2s"});
    let poor = server.admin("POST", "auth/token/create-orphan", &poor);
    let poor = poor["auth"]["client_token"].as_str().expect("a token").to_owned();
    server.admin("POST", "auth/token/revoke", &json!({"token": revoked}));
    for token in [lapsing, revoked, poor, "s.nobody-ever-had-this".to_owned()] {
        let kms = open(&server.uri(&name), &[("VAULT_TOKEN", &token)]);
        let mut error = None;
        wait("the token lapses", || {
            error = kms.unwrap(&wrapped, &context(1), soon()).err();
            error.is_some()
        });
        let error = error.expect("refused");
        assert_eq!(error.kind(), KmsErrorKind::Unauthenticated, "{error:?}");
        assert!(!error.kind().denies_access());
        assert_hides(&error, &[token]);
    }
    assert_opens(&*lasting, &wrapped, &key(1));
}

#[test]
fn what_cannot_be_asked_about_a_token_decides_nothing() {
    let proxy = Proxy::new(0, Mode::Cut);
    let uri = format!("hcvault://127.0.0.1:{}/transit/keys/k?tls=false", proxy.port);
    let kms = open(&uri, &[("VAULT_TOKEN", "s.x")]);
    let wrapped = WrappedKey { key_version: String::new(), blob: b"vault:v1:AAAA".to_vec() };
    let denied = http_answer("403 No", "", "{\"errors\":[\"permission denied\"]}");
    for (then, expected) in [
        (http_answer("503 No", "", "{\"errors\":[\"sealed\"]}"), KmsErrorKind::Unreachable),
        (http_answer("429 No", "retry-after: 9999\r\n", ""), KmsErrorKind::Throttled),
        (Mode::Cut, KmsErrorKind::Unreachable),
        // A gateway that lets nothing but Transit through: what Transit said stands.
        (http_answer("403 No", "", "<html>"), KmsErrorKind::AccessDenied),
        (http_answer("404 No", "", "{\"errors\":[]}"), KmsErrorKind::AccessDenied),
        (http_answer("200 OK", "", "{\"data\":{}}"), KmsErrorKind::AccessDenied),
        (denied.clone(), KmsErrorKind::Unauthenticated),
    ] {
        proxy.script(vec![denied.clone()], then.clone());
        // One try: the next one would find the answer to the second question.
        let deadline = atrest::kms::Deadline::after(Duration::from_secs(20));
        let error = kms.unwrap(&wrapped, &context(1), deadline).err().expect("refused");
        assert_eq!(error.kind(), expected, "{then:?}: {error}");
    }
}

#[test]
fn a_token_is_renewed_in_the_middle_of_its_life_and_tells_when_it_ends() {
    let suite = "vault_tokens::a_token_is_renewed_in_the_middle_of_its_life";
    let Some(server) = require(suite, openbao::shared()) else { return };
    let name = server.new_key();
    let renewed = token(&server, &name, &json!({"ttl": "20s"}));
    let kms = open(&server.uri(&name), &[("VAULT_TOKEN", &renewed)]);
    assert!(kms.credential().is_none(), "nobody was asked yet");
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let known = kms.credential().expect("an end");
    assert!(known.renews && known.lifetime == Duration::from_secs(20), "{known:?}");
    // At its longest life it cannot be renewed any more, and says so before it ends.
    let warns = |more| {
        let token = token(&server, &name, &more);
        let kms = open(&server.uri(&name), &[("VAULT_TOKEN", &token)]);
        wait("a warning", || {
            assert_opens(&*kms, &wrapped, &key(1));
            kms.credential().is_some_and(|credential| credential.is_ending())
        });
        let credential = kms.credential().expect("an end");
        assert!(credential.expires_in < credential.lifetime / 3, "{credential:?}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| warns(json!({"ttl": "30s", "explicit_max_ttl": "38s"})));
        scope.spawn(|| warns(json!({"ttl": "30s", "renewable": false})));
        // Once renewed it would have ended.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(32) {
            assert_opens(&*kms, &wrapped, &key(1));
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    assert!(kms.credential().is_some_and(|credential| !credential.is_ending()));
}

#[test]
fn a_rotated_token_file_is_another_token() {
    let suite = "vault_tokens::a_rotated_token_file_is_another_token";
    let Some(server) = require(suite, openbao::shared()) else { return };
    let (name, dir) = (server.new_key(), TempDir::new().unwrap());
    let file = dir.path().join("token");
    let write = |seconds: u32| {
        let token = token(&server, &name, &json!({"ttl": format!("{seconds}s")}));
        std::fs::write(&file, format!("{token}\n")).unwrap();
    };
    write(3000);
    let kms = open(&format!("{}&token_file={}", server.uri(&name), file.display()), &[]);
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    assert_eq!(kms.credential().map(|c| c.lifetime.as_secs()), Some(3000));
    write(6000);
    assert_opens(&*kms, &wrapped, &key(1));
    assert_eq!(kms.credential().map(|c| c.lifetime.as_secs()), Some(6000));
}

/// A way to log in, set up on the server: the options of the URI and the variables.
fn approle(server: &OpenBao, name: &str, dir: &Path, ttl: &str) -> (String, String) {
    let mount = server.fresh_name();
    server.admin("POST", &format!("sys/auth/{mount}"), &json!({"type": "approle"}));
    let role = json!({"token_policies": [name], "token_ttl": ttl, "token_max_ttl": ttl});
    server.admin("POST", &format!("auth/{mount}/role/app"), &role);
    let role = server.admin("GET", &format!("auth/{mount}/role/app/role-id"), &Value::Null);
    let role = role["data"]["role_id"].as_str().expect("an id").to_owned();
    let secret = server.admin("POST", &format!("auth/{mount}/role/app/secret-id"), &json!({}));
    let secret = secret["data"]["secret_id"].as_str().expect("an id").to_owned();
    let file = dir.join("secret-id");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let options =
        format!("&auth=approle&auth_mount={mount}&role={role}&secret_id_file={}", file.display());
    (options, secret)
}

/// A JWT with these claims for an hour, signed as an identity provider does. Leaves the public
/// key beside it.
fn sign(dir: &Path, claims: &Value) -> String {
    let path = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).output().expect("openssl");
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    };
    run(&["genpkey", "-algorithm", "RSA", "-out", &path("jwt.key")]);
    run(&["pkey", "-in", &path("jwt.key"), "-pubout", "-out", &path("jwt.pub")]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut claims = claims.clone();
    (claims["iat"], claims["exp"]) = (json!(now.as_secs()), json!(now.as_secs() + 3600));
    let encode = |bytes: &[u8]| {
        std::fs::write(path("part"), bytes).unwrap();
        let text = run(&["base64", "-A", "-in", &path("part")]);
        let text = String::from_utf8(text).unwrap().trim().replace('+', "-").replace('/', "_");
        text.trim_end_matches('=').to_owned()
    };
    let head = json!({"alg": "RS256", "typ": "JWT"}).to_string();
    let signed = format!("{}.{}", encode(head.as_bytes()), encode(claims.to_string().as_bytes()));
    std::fs::write(path("signed"), &signed).unwrap();
    let signature = run(&["dgst", "-sha256", "-sign", &path("jwt.key"), &path("signed")]);
    format!("{signed}.{}", encode(&signature))
}

/// The same with a JWT.
fn jwt(server: &OpenBao, name: &str, dir: &Path, ttl: &str) -> (String, String) {
    let mount = server.fresh_name();
    let token = sign(dir, &json!({"sub": "engine", "aud": "bao"}));
    let public = std::fs::read_to_string(dir.join("jwt.pub")).unwrap();
    server.admin("POST", &format!("sys/auth/{mount}"), &json!({"type": "jwt"}));
    let config = json!({"jwt_validation_pubkeys": [public]});
    server.admin("POST", &format!("auth/{mount}/config"), &config);
    let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["bao"],
        "token_policies": [name], "token_ttl": ttl, "token_max_ttl": ttl});
    server.admin("POST", &format!("auth/{mount}/role/app"), &role);
    let file = dir.join("jwt");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    (format!("&auth=jwt&auth_mount={mount}&role=app&jwt_file={}", file.display()), token)
}

#[test]
fn log_ins_are_shared_and_repeated_before_they_end() {
    let suite = "vault_tokens::log_ins_are_shared_and_repeated_before_they_end";
    let Some(server) = require(suite, openbao::shared()) else { return };
    let name = server.new_key();
    for way in [approle, jwt] {
        let dir = TempDir::new().unwrap();
        let (options, secret) = way(&server, &name, dir.path(), "6s");
        let uri = server.uri(&name) + &options;
        let kms = open(&uri, &[]);
        let wrapped = kms.wrap(&key(1), &context(1), soon()).unwrap_or_else(|e| panic!("{e:?}"));
        assert!(kms.credential().is_some_and(|credential| credential.renews));
        // Its longest life three times over: renewals alone would not last.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(18) {
            assert_opens(&*kms, &wrapped, &key(1));
            std::thread::sleep(Duration::from_millis(500));
        }
        // A token that was taken away before its time is replaced in the same call.
        let mount = options.split("auth_mount=").nth(1).expect("a mount");
        let mount = mount.split('&').next().expect("a mount");
        server.admin("POST", &format!("sys/leases/revoke-prefix/auth/{mount}"), &json!({}));
        assert_opens(&*kms, &wrapped, &key(1));
        // And a role that was taken away says nothing about the key.
        server.admin("DELETE", &format!("auth/{mount}/role/app"), &Value::Null);
        server.admin("POST", &format!("sys/leases/revoke-prefix/auth/{mount}"), &json!({}));
        let error = kms.unwrap(&wrapped, &context(1), soon()).err().expect("refused");
        assert_eq!(error.kind(), KmsErrorKind::Unauthenticated, "{error:?}");
        assert_hides(&error, &[secret]);
    }
}

#[test]
fn access_that_was_given_back_to_a_role_is_noticed() {
    let suite = "vault_tokens::access_that_was_given_back_to_a_role_is_noticed";
    let Some(server) = require(suite, openbao::shared()) else { return };
    let (name, dir) = (server.new_key(), TempDir::new().unwrap());
    let (options, _) = approle(&server, &name, dir.path(), "1h");
    let mount = options.split("auth_mount=").nth(1).expect("a mount");
    let mount = mount.split('&').next().expect("a mount");
    let kms = open(&(server.uri(&name) + &options), &[]);
    let wrapped = kms.wrap(&key(1), &context(1), soon()).unwrap_or_else(|e| panic!("{e:?}"));
    let denied = || kind(kms.unwrap(&wrapped, &context(1), soon()));
    // A token keeps the policies that its role had when it was made.
    let set = |policy: &str| {
        let role = json!({"token_policies": [policy]});
        server.admin("POST", &format!("auth/{mount}/role/app"), &role);
    };
    let revoke = || {
        server.admin("POST", &format!("sys/leases/revoke-prefix/auth/{mount}"), &json!({}));
    };
    set("nothing");
    revoke();
    assert_eq!(denied(), Some(KmsErrorKind::AccessDenied));
    set(&name);
    assert_opens(&*kms, &wrapped, &key(1));

    // As long as nobody can log in, the token that there was is asked with: it is denied,
    // and that is not about credentials.
    set("nothing");
    revoke();
    assert_eq!(denied(), Some(KmsErrorKind::AccessDenied));
    server.admin("DELETE", &format!("auth/{mount}/role/app"), &Value::Null);
    assert_eq!(denied(), Some(KmsErrorKind::AccessDenied));
    assert!(kms.credential().is_some_and(|credential| credential.renews), "it is not due");
}

#[test]
fn a_token_outlives_a_denial_after_which_nobody_can_log_in() {
    let suite = "vault_tokens::a_token_outlives_a_denial_after_which_nobody_can_log_in";
    let Some(server) = require(suite, openbao::shared()) else { return };
    let (name, dir) = (server.new_key(), TempDir::new().unwrap());
    let (options, _) = approle(&server, &name, dir.path(), "20s");
    let mount = options.split("auth_mount=").nth(1).expect("a mount");
    let mount = mount.split('&').next().expect("a mount");
    // It can be renewed, and its secret id is good for one log-in.
    let role = json!({"token_max_ttl": "1h", "secret_id_num_uses": 1});
    server.admin("POST", &format!("auth/{mount}/role/app"), &role);
    let secret = server.admin("POST", &format!("auth/{mount}/role/app/secret-id"), &json!({}));
    let secret = secret["data"]["secret_id"].as_str().expect("an id");
    std::fs::write(dir.path().join("secret-id"), format!("{secret}\n")).unwrap();
    let kms = open(&(server.uri(&name) + &options), &[]);
    let wrapped = kms.wrap(&key(1), &context(1), soon()).unwrap_or_else(|e| panic!("{e:?}"));
    // The second one comes after a log-in that failed.
    server.deny(&name);
    for _ in 0..2 {
        let denied = kind(kms.unwrap(&wrapped, &context(1), soon()));
        assert_eq!(denied, Some(KmsErrorKind::AccessDenied));
    }
    // A policy that was put back holds for the token that there is. More than a life of it.
    server.allow(&name);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(25) {
        assert_opens(&*kms, &wrapped, &key(1));
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_service_account_of_kubernetes_logs_in() {
    let suite = "vault_tokens::a_service_account_of_kubernetes_logs_in";
    let Some(server) = require(suite, openbao::shared()) else { return };
    let (name, dir, mount) = (server.new_key(), TempDir::new().unwrap(), server.fresh_name());
    // The API of a cluster that reviews tokens, as far as the server asks it.
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "status": {"authenticated": true, "user": {"uid": "1", "groups": [],
        "username": "system:serviceaccount:data:engine"}}});
    let cluster = Proxy::new(
        0,
        http_answer("201 Created", "content-type: application/json\r\n", &review.to_string()),
    );
    // What a service account's token says of itself; the cluster vouches for it.
    let token = sign(
        dir.path(),
        &json!({"sub": "system:serviceaccount:data:engine", "kubernetes.io": {"namespace": "data",
        "serviceaccount": {"name": "engine", "uid": "1"}}}),
    );
    server.admin("POST", &format!("sys/auth/{mount}"), &json!({"type": "kubernetes"}));
    let config = json!({"kubernetes_host": format!("http://127.0.0.1:{}", cluster.port),
        "kubernetes_ca_cert": std::fs::read_to_string(server.ca()).unwrap(),
        "disable_local_ca_jwt": true, "token_reviewer_jwt": token});
    server.admin("POST", &format!("auth/{mount}/config"), &config);
    let role = json!({"bound_service_account_names": ["engine"], "token_policies": [name],
        "bound_service_account_namespaces": ["data"], "token_ttl": "60s"});
    server.admin("POST", &format!("auth/{mount}/role/app"), &role);
    let file = dir.path().join("service-account");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let options =
        format!("&auth=kubernetes&auth_mount={mount}&role=app&jwt_file={}", file.display());
    let kms = open(&(server.uri(&name) + &options), &[]);
    let wrapped = kms.wrap(&key(1), &context(1), soon()).unwrap_or_else(|e| panic!("{e:?}"));
    assert_opens(&*kms, &wrapped, &key(1));
    assert!(kms.credential().is_some_and(|credential| credential.renews));
}

#[test]
fn a_file_that_is_no_such_credential_is_sent_to_nobody() {
    let proxy = Proxy::new(0, Mode::Cut);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("shadow");
    std::fs::write(&file, "root:$6$salt$hash:19000:0:99999:7:::\nbin:*:1:\n").unwrap();
    for options in ["auth=jwt&jwt_file", "auth=kubernetes&jwt_file", "auth=approle&secret_id_file"]
    {
        let uri = format!(
            "hcvault://127.0.0.1:{}/transit/keys/k?tls=false&role=r&{options}={}",
            proxy.port,
            file.display()
        );
        let error = open(&uri, &[]).wrap(&key(1), &context(1), soon()).expect_err("refused");
        assert_eq!(error.kind(), KmsErrorKind::Misconfigured, "{error}");
        assert_hides(&error, &["$6$salt".to_owned()]);
    }
    assert_eq!(proxy.connections(), 0);
    for uri in [
        "hcvault://h/t/keys/k?auth=ldap&role=r",
        "hcvault://h/t/keys/k?auth=jwt&role=r",
        "hcvault://h/t/keys/k?auth=approle",
        "hcvault://h/t/keys/k?auth=approle&role=r&auth_mount=../x",
        "hcvault://h/t/keys/k?auth=approle&role=r&token_file=/t",
        "hcvault://h/t/keys/k?role=r",
    ] {
        let error = from_uri_with(uri, &Environment::process()).expect_err(uri);
        assert_eq!(error.kind(), KmsErrorKind::Misconfigured, "{uri}: {error}");
    }
}
