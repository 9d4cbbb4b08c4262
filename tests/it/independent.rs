//! Two implementations of `docs/FORMAT.md` that share no code: the library, and the scripts
//! `tests/reader.py`, `tests/writer.py` and `tests/mutations.py`, which know the text alone. What
//! each writes the other reads, and what each must refuse both refuse, by the same name.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use atrest::kms::{EnvKey, Kms, Passphrase, generate_key_file};
use atrest::{
    ErrorKind, Expect, FileKind, FileSpec, Integrity, IntegrityPolicy, PlaintextPolicy, Settings,
    Store, Suite, kms,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::golden::describe::sha256;
use crate::support::{TestStore, key_file, left_out, manual};

mod backups;
mod key_files;

/// May hold the key of a random store's slot.
const VARIABLE: &str = "ATREST_INDEPENDENT_CMEK";

/// A script beside this binary's sources, which succeeds.
fn python(script: &str, arguments: &[&dyn AsRef<OsStr>]) -> Output {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script));
    command.args(arguments.iter().map(|argument| argument.as_ref()));
    command.output().unwrap()
}

/// Whether the scripts can run. Where everything has to be there, their absence fails.
pub fn available() -> bool {
    let import = Command::new("python3").args(["-c", "import cryptography"]).output();
    let available = import.is_ok_and(|output| output.status.success());
    let required = std::env::var_os("ATREST_REQUIRE_SERVERS").is_some_and(|value| value == "1");
    assert!(available || !required, "python3 with the package cryptography is missing");
    if !available {
        left_out("python3 with the package cryptography is missing");
    }
    available
}

fn read(dir: &Path, key: &Path, files: &[PathBuf]) -> Result<Vec<u8>, String> {
    let mut arguments: Vec<&dyn AsRef<OsStr>> = vec![&dir, &"--key-file", &key];
    arguments.extend(files.iter().map(|file| file as &dyn AsRef<OsStr>));
    let output = python("reader.py", &arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(output.stdout) } else { Err(said) }
}

/// What the reader says of a keyring.
pub fn list(dir: &Path, key: &Path) -> Value {
    serde_json::from_slice(&read(dir, key, &[]).unwrap()).unwrap()
}

/// The plaintext of files one after the other, or why one is refused.
pub fn decrypt(dir: &Path, key: &Path, files: &[PathBuf]) -> Result<Vec<u8>, String> {
    assert!(!files.is_empty());
    read(dir, key, files)
}

/// Images of keyrings and files, and what the text says of each.
fn cases_of(script: &str, arguments: &[&dyn AsRef<OsStr>], out: &Path) -> Value {
    let mut all: Vec<&dyn AsRef<OsStr>> = vec![&out];
    all.extend(arguments);
    let output = python(script, &all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(out.join("cases.json")).unwrap()).unwrap()
}

