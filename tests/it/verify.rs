//! Verification of a whole store.

use std::ops::ControlFlow;

use atrest::progress::WorkProgress;
use atrest::verify::verify;
use atrest::{ErrorKind, FileKind, FileSpec, Suite};

use crate::support::{TestStore, kind};

fn go_on(_: WorkProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
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
    let log = write("a/b/log", Suite::Aes256GcmLog, &[3; 70_000]);
    std::fs::write(store.data().join("empty"), b"").unwrap();
    let report = verify(&fs, store.data(), &go_on).unwrap();
    assert_eq!((report.authenticated_files, report.unauthenticated_files), (2, 1));
    assert_eq!((report.empty_files, report.torn_logs, report.problems.len()), (1, 0, 0));
    // Every part of every authenticated body counts.
    for (path, at) in [(&chunks, 4096), (&chunks, 300_000), (&log, 50_000), (&chunks, 40)] {
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
    // A log that a crash cut off is counted, and is no problem.
    let len = log.metadata().unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(len - 1).unwrap();
    let report = verify(&fs, store.data(), &go_on).unwrap();
    assert_eq!((report.torn_logs, report.problems.len()), (1, 0));
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
