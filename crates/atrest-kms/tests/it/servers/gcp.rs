//! Google Cloud KMS: drongo for the wire format, and the in-tree fake for states, rights,
//! tokens and checksums, administered by Google's own client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::admin::Admin;
use super::certificates::Certificates;
use super::{Process, Shared, http, python_program, script};

/// Where the rings are.
pub(crate) const PARENT: &str = "projects/p/locations/global";
pub(crate) const RING: &str = "projects/p/locations/global/keyRings/r";

#[derive(Debug)]
pub(crate) struct Drongo {
    pub(crate) process: Process,
    next: AtomicU32,
}

static DRONGO: Shared<Drongo> = Shared::new();

pub(crate) fn drongo() -> Result<Arc<Drongo>, String> {
    DRONGO.get(|| {
        let process = Process::start(
            "drongo",
            |port, dir| {
                let mut command = python_program("drongo");
                command.args(["server", "--host", "127.0.0.1", "--port", &port.to_string()]);
                command.env("HOME", dir).current_dir(dir);
                command
            },
            |port, _| super::accepts(port),
        )?;
        let drongo = Drongo { process, next: AtomicU32::new(0) };
        drongo.post(&format!("{PARENT}/keyRings?keyRingId=r"), &json!({}));
        Ok(drongo)
    })
}

impl Drongo {
    fn post(&self, path: &str, body: &Value) {
        let url = format!("http://127.0.0.1:{}/v1/{path}", self.process.port);
        let headers = [("content-type", "application/json")];
        let (status, answer) = http::send("POST", &url, None, &headers, &body.to_string());
        assert_eq!(status, 200, "{path}: {answer}");
    }

    /// A new key; answers its URI.
    pub(crate) fn new_key(&self) -> String {
        let id = format!("k{}", self.next.fetch_add(1, Ordering::SeqCst));
        let body = json!({"purpose": "ENCRYPT_DECRYPT"});
        self.post(&format!("{RING}/cryptoKeys?cryptoKeyId={id}"), &body);
        let port = self.process.port;
        format!("gcp-kms://{RING}/cryptoKeys/{id}?endpoint=http://127.0.0.1:{port}")
    }
}

#[derive(Debug)]
pub(crate) struct FakeGcp {
    pub(crate) process: Process,
    certificates: Certificates,
    admin: Admin,
    dir: TempDir,
    next: AtomicU32,
}

static FAKE: Shared<FakeGcp> = Shared::new();

pub(crate) fn fake() -> Result<Arc<FakeGcp>, String> {
    FAKE.get(FakeGcp::start)
}

impl FakeGcp {
    /// One for tests that take rights or tokens away from every key.
    pub(crate) fn start() -> Result<Self, String> {
        let dir = TempDir::new().map_err(|e| e.to_string())?;
        let certificates = Certificates::make(dir.path())?;
        let process = Process::start(
            "the fake of Google Cloud KMS",
            |port, _| {
                let mut command = script("fake_gcp.py");
                command.arg(port.to_string()).args(
                    ["server.pem", "server.key", "account.pub"].map(|name| certificates.path(name)),
                );
                command
            },
            |port, _| super::accepts(port),
        )?;
        let endpoint = format!("https://127.0.0.1:{}", process.port);
        let admin = Admin::start(
            script("gcp_admin.py")
                .arg(&endpoint)
                .env("REQUESTS_CA_BUNDLE", certificates.path("ca.pem")),
        )?;
        let fake = Self { process, certificates, admin, dir, next: AtomicU32::new(0) };
        fake.call("ring", json!({"parent": PARENT, "id": "r"}));
        Ok(fake)
    }

    pub(crate) fn call(&self, call: &str, with: Value) -> Value {
        self.admin.call(&json!({"call": call, "with": with}))
    }

    pub(crate) fn try_call(&self, call: &str, with: Value) -> Value {
        self.admin.try_call(&json!({"call": call, "with": with}))
    }

    /// What only the fake knows: rights, tokens, corrupt fields.
    pub(crate) fn set(&self, settings: &Value) {
        let url = format!("https://127.0.0.1:{}/fake", self.process.port);
        let ca = self.certificates.path("ca.pem");
        let (status, _) = http::send("POST", &url, Some(&ca), &[], &settings.to_string());
        assert_eq!(status, 200);
    }

    /// A new key; answers its name.
    pub(crate) fn new_key(&self) -> String {
        let id = format!("k{}", self.next.fetch_add(1, Ordering::SeqCst));
        self.call("key", json!({"parent": RING, "id": id}));
        format!("{RING}/cryptoKeys/{id}")
    }

    pub(crate) fn uri(&self, name: &str) -> String {
        let (port, ca) = (self.process.port, self.certificates.path("ca.pem"));
        format!("gcp-kms://{name}?endpoint=https://127.0.0.1:{port}&ca={ca}")
    }

    /// A key file of the one service account; answers its path. `key` is a PEM file.
    pub(crate) fn account_file(&self, key: &str) -> String {
        let private_key = std::fs::read_to_string(self.certificates.path(key)).expect("a key");
        let file = json!({
            "type": "service_account",
            "client_email": "tester@project.iam.gserviceaccount.com",
            "private_key_id": "key-id",
            "private_key": private_key,
            "token_uri": format!("https://127.0.0.1:{}/token", self.process.port),
        });
        let path = self.dir.path().join(format!("{key}.json"));
        std::fs::write(&path, file.to_string()).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    }
}
