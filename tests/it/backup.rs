//! Backups: what they hold, what they refuse, and what a crash leaves.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use atrest::backup::{
    BackupReport, Chain, DirectoryTarget, LackReason, RestoreReport, RestoreSpec, Snapshot,
};
use atrest::kms::{Kms, generate_key_file};
use atrest::progress::WorkProgress;
use atrest::vfs::{Attributes, DirEntry, FileStat, Links, OsVfs, ReadFile, Rename, Vfs, WriteFile};
use atrest::{
    EncryptedFs, Error, ErrorKind, FileKind, FileSpec, Keyring, PlaintextPolicy, Settings, Store,
    Suite,
};

use crate::support::{TestStore, key_file, kind, manual, store_of};

pub mod counting;
mod damage;
mod lacks;
mod moving;
mod places;
mod random;
mod resume;
mod watch;

fn go_on(_: WorkProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A store, a directory for backups, a place to restore to.
struct Bench {
    store: TestStore,
    fs: EncryptedFs,
}

/// What a file holds, as an engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    suite: Option<Suite>,
    bytes: Vec<u8>,
    /// Of a log of suite 3.
    frames: Option<u64>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let store = TestStore::new();
        std::fs::create_dir(store.dir.path().join("backup")).unwrap();
        let mut options = manual();
        options.settings = settings;
        let fs = store.create(options).files().clone();
        Self { store, fs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.dir.path().join(name)
    }

    fn write(&self, name: &str, spec: impl Into<FileSpec>, appends: &[&[u8]]) {
        let path = self.store.data().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut writer = self.fs.create_new(path, spec).unwrap();
        for append in appends {
            writer.append(append).unwrap();
        }
        writer.finish().unwrap();
    }

    fn chain(&self) -> Chain {
        Chain::open_or_create(DirectoryTarget::new(self.path("backup")), self.store.kms()).unwrap()
    }

    fn back_up(&self) -> BackupReport {
        self.try_back_up().unwrap()
    }

    fn try_back_up(&self) -> Result<BackupReport, Error> {
        let snapshot = Snapshot::take(&store_of(&self.fs), self.store.data())?;
        self.chain().back_up(&store_of(&self.fs), &snapshot, &go_on)
    }

    fn read_chain(&self) -> Result<Chain, Error> {
        Chain::open_read_only(DirectoryTarget::new(self.path("backup")), vec![self.store.kms()])
    }

    fn restore(&self, number: u64, to: &str) -> Result<RestoreReport, Error> {
        let mut spec = RestoreSpec::new(self.path(to), self.store.kms());
        spec.number = Some(number);
        self.read_chain()?.restore(&spec, &go_on)
    }

    /// All files of a store, through a handle of its own.
    fn contents(&self, dir: &str, kms: Arc<dyn Kms>) -> BTreeMap<PathBuf, Content> {
        let root = self.path(dir);
        let store = Store::open_read_only(&root, kms, manual()).unwrap();
        let mut contents = BTreeMap::new();
        read_all(store.files(), &root, &root, &mut contents);
        contents
    }

    fn assert_restored(&self, to: &str, expected: &BTreeMap<PathBuf, Content>) {
        let found = self.contents(to, self.store.kms());
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "other files"
        );
        for (path, content) in &found {
            assert!(content == &expected[path], "{path:?} differs");
        }
    }
}

fn read_all(fs: &EncryptedFs, root: &Path, dir: &Path, to: &mut BTreeMap<PathBuf, Content>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(fs, root, &path, to);
        } else if !path
            .file_name()
            .is_some_and(|n| atrest::names::is_keyring_name(n.as_encoded_bytes()))
        {
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.metadata().unwrap().len() == 0 {
                to.insert(name, Content { suite: None, bytes: Vec::new(), frames: None });
                continue;
            }
            let reader = fs.open(&path).unwrap();
            let mut bytes = vec![0; reader.len().unwrap() as usize];
            reader.read_exact_at(&mut bytes, 0).unwrap();
            let frames = (reader.suite() == Some(Suite::Aes256GcmLog))
                .then(|| reader.frame_count().unwrap());
            to.insert(name, Content { suite: reader.suite(), bytes, frames });
        }
    }
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed).collect()
}

