//! Stores that this version, and those before it, wrote: `tests/golden`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use atrest::backup::{Chain, DirectoryTarget, RestoreSpec};
use atrest::kms::{EnvKey, Kms, Passphrase};
use atrest::progress::WorkProgress;
use atrest::verify::verify;
use atrest::{Header, Store};
use serde_json::{Value, json};

use crate::independent;
use crate::support::{key_file, manual};

pub mod describe;
mod make;

use describe::{describe_file, describe_store};

/// Holds the key of the slot `variable`.
const VARIABLE: &str = "ATREST_GOLDEN_CMEK";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn go_on(_: WorkProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A directory of `tests/golden`, which nothing here writes to, and its keys.
struct Golden {
    dir: PathBuf,
    says: Value,
    /// The key files. Their modes matter, which a repository does not keep.
    keys: tempfile::TempDir,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

impl Golden {
    fn all() -> Vec<Self> {
        let dirs = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
        dirs.filter(|path| path.is_dir()).map(Self::new).collect()
    }

    fn new(dir: PathBuf) -> Self {
        let says = std::fs::read(dir.join("golden.json")).unwrap();
        let says: Value = serde_json::from_slice(&says).unwrap();
        let keys = tempfile::tempdir().unwrap();
        for (name, key) in says["key_files"].as_object().unwrap() {
            write_key(&keys.path().join(name), &unhex(text(key)));
        }
        Self { before: bytes_below(&dir), dir, says, keys }
    }

    fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    fn key(&self, name: &str) -> PathBuf {
        self.keys.path().join(name)
    }

    /// A key for each slot but that of the variable, which is this process's to have or not.
    fn kms(&self, slot: &str) -> Arc<dyn Kms> {
        match slot {
            "passphrase" => {
                Arc::new(Passphrase::new(text(&self.says["passphrase"]).into()).unwrap())
            }
            "variable" => Arc::new(EnvKey::new(VARIABLE).unwrap()),
            slot => key_file(&self.key(&format!("{slot}.key"))),
        }
    }

    fn open(&self, slot: &str) -> Store {
        Store::open_read_only(self.store(), self.kms(slot), manual()).unwrap()
    }

    fn chain(&self) -> Chain {
        let target = DirectoryTarget::new(self.dir.join("backup"));
        Chain::open_read_only(target, vec![self.kms("default")]).unwrap()
    }
}

impl Drop for Golden {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(bytes_below(&self.dir) == self.before, "a golden store was changed");
        }
    }
}

