//! What the store's settings and a file's spec decide.

use atrest::keyring::Options;
use atrest::{Integrity, IntegrityPolicy, Settings};

use super::*;

fn requiring(store: &TestStore, authenticated: bool) -> EncryptedFs {
    let mut options = Options::default();
    let mut settings = Settings::default();
    settings.integrity = Integrity::ALL[usize::from(authenticated)].into();
    options.settings = settings;
    store.create(options).files().clone()
}

#[test]
fn new_files_follow_the_settings() {
    let kinds = [
        (FileKind::Table, Suite::Aes256GcmChunks),
        (FileKind::Log, Suite::Aes256GcmLog),
        (FileKind::Manifest, Suite::Aes256GcmLog),
        (FileKind::Blob, Suite::Aes256GcmChunks),
        (FileKind::Other, Suite::Aes256GcmChunks),
    ];
    for required in [false, true] {
        let store = TestStore::new();
        let fs = requiring(&store, required);
        for (i, (kind, authenticated)) in kinds.into_iter().enumerate() {
            let path = store.data().join(i.to_string());
            let mut writer = fs.create_new(&path, kind).unwrap();
            writer.append(b"some bytes").unwrap();
            writer.finish().unwrap();
            let reader = fs.open(&path).unwrap();
            let expected = if required { authenticated } else { Suite::Aes256Ctr };
            assert_eq!(reader.suite(), Some(expected));
            assert_eq!(read_all(&reader).unwrap(), b"some bytes");
        }
        assert!(fs.list(store.data()).unwrap().iter().all(|entry| entry.len == 10));
    }
}

#[test]
fn a_store_that_requires_authentication_refuses_suite_1() {
    let store = TestStore::new();
    let fs = requiring(&store, true);
    let path = store.data().join("a");
    let spec = FileSpec::new(FileKind::Table).suite(Suite::Aes256Ctr);
    assert_eq!(fs.create_new(&path, spec).unwrap_err().kind(), ErrorKind::SuiteTooWeak);
    assert!(!path.exists());
    for spec in [chunked(1 << 14), framed()] {
        write(&fs, &path, spec, &[b"x"]);
        fs.open(&path).unwrap();
        fs.remove(&path).unwrap();
    }
}

#[test]
fn a_chunk_length_out_of_range_is_refused() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("a");
    for chunk_len in [0, 1, 16, 2048, 4095, 4097, 12_288, 1 << 17, 1 << 31] {
        let error = fs.create_new(&path, chunked(chunk_len)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{chunk_len}");
        // It means nothing to other suites.
        let spec = chunked(chunk_len).suite(Suite::Aes256GcmLog);
        write(&fs, &path, spec, &[b"x"]);
        fs.remove(&path).unwrap();
    }
    for log2 in 12..=16 {
        write(&fs, &path, chunked(1 << log2), &[b"x"]);
        assert_eq!(std::fs::read(&path).unwrap()[13], log2);
        fs.remove(&path).unwrap();
    }
}

#[test]
fn one_kind_may_have_another_promise_than_the_rest() {
    let store = TestStore::new();
    let fs = requiring(&store, false);
    let (table, log) = (store.data().join("table"), store.data().join("log"));
    let log_spec = FileSpec::new(FileKind::Log);
    write(&fs, &table, FileSpec::new(FileKind::Table), &[b"x"]);
    write(&fs, &log, log_spec, &[b"x"]);
    let policy = IntegrityPolicy::default().with(FileKind::Log, Integrity::Authenticated);
    let mut settings = fs.keyring().settings();
    settings.integrity = policy;
    fs.keyring().keys().configure(&settings).unwrap();
    assert_eq!(fs.keyring().settings().integrity, policy);
    // The old log is refused, the table is not; a new log is authenticated.
    assert_eq!(fs.open(&log).unwrap_err().kind(), ErrorKind::SuiteTooWeak);
    fs.open(&table).unwrap();
    fs.remove(&log).unwrap();
    let weak = log_spec.integrity(Integrity::Confidential);
    assert_eq!(fs.create_new(&log, weak).unwrap_err().kind(), ErrorKind::SuiteTooWeak);
    write(&fs, &log, log_spec, &[b"x"]);
    assert_eq!(fs.open(&log).unwrap().suite(), Some(Suite::Aes256GcmLog));
    // A file may always promise more than its kind.
    let strong = FileSpec::new(FileKind::Blob).integrity(Integrity::Authenticated);
    write(&fs, &store.data().join("blob"), strong, &[b"x"]);
    let blob = fs.open(store.data().join("blob")).unwrap();
    assert_eq!(blob.suite(), Some(Suite::Aes256GcmChunks));
}

#[test]
fn promises_outlive_the_process() {
    let store = TestStore::new();
    let policy = IntegrityPolicy::all(Integrity::Authenticated)
        .with(FileKind::Table, Integrity::Confidential);
    let mut options = Options::default();
    options.settings.integrity = policy;
    drop(store.create(options));
    assert_eq!(store.open(Options::default()).keyring().settings().integrity, policy);
}