/// One file of every sort.
fn fill(bench: &Bench) {
    let table = FileSpec::new(FileKind::Table);
    bench.write("000001.sst", table.file_id(1_u64), &[&pattern(300_000, 1)]);
    bench.write("sub/deep/000002.sst", table, &[&pattern(5, 2)]);
    bench.write("none.sst", table, &[]);
    bench.write("sealed.sst", table.suite(Suite::Aes256GcmChunks), &[&pattern(1 << 20, 3)]);
    bench.write("small.blob", table.suite(Suite::Aes256GcmChunks).chunk_len(4096), &[b"blob"]);
    let log = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
    bench.write("wal/1.log", log, &[b"one", &pattern(700_000, 4), b"three"]);
    std::fs::create_dir(bench.store.data().join("void")).unwrap();
    std::fs::write(bench.store.data().join("LOCK"), b"").unwrap();
}

#[test]
fn a_full_backup_restores_to_the_same_files_under_new_keys() {
    let bench = Bench::new();
    fill(&bench);
    let before = bench.contents("data", bench.store.kms());
    let report = bench.back_up();
    assert_eq!((report.info.number, report.info.full), (1, true));
    assert_eq!(report.info.files, before.len() as u64);
    let bytes: usize = before.values().map(|content| content.bytes.len()).sum();
    assert_eq!(report.info.bytes, bytes as u64);
    let restored = bench.restore(1, "restored").unwrap();
    assert_eq!((restored.files, restored.bytes), (report.info.files, report.info.bytes));
    bench.assert_restored("restored", &before);
    assert!(bench.path("restored/void").is_dir());
    assert_ne!(restored.store_id, bench.fs.keyring().store_id());
    // Headers name the engine's ids and kinds as before, and another key.
    let header = |dir: &str| {
        let bytes = std::fs::read(bench.path(dir).join("000001.sst")).unwrap();
        atrest::Header::parse(&bytes).unwrap()
    };
    let (old, new) = (header("data"), header("restored"));
    assert_eq!((old.file_id, old.kind), (new.file_id, new.kind));
    assert_ne!(old.data_key_id, new.data_key_id);
    assert_eq!(new.store_id, restored.store_id);
    let modified = |dir: &str| bench.path(dir).join("000001.sst").metadata().unwrap().modified();
    assert_eq!(modified("data").unwrap(), modified("restored").unwrap());
    // Nothing is left of the links, and nothing of the restore.
    let left = |dir: &str| {
        let names = std::fs::read_dir(bench.path(dir)).unwrap();
        names.filter(|name| name.as_ref().unwrap().path().is_dir()).count()
    };
    assert_eq!((left("data"), left("restored")), (3, 3));
    assert_eq!(bench.read_chain().unwrap().verify(&go_on).unwrap().problems, []);
}

#[test]
fn a_backup_opens_without_the_store_and_goes_to_another_customers_key() {
    let bench = Bench::new();
    fill(&bench);
    let before = bench.contents("data", bench.store.kms());
    bench.back_up();
    drop(bench.fs);
    std::fs::remove_dir_all(bench.store.data()).unwrap();
    generate_key_file(bench.store.dir.path().join("other.key")).unwrap();
    let other = key_file(&bench.store.dir.path().join("other.key"));
    let target = DirectoryTarget::new(bench.store.dir.path().join("backup"));
    let chain = Chain::open_read_only(target.clone(), vec![bench.store.kms()]).unwrap();
    let spec = RestoreSpec::new(bench.store.data(), other.clone());
    chain.restore(&spec, &go_on).unwrap();
    let restored = Store::open(bench.store.data(), other.clone(), manual()).unwrap();
    let fs = restored.files().clone();
    let bench = Bench { store: bench.store, fs };
    assert!(bench.contents("data", other.clone()) == before);
    // Neither key opens what is the other's.
    assert!(Keyring::open_read_only(bench.store.storage(), bench.store.kms(), manual()).is_err());
    assert!(matches!(kind(Chain::open_read_only(target, vec![other])), ErrorKind::Kms(_)));
}

