//! What a power cut leaves behind the last sync: allocated space that nobody wrote.

use std::fs::{File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atrest::backup::{BackupReport, Chain, DirectoryTarget, LackReason, RestoreSpec};
use atrest::fs::{TornFile, TornReason};
use atrest::keyring::RetireOutcome;
use atrest::store::{Reencrypt, ReencryptReport, Skipped, StalePolicy};
use atrest::{
    EncryptedFs, ErrorKind, FileKind, FileSpec, HEADER_LEN, PlaintextPolicy, Settings, Store, Suite,
};

use crate::support::{TestStore, manual, store_of};

/// Bytes of a log's records, each of one byte of length and so many more.
fn records(count: u8) -> Vec<u8> {
    (1..=count).flat_map(|len| std::iter::repeat_n(len, usize::from(len) + 1)).collect()
}

/// What an engine without checksums takes for records of a log that is `len` bytes long.
fn recover(fs: &EncryptedFs, path: &Path, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    fs.open(path).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    let (mut rest, mut found) = (&bytes[..], Vec::new());
    while let Some((len, more)) = rest.split_first() {
        if *len == 0 || more.len() < usize::from(*len) {
            break;
        }
        found.extend_from_slice(&rest[..=usize::from(*len)]);
        rest = &more[usize::from(*len)..];
    }
    found
}

fn written(fs: &EncryptedFs, path: &Path, spec: impl Into<FileSpec>, bytes: &[u8]) -> PathBuf {
    let mut writer = fs.create_new(path, spec).unwrap();
    writer.append(bytes).unwrap();
    writer.finish().unwrap();
    path.to_owned()
}

/// Leaves `kept` bytes of the body, and behind them so many that nobody wrote.
fn cut(path: &Path, kept: u64, unwritten: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(HEADER_LEN as u64 + kept).unwrap();
    file.set_len(HEADER_LEN as u64 + kept + unwritten).unwrap();
}

#[test]
fn a_tail_that_nobody_wrote_is_told_from_data() {
    let store = TestStore::new();
    let fs = store.fs();
    let whole = records(120);
    let len = whole.len() as u64;
    let path = written(&fs, &store.data().join("log"), FileKind::Log, &whole);
    let on_disk = std::fs::read(&path).unwrap();
    assert_eq!(fs.open(&path).unwrap().written_len().unwrap(), len);
    for kept in (0..100).chain((4000..4130).step_by(3)).chain([len - 1, len]) {
        for unwritten in [0, 1, 15, 16, 31, 32, 512, 4096, 300_000] {
            std::fs::write(&path, &on_disk).unwrap();
            cut(&path, kept, unwritten);
            // What was written may end with zeros by chance.
            let body = &on_disk[HEADER_LEN..][..kept as usize];
            let last = body.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
            let first_block = last.next_multiple_of(16);
            let expected =
                if first_block + 16 <= kept + unwritten { first_block } else { kept + unwritten };
            let reader = fs.open(&path).unwrap();
            assert_eq!(reader.written_len().unwrap(), expected, "{kept} and {unwritten}");
            assert_eq!(reader.len().unwrap(), kept + unwritten);
        }
    }
}

#[test]
fn a_recovery_that_reads_no_further_takes_no_noise_for_records() {
    let store = TestStore::new();
    let fs = store.fs();
    let whole = records(120);
    let (mut misled, mut rounds) = (0, 0);
    // At blocks' borders, so that nothing unwritten stands in front of what is returned.
    for kept in (64..whole.len() as u64).step_by(16 * 7) {
        let path = store.data().join(format!("log{kept}"));
        written(&fs, &path, FileKind::Log, &whole);
        cut(&path, kept, 8192);
        let len = fs.open(&path).unwrap().written_len().unwrap();
        assert_eq!(len, kept);
        let found = recover(&fs, &path, len);
        assert!(whole.starts_with(&found) && kept - found.len() as u64 <= 121);
        rounds += 1;
        misled += u32::from(!whole.starts_with(&recover(&fs, &path, kept + 8192)));
    }
    // The whole length leads it into the noise.
    assert!(misled > rounds / 2, "{misled} of {rounds}");
}

#[test]
fn a_hole_in_the_middle_ends_what_is_known_to_be_written() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = written(&fs, &store.data().join("log"), FileKind::Log, &[7; 1 << 20]);
    let file: File = OpenOptions::new().write(true).open(&path).unwrap();
    // Pages are of the file, whose header is one.
    for page in [200_u64, 128, 64, 63, 1] {
        file.write_all_at(&[0; 4096], page * 4096).unwrap();
        let reader = fs.open(&path).unwrap();
        assert_eq!(reader.written_len().unwrap(), page * 4096 - HEADER_LEN as u64);
    }
}

