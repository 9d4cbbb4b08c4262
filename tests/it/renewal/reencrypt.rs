//! Re-encryption, beside an engine that does as it likes.

use crate::support::store_of;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use atrest::fs::TornReason;
use atrest::store::{CommitHook, Reencrypt, ReencryptReport, Skipped, StalePolicy};
use atrest::{
    EncryptedFs, Error, ErrorKind, FileKind, FileSpec, HEADER_LEN, PlaintextPolicy, Suite,
};

use super::{counts, write};
use crate::support::{ManualClock, TestStore, kind, options};

fn all<'a>() -> Reencrypt<'a> {
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    how
}

fn read(fs: &EncryptedFs, path: &Path) -> Vec<u8> {
    let reader = fs.open(path).unwrap();
    let mut bytes = vec![0; reader.len().unwrap() as usize];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn open_allowing_plaintext(store: &TestStore) -> EncryptedFs {
    let mut options = options(&ManualClock::new());
    options.settings.plaintext = PlaintextPolicy::Allow;
    store.create(options).files().clone()
}

fn clean(report: &ReencryptReport) {
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(report.skipped.is_empty() && !report.cancelled, "{report:?}");
}

fn names(store: &TestStore) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(store.data())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("KEYRING"))
        .collect();
    names.sort();
    names
}