#[test]
fn incremental_backups_hold_what_is_new_and_every_one_restores() {
    let bench = Bench::new();
    fill(&bench);
    let mut states = vec![bench.contents("data", bench.store.kms())];
    bench.back_up();
    // New, removed, renamed, under a rotated key.
    bench.fs.keyring().keys().rotate().unwrap();
    bench.write("000003.sst", FileKind::Table, &[&pattern(1000, 9)]);
    bench.fs.remove(bench.store.data().join("small.blob")).unwrap();
    let moved = bench.store.data().join("moved.sst");
    bench.fs.rename(bench.store.data().join("sealed.sst"), &moved).unwrap();
    bench.fs.hard_link(&moved, bench.store.data().join("twin.sst")).unwrap();
    states.push(bench.contents("data", bench.store.kms()));
    let second = bench.back_up();
    assert_eq!((second.info.number, second.info.full, second.info.copied_files), (2, false, 1));
    bench.fs.keyring().keys().rotate_store_key().unwrap();
    let third = bench.back_up();
    assert_eq!(third.info.copied_files, 0);
    states.push(states[1].clone());
    let chain = bench.read_chain().unwrap();
    let numbers: Vec<u64> = chain.list().unwrap().iter().map(|info| info.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(chain.list().unwrap()[2], third.info);
    for (number, state) in (1..).zip(&states) {
        bench.restore(number, &format!("restored{number}")).unwrap();
        bench.assert_restored(&format!("restored{number}"), state);
    }
    let check = chain.verify(&go_on).unwrap();
    assert_eq!((check.backups, check.problems.len(), check.leftovers), (3, 0, 0));
}

#[test]
fn a_log_that_is_being_written_is_copied_as_far_as_it_was() {
    let bench = Bench::new();
    for suite in [Suite::Aes256Ctr, Suite::Aes256GcmLog] {
        let name = format!("{suite:?}.log");
        let path = bench.store.data().join(&name);
        let spec = FileSpec::new(FileKind::Log).suite(suite);
        let mut writer = bench.fs.create_new(&path, spec).unwrap();
        writer.append(b"before").unwrap();
        writer.sync().unwrap();
        let snapshot = Snapshot::take(&store_of(&bench.fs), bench.store.data()).unwrap();
        writer.append(b", after").unwrap();
        writer.sync().unwrap();
        bench.fs.remove(&path).unwrap();
        let report = bench.chain().back_up(&store_of(&bench.fs), &snapshot, &go_on).unwrap();
        assert_eq!((report.info.files, report.info.bytes), (1, 6));
        let to = format!("restored{}", report.info.number);
        bench.restore(report.info.number, &to).unwrap();
        let found = bench.contents(&to, bench.store.kms());
        assert_eq!(found[Path::new(&name)].bytes, b"before");
    }
}

#[test]
fn a_file_that_is_not_finished_is_left_out_and_named() {
    let bench = Bench::new();
    let spec = FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks);
    let mut writer = bench.fs.create_new(bench.store.data().join("t.sst"), spec).unwrap();
    writer.append(&pattern(100_000, 1)).unwrap();
    writer.sync().unwrap();
    let report = bench.back_up();
    let lack = &report.info.lacks[0];
    assert_eq!((report.info.files, report.info.lacks.len()), (0, 1));
    assert_eq!((lack.path.as_path(), lack.why), (Path::new("t.sst"), LackReason::Unfinished));
    assert_eq!(bench.read_chain().unwrap().list().unwrap()[0].lacks, report.info.lacks);
    writer.finish().unwrap();
    let report = bench.back_up();
    assert_eq!((report.info.files, report.info.lacks.len()), (1, 0));
}

#[test]
fn plaintext_is_backed_up_encrypted_and_restored_as_it_was() {
    let bench = Bench::with(Settings::default());
    let note = bench.store.data().join("OPTIONS");
    std::fs::write(&note, b"level_count = seven, in plain sight").unwrap();
    assert_eq!(kind(bench.try_back_up()), ErrorKind::NotEncrypted);
    let mut settings = Settings::default();
    settings.plaintext = PlaintextPolicy::Allow;
    bench.fs.keyring().keys().configure(&settings).unwrap();
    bench.back_up();
    for entry in std::fs::read_dir(bench.path("backup/files")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(5).any(|window| window == b"plain"));
    }
    bench.restore(1, "restored").unwrap();
    assert_eq!(
        std::fs::read(bench.path("restored/OPTIONS")).unwrap(),
        std::fs::read(&note).unwrap()
    );
    let before = bench.contents("data", bench.store.kms());
    bench.assert_restored("restored", &before);
    // Changed in place, same length, just now.
    std::fs::write(&note, b"level_count = eight, in plain sight").unwrap();
    assert_eq!(bench.back_up().info.copied_files, 1);
    bench.restore(2, "restored2").unwrap();
    assert_eq!(
        std::fs::read(bench.path("restored2/OPTIONS")).unwrap(),
        std::fs::read(&note).unwrap()
    );
}

