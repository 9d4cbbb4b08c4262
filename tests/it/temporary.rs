//! Temporary files: their key is in the memory of one process.

use std::ops::ControlFlow;
use std::time::Duration;

use atrest::backup::{Chain, DirectoryTarget, RestoreSpec, Snapshot};
use atrest::keyring::IntegrityPolicy;
use atrest::store::StalePolicy;
use atrest::verify::verify;
use atrest::{
    EncryptedFs, ErrorKind, FileKind, FileSpec, HEADER_LEN, Header, Integrity, Store, Suite,
};
use sha2::{Digest, Sha256};

use crate::support::{TestStore, kind, manual};

fn write(fs: &EncryptedFs, path: std::path::PathBuf, spec: impl Into<FileSpec>) {
    let mut writer = fs.create_new(path, spec).unwrap();
    writer.append(b"what a query spilled").unwrap();
    writer.finish().unwrap();
}

fn read(fs: &EncryptedFs, path: &std::path::Path) -> Result<Vec<u8>, atrest::Error> {
    let reader = fs.open(path)?;
    let mut bytes = vec![0; reader.len()? as usize];
    reader.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[test]
fn it_is_encrypted_under_a_key_that_no_keyring_has() {
    let place = TestStore::new();
    let store = place.create(manual());
    let before = place.contents();
    for suite in Suite::ALL {
        let path = place.data().join(suite.name());
        write(store.files(), path.clone(), FileSpec::new(FileKind::Temporary).suite(suite));
        assert_eq!(read(store.files(), &path).unwrap(), b"what a query spilled");
        let header = Header::parse(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((header.kind, header.suite), (FileKind::Temporary, suite));
        let status = store.keyring().status();
        assert!(status.data_keys.iter().all(|key| key.id != header.data_key_id));
    }
    store.keys().rotate().unwrap();
    assert!(read(store.files(), &place.data().join("aes256-ctr")).is_ok(), "nothing to do with it");
    drop(store);
    assert_ne!(before["KEYRING"], place.contents()["KEYRING"], "of the rotation");
    // What it is promised is what other files are.
    let mut settings = place.open(manual()).keyring().settings();
    settings.integrity = IntegrityPolicy::default().with(FileKind::Other, Integrity::Authenticated);
    let store = place.open(manual());
    store.keys().configure(&settings).unwrap();
    let weak = FileSpec::new(FileKind::Temporary).suite(Suite::Aes256Ctr);
    assert_eq!(
        kind(store.files().create_new(place.data().join("w"), weak)),
        ErrorKind::SuiteTooWeak
    );
    write(store.files(), place.data().join("strong"), FileKind::Temporary);
    let suite = store.files().open(place.data().join("strong")).unwrap().suite();
    assert_eq!(suite, Some(Suite::Aes256GcmChunks));
}

#[test]
fn its_key_ends_with_the_process() {
    let place = TestStore::new();
    let store = place.create(manual());
    let (old, kept, new) =
        (place.data().join("old"), place.data().join("kept"), place.data().join("new"));
    write(store.files(), old.clone(), FileKind::Temporary);
    write(store.files(), kept.clone(), FileKind::Table);
    store.close().unwrap();

    let store = place.open(manual());
    let fs = store.files();
    assert_eq!(kind(fs.open(&old)), ErrorKind::TemporaryEnded);
    write(fs, new.clone(), FileKind::Temporary);
    assert!(fs.list(place.data()).unwrap().iter().any(|entry| entry.path == old));

    // Whoever looks at all files knows it, and makes nothing of it.
    let report = verify(fs, place.data(), &|_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.temporary_files, report.problems.len()), (1, 0));
    let usage = store.renewal().usage().unwrap();
    assert_eq!((usage.temporary.files, usage.unknown_keys.len()), (2, 0));
    let rebuilt = store.renewal().rebuild_usage(&|_| {}).unwrap();
    assert_eq!((rebuilt.temporary, rebuilt.unknown_keys), (usage.temporary, usage.unknown_keys));
    let first = store.keys().active_id().unwrap();
    store.keys().rotate().unwrap();
    let stale = store.renewal().stale_files(&StalePolicy::default(), &|_| {}).unwrap();
    assert!(stale.into_iter().all(|file| *file.path == *kept));

    // It holds no data key.
    fs.remove(&kept).unwrap();
    let retire = || store.renewal().retire(None, Duration::ZERO, &|_| {}).unwrap();
    let destroyed: Vec<_> = [retire(), retire()].iter().flat_map(|one| one.destroyed()).collect();
    assert_eq!(destroyed, [first]);

    assert_eq!(store.renewal().remove_temporary(&|_| {}).unwrap(), std::slice::from_ref(&old));
    assert!(!old.exists());
    assert_eq!(read(fs, &new).unwrap(), b"what a query spilled");
    assert_eq!(store.renewal().remove_temporary(&|_| {}).unwrap().len(), 0);
    assert_eq!(store.renewal().usage().unwrap().temporary.files, 1);
    drop(store);
    // A keyring that is lost is not missed for its sake.
    std::fs::remove_file(place.data().join("KEYRING")).unwrap();
    for entry in std::fs::read_dir(place.data()).unwrap() {
        let path = entry.unwrap().path();
        if path != new {
            std::fs::remove_file(path).unwrap();
        }
    }
    drop(place.create(manual()));
}

#[test]
fn its_key_ends_when_access_is_withdrawn() {
    let place = TestStore::new();
    let store = place.create(manual());
    let (fs, path) = (store.files(), place.data().join("spill"));
    write(fs, path.clone(), FileKind::Temporary);
    let reader = fs.open(&path).unwrap();
    let mut writer = fs.create_new(place.data().join("more"), FileKind::Temporary).unwrap();
    writer.append(b"one").unwrap();
    store.access().revoke().unwrap();
    let again = place.data().join("again");
    assert_eq!(kind(fs.create_new(&again, FileKind::Temporary)), ErrorKind::CmekRevoked);
    assert_eq!(kind(fs.open(&path)), ErrorKind::CmekRevoked);
    for _ in 0..2 {
        assert_eq!(kind(reader.read_at(&mut [0; 9], 0)), ErrorKind::CmekRevoked);
        assert_eq!(kind(writer.append(b"two")), ErrorKind::CmekRevoked);
        // What was given back is not this key.
        store.access().restore().unwrap();
    }
    assert_eq!(kind(fs.open(&path)), ErrorKind::TemporaryEnded);
    write(fs, again.clone(), FileKind::Temporary);
    assert_eq!(read(fs, &again).unwrap(), b"what a query spilled");
    assert_eq!(store.renewal().remove_temporary(&|_| {}).unwrap(), [path]);
}

#[test]
fn nothing_but_the_header_s_own_key_opens_it() {
    let (place, other) = (TestStore::new(), TestStore::new());
    let (store, foreign) = (place.create(manual()), other.create(manual()));
    let (spill, table) = (place.data().join("spill"), place.data().join("table"));
    write(store.files(), spill.clone(), FileKind::Temporary);
    write(store.files(), table.clone(), FileKind::Table);
    assert_eq!(kind(foreign.files().open(&spill)), ErrorKind::IdentityMismatch);
    assert_eq!(foreign.renewal().remove_temporary(&|_| {}).unwrap().len(), 0);
    // Its kind, and with it where its key is looked for, stands under the commitment.
    for (path, number, expected) in [
        (&spill, FileKind::Other, ErrorKind::UnknownKey),
        (&table, FileKind::Temporary, ErrorKind::TemporaryEnded),
    ] {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[14] = number.number();
        let checksum = Sha256::digest(&bytes[..160]);
        bytes[160..176].copy_from_slice(&checksum[..16]);
        assert!(bytes.len() > HEADER_LEN);
        std::fs::write(path, bytes).unwrap();
        assert_eq!(kind(store.files().open(path)), expected);
    }
    drop(store);
    let reader = Store::open_read_only(place.data(), place.kms(), manual()).unwrap();
    let created = reader.files().create_new(place.data().join("x"), FileKind::Temporary);
    assert_eq!(kind(created), ErrorKind::ReadOnly);
    assert_eq!(kind(reader.renewal().remove_temporary(&|_| {})), ErrorKind::ReadOnly);
}

#[test]
fn no_backup_has_it() {
    let place = TestStore::new();
    let store = place.create(manual());
    write(store.files(), place.data().join("spill"), FileKind::Temporary);
    write(store.files(), place.data().join("table"), FileKind::Table);
    let (chain_dir, restored) =
        (place.dir.path().join("backup"), place.dir.path().join("restored"));
    std::fs::create_dir(&chain_dir).unwrap();
    let chain = Chain::open_or_create(DirectoryTarget::new(chain_dir), place.kms()).unwrap();
    let snapshot = Snapshot::take(&store, place.data()).unwrap();
    let go_on = |_| ControlFlow::Continue(());
    chain.back_up(&store, &snapshot, &go_on).unwrap();
    chain.restore(&RestoreSpec::new(&restored, place.kms()), &go_on).unwrap();
    assert!(restored.join("table").exists());
    assert!(!restored.join("spill").exists());
}