#[test]
fn files_go_on_under_the_newest_key() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = |name: &str| store.data().join(name);
    let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i * 7 + i / 256) as u8).collect();
    let keyspace = fs.keyring().keyspaces().create("tenant").unwrap();
    let mut specs = Vec::new();
    for (name, suite, id) in [
        ("ctr", Suite::Aes256Ctr, 7),
        ("gcm", Suite::Aes256GcmChunks, 8),
        ("log", Suite::Aes256GcmLog, 9),
    ] {
        let spec = FileSpec::new(FileKind::Blob).suite(suite).file_id(id).keyspace(keyspace);
        let mut writer = fs.create_new(path(name), spec.chunk_len(8192)).unwrap();
        data.chunks(500_000).for_each(|piece| writer.append(piece).unwrap());
        writer.finish().unwrap();
        specs.push((name, suite, id));
    }
    write(&fs, &path("empty"), b"");
    std::fs::set_permissions(path("ctr"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs.open(path("ctr")).unwrap();
    let (inode, old) = (path("ctr").metadata().unwrap().ino(), std::fs::read(path("gcm")).unwrap());
    fs.keyring().keys().rotate().unwrap();
    let new = fs.keyring().keyspaces().rotate(keyspace).unwrap();

    let last = Mutex::new(None);
    let on_progress =
        |p: &atrest::store::ReencryptProgress| *last.lock().unwrap() = Some(p.clone());
    let mut how = all();
    how.on_progress = &on_progress;
    let report = store_of(&fs).renewal().reencrypt(&how).unwrap();
    clean(&report);
    assert_eq!((report.files, report.bytes), (4, 9_000_000));
    let last = last.into_inner().unwrap().unwrap();
    assert_eq!((last.files, last.files_total), (4, 4));
    assert_eq!((last.bytes, last.left), (last.bytes_total, Some(Duration::ZERO)));

    for (name, suite, id) in specs {
        assert_eq!(read(&fs, &path(name)), data);
        let header = atrest::Header::parse(&std::fs::read(path(name)).unwrap()).unwrap();
        assert_eq!((header.suite, header.kind, header.data_key_id), (suite, FileKind::Blob, new));
        assert_eq!(header.file_id, id.into());
    }
    assert_eq!(path("ctr").metadata().unwrap().mode() & 0o777, 0o640);
    assert_ne!(path("ctr").metadata().unwrap().ino(), inode);
    assert_ne!(std::fs::read(path("gcm")).unwrap(), old);
    // Whoever had the file open reads the old one to its end.
    let mut piece = [0; 100];
    before.read_exact_at(&mut piece, 2_000_000).unwrap();
    assert_eq!(piece, data[2_000_000..2_000_100]);
    assert_eq!(names(&store), ["ctr", "empty", "gcm", "log"]);
    assert_eq!(
        counts(&store_of(&fs).renewal().usage().unwrap()),
        counts(&store_of(&fs).renewal().scan_usage(&|_| {}).unwrap())
    );
    // Nothing is left to do.
    assert_eq!(store_of(&fs).renewal().reencrypt(&all()).unwrap().files, 0);
}

/// Ten appends of uneven lengths.
fn appends() -> Vec<Vec<u8>> {
    let lens = [1, 300_000, 7, 7, 131_072, 131_073, 20, 3, 50_000, 9];
    (1..).zip(lens).map(|(byte, len)| vec![byte; len]).collect()
}

fn write_log(fs: &EncryptedFs, path: &Path, appends: &[Vec<u8>]) {
    let spec = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
    let mut writer = fs.create_new(path, spec).unwrap();
    appends.iter().for_each(|append| writer.append(append).unwrap());
    writer.finish().unwrap();
}

fn read_appends(fs: &EncryptedFs, path: &Path) -> Vec<Vec<u8>> {
    let reader = fs.open(path).unwrap();
    let mut frame = Vec::new();
    let mut read = |number| reader.read_frame(number, &mut frame).unwrap().then(|| frame.clone());
    (0..).map_while(&mut read).collect()
}

#[test]
fn a_log_keeps_its_appends() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("wal");
    write_log(&fs, &path, &appends());
    let old = fs.keyring().keys().rotate().unwrap();
    let report = store_of(&fs).renewal().reencrypt(&all()).unwrap();
    clean(&report);
    assert_eq!((report.files, report.merged.len()), (1, 0));
    let header = |path: &Path| atrest::Header::parse(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(header(&path).data_key_id, old, "under the key that is active now");
    assert_eq!(read_appends(&fs, &path), appends());

    // A suite that cannot keep them is said.
    fs.keyring().keys().rotate().unwrap();
    let mut how = all();
    how.suite = Some(Suite::Aes256GcmChunks);
    let report = store_of(&fs).renewal().reencrypt(&how).unwrap();
    clean(&report);
    assert_eq!((report.files, &report.merged[..]), (1, &[path.clone()][..]));
    assert_eq!(read(&fs, &path), appends().concat());
    // And what has none gets none back.
    fs.keyring().keys().rotate().unwrap();
    how.suite = Some(Suite::Aes256GcmLog);
    let report = store_of(&fs).renewal().reencrypt(&how).unwrap();
    clean(&report);
    assert_eq!((report.files, report.merged.len()), (1, 0));
    assert_eq!(read(&fs, &path), appends().concat());
}

#[test]
fn what_cannot_be_read_whole_is_not_rewritten_shorter() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("wal");
    write_log(&fs, &path, &appends());
    fs.keyring().keys().rotate().unwrap();
    let good = std::fs::read(&path).unwrap();
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x80;
        bytes
    };
    let second = HEADER_LEN + 21;
    for (bad, reason, kept) in [
        (changed(second + 1), TornReason::Cut, 1_usize),
        (changed(second), TornReason::Length, 1),
        (changed(second + 1000), TornReason::Authentication, 1),
        (changed(HEADER_LEN), TornReason::Length, 0),
        ([&good[..], &[0; 5000]].concat(), TornReason::Zeros, 10),
    ] {
        std::fs::write(&path, &bad).unwrap();
        let expected = appends()[..kept].concat().len() as u64;
        let torn = |report: &ReencryptReport| {
            let [torn] = &report.torn[..] else { panic!("{reason:?}: {report:?}") };
            assert_eq!((&torn.path, torn.reason), (&path, Some(reason)));
            assert_eq!(torn.kept_bytes, expected);
            assert_eq!(torn.lost_bytes, bad.len() as u64 - 4096 - 20 * kept as u64 - expected);
        };
        let report = store_of(&fs).renewal().reencrypt(&all()).unwrap();
        assert_eq!((report.files, &report.skipped[..]), (0, &[(path.clone(), Skipped::Torn)][..]));
        torn(&report);
        assert!(std::fs::read(&path).unwrap() == bad, "{reason:?}: the file was touched");
        assert_eq!(names(&store), ["wal"]);

        // Only who says so loses the rest.
        let report = store_of(&fs).renewal().reencrypt(&all().danger_cut_torn()).unwrap();
        clean(&report);
        assert_eq!((report.files, report.bytes), (1, expected));
        torn(&report);
        assert_eq!(read_appends(&fs, &path), appends()[..kept]);
        assert_eq!(fs.open(&path).unwrap().torn(), None);
    }
}