/// The text's name of an error.
fn name(kind: ErrorKind) -> String {
    let name = match kind {
        ErrorKind::NotEncrypted => "not encrypted",
        ErrorKind::ForeignFile => "foreign file",
        ErrorKind::EmptyFile => "empty file",
        ErrorKind::TruncatedHeader => "truncated header",
        ErrorKind::CorruptHeader => "corrupt header",
        ErrorKind::UnsupportedVersion => "unsupported version",
        ErrorKind::UnsupportedFeature => "unsupported feature",
        ErrorKind::UnknownKey => "unknown key",
        ErrorKind::KeyDestroyed => "key destroyed",
        ErrorKind::WrongKey => "wrong key",
        ErrorKind::TemporaryEnded => "temporary ended",
        ErrorKind::IdentityMismatch => "identity mismatch",
        ErrorKind::SuiteTooWeak => "suite too weak",
        ErrorKind::Authentication => "authentication failed",
        ErrorKind::FileTooLarge => "file too large",
        ErrorKind::KeyringTruncated => "keyring truncated",
        ErrorKind::KeyringCorrupt => "keyring corrupt",
        ErrorKind::WrongStoreKey => "wrong store key",
        ErrorKind::BrokenBackup => "broken backup",
        ErrorKind::CmekRevoked => "CMEK revoked",
        ErrorKind::Kms(kms::KmsErrorKind::Integrity) => "key service: integrity",
        ErrorKind::Kms(kms::KmsErrorKind::Misconfigured) => "key service: misconfigured",
        ErrorKind::Kms(kms::KmsErrorKind::NotFound) => "key service: not found",
        other => return format!("{other:?}"),
    };
    name.into()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list_of(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn customers(cases: &Value) -> Vec<Arc<dyn Kms>> {
    let customer = |customer: &Value| -> Arc<dyn Kms> {
        match text(&customer["uri"]).split_once(':').unwrap() {
            ("file", path) => key_file(Path::new(path.trim_start_matches("//"))),
            ("env", name) => Arc::new(EnvKey::new(name).unwrap()),
            _ => Arc::new(Passphrase::new(text(&customer["passphrase"]).into()).unwrap()),
        }
    };
    list_of(&cases["customers"]).iter().map(customer).collect()
}

/// A keyring as `tests/mutations.py` shows it.
fn shown(store: &Store) -> Value {
    let status = store.keyring().status();
    let settings = &status.settings;
    let required = |kind: &FileKind| settings.integrity.of(*kind) == Integrity::Authenticated;
    let authenticated = FileKind::ALL.iter().filter(|kind| required(kind));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // Beside the store's own, which is wherever the image was put.
    let mut directories = store.directories().list();
    directories.retain(|dir| !dir.join("KEYRING").exists());
    directories.sort_by_key(|dir| hex(dir.as_os_str().as_encoded_bytes()));
    json!({
        "store_id": status.info.store_id,
        "store_key_id": status.info.store_key_id,
        "generation": status.info.generation,
        "written_ns": status.info.written_ns,
        "slots": status.info.slots,
        "settings": {
            "rotation_period_ns": u64::try_from(settings.rotation_period.as_nanos()).ok(),
            "rotation_bytes": settings.rotation_bytes,
            "plaintext": settings.plaintext,
            "authenticated": authenticated.map(|kind| kind.number()).collect::<Vec<_>>(),
        },
        "keyspaces": store.keyspaces().list().iter()
            .map(|keyspace| json!([keyspace.name, keyspace.active])).collect::<Vec<_>>(),
        "data_keys": status.data_keys,
        "holds": store.holds().list(),
        "directories": directories.iter()
            .map(|dir| hex(dir.as_os_str().as_encoded_bytes())).collect::<Vec<_>>(),
    })
}

fn open(dir: &Path, keys: &[Arc<dyn Kms>]) -> Result<Store, atrest::Error> {
    Store::open_read_only(dir, keys.to_vec(), manual())
}

fn read_file(store: &Store, path: &Path, expect: &Value) -> Result<Value, atrest::Error> {
    let kind =
        |number: u64| FileKind::ALL.into_iter().find(|kind| u64::from(kind.number()) == number);
    let asked = Expect {
        kind: expect["kind"].as_u64().and_then(kind),
        file_id: expect["id"].as_str().map(|id| id.parse().unwrap()),
    };
    let reader = store.files().open_expecting(path, &asked)?;
    let mut plain = vec![0; reader.len()? as usize];
    reader.read_exact_at(&mut plain, 0)?;
    let number = |suite: Suite| match suite {
        Suite::Aes256Ctr => 1,
        Suite::Aes256GcmChunks => 2,
        _ => 3,
    };
    let suite = reader.suite().map(number);
    let mut said = json!({ "len": plain.len(), "sha256": sha256(&plain), "suite": suite });
    if suite == Some(3) {
        said["frames"] = json!(reader.frame_count()?);
        said["torn"] = json!(reader.torn().map(|torn| torn.reason));
    }
    Ok(said)
}

/// Where two documents differ, shortly.
fn difference(at: &str, found: &Value, expected: &Value) -> Option<String> {
    let deeper = |name: &str, found, expected| difference(&format!("{at}.{name}"), found, expected);
    match (found, expected) {
        _ if found == expected => None,
        (Value::Object(one), Value::Object(other)) if one.keys().eq(other.keys()) => {
            one.iter().find_map(|(name, found)| deeper(name, found, &other[name]))
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let mut pairs = one.iter().zip(other).enumerate();
            pairs.find_map(|(index, (found, expected))| deeper(&index.to_string(), found, expected))
        }
        _ => {
            let short = |value: &Value| value.to_string().chars().take(300).collect::<String>();
            Some(format!("{at}: found {}, expected {}", short(found), short(expected)))
        }
    }
}

/// Holds the library to what the text says of each image. Returns how many there were.
fn check(cases: &Value) -> usize {
    let keys = customers(cases);
    let dir = tempfile::tempdir().unwrap();
    let mut differ = Vec::new();
    let mut compare = |what: &Value, found: Value, expected: &Value| {
        differ.extend(difference(text(what), &found, expected));
    };
    for case in list_of(&cases["keyrings"]) {
        std::fs::copy(text(&case["image"]), dir.path().join("KEYRING")).unwrap();
        let request = dir.path().join("KEYRING.revoke");
        if case["revoke"] == true {
            std::fs::write(&request, b"").unwrap();
        }
        let found = match open(dir.path(), &keys) {
            Ok(store) => json!({ "opens": shown(&store) }),
            Err(error) => json!({ "refused": name(error.kind()) }),
        };
        drop(std::fs::remove_file(&request));
        compare(&case["what"], found, &case["says"]);
    }
    let mut count = list_of(&cases["keyrings"]).len();
    if let Some(data) = cases["data"].as_str() {
        let store = open(Path::new(data), &keys).unwrap();
        compare(&json!("events"), json!(store.audit().events().unwrap()), &cases["events"]);
        for case in list_of(&cases["files"]) {
            let found = read_file(&store, Path::new(text(&case["image"])), &case["expect"]);
            let found = found.unwrap_or_else(|error| json!({ "refused": name(error.kind()) }));
            compare(&case["what"], found, &case["says"]);
        }
        count += list_of(&cases["files"]).len();
    }
    assert!(differ.is_empty(), "{} of {count} differ:\n{}", differ.len(), differ.join("\n"));
    count
}

/// Runs a test of this binary again in a process that has the variable. False in there.
fn again_with_variable(test: &str) -> bool {
    if std::env::var_os(VARIABLE).is_some() {
        return false;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let hex = "0123456789abcdefABCDEF9876543210".repeat(2);
    child.args(["--exact", test, "--nocapture"]).env(VARIABLE, format!(" {hex}\n"));
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
    true
}

/// Seeds of random stores in every test run; `ATREST_INDEPENDENT_SEEDS=100..200` for others.
fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("ATREST_INDEPENDENT_SEEDS") else { return 1..4 };
    let (first, end) = range.split_once("..").unwrap();
    first.parse().unwrap()..end.parse().unwrap()
}

#[test]
fn what_the_text_alone_writes_is_read_and_refused_alike() {
    if !available()
        || again_with_variable("independent::what_the_text_alone_writes_is_read_and_refused_alike")
    {
        return;
    }
    let mut count = 0;
    for seed in seeds() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let cases = cases_of(
            "mutations.py",
            &[&"--seed", &seed.to_string(), &"--variable", &VARIABLE],
            &out,
        );
        count += std::panic::catch_unwind(|| check(&cases))
            .unwrap_or_else(|_| panic!("see above: seed {seed}"));
        goes_on(&out, &cases, seed);
    }
    eprintln!("{count} images of stores that the text alone wrote");
}

/// The library goes on with a store that it did not write, and loses nothing of it.
fn goes_on(out: &Path, cases: &Value, seed: u64) {
    let Some(data) = cases["data"].as_str() else { return };
    let data = Path::new(data);
    let key = out.join("cmek.key");
    if open(data, &[key_file(&key)]).is_err() {
        return;
    }
    let before = out.join("KEYRING.before");
    std::fs::copy(data.join("KEYRING"), &before).unwrap();
    let store = Store::open(data, customers(cases), manual()).unwrap();
    store.keys().rotate().unwrap();
    store.keyspaces().create("of the library").unwrap();
    let suites = [(Suite::Aes256GcmChunks, FileKind::Table), (Suite::Aes256GcmLog, FileKind::Log)];
    for (suite, kind) in suites {
        let path = data.join(format!("library-{}.sst", kind.number()));
        let mut writer = store.files().create_new(path, FileSpec::new(kind).suite(suite)).unwrap();
        for len in [1, 5000, 4096] {
            writer.append(&vec![seed as u8; len]).unwrap();
        }
        writer.finish().unwrap();
    }
    store.close().unwrap();
    let later = out.join("later");
    let said = cases_of(
        "mutations.py",
        &[
            &"--seed",
            &seed.to_string(),
            &"--of",
            &data,
            &"--key-file",
            &key,
            &"--before",
            &before,
            &"--count",
            &"8",
        ],
        &later,
    );
    check(&said);
}

#[derive(Clone, Debug)]
enum Step {
    Write { spec: u8, lens: Vec<usize> },
    RotateDataKey,
    RotateStoreKey,
    AddSlot,
    RemoveSlot,
    ReplaceKey,
    Rewrap,
    CreateKeyspace,
    Shred,
    Hold,
    Configure(u8),
    Register,
    Revoke,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![Just(1_usize), Just(4096), Just(65_536), 1..100_000_usize];
    prop_oneof![
        8 => (any::<u8>(), prop::collection::vec(len, 0..5))
            .prop_map(|(spec, lens)| Step::Write { spec, lens }),
        2 => Just(Step::RotateDataKey),
        1 => Just(Step::RotateStoreKey),
        1 => Just(Step::AddSlot),
        1 => Just(Step::RemoveSlot),
        1 => Just(Step::ReplaceKey),
        1 => Just(Step::Rewrap),
        2 => Just(Step::CreateKeyspace),
        1 => Just(Step::Shred),
        1 => Just(Step::Hold),
        2 => any::<u8>().prop_map(Step::Configure),
        1 => Just(Step::Register),
        1 => Just(Step::Revoke),
        1 => Just(Step::Reopen),
    ]
}

struct Random {
    at: TestStore,
    store: Option<Store>,
    /// Key files: that of the slot `default` first.
    keys: Vec<PathBuf>,
    made: usize,
}

impl Random {
    fn new() -> Self {
        let at = TestStore::new();
        let store = Some(at.create(manual()));
        let keys = vec![at.dir.path().join("cmek.key")];
        Self { at, store, keys, made: 0 }
    }

    /// With a file of each suite.
    fn with_files() -> Self {
        let mut random = Self::new();
        for suite in Suite::ALL {
            random.write(FileSpec::new(FileKind::Table).suite(suite), &[10_000, 1, 4096]);
        }
        random
    }

    fn next(&mut self) -> usize {
        self.made += 1;
        self.made
    }

    fn new_key(&mut self) -> PathBuf {
        let name = format!("{}.key", self.next());
        let path = self.at.dir.path().join(name);
        generate_key_file(&path).unwrap();
        path
    }

    fn write(&mut self, spec: FileSpec, lens: &[usize]) {
        let number = self.next();
        let path = self.at.data().join(format!("{number}.sst"));
        let files = self.store.as_ref().unwrap().files();
        let mut writer = files.create_new(path, spec.file_id(number as u64)).unwrap();
        for len in lens {
            let piece: Vec<u8> = (0..*len).map(|at| (at * 131 + number) as u8).collect();
            writer.append(&piece).unwrap();
        }
        writer.finish().unwrap();
    }

    fn run(&mut self, step: &Step) {
        let store = self.store.clone().unwrap();
        let spaces = store.keyspaces().list();
        let live: Vec<_> = spaces.iter().filter(|space| space.active.is_some()).collect();
        match step {
            Step::Write { spec, lens } => {
                let number = usize::from(*spec);
                let kind = FileKind::ALL[number % 5];
                let file = FileSpec::new(kind).keyspace(live[number % live.len()].id);
                let weak = store.keyring().status().settings.integrity.of(kind);
                self.write(
                    match spec % 3 {
                        0 => file.suite(Suite::Aes256GcmChunks).chunk_len(4096 << (spec % 5)),
                        1 => file.suite(Suite::Aes256GcmLog),
                        _ => file.integrity(weak),
                    },
                    lens,
                );
            }
            Step::RotateDataKey => drop(store.keys().rotate().unwrap()),
            Step::RotateStoreKey => drop(store.keys().rotate_store_key().unwrap()),
            Step::AddSlot => {
                let key = self.new_key();
                store.slots().add(&format!("slot {}", self.made), key_file(&key)).unwrap();
                self.keys.push(key);
            }
            Step::RemoveSlot => {
                let slots = store.slots().list();
                if slots.len() > 1 {
                    store.slots().remove(&slots.last().unwrap().name).unwrap();
                }
            }
            Step::ReplaceKey => {
                let key = self.new_key();
                store.slots().replace("default", key_file(&key)).unwrap();
                self.keys[0] = key;
            }
            Step::Rewrap => drop(store.slots().rewrap(Some("default")).unwrap()),
            Step::CreateKeyspace => {
                store.keyspaces().create(&format!("tenant {} é", self.next())).unwrap();
            }
            Step::Shred if live.len() > 1 => store.keyspaces().danger_shred(&live[1].name).unwrap(),
            Step::Shred => {}
            Step::Hold => {
                let name = format!("tape {}", self.next());
                store.holds().register(&name, &[live[0].active.unwrap()]).unwrap();
            }
            Step::Configure(number) => store.keys().configure(&settings(*number)).unwrap(),
            Step::Register => {
                let name = format!("disk {}", self.next());
                let dir = self.at.dir.path().join(name);
                std::fs::create_dir(&dir).unwrap();
                store.directories().register(dir).unwrap();
            }
            Step::Revoke => {
                store.access().revoke().unwrap();
                store.access().restore().unwrap();
            }
            Step::Reopen => {
                self.store = None;
                store.close().unwrap();
                let keys: Vec<_> = self.keys.iter().map(|key| key_file(key)).collect();
                self.store = Some(Store::open(self.at.data(), keys, manual()).unwrap());
            }
        }
    }
}

fn settings(number: u8) -> Settings {
    let mut settings = Settings::default();
    settings.rotation_period = Duration::from_secs(u64::from(number) + 1);
    settings.rotation_bytes = (number.is_multiple_of(2)).then_some(1 << (number % 64));
    if number.is_multiple_of(3) {
        settings.plaintext = PlaintextPolicy::Allow;
    }
    if number.is_multiple_of(5) {
        let policy = IntegrityPolicy::default();
        settings.integrity = policy.with(FileKind::Other, Integrity::Authenticated);
    }
    settings
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn what_the_library_writes_the_text_alone_reads_and_refuses(
        steps in prop::collection::vec(step(), 5..30), seed in 0..1000_u64,
    ) {
        if available() {
            let mut random = Random::with_files();
            steps.iter().for_each(|step| random.run(step));
            random.store.take().unwrap().close().unwrap();
            let (data, out) = (random.at.data(), random.at.dir.path().join("out"));
            let arguments: [&dyn AsRef<OsStr>; 6] =
                [&"--seed", &seed.to_string(), &"--of", &data, &"--key-file", &random.keys[0]];
            let cases = cases_of("mutations.py", &arguments, &out);
            prop_assert!(cases["keyrings"][0]["says"]["opens"].is_object(), "{}", cases["keyrings"][0]);
            check(&cases);
        }
    }
}