#[test]
fn other_files_are_written_up_to_their_ends() {
    let store = TestStore::new();
    let fs = store.fs();
    let mut settings = Settings::default();
    settings.plaintext = PlaintextPolicy::Allow;
    fs.keyring().keys().configure(&settings).unwrap();
    let bytes = [0; 20_000];
    let plain = store.data().join("plain");
    std::fs::write(&plain, bytes).unwrap();
    assert_eq!(fs.open(&plain).unwrap().written_len().unwrap(), 20_000);
    for suite in [Suite::Aes256GcmChunks, Suite::Aes256GcmLog] {
        let path = store.data().join(format!("{suite:?}"));
        let spec = FileSpec::new(FileKind::Log).suite(suite);
        written(&fs, &path, spec, &bytes);
        assert_eq!(fs.open(&path).unwrap().written_len().unwrap(), 20_000);
    }
}

fn reencrypt(fs: &EncryptedFs, cut: bool, suite: Option<Suite>) -> ReencryptReport {
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    how.suite = suite;
    let how = if cut { how.danger_cut_torn() } else { how };
    let report = store_of(fs).renewal().reencrypt(&how).unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
    report
}

/// What is said of torn files: the plaintext bytes kept, and those on disk that are not.
fn told(torn: &[TornFile]) -> Vec<(u64, u64)> {
    assert!(torn.iter().all(|it| it.path.ends_with("log")), "{torn:?}");
    assert!(torn.iter().all(|it| it.reason == Some(TornReason::Zeros)), "{torn:?}");
    torn.iter().map(|it| (it.kept_bytes, it.lost_bytes)).collect()
}

#[test]
fn a_re_encryption_makes_no_data_of_what_nobody_wrote() {
    let store = TestStore::new();
    let fs = store.fs();
    // In the first piece that is read, at the border of two, and in the third.
    for kept in [4096, 128 << 10, (300 << 10) + 16] {
        for suite in [None, Some(Suite::Aes256GcmChunks)] {
            let path = written(&fs, &store.data().join("log"), FileKind::Log, &[7; 400 << 10]);
            cut(&path, kept, 50_000);
            let before = std::fs::read(&path).unwrap();
            fs.keyring().keys().rotate().unwrap();
            let report = reencrypt(&fs, false, suite);
            assert_eq!((report.files, report.skipped[0].1), (0, Skipped::Torn), "{kept}");
            assert_eq!(told(&report.torn), [(kept, 50_000)]);
            assert!(std::fs::read(&path).unwrap() == before, "{kept}");
            let mut names =
                std::fs::read_dir(store.data()).unwrap().map(|it| it.unwrap().file_name());
            assert!(names.all(|it| !it.to_str().unwrap().contains("reencrypt")));
            // By the caller's word it ends there.
            let report = reencrypt(&fs, true, suite);
            assert_eq!((report.files, report.bytes), (1, kept));
            assert_eq!(told(&report.torn), [(kept, 50_000)]);
            let reader = fs.open(&path).unwrap();
            assert_eq!(reader.suite(), Some(suite.unwrap_or(Suite::Aes256Ctr)));
            assert_eq!((reader.len().unwrap(), reader.written_len().unwrap()), (kept, kept));
            let mut bytes = vec![0; kept as usize];
            reader.read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 7));
            fs.remove(&path).unwrap();
        }
    }
}