#[test]
fn plaintext_in_and_out() {
    let store = TestStore::new();
    let fs = open_allowing_plaintext(&store);
    let path = |name: &str| store.data().join(name);
    std::fs::write(path("a.sst"), b"plain").unwrap();
    std::fs::write(path("LOG"), b"the engine reads this by itself").unwrap();
    std::fs::write(path("LOCK"), b"").unwrap();
    assert_eq!(
        store_of(&fs).renewal().reencrypt(&all()).unwrap().files,
        0,
        "plaintext is only touched on request"
    );
    let spec_of = |path: &Path| {
        path.extension().map(|_| FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks))
    };
    let mut how = all();
    how.plaintext = Some(&spec_of);
    store_of(&fs).renewal().usage().unwrap();
    let report = store_of(&fs).renewal().reencrypt(&how).unwrap();
    clean(&report);
    assert_eq!(report.files, 1);
    assert_eq!(fs.open(path("a.sst")).unwrap().suite(), Some(Suite::Aes256GcmChunks));
    assert_eq!(read(&fs, &path("a.sst")), b"plain");
    assert_eq!(
        counts(&store_of(&fs).renewal().usage().unwrap()),
        counts(&store_of(&fs).renewal().scan_usage(&|_| {}).unwrap())
    );

    // The active key's files go too, and one of nothing.
    write(&fs, &path("none.sst"), b"");
    let report =
        store_of(&fs).renewal().reencrypt(&Reencrypt::default().danger_to_plaintext()).unwrap();
    clean(&report);
    assert_eq!(std::fs::read(path("a.sst")).unwrap(), b"plain");
    assert_eq!((report.files, std::fs::read(path("none.sst")).unwrap()), (2, Vec::new()));
    assert_eq!(
        counts(&store_of(&fs).renewal().usage().unwrap()),
        counts(&store_of(&fs).renewal().scan_usage(&|_| {}).unwrap())
    );
    let mut strict = fs.keyring().settings();
    strict.plaintext = PlaintextPolicy::Require;
    fs.keyring().keys().configure(&strict).unwrap();
    let refused = store_of(&fs).renewal().reencrypt(&Reencrypt::default().danger_to_plaintext());
    assert_eq!(kind(refused), ErrorKind::InvalidArgument);
    assert_eq!(kind(store_of(&fs).renewal().reencrypt(&how)), ErrorKind::InvalidArgument);
}

/// Nobody could tell such a plaintext from the file that it was.
#[test]
fn what_begins_like_an_encrypted_file_is_not_turned_to_plaintext() {
    let store = TestStore::new();
    let fs = store.fs();
    let mut lenient = fs.keyring().settings();
    lenient.plaintext = PlaintextPolicy::Allow;
    fs.keyring().keys().configure(&lenient).unwrap();
    let [inner, outer] = ["inner", "outer"].map(|name| store.data().join(name));
    write(&fs, &inner, b"inside");
    let bytes = std::fs::read(&inner).unwrap();
    std::fs::remove_file(&inner).unwrap();
    write(&fs, &outer, &bytes);
    let how = Reencrypt::default().danger_to_plaintext();
    let count = || std::fs::read_dir(store.data()).unwrap().count();
    let before = count();
    let report = store_of(&fs).renewal().reencrypt(&how).unwrap();
    let failed: Vec<_> = report.failed.iter().map(|(_, error)| error.kind()).collect();
    assert_eq!((report.files, failed), (0, vec![ErrorKind::ForeignFile]));
    assert_eq!(read(&fs, &outer), bytes);
    assert_eq!(count(), before, "nothing is left beside it");
}

#[test]
fn a_weak_suite_is_raised_to_the_minimum() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("a");
    write(&fs, &path, b"12345");
    let mut how = Reencrypt::default();
    how.policy.require_authenticated = true;
    clean(&store_of(&fs).renewal().reencrypt(&how).unwrap());
    assert_eq!(fs.open(&path).unwrap().suite(), Some(Suite::Aes256GcmChunks));
    assert_eq!(read(&fs, &path), b"12345");
}

