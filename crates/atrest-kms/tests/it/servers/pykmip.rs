//! The PyKMIP server over mutual TLS.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::admin::Admin;
use super::certificates::Certificates;
use super::{Process, Shared, python_program, script};

#[derive(Debug)]
pub(crate) struct PyKmip {
    pub(crate) process: Process,
    pub(crate) certificates: Certificates,
    admin: Admin,
    _dir: TempDir,
}

static SHARED: Shared<PyKmip> = Shared::new();

pub(crate) fn shared() -> Result<Arc<PyKmip>, String> {
    SHARED.get(PyKmip::start)
}

impl PyKmip {
    pub(crate) fn start() -> Result<Self, String> {
        let dir = TempDir::new().map_err(|e| e.to_string())?;
        let certificates = Certificates::make(dir.path())?;
        let process = Process::start(
            "PyKMIP",
            |port, dir| {
                let path = |name: &str| dir.join(name).display().to_string();
                let config = format!(
                    "[server]\nhostname=127.0.0.1\nport={port}\ncertificate_path={}\nkey_path={}\n\
                     ca_path={}\nauth_suite=TLS1.2\nenable_tls_client_auth=True\npolicy_path={}\n\
                     database_path={}\nlogging_level=INFO\n",
                    certificates.path("server.pem"),
                    certificates.path("server.key"),
                    certificates.path("ca.pem"),
                    path("policy"),
                    path("database"),
                );
                std::fs::create_dir(dir.join("policy")).expect("a directory");
                std::fs::write(dir.join("server.conf"), config).expect("a file");
                let mut command = python_program("pykmip-server");
                command.args(["-f", &path("server.conf"), "-l", &path("server.log")]);
                command.current_dir(dir);
                command
            },
            |port, _| super::accepts(port),
        )?;
        let admin = Admin::start(
            script("kmip_admin.py")
                .arg(process.port.to_string())
                .args(["ca.pem", "client.pem", "client.key"].map(|name| certificates.path(name))),
        )?;
        Ok(Self { process, certificates, admin, _dir: dir })
    }

    pub(crate) fn call(&self, call: &str, with: &Value) -> Value {
        self.admin.call(&json!({"call": call, "with": with}))
    }

    /// A new key that is not active yet; answers its identifier.
    pub(crate) fn create(&self, usages: &[&str]) -> String {
        self.call("create", &json!({"usages": usages})).as_str().expect("an id").to_owned()
    }

    /// A new usable key.
    pub(crate) fn new_key(&self) -> String {
        let uid = self.create(&["encrypt", "decrypt"]);
        self.call("activate", &json!({"uid": uid}));
        uid
    }

    /// The URI of a key for the client of this certificate, under this CA.
    pub(crate) fn uri(&self, uid: &str, client: &str, ca: &str) -> String {
        let path = |name: &str| self.certificates.path(name);
        format!(
            "kmip://127.0.0.1:{}/{uid}?ca={}&cert={}&key={}",
            self.process.port,
            path(&format!("{ca}.pem")),
            path(&format!("{client}.pem")),
            path(&format!("{client}.key"))
        )
    }
}
