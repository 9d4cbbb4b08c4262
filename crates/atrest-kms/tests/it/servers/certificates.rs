//! A test CA and certificates for 127.0.0.1, made by `tests/servers/make_certificates.py`.

use std::path::{Path, PathBuf};

use super::script;

/// Paths of PEM files: `ca.pem`, `server.pem` and `.key`, `client.pem` and `.key`, and
/// `other-ca.pem`, which signed none of them.
#[derive(Debug)]
pub(crate) struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    pub(crate) fn make(dir: &Path) -> Result<Self, String> {
        let output = script("make_certificates.py")
            .arg(dir)
            .output()
            .map_err(|e| format!("Python cannot be started: {e}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(Self { dir: dir.to_owned() })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().expect("UTF-8").to_owned()
    }
}