#[test]
fn a_file_in_writing_is_left_alone() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("wal");
    let mut writer = fs.create_new(&path, FileKind::Log).unwrap();
    writer.append(b"first ").unwrap();
    writer.sync().unwrap();
    fs.keyring().keys().rotate().unwrap();
    let report = store_of(&fs).renewal().reencrypt(&all()).unwrap();
    assert_eq!(report.skipped, [(path.clone(), Skipped::BeingWritten)]);
    writer.append(b"second").unwrap();
    writer.finish().unwrap();
    assert_eq!(read(&fs, &path), b"first second");
    clean(&store_of(&fs).renewal().reencrypt(&all()).unwrap());
    assert_eq!(read(&fs, &path), b"first second");
}

#[test]
fn a_cancelled_run_is_gone_on_with() {
    let store = TestStore::new();
    let fs = store.fs();
    for file in 0..20 {
        write(&fs, &store.data().join(file.to_string()), &[file; 100_000]);
    }
    fs.keyring().keys().rotate().unwrap();
    let (cancel, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    let on_progress = |_: &atrest::store::ReencryptProgress| {
        cancel.store(steps.fetch_add(1, Ordering::Relaxed) > 12, Ordering::Relaxed);
    };
    let mut how = all();
    (how.cancel, how.on_progress) = (Some(&cancel), &on_progress);
    let first = store_of(&fs).renewal().reencrypt(&how).unwrap();
    assert!(first.cancelled && first.files > 0 && first.files < 20, "{first:?}");
    assert_eq!(names(&store).len(), 20);
    let second = store_of(&fs).renewal().reencrypt(&all()).unwrap();
    clean(&second);
    assert_eq!(first.files + second.files, 20);
    for file in 0..20 {
        assert_eq!(read(&fs, &store.data().join(file.to_string())), [file; 100_000]);
    }
}

#[test]
fn leftovers_are_recognised_and_removed() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("a");
    write(&fs, &path, b"1");
    fs.keyring().keys().rotate().unwrap();
    // The name a killed run leaves: the same for the same file.
    struct Stop(Mutex<Option<std::path::PathBuf>>);
    impl CommitHook for Stop {
        fn commit(
            &self,
            _: &Path,
            new: &Path,
            _: &mut dyn FnMut() -> Result<(), Error>,
        ) -> Result<(), Error> {
            *self.0.lock().unwrap() = Some(new.to_owned());
            Ok(())
        }
    }
    let stop = Stop(Mutex::new(None));
    let mut how = all();
    how.commit = Some(&stop);
    assert_eq!(
        store_of(&fs).renewal().reencrypt(&how).unwrap().skipped,
        [(path.clone(), Skipped::Changed)]
    );
    let leftover = stop.0.into_inner().unwrap().unwrap();
    assert!(!leftover.exists());
    std::fs::write(&leftover, b"half of a").unwrap();
    assert_eq!(fs.list(store.data()).unwrap().len(), 1, "engines do not see it");
    let report = store_of(&fs).renewal().reencrypt(&all()).unwrap();
    assert_eq!((report.leftovers_removed, report.files), (1, 1));
    assert_eq!(names(&store), ["a"]);
}

/// An engine that does something to the file just before it is replaced.
struct Meanwhile<'a>(&'a (dyn Fn(&Path) + Sync));

impl CommitHook for Meanwhile<'_> {
    fn commit(
        &self,
        old: &Path,
        _: &Path,
        replace: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        (self.0)(old);
        replace()
    }
}

