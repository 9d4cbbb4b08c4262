//! Verification of a whole store.

use std::ops::ControlFlow;

use atrest::fs::TornReason;
use atrest::progress::WorkProgress;
use atrest::verify::{VerifyReport, verify};
use atrest::{BODY_LEN_MAX, ErrorKind, FileKind, FileSpec, PlaintextPolicy, Suite};

use crate::support::{TestStore, kind};

fn go_on(_: WorkProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// One byte more than a body may have; the file is sparse, on a file system that has such.
#[test]
fn a_file_longer_than_any_is_refused_by_every_reader() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("long");
    let spec = FileSpec::new(FileKind::Other).suite(Suite::Aes256Ctr);
    let mut writer = fs.create_new(&path, spec).unwrap();
    writer.append(&[1; 100]).unwrap();
    writer.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let roomy = tempfile::tempdir_in("/dev/shm").unwrap();
    let long = roomy.path().join("long");
    std::fs::write(&long, bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&long).unwrap();
    file.set_len(4096 + BODY_LEN_MAX).unwrap();
    assert_eq!(fs.open(&long).unwrap().len().unwrap(), BODY_LEN_MAX);
    file.set_len(4096 + BODY_LEN_MAX + 1).unwrap();
    assert_eq!(kind(fs.open(&long)), ErrorKind::FileTooLarge);
    let report = verify(&fs, roomy.path(), &go_on).unwrap();
    let problems: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!((problems, report.unauthenticated_files), (vec![ErrorKind::FileTooLarge], 0));
}

#[test]
fn what_a_reencryption_left_is_no_problem() {
    let store = TestStore::new();
    let fs = store.fs();
    let spec = FileSpec::new(FileKind::Other).suite(Suite::Aes256GcmChunks);
    let mut writer = fs.create_new(store.data().join("file"), spec).unwrap();
    writer.append(&[1; 20_000]).unwrap();
    writer.finish().unwrap();
    // As a power cut leaves what was not synced.
    let mut torn = std::fs::read(store.data().join("file")).unwrap();
    torn[4096..].fill(0);
    let hash = "0123456789abcdef0123456789abcdef";
    let [successor, partial, moved] = [
        ".atrest-reencrypt-H",
        ".atrest-partial-H",
        ".atrest-reencrypt-H-0123456789abcdef-0123456789abcdef",
    ]
    .map(|name| store.data().join(name.replace('H', hash)));
    for path in [&successor, &partial] {
        std::fs::write(path, &torn).unwrap();
    }
    let report = verify(&fs, store.data(), &go_on).unwrap();
    assert_eq!((report.unfinished_files, report.authenticated_files), (2, 1));
    assert_eq!(report.problems, []);
    // What changes places with its successor is whole, and may be all that there is.
    std::fs::write(&moved, &torn).unwrap();
    let report = verify(&fs, store.data(), &go_on).unwrap();
    assert_eq!((report.unfinished_files, report.problems.len()), (2, 1));
    assert_eq!(
        (&report.problems[0].path, report.problems[0].kind),
        (&moved, ErrorKind::Authentication)
    );
}