#[test]
fn a_hole_in_the_middle_stops_a_re_encryption_too() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = written(&fs, &store.data().join("log"), FileKind::Log, &[7; 1 << 20]);
    let file: File = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 4096], 200 * 4096).unwrap();
    fs.keyring().keys().rotate().unwrap();
    let mut policy = StalePolicy::default();
    policy.require_authenticated = true;
    let mut how = Reencrypt::default();
    how.policy = policy;
    let report = store_of(&fs).renewal().reencrypt(&how).unwrap();
    let kept = 199 * 4096;
    assert_eq!((report.files, report.skipped[0].1), (0, Skipped::Torn));
    assert_eq!(told(&report.torn), [(kept, (1 << 20) - kept)]);
}

fn back_up(store: &TestStore, fs: &EncryptedFs) -> BackupReport {
    let target = DirectoryTarget::new(store.dir.path().join("backup"));
    std::fs::create_dir_all(store.dir.path().join("backup")).unwrap();
    let chain = Chain::open_or_create(target, store.kms()).unwrap();
    let go_on = |_| ControlFlow::Continue(());
    store_of(fs).backups().add(&chain, store.data(), &go_on).unwrap()
}

/// The length that a log has in the last backup, once it is restored.
fn restored_len(store: &TestStore, to: &str) -> u64 {
    let (target, to) = (store.dir.path().join("backup"), store.dir.path().join(to));
    let chain = Chain::open_read_only(DirectoryTarget::new(target), vec![store.kms()]).unwrap();
    let go_on = |_| ControlFlow::Continue(());
    assert_eq!(chain.verify(&go_on).unwrap().problems, []);
    chain.restore(&RestoreSpec::new(&to, store.kms()), &go_on).unwrap();
    let restored = Store::open_read_only(&to, store.kms(), manual()).unwrap();
    let reader = restored.files().open(to.join("log")).unwrap();
    let (len, written) = (reader.len().unwrap(), reader.written_len().unwrap());
    assert_eq!(len, written);
    len
}

#[test]
fn a_backup_names_what_nobody_wrote_and_does_not_restore_it_as_data() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = written(&fs, &store.data().join("log"), FileKind::Log, &[7; 300 << 10]);
    let good = std::fs::read(&path).unwrap();
    cut(&path, 200 << 10, 9000);
    let report = back_up(&store, &fs);
    let [lack] = &report.info.lacks[..] else { panic!("{report:?}") };
    assert_eq!((lack.path.as_path(), lack.why), (Path::new("log"), LackReason::Torn));
    assert_eq!((lack.kept_bytes, lack.lost_bytes), (200 << 10, 9000));
    assert_eq!(told(&report.torn), [(200 << 10, 9000)]);
    assert_eq!(restored_len(&store, "cut"), 200 << 10);
    // All of it is zeros, and then it is all there again.
    cut(&path, 0, 9000);
    assert_eq!(back_up(&store, &fs).info.lacks[0].kept_bytes, 0);
    assert_eq!(restored_len(&store, "none"), 0);
    std::fs::write(&path, good).unwrap();
    assert_eq!(back_up(&store, &fs).info.lacks, []);
    assert_eq!(restored_len(&store, "good"), 300 << 10);
}

#[test]
fn room_behind_a_file_that_is_being_written_is_no_lack() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("log");
    let mut writer = fs.create_new(&path, FileKind::Log).unwrap();
    writer.append(&[7; 4096]).unwrap();
    writer.sync().unwrap();
    cut(&path, 4096, 1 << 20);
    let report = back_up(&store, &fs);
    assert_eq!((report.torn, report.info.lacks, report.info.bytes), (vec![], vec![], 4096));
    assert_eq!(restored_len(&store, "being written"), 4096);
    drop(writer);
    assert_eq!(told(&back_up(&store, &fs).torn), [(4096, 1 << 20)]);
}