#[test]
fn what_the_engine_does_meanwhile_stands() {
    let store = TestStore::new();
    let fs = open_allowing_plaintext(&store);
    let path = store.data().join("a");
    let again = |meanwhile: &(dyn Fn(&Path) + Sync)| {
        let _ = std::fs::remove_file(&path);
        write(&fs, &path, b"old");
        fs.keyring().keys().rotate().unwrap();
        let hook = Meanwhile(meanwhile);
        let mut how = all();
        how.commit = Some(&hook);
        let report = store_of(&fs).renewal().reencrypt(&how).unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        let names = names(&store);
        assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
        report.skipped.first().map(|(_, why)| *why)
    };
    // Removed, through the library and behind its back.
    assert_eq!(again(&|path| fs.remove(path).unwrap()), Some(Skipped::Gone));
    assert!(!path.exists());
    assert_eq!(again(&|path| std::fs::remove_file(path).unwrap()), Some(Skipped::Gone));
    assert!(!path.exists());
    // Replaced by a new file.
    let replace = |path: &Path| {
        let new = path.with_extension("new");
        write(&fs, &new, b"new");
        fs.rename(&new, path).unwrap();
    };
    assert_eq!(again(&replace), Some(Skipped::Changed));
    assert_eq!(read(&fs, &path), b"new");
    // Removed and created again, of the same length.
    let recreate = |path: &Path| {
        fs.remove(path).unwrap();
        write(&fs, path, b"new");
    };
    assert_eq!(again(&recreate), Some(Skipped::Changed));
    assert_eq!(read(&fs, &path), b"new");
    // Linked, as by a checkpoint: left as it is, so that both names stay those of one file.
    let checkpoint = store.data().join("checkpoint");
    let link = |path: &Path| {
        let _ = std::fs::remove_file(&checkpoint);
        fs.hard_link(path, &checkpoint).unwrap();
    };
    assert_eq!(again(&link), Some(Skipped::Changed));
    assert_eq!((read(&fs, &path), read(&fs, &checkpoint)), (b"old".to_vec(), b"old".to_vec()));
}

#[test]
fn an_engine_that_removes_and_replaces_at_random_loses_nothing() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = |file: usize| store.data().join(file.to_string());
    // What the engine believes is in each file.
    let believed: Vec<Mutex<Option<Vec<u8>>>> = (0..40)
        .map(|file| {
            let data = format!("{file}:0").into_bytes();
            write(&fs, &path(file), &data);
            Mutex::new(Some(data))
        })
        .collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..1500_usize {
                let file = round * 17 % 40;
                let mut belief = believed[file].lock().unwrap();
                if belief.is_some() && round % 3 == 0 {
                    fs.remove(path(file)).unwrap();
                    *belief = None;
                } else {
                    let data = format!("{file}:{round}").into_bytes();
                    let new = store.data().join(format!("{file}.new"));
                    let mut writer = fs.create_new(&new, FileKind::Table).unwrap();
                    writer.append(&data).unwrap();
                    writer.finish_unsynced().unwrap();
                    fs.rename(&new, path(file)).unwrap();
                    *belief = Some(data);
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        while !stop.load(Ordering::Relaxed) {
            fs.keyring().keys().rotate().unwrap();
            let report = store_of(&fs).renewal().reencrypt(&all()).unwrap();
            assert!(report.failed.is_empty(), "{report:?}");
        }
    });
    for (file, belief) in believed.into_iter().enumerate() {
        match belief.into_inner().unwrap() {
            Some(data) => assert_eq!(read(&fs, &path(file)), data),
            None => assert!(!path(file).exists(), "{file} was brought back"),
        }
    }
    assert_eq!(
        counts(&store_of(&fs).renewal().usage().unwrap()),
        counts(&store_of(&fs).renewal().scan_usage(&|_| {}).unwrap())
    );
}

#[test]
fn a_damaged_file_fails_and_stays() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = |name: &str| store.data().join(name);
    let spec = FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks);
    for name in ["bad", "good"] {
        let mut writer = fs.create_new(path(name), spec).unwrap();
        writer.append(&[1; 50_000]).unwrap();
        writer.finish().unwrap();
    }
    let mut bytes = std::fs::read(path("bad")).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(path("bad"), &bytes).unwrap();
    fs.keyring().keys().rotate().unwrap();
    let report = store_of(&fs).renewal().reencrypt(&all()).unwrap();
    assert_eq!((report.files, report.failed.len()), (1, 1));
    assert_eq!(report.failed[0].1.kind(), ErrorKind::Authentication);
    assert_eq!(std::fs::read(path("bad")).unwrap(), bytes);
    assert_eq!(names(&store), ["bad", "good"]);
}