#[test]
fn every_file_is_judged() {
    let store = TestStore::new();
    let fs = store.fs();
    let write = |name: &str, suite, bytes: &[u8]| {
        let spec = FileSpec::new(FileKind::Other).suite(suite);
        let path = store.data().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut writer = fs.create_new(&path, spec).unwrap();
        writer.append(bytes).unwrap();
        writer.finish().unwrap();
        path
    };
    write("plain-suite", Suite::Aes256Ctr, &[1; 70_000]);
    let chunks = write("a/chunks", Suite::Aes256GcmChunks, &[2; 700_000]);
    let log = store.data().join("a/b/log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    let spec = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
    let mut writer = fs.create_new(&log, spec).unwrap();
    writer.append(&[3; 70_000]).unwrap();
    writer.append(&[4; 30_000]).unwrap();
    writer.finish().unwrap();
    std::fs::write(store.data().join("empty"), b"").unwrap();
    let report = verify(&fs, store.data(), &go_on).unwrap();
    assert_eq!((report.authenticated_files, report.unauthenticated_files), (2, 1));
    assert_eq!((report.empty_files, report.torn_logs, report.problems.len()), (1, 0, 0));
    // One that was cut to nothing looks the same: whoever misses a file has to be told.
    assert_eq!(report.empty, [store.data().join("empty")]);
    // Every part of every authenticated body counts.
    for (path, at) in [(&chunks, 4096), (&chunks, 300_000), (&log, 40), (&chunks, 40)] {
        let good = std::fs::read(path).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(path, &bad).unwrap();
        let report = verify(&fs, store.data(), &go_on).unwrap();
        assert_eq!(report.problems.len(), 1, "{path:?} at {at}");
        assert_eq!(&report.problems[0].path, path);
        let expected = if at < 4096 { ErrorKind::CorruptHeader } else { ErrorKind::Authentication };
        assert_eq!(report.problems[0].kind, expected);
        std::fs::write(path, &good).unwrap();
    }
    // A log ends at its first frame that is not good, which is told and is no problem. One
    // that begins with such a frame is no good empty log.
    let good = std::fs::read(&log).unwrap();
    let second = good.len() - 30_020;
    let changed = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] ^= byte;
        bad
    };
    for (bad, reason, kept) in [
        (good[..good.len() - 1].to_vec(), TornReason::Cut, 70_000),
        ([&good[..], &[0; 4096]].concat(), TornReason::Zeros, 100_000),
        (changed(second + 5000, 1), TornReason::Authentication, 70_000),
        (changed(second, 0x80), TornReason::Length, 70_000),
        (changed(4096, 0x80), TornReason::Length, 0),
        (changed(4099, 1), TornReason::Authentication, 0),
    ] {
        std::fs::write(&log, &bad).unwrap();
        let report = verify(&fs, store.data(), &go_on).unwrap();
        assert_eq!((report.torn_logs, report.problems.len()), (1, 0), "{reason:?}");
        let [torn] = &report.torn[..] else { panic!("{:?}", report.torn) };
        assert_eq!((&torn.path, torn.reason, torn.kept_bytes), (&log, Some(reason), kept));
        let frames = match kept {
            0 => 0,
            70_000 => 1,
            _ => 2,
        };
        let on_disk = 4096 + kept + 20 * frames;
        assert_eq!(torn.lost_bytes, bad.len() as u64 - on_disk);
        let json = serde_json::to_value(torn).unwrap();
        assert_eq!(json["reason"], serde_json::to_value(reason).unwrap());
        let chunks = chunks.metadata().unwrap().len();
        assert_eq!(report.authenticated_bytes, chunks + on_disk);
    }
    std::fs::write(&log, &good).unwrap();
    // Plaintext and other stores' files.
    std::fs::write(store.data().join("note"), b"in plain sight, longer than nothing").unwrap();
    let other = TestStore::new();
    let other_fs = other.fs();
    let mut writer = other_fs.create_new(other.data().join("x"), FileKind::Other).unwrap();
    writer.append(b"x").unwrap();
    writer.finish().unwrap();
    std::fs::copy(other.data().join("x"), store.data().join("x")).unwrap();
    let report = verify(&fs, store.data(), &go_on).unwrap();
    let kinds: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ErrorKind::NotEncrypted, ErrorKind::IdentityMismatch]);
    let cancelled = verify(&fs, store.data(), &|_| ControlFlow::Break(()));
    assert_eq!(kind(cancelled), ErrorKind::Io(std::io::ErrorKind::Interrupted));
}

/// As of objects, whose first bytes somebody else read.
#[test]
fn files_are_judged_by_what_was_read_of_them() {
    let store = TestStore::new();
    let fs = store.fs();
    let spec = FileSpec::new(FileKind::Table).suite(Suite::Aes256Ctr);
    let mut writer = fs.create_new(store.data().join("t"), spec).unwrap();
    writer.append(b"table").unwrap();
    writer.finish().unwrap();
    let bytes = std::fs::read(store.data().join("t")).unwrap();
    let mut foreign = bytes.clone();
    foreign[4095] ^= 1;
    let mut report = VerifyReport::default();
    let keyring = fs.keyring();
    for (name, start) in [
        ("good", &bytes[..]),
        ("empty", b""),
        ("changed", &foreign),
        ("torn", &bytes[..4095]),
        ("lost", &[0; 4096]),
        ("plain", b"SQLite format 3"),
    ] {
        report.add_start(keyring, name.into(), start.len() as u64, start);
    }
    report.add_read("read".into(), 9, Ok(()));
    let failed = atrest::Error::new(ErrorKind::Authentication, "a chunk");
    report.add_read("unread".into(), 9, Err(failed));
    assert_eq!((report.unauthenticated_files, report.unauthenticated_bytes), (1, 4096 + 5));
    assert_eq!((report.authenticated_files, report.authenticated_bytes), (1, 9));
    assert_eq!((report.empty_files, report.plaintext_files), (1, 0));
    let problems = report.problems.iter();
    let problems: Vec<_> = problems.map(|it| (it.path.to_str().unwrap(), it.kind)).collect();
    assert_eq!(
        problems,
        [
            ("changed", ErrorKind::CorruptHeader),
            ("torn", ErrorKind::TruncatedHeader),
            ("lost", ErrorKind::TruncatedHeader),
            ("plain", ErrorKind::NotEncrypted),
            ("unread", ErrorKind::Authentication),
        ]
    );
    let mut lenient = keyring.settings();
    lenient.plaintext = PlaintextPolicy::Allow;
    keyring.keys().configure(&lenient).unwrap();
    report.add_start(keyring, "plain".into(), 15, b"SQLite format 3");
    report.add_start(keyring, "zeros".into(), 15, &[0; 15]);
    assert_eq!(report.plaintext_files, 2);
}