fn write_key(path: &Path, key: &[u8]) {
    std::fs::write(path, key).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// All files, by their paths from `dir`.
fn bytes_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn add(root: &Path, dir: &Path, to: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                add(root, &path, to);
            } else {
                let name = path.strip_prefix(root).unwrap().to_owned();
                to.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    add(dir, dir, &mut all);
    all
}

/// A newer version may say more.
fn assert_says(found: &Value, expected: &Value, at: &str) {
    match expected {
        Value::Object(fields) => {
            for (name, expected) in fields {
                assert_says(&found[name], expected, &format!("{at}.{name}"));
            }
        }
        Value::Array(items) => {
            assert_eq!(found.as_array().map(Vec::len), Some(items.len()), "{at}: {found}");
            for (index, expected) in items.iter().enumerate() {
                assert_says(&found[index], expected, &format!("{at}[{index}]"));
            }
        }
        _ => assert_eq!(found, expected, "{at}"),
    }
}

/// Runs a test of this binary again in a process that has the variable. False in there.
fn again_with_variable(test: &str, key: &str) -> bool {
    if std::env::var_os(VARIABLE).is_some() {
        return false;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--include-ignored", "--nocapture"]).env(VARIABLE, key);
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    true
}

#[test]
fn this_version_has_a_golden_store() {
    let store = crate::support::TestStore::new();
    drop(store.fs());
    let version = make::keyring_version(&store.data());
    assert!(root().join(format!("v{version}")).is_dir(), "see tests/golden/README.md");
}

#[test]
fn keys_slots_and_events_are_what_they_were() {
    for golden in Golden::all() {
        for slot in ["default", "region"] {
            let store = golden.open(slot);
            assert_says(&describe_store(&store), &golden.says["store"], "store");
        }
    }
}

#[test]
fn a_passphrase_opens_it() {
    for golden in Golden::all() {
        assert_says(&describe_store(&golden.open("passphrase")), &golden.says["store"], "store");
    }
}

#[test]
fn a_key_in_a_variable_opens_it() {
    for golden in Golden::all() {
        let key = text(&golden.says["variable"]);
        let again = again_with_variable("golden::a_key_in_a_variable_opens_it", key);
        if !again && std::env::var(VARIABLE).is_ok_and(|has| has == key) {
            let store = golden.open("variable");
            assert_says(&describe_store(&store), &golden.says["store"], "store");
        }
    }
}

#[test]
fn files_read_as_they_were_written() {
    for golden in Golden::all() {
        let store = golden.open("default");
        let files = golden.says["files"].as_object().unwrap();
        assert!(files.len() > 20);
        for (name, expected) in files {
            let found = describe_file(store.files(), &golden.dir.join(name));
            assert_says(&found, expected, name);
        }
        let report = verify(store.files(), golden.store(), &go_on).unwrap();
        assert_says(&json!(report), &golden.says["verify"], "verify");
        let refused: Vec<_> = report.problems.iter().map(|problem| &problem.path).collect();
        // The directory that the store registered where it was made is not there any more.
        let absent = PathBuf::from(text(&golden.says["store"]["directories"][0]));
        let shredded = golden.store().join("tenant-b.sst");
        assert_eq!(refused, [&absent, &shredded]);
    }
}

#[test]
fn backups_are_whole_and_restore() {
    for golden in Golden::all() {
        let chain = golden.chain();
        let check = chain.verify(&go_on).unwrap();
        assert_eq!((check.backups, check.problems.as_slice()), (3, [].as_slice()));
        assert_says(&json!(chain.list().unwrap()), &golden.says["backups"], "backups");
        for (index, files) in golden.says["backup_files"].as_array().unwrap().iter().enumerate() {
            let to = golden.keys.path().join(format!("restored{index}"));
            let mut spec = RestoreSpec::new(&to, golden.kms("default"));
            spec.number = Some(index as u64 + 1);
            let report = chain.restore(&spec, &go_on).unwrap();
            let files = files.as_object().unwrap();
            assert_eq!(report.files, files.len() as u64);
            let store = Store::open_read_only(&to, golden.kms("default"), manual()).unwrap();
            for (name, expected) in files {
                assert_says(&describe_file(store.files(), &to.join(name)), expected, name);
            }
        }
    }
}

#[test]
fn a_copy_goes_on_and_keeps_what_it_does_not_know() {
    for golden in Golden::all() {
        let copy = golden.keys.path().join("copy");
        for (name, bytes) in bytes_below(&golden.store()) {
            std::fs::create_dir_all(copy.join(&name).parent().unwrap()).unwrap();
            std::fs::write(copy.join(name), bytes).unwrap();
        }
        let store = Store::open(&copy, golden.kms("default"), manual()).unwrap();
        store.keys().rotate().unwrap();
        let mut writer = store.files().create_new(copy.join("new"), atrest::FileKind::Log).unwrap();
        writer.append(b"new").unwrap();
        writer.finish().unwrap();
        let mut settings = store.keyring().settings();
        settings.rotation_bytes = None;
        store.keys().configure(&settings).unwrap();
        store.close().unwrap();
        let store = Store::open_read_only(&copy, golden.kms("default"), manual()).unwrap();
        for (name, expected) in golden.says["files"].as_object().unwrap() {
            if let Some(name) = name.strip_prefix("store/") {
                assert_says(&describe_file(store.files(), &copy.join(name)), expected, name);
            }
        }
        let old = golden.says["store"]["data_keys"].as_array().unwrap().len();
        assert!(describe_store(&store)["data_keys"].as_array().unwrap().len() > old);
        if independent::available() {
            let listed = independent::list(&copy, &golden.key("default.key"));
            assert_says(&listed["settings"], &golden.says["unknown_setting"], "settings");
        }
    }
}

#[test]
fn the_independent_reader_reads_the_same() {
    if !independent::available() {
        return;
    }
    for golden in Golden::all() {
        let key = golden.key("default.key");
        let listed = independent::list(&golden.store(), &key);
        assert_says(&listed["settings"], &golden.says["unknown_setting"], "settings");
        for field in ["store_id", "generation"] {
            assert_eq!(listed[field], golden.says["store"][field]);
        }
        let ids = |keys: &Value| {
            keys.as_array().unwrap().iter().map(|key| key["id"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&listed["keys"]), ids(&golden.says["store"]["data_keys"]));

        let files = golden.says["files"].as_object().unwrap();
        let encrypted: Vec<_> = files.iter().filter(|(_, says)| !says["suite"].is_null()).collect();
        let paths: Vec<_> = encrypted.iter().map(|(name, _)| golden.dir.join(name)).collect();
        let mut plain = independent::decrypt(&golden.store(), &key, &paths).unwrap();
        for (name, says) in encrypted {
            let rest = plain.split_off(says["len"].as_u64().unwrap() as usize);
            assert_eq!(describe::sha256(&plain), says["sha256"], "{name}");
            plain = rest;
        }
        assert_eq!(plain, b"");
        let refused =
            independent::decrypt(&golden.store(), &key, &[golden.store().join("tenant-b.sst")]);
        assert!(refused.unwrap_err().contains("key destroyed"));

        let backup = golden.dir.join("backup");
        let is_encrypted = |path: &PathBuf| Header::parse(&std::fs::read(path).unwrap()).is_ok();
        let copies: Vec<_> =
            bytes_below(&backup).into_keys().map(|name| backup.join(name)).collect();
        let copies: Vec<_> = copies.into_iter().filter(is_encrypted).collect();
        assert!(copies.len() > 6, "{copies:?}");
        independent::decrypt(&backup, &key, &copies).unwrap();
    }
}
