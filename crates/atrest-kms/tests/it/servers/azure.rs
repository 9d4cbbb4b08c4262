//! Azure Key Vault: the in-tree fake, administered by the official client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::admin::Admin;
use super::certificates::Certificates;
use super::{Process, Shared, http, script};

#[derive(Debug)]
pub(crate) struct FakeAzure {
    pub(crate) process: Process,
    pub(crate) certificates: Certificates,
    admin: Admin,
    pub(crate) dir: TempDir,
    next: AtomicU32,
}

static SHARED: Shared<FakeAzure> = Shared::new();

pub(crate) fn shared() -> Result<Arc<FakeAzure>, String> {
    SHARED.get(FakeAzure::start)
}

impl FakeAzure {
    /// One for tests that take rights or tokens away from every key.
    pub(crate) fn start() -> Result<Self, String> {
        let dir = TempDir::new().map_err(|e| e.to_string())?;
        let certificates = Certificates::make(dir.path())?;
        let process = Process::start(
            "the fake of Azure Key Vault",
            |port, _| {
                let mut command = script("fake_azure.py");
                command
                    .arg(port.to_string())
                    .args(["server.pem", "server.key"].map(|name| certificates.path(name)));
                command
            },
            |port, _| super::accepts(port),
        )?;
        let vault = format!("https://127.0.0.1:{}", process.port);
        let ca = certificates.path("ca.pem");
        let admin = Admin::start(script("azure_admin.py").args([&vault, &ca]))?;
        Ok(Self { process, certificates, admin, dir, next: AtomicU32::new(0) })
    }

    pub(crate) fn call(&self, call: &str, with: &Value) -> Value {
        self.admin.call(&json!({"call": call, "with": with}))
    }

    pub(crate) fn try_call(&self, call: &str, with: &Value) -> Value {
        self.admin.try_call(&json!({"call": call, "with": with}))
    }

    /// What only the fake knows: rights and tokens.
    pub(crate) fn set(&self, settings: &Value) {
        let url = format!("https://127.0.0.1:{}/fake", self.process.port);
        let ca = self.certificates.path("ca.pem");
        let (status, _) = http::send("POST", &url, Some(&ca), &[], &settings.to_string());
        assert_eq!(status, 200);
    }

    /// A new key of type `rsa` or `oct`; answers its name.
    pub(crate) fn new_key(&self, kind: &str) -> String {
        let name = format!("k{}", self.next.fetch_add(1, Ordering::SeqCst));
        self.call(kind, &json!({"name": name}));
        name
    }

    pub(crate) fn uri(&self, name: &str) -> String {
        let (port, ca) = (self.process.port, self.certificates.path("ca.pem"));
        format!("azure-kms://127.0.0.1:{port}/keys/{name}?ca={ca}")
    }
}
