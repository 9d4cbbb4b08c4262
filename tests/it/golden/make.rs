//! Writes a new directory of `tests/golden`. Its README says when.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use atrest::backup::{Chain, DirectoryTarget};
use atrest::keyring::Options;
use atrest::kms::{EnvKey, Kms, Passphrase};
use atrest::{DataKeyId, FileKind, FileSpec, KeyspaceId, Store, Suite};
use atrest_testkit::ManualClock;
use serde_json::{Map, Value, json};

use super::describe::{describe_file, describe_store, sha256};
use super::{VARIABLE, again_with_variable, bytes_below, go_on, root, write_key};
use crate::support::{key_file, options};

const HOUR: Duration = Duration::from_secs(3600);
/// The shortest chunk.
const CHUNK: usize = 4096;
const PASSPHRASE: &str = "correct horse battery staple";
const VARIABLE_KEY: &str = "5bd1e7c04ffb9c2e6a0f0e1d2c3b4a59687786a5b4c3d2e1f00f1e2d3c4b5a69";
/// A setting of a version that is not there yet.
const UNKNOWN_SETTING: (&str, &str) = ("60000", "from a newer version");

/// The version of the keyring's format, from the keyring.
pub fn keyring_version(dir: &Path) -> u16 {
    let bytes = std::fs::read(dir.join("KEYRING")).unwrap();
    u16::from_le_bytes(bytes[8..10].try_into().unwrap())
}

