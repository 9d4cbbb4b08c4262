//! The in-tree metadata service of instances and containers.

use serde_json::{Value, json};

use super::{Process, http, script};

pub(crate) struct Metadata {
    pub(crate) process: Process,
}

impl Metadata {
    pub(crate) fn start() -> Result<Self, String> {
        let process = Process::start(
            "the metadata service",
            |port, _| {
                let mut command = script("fake_metadata.py");
                command.arg(port.to_string());
                command
            },
            |port, _| super::accepts(port),
        )?;
        Ok(Self { process })
    }

    fn call(&self, method: &str, path: &str, body: &str) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.process.port);
        let (status, answer) = http::send(method, &url, None, &[], body);
        assert_eq!(status, 200, "{path}");
        answer
    }

    pub(crate) fn set(&self, answers: &Value) {
        self.call("PUT", "/set", &answers.to_string());
    }

    /// Requests so far, but those of the tests.
    pub(crate) fn requests(&self) -> u64 {
        self.call("GET", "/requests", "")["requests"].as_u64().expect("a number")
    }

    /// Credentials for the instance and the container, without a session token since the
    /// emulator's users have none.
    pub(crate) fn set_aws(&self, key_id: &str, secret_key: &str, lasting_secs: u64) {
        let end = std::time::SystemTime::now() + std::time::Duration::from_secs(lasting_secs);
        let secs = end.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let output = std::process::Command::new("date")
            .args(["-u", "-d", &format!("@{secs}"), "+%Y-%m-%dT%H:%M:%SZ"])
            .output()
            .expect("date");
        let end = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let document = json!({"Code": "Success", "AccessKeyId": key_id,
            "SecretAccessKey": secret_key, "Expiration": end});
        self.set(&json!({
            "/latest/meta-data/iam/security-credentials/": "the-role",
            "/latest/meta-data/iam/security-credentials/the-role": document,
            "/container": document,
        }));
    }
}