#[test]
fn tenants_keep_their_keyspaces_and_a_shredded_one_stays_out() {
    let bench = Bench::new();
    let keyring = bench.fs.keyring();
    let [one, other] = ["one", "other"].map(|name| keyring.keyspaces().create(name).unwrap());
    let table = FileSpec::new(FileKind::Table);
    bench.write("one.sst", table.keyspace(one), &[b"one"]);
    bench.write("other.sst", table.keyspace(other), &[b"other"]);
    bench.write("plain.sst", table, &[b"default"]);
    bench.back_up();
    keyring.keyspaces().danger_shred("other").unwrap();
    // The copy that the first one has is gone only with that backup.
    bench.back_up();
    for (number, names) in [(1, &["default", "one", "other"][..]), (2, &["default", "one"])] {
        let to = format!("restored{number}");
        bench.restore(number, &to).unwrap();
        let storage = atrest::keyring::DirectoryStorage::new(bench.path(&to));
        let restored = Keyring::open_read_only(storage, bench.store.kms(), manual()).unwrap();
        let found: Vec<_> = restored.keyspaces().list().into_iter().map(|it| it.name).collect();
        assert_eq!(found, names);
        let bytes = std::fs::read(bench.path(&to).join("one.sst")).unwrap();
        let key = atrest::Header::parse(&bytes).unwrap().data_key_id;
        let status = restored.status();
        let record = status.data_keys.iter().find(|record| record.id == key).unwrap();
        assert_eq!(record.keyspace, "one");
    }
}

#[test]
fn a_backup_is_of_one_moment_while_the_engine_writes_and_keys_rotate() {
    let bench = Bench::new();
    let stop = AtomicBool::new(false);
    let (fs, data) = (&bench.fs, bench.store.data());
    let rounds = std::thread::scope(|scope| {
        // An engine: each table replaces the one before, and the manifest, which is
        // replaced by a rename, names the present one.
        let engine = scope.spawn(|| {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let content = pattern(20_000, number as u8);
                let table = data.join(format!("{number}.sst"));
                let mut writer = fs.create_new(&table, FileKind::Table).unwrap();
                writer.append(&content).unwrap();
                writer.finish_unsynced().unwrap();
                let mut writer =
                    fs.create_new(data.join("CURRENT.new"), FileKind::Manifest).unwrap();
                writer.append(number.to_string().as_bytes()).unwrap();
                writer.finish_unsynced().unwrap();
                fs.rename(data.join("CURRENT.new"), data.join("CURRENT")).unwrap();
                if number > 1 {
                    fs.remove(data.join(format!("{}.sst", number - 1))).unwrap();
                }
                if number.is_multiple_of(7) {
                    fs.keyring().keys().rotate().unwrap();
                }
                if number.is_multiple_of(50) {
                    fs.keyring().keys().rotate_store_key().unwrap();
                }
            }
            number
        });
        while !data.join("CURRENT").exists() {
            std::thread::yield_now();
        }
        for _ in 0..5 {
            bench.back_up();
        }
        stop.store(true, Ordering::Relaxed);
        engine.join().unwrap()
    });
    assert!(rounds > 1);
    for number in 1..=5 {
        let to = format!("restored{number}");
        bench.restore(number, &to).unwrap();
        let found = bench.contents(&to, bench.store.kms());
        let current = String::from_utf8(found[Path::new("CURRENT")].bytes.clone()).unwrap();
        let table = &found[Path::new(&format!("{current}.sst"))];
        assert!(table.bytes == pattern(20_000, current.parse::<u64>().unwrap() as u8));
    }
}