/// The length is on the disk, the first page is not.
fn lose_header(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; HEADER_LEN], 0).unwrap();
}

#[test]
fn a_header_that_nobody_wrote_is_a_torn_file_and_no_plaintext() {
    let store = TestStore::new();
    let fs = store.fs();
    for (name, suite) in [("log", Suite::Aes256Ctr), ("wal", Suite::Aes256GcmLog)] {
        let spec = FileSpec::new(FileKind::Log).suite(suite);
        written(&fs, &store.data().join(name), spec, &[7; 10_000]);
    }
    assert_eq!(back_up(&store, &fs).info.lacks, []);
    let lost = written(&fs, &store.data().join("new"), FileKind::Log, &[7; 10_000]);
    let wal = store.data().join("wal");
    lose_header(&wal);
    lose_header(&lost);
    let refused = fs.open(&wal).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TruncatedHeader, "{refused}");
    // As of other torn files: nothing can be read, and a list promises nothing.
    let entries = fs.list(store.data()).unwrap();
    let entry = entries.iter().find(|entry| entry.path == wal).unwrap();
    assert_eq!((entry.len, entry.physical_len), (0, 4096 + 10_020));
    let usage = store_of(&fs).renewal().scan_usage(&|_| {}).unwrap();
    assert_eq!((usage.torn.files, usage.plaintext.files), (2, 0));
    // The backup before has one of them, and something is behind the header of both.
    let lacks = back_up(&store, &fs).info.lacks;
    let lacks: Vec<_> = lacks.iter().map(|it| (&*it.path, it.why, it.lost_bytes)).collect();
    let [new, wal_too] = [("new", 14_096), ("wal", 10_000)];
    let emptied = |(name, lost)| (Path::new(name), LackReason::Emptied, lost);
    assert_eq!(lacks, [emptied(new), emptied(wal_too)]);
    assert_eq!(restored_len(&store, "restored"), 10_000);
    assert_eq!(std::fs::metadata(store.dir.path().join("restored/new")).unwrap().len(), 0);
    // It names no data key, and nothing is to be made of it.
    fs.keyring().keys().rotate().unwrap();
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    let report = store_of(&fs).renewal().reencrypt(&how).unwrap();
    assert!(report.failed.is_empty() && report.skipped.is_empty(), "{report:?}");
    assert_eq!(report.files, 1);
    let retire = || store_of(&fs).renewal().retire(None, Duration::ZERO, &|_| {}).unwrap();
    retire();
    assert!(retire().keys.iter().any(|key| key.outcome == RetireOutcome::Destroyed));
    assert_eq!(std::fs::read(&wal).unwrap()[..HEADER_LEN], [0; HEADER_LEN]);
}

#[test]
fn zeros_are_plaintext_where_that_is_allowed() {
    let store = TestStore::new();
    let mut options = manual();
    options.settings.plaintext = PlaintextPolicy::Allow;
    let fs = store.create(options).files().clone();
    let zeros = store.data().join("zeros");
    std::fs::write(&zeros, [0; 9000]).unwrap();
    written(&fs, &store.data().join("log"), FileKind::Log, &[7; 100]);
    let renewal = store_of(&fs);
    let usage = renewal.renewal().scan_usage(&|_| {}).unwrap();
    assert_eq!((usage.torn.files, usage.plaintext.files), (0, 1));
    assert_eq!(back_up(&store, &fs).info.lacks, []);
    restored_len(&store, "restored");
    assert_eq!(std::fs::read(store.dir.path().join("restored/zeros")).unwrap(), [0; 9000]);
    let spec_of = |_: &Path| Some(FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks));
    let mut how = Reencrypt::default();
    assert_eq!(renewal.renewal().reencrypt(&how).unwrap().files, 0);
    how.plaintext = Some(&spec_of);
    assert_eq!(renewal.renewal().reencrypt(&how).unwrap().files, 1);
    let reader = fs.open(&zeros).unwrap();
    assert_eq!((reader.suite(), reader.len().unwrap()), (Some(Suite::Aes256GcmChunks), 9000));
}
