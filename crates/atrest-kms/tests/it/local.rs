//! The core's local providers through the same suite.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use atrest::kms::{KeyUri, Kms, KmsErrorKind, Passphrase, generate_key_file};
use tempfile::TempDir;

use crate::conformance::{Denial, Service, check, check_denial};

struct Files {
    dir: TempDir,
    next: AtomicU32,
}

impl Service for Files {
    fn new_key(&self) -> KeyUri {
        let name = format!("{}.key", self.next.fetch_add(1, Ordering::SeqCst));
        let path = self.dir.path().join(name);
        generate_key_file(&path).expect("a key file");
        format!("file://{}", path.display()).parse().expect("a URI")
    }

    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms> {
        atrest_kms::from_uri(uri.as_str()).expect("a provider")
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn key_files_conform() {
    let files = Files { dir: TempDir::new().unwrap(), next: AtomicU32::new(0) };
    check(&files);
    let kms = files.open(&files.new_key());
    let path = kms.key_uri().rest().trim_start_matches("//").to_owned();
    let moved = format!("{path}.moved");
    check_denial(
        &*kms,
        &[],
        &Denial {
            name: "the file is moved away",
            deny: &|| std::fs::rename(&path, &moved).unwrap(),
            expected: KmsErrorKind::NotFound,
            restore: Some(&|| std::fs::rename(&moved, &path).unwrap()),
        },
    );
}

struct Variables;

/// Set by [`environment_keys_conform`] for its child.
const VARIABLES: [&str; 2] = ["ATREST_TEST_CMEK_1", "ATREST_TEST_CMEK_2"];
static NEXT_VARIABLE: AtomicU32 = AtomicU32::new(0);

impl Service for Variables {
    fn new_key(&self) -> KeyUri {
        let next = NEXT_VARIABLE.fetch_add(1, Ordering::SeqCst) as usize;
        format!("env:{}", VARIABLES[next % VARIABLES.len()]).parse().expect("a URI")
    }

    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms> {
        atrest_kms::from_uri(uri.as_str()).expect("a provider")
    }

    fn secrets(&self) -> Vec<String> {
        VARIABLES.iter().filter_map(|name| std::env::var(name).ok()).collect()
    }
}

#[test]
fn environment_keys_conform() {
    if std::env::var_os(VARIABLES[0]).is_some() {
        check(&Variables);
        return;
    }
    // A process's own variables cannot be set safely among threads: a child has them.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "local::environment_keys_conform", "--nocapture"])
        .env(VARIABLES[0], "11".repeat(32))
        .env(VARIABLES[1], "22".repeat(32))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

struct Words(AtomicU32);

impl Service for Words {
    fn new_key(&self) -> KeyUri {
        "passphrase:".parse().expect("a URI")
    }

    fn open(&self, _uri: &KeyUri) -> Arc<dyn Kms> {
        // The same words for the first two, others for "another key".
        let words = match self.0.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => "correct horse battery staple",
            _ => "another secret sentence",
        };
        Arc::new(Passphrase::new(words.to_owned()).expect("a provider"))
    }

    fn secrets(&self) -> Vec<String> {
        vec!["correct horse".into(), "another secret".into()]
    }
}

#[test]
fn passphrases_conform() {
    check(&Words(AtomicU32::new(0)));
}