#[test]
#[ignore = "writes into the source tree"]
fn new_directory() {
    if again_with_variable("golden::make::new_directory", VARIABLE_KEY) {
        return;
    }
    // Its path is in what is written.
    let dir = std::env::temp_dir().join("atrest-golden");
    let _ = std::fs::remove_dir_all(&dir);
    for name in ["store", "elsewhere", "backup"] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
    }
    let mut maker = Maker::new(dir.clone());
    maker.backups();
    maker.keys();
    maker.files();
    maker.events();
    let says = maker.finish();
    let says = serde_json::to_string_pretty(&says).unwrap();
    std::fs::write(dir.join("golden.json"), says + "\n").unwrap();

    let to = root().join(format!("v{}", keyring_version(&dir.join("store"))));
    if to.exists() {
        let replace = std::env::var("ATREST_GOLDEN").is_ok_and(|value| value == "replace");
        assert!(replace, "{to:?} is there, and is kept unless ATREST_GOLDEN=replace");
        std::fs::remove_dir_all(&to).unwrap();
    }
    let kept = ["backup", "elsewhere", "store", "golden.json"];
    for (name, bytes) in bytes_below(&dir) {
        let is_kept = kept.iter().any(|part| name.starts_with(part));
        if is_kept && !name.ends_with("KEYRING.lock") {
            std::fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
            std::fs::write(to.join(name), bytes).unwrap();
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

struct Maker {
    dir: PathBuf,
    clock: Arc<ManualClock>,
    store: Option<Store>,
    says: Value,
    files: Map<String, Value>,
}

impl Maker {
    /// A store whose settings have one that this version does not know.
    fn new(dir: PathBuf) -> Self {
        let clock = ManualClock::new();
        let key_files = json!({
            "default.key": "11".repeat(32) + &"a5".repeat(32),
            "region.key": "22".repeat(32) + &"da".repeat(16),
        });
        for (name, key) in key_files.as_object().unwrap() {
            write_key(&dir.join(name), &super::unhex(super::text(key)));
        }
        let mut options = options(&clock).allowing_plaintext();
        options.settings.rotation_bytes = Some(1 << 40);
        let default = dir.join("default.key");
        let data = dir.join("store");
        Store::create(&data, key_file(&default), options.clone()).unwrap().close().unwrap();
        let mut tag = Command::new("python3");
        tag.arg(root().join("add_tag.py")).arg(&data).arg(&default);
        tag.args([UNKNOWN_SETTING.0, UNKNOWN_SETTING.1]);
        assert!(tag.status().unwrap().success());
        let value: String = UNKNOWN_SETTING.1.bytes().map(|byte| format!("{byte:02x}")).collect();
        let says = json!({
            "key_files": key_files,
            "passphrase": PASSPHRASE,
            "variable": VARIABLE_KEY,
            "unknown_setting": { UNKNOWN_SETTING.0: value },
        });
        let store = Store::open(&data, key_file(&default), options).unwrap();
        Self { dir, clock, store: Some(store), says, files: Map::new() }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn write(&mut self, name: &str, spec: impl Into<FileSpec>, appends: &[&[u8]]) {
        let (path, spec) = (self.dir.join(name), spec.into());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut writer = self.store().files().create_new(path, spec).unwrap();
        for append in appends {
            writer.append(append).unwrap();
        }
        writer.finish().unwrap();
        let plain = appends.concat();
        let mut says = json!({ "len": plain.len(), "sha256": sha256(&plain) });
        says["suite"] = json!(spec.suite.unwrap_or(Suite::Aes256Ctr));
        says["kind"] = json!(spec.kind.number());
        says["file_id"] = json!(spec.file_id.to_string());
        if spec.suite == Some(Suite::Aes256GcmLog) {
            says["appends"] = json!(appends.len());
            says["torn"] = Value::Null;
        }
        self.files.insert(name.into(), says);
    }

    fn raw(&mut self, name: &str, bytes: &[u8]) {
        std::fs::write(self.dir.join(name), bytes).unwrap();
        self.files.insert(name.into(), json!({ "len": bytes.len(), "sha256": sha256(bytes) }));
    }

    fn remove(&mut self, name: &str) {
        self.store().files().remove(self.dir.join(name)).unwrap();
        self.files.remove(name).unwrap();
    }

    /// A full backup of a file of every suite, and two incremental ones.
    fn backups(&mut self) {
        let kms = key_file(&self.dir.join("default.key"));
        let target = DirectoryTarget::new(self.dir.join("backup"));
        let chain = Chain::open_or_create(target, kms).unwrap();
        let mut backup_files = Vec::new();
        self.write("store/first.sst", FileKind::Table, &[&pattern(3000)]);
        let chunks = FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks);
        self.write("store/second.sst", chunks.chunk_len(4096).file_id(2_u64), &[&pattern(5000)]);
        let log = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
        self.write("store/wal/1.log", log, &[b"put a=1", b"put b=2", b"delete a"]);
        self.raw("store/from-before.txt", b"from before the store was encrypted");
        self.raw("store/LOCK", b"");
        self.back_up(&chain, &mut backup_files);
        self.rotate();
        self.write("store/gone.sst", FileKind::Table, &[b"removed, and in the second backup"]);
        self.back_up(&chain, &mut backup_files);
        self.remove("store/gone.sst");
        self.rotate();
        self.write("store/wal/2.log", log, &[b"put c=3"]);
        self.back_up(&chain, &mut backup_files);
        self.says["backups"] = json!(chain.list().unwrap());
        self.says["backup_files"] = json!(backup_files);
    }

    fn back_up(&self, chain: &Chain, says: &mut Vec<Value>) {
        self.clock.advance(HOUR);
        let data = self.dir.join("store");
        self.store().backups().add(chain, data, &go_on).unwrap();
        let name = |name: &str| name.strip_prefix("store/").unwrap().to_owned();
        let files = self.files.iter().map(|(path, file)| (name(path), file.clone()));
        says.push(Value::Object(files.collect()));
    }

    fn rotate(&self) -> DataKeyId {
        self.clock.advance(24 * HOUR);
        self.store().keys().rotate().unwrap()
    }

    fn retire(&self) {
        self.store().renewal().retire(None, HOUR, &|_| {}).unwrap();
        self.clock.advance(2 * HOUR);
    }

    /// Slots of every kind, keys in every state, a keyspace that is and one that was.
    fn keys(&mut self) {
        let kms: [(&str, Arc<dyn Kms>); 3] = [
            ("region", key_file(&self.dir.join("region.key"))),
            ("passphrase", Arc::new(Passphrase::new(PASSPHRASE.into()).unwrap())),
            ("variable", Arc::new(EnvKey::new(VARIABLE).unwrap())),
        ];
        for (name, kms) in kms {
            self.store().slots().add(name, kms).unwrap();
        }
        // The key of the file that was removed: destroyed.
        self.retire();
        self.retire();
        let tenants: Vec<KeyspaceId> = ["tenant-a", "tenant-b"]
            .map(|name| self.store().keyspaces().create(name).unwrap())
            .into();
        let table = FileSpec::new(FileKind::Table);
        self.write("store/tenant-a.sst", table.keyspace(tenants[0]), &[b"a tenant's"]);
        self.store().keyspaces().rotate(tenants[0]).unwrap();
        self.write("store/tenant-b.sst", table.keyspace(tenants[1]), &[b"a former tenant's"]);
        self.store().keyspaces().danger_shred("tenant-b").unwrap();
        let refused = describe_file(self.store().files(), &self.dir.join("store/tenant-b.sst"));
        assert_eq!(refused["refused"], "KeyDestroyed");
        self.files.insert("store/tenant-b.sst".into(), refused);

        let held = self.rotate();
        self.store().holds().register("tape 7", &[held]).unwrap();
        self.rotate();
        self.rotate();
        self.retire();
        // Registers the directory.
        let blob = FileSpec::new(FileKind::Blob).suite(Suite::Aes256GcmChunks).file_id(7_u64);
        self.write("elsewhere/moved.blob", blob, &[b"in a directory of its own"]);
    }

    /// Every suite at the lengths that matter, every kind.
    fn files(&mut self) {
        let mut kinds =
            [FileKind::Table, FileKind::Log, FileKind::Manifest, FileKind::Blob, FileKind::Other]
                .into_iter()
                .cycle();
        let mut id = 100_u64;
        let mut next = |suite: Suite| {
            id += 1;
            FileSpec::new(kinds.next().unwrap()).suite(suite).file_id(id)
        };
        for len in [0, 1, 16, 17, 5000] {
            let name = format!("store/ctr/{len}");
            self.write(&name, next(Suite::Aes256Ctr), &[&pattern(len)]);
        }
        for len in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1] {
            let spec = next(Suite::Aes256GcmChunks).chunk_len(4096);
            self.write(&format!("store/chunks/{len}"), spec, &[&pattern(len)]);
        }
        for (name, len) in [("16", 16 << 10), ("64", 64 << 10_u32)] {
            let spec = next(Suite::Aes256GcmChunks).chunk_len(len);
            let name = format!("store/chunks/of-{name}-KiB");
            self.write(&name, spec, &[&pattern(len as usize + 5)]);
        }
        self.write("store/log/none", next(Suite::Aes256GcmLog), &[]);
        self.write("store/log/one", next(Suite::Aes256GcmLog), &[b"x"]);
        let appends: Vec<_> = (1..=100).map(pattern).collect();
        let appends: Vec<_> = appends.iter().map(Vec::as_slice).collect();
        self.write("store/log/many", next(Suite::Aes256GcmLog), &appends);
        self.torn("store/log/torn", next(Suite::Aes256GcmLog), "cut", |bytes| {
            bytes.truncate(bytes.len() - 3);
        });
        self.torn("store/log/torn-zeros", next(Suite::Aes256GcmLog), "zeros", |bytes| {
            let end = bytes.len();
            bytes[end - 25..].fill(0);
        });
    }

    /// A log of which only the first append is good.
    fn torn(&mut self, name: &str, spec: FileSpec, reason: &str, tear: impl Fn(&mut Vec<u8>)) {
        self.write(name, spec, &[b"whole", b"torn."]);
        let path = self.dir.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        tear(&mut bytes);
        std::fs::write(path, bytes).unwrap();
        let says = &mut self.files[name];
        (says["len"], says["sha256"]) = (json!(5), json!(sha256(b"whole")));
        (says["appends"], says["torn"]) = (json!(1), json!(reason));
    }

    /// So many that the oldest leave the keyring.
    fn events(&self) {
        let store = self.store();
        while store.keyring().status().history.len() == store.audit().events().unwrap().len() {
            self.clock.advance(HOUR / 60);
            store.slots().rewrap(Some("default")).unwrap();
        }
        self.rotate();
        self.rotate();
    }

    fn finish(mut self) -> Value {
        self.store.take().unwrap().close().unwrap();
        let kms = key_file(&self.dir.join("default.key"));
        let data = self.dir.join("store");
        let store = Store::open_read_only(&data, kms, Options::default()).unwrap();
        let mut report = json!(atrest::verify::verify(store.files(), &data, &go_on).unwrap());
        // Paths, which are elsewhere then.
        report.as_object_mut().unwrap().retain(|_, value| value.is_number());
        self.says["verify"] = report;
        self.says["store"] = describe_store(&store);
        self.says["files"] = Value::Object(self.files);
        self.says
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 131 + 7) as u8 ^ (i >> 8) as u8).collect()
}
