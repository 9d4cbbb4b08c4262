//! An OpenBao server in development mode, over TLS, with the Transit engine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::{Process, Shared, http, install_dir};

const ROOT_TOKEN: &str = "root-token-of-the-tests";

/// The server with the administrator's calls.
#[derive(Debug)]
pub(crate) struct OpenBao {
    pub(crate) process: Process,
    next: AtomicU32,
}

static SHARED: Shared<OpenBao> = Shared::new();

pub(crate) fn shared() -> Result<std::sync::Arc<OpenBao>, String> {
    SHARED.get(OpenBao::start)
}

impl OpenBao {
    pub(crate) fn start() -> Result<Self, String> {
        let program = install_dir().join("bao");
        let process = Process::start(
            "OpenBao",
            |port, dir| {
                let mut command = Command::new(&program);
                command
                    .args(["server", "-dev", "-dev-tls", "-dev-no-store-token"])
                    .arg(format!("-dev-tls-cert-dir={}", dir.display()))
                    .arg(format!("-dev-root-token-id={ROOT_TOKEN}"))
                    .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
                    .env("HOME", dir)
                    .current_dir(dir);
                command
            },
            |port, dir| {
                let url = format!("https://127.0.0.1:{port}/v1/sys/health");
                let ca = ca(dir);
                ca.exists()
                    && http::try_send("GET", &url, ca.to_str(), &[], "")
                        .is_ok_and(|(status, _)| status == 200)
            },
        )?;
        let server = Self { process, next: AtomicU32::new(0) };
        server.admin("POST", "sys/mounts/transit", &json!({"type": "transit"}));
        Ok(server)
    }

    pub(crate) fn ca(&self) -> String {
        ca(self.process.dir.path()).to_str().expect("UTF-8").to_owned()
    }

    /// An administrator's call; panics unless it succeeds.
    pub(crate) fn admin(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(method, path, ROOT_TOKEN, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    pub(crate) fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let url = format!("https://127.0.0.1:{}/v1/{path}", self.process.port);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::send(method, &url, Some(&self.ca()), &[("x-vault-token", token)], &body)
    }

    /// A name no other test of this server uses.
    pub(crate) fn fresh_name(&self) -> String {
        format!("key-{}", self.next.fetch_add(1, Ordering::SeqCst))
    }

    /// A new key; answers its name.
    pub(crate) fn new_key(&self) -> String {
        let name = self.fresh_name();
        self.admin("POST", &format!("transit/keys/{name}"), &json!({}));
        self.allow(&name);
        name
    }

    /// Lets the policy of that name use the key, and create nothing.
    pub(crate) fn allow(&self, name: &str) {
        let rule = |operation: &str| {
            format!("path \"transit/{operation}/{name}\" {{ capabilities = [\"update\"] }}\n")
        };
        let policy = rule("encrypt") + &rule("decrypt");
        self.admin("POST", &format!("sys/policies/acl/{name}"), &json!({"policy": policy}));
    }

    /// Leaves the policy of that name without any right.
    pub(crate) fn deny(&self, name: &str) {
        let policy = "path \"nothing\" { capabilities = [\"read\"] }";
        self.admin("POST", &format!("sys/policies/acl/{name}"), &json!({"policy": policy}));
    }

    /// A new token under the policy of that name.
    pub(crate) fn new_token(&self, policy: &str) -> String {
        let body = json!({"policies": [policy], "no_default_policy": true});
        let answer = self.admin("POST", "auth/token/create-orphan", &body);
        answer["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    pub(crate) fn delete_key(&self, name: &str) {
        let path = format!("transit/keys/{name}");
        self.admin("POST", &format!("{path}/config"), &json!({"deletion_allowed": true}));
        self.admin("DELETE", &path, &Value::Null);
    }

    /// The URI of a key, without a token.
    pub(crate) fn uri(&self, name: &str) -> String {
        format!("hcvault://127.0.0.1:{}/transit/keys/{name}?ca={}", self.process.port, self.ca())
    }

    /// The key that unseals the server, which development mode prints.
    pub(crate) fn unseal_key(&self) -> String {
        // Printed a moment after the server answers.
        for _ in 0..200 {
            let log = self.process.log();
            let after = log.split_once("Unseal Key: ").map_or("", |(_, after)| after);
            if let Some((key, _)) = after.split_once('\n') {
                return key.trim().to_owned();
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("no unseal key in the log: {}", self.process.log());
    }
}

fn ca(dir: &Path) -> PathBuf {
    dir.join("vault-ca.pem")
}
