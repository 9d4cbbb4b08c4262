//! Ends of logs that a crash or somebody left, and logs that cannot be read.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use atrest::keyring::IntegrityPolicy;
use atrest::{FileKind, HEADER_LEN, Integrity, Options, Store};
use atrest_raft_engine::EncryptedFileSystem;
use atrest_testkit::{Engine as _, ScriptedKms};
use raft_engine::env::{FileSystem, Handle, Permission};
use raft_engine::{Config, ReadableSize};
use tempfile::TempDir;

use crate::support::{Raft, config, has, put, text};

fn place() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("raft")).unwrap();
    let mut options = Options::default();
    options.settings.integrity = IntegrityPolicy::all(Integrity::Authenticated);
    let store = Store::create(dir.path(), ScriptedKms::new("customer"), options).unwrap();
    (dir, store)
}

/// The logs of the append queue, the oldest first.
fn logs(dir: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.path().join("raft")).unwrap();
    let mut logs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|end| end == "raftlog"));
    logs.sort();
    logs
}

fn in_one_log(dir: &TempDir) -> Config {
    let (target_file_size, purge_threshold) = (ReadableSize::mb(1), ReadableSize::mb(2));
    Config { target_file_size, purge_threshold, ..config(&dir.path().join("raft")) }
}

#[test]
fn what_a_damaged_end_means_is_the_engine_s_decision() {
    for damage in [
        |log: &mut Vec<u8>| log.truncate(log.len() - 3),
        |log: &mut Vec<u8>| *log.last_mut().unwrap() ^= 1,
        |log: &mut Vec<u8>| log.extend_from_slice(&[0; 512]),
        |log: &mut Vec<u8>| log.extend_from_slice(&[0xee; 5]),
    ] {
        let (dir, store) = place();
        put(&mut Raft::with(&store, in_one_log(&dir)).unwrap(), 0..20);
        let log = logs(&dir).pop().unwrap();
        let mut bytes = fs::read(&log).unwrap();
        let (whole, len) = (store.files().open(&log).unwrap().frame_count().unwrap(), bytes.len());
        damage(&mut bytes);
        let lost = u64::from(bytes.len() <= len);
        fs::write(&log, bytes).unwrap();

        assert!(Raft::strict(&store, &dir.path().join("raft")).is_err());
        let mut raft = Raft::with(&store, in_one_log(&dir)).unwrap();
        has(&raft, 20 - lost);
        put(&mut raft, 20 - lost..30);
        drop(raft);
        has(&Raft::strict(&store, &dir.path().join("raft")).unwrap(), 30);
        assert!(store.files().open(&log).unwrap().frame_count().unwrap() <= whole + 10);
    }
}

#[test]
fn a_log_that_a_crash_left_without_a_header_is_an_empty_one() {
    let cut = [0, 1, 100, HEADER_LEN - 1, HEADER_LEN].map(|len| (len, false));
    // The length is on the disk, and the bytes are not.
    let lost = [100, HEADER_LEN, HEADER_LEN + 5000].map(|len| (len, true));
    for (len, lost) in cut.into_iter().chain(lost) {
        let (dir, store) = place();
        put(&mut Raft::open(&store, &dir.path().join("raft")).unwrap(), 0..40);
        let last = logs(&dir).pop().unwrap();
        let number: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let next = last.with_file_name(format!("{:016}.raftlog", number + 1));
        store.files().create_new(&next, FileKind::Log).unwrap().finish().unwrap();
        let file = fs::OpenOptions::new().write(true).open(&next).unwrap();
        file.set_len(if lost { 0 } else { len as u64 }).unwrap();
        file.set_len(len as u64).unwrap();
        let mut raft = Raft::open(&store, &dir.path().join("raft")).unwrap();
        has(&raft, 40);
        put(&mut raft, 40..80);
        drop(raft);
        has(&Raft::strict(&store, &dir.path().join("raft")).unwrap(), 80);
    }
}

#[test]
fn a_changed_byte_in_an_older_log_is_refused() {
    let (dir, store) = place();
    put(&mut Raft::open(&store, &dir.path().join("raft")).unwrap(), 0..100);
    let logs = logs(&dir);
    assert!(logs.len() > 3, "{logs:?}");
    let mut bytes = fs::read(&logs[1]).unwrap();
    bytes[HEADER_LEN + 700] ^= 0x10;
    fs::write(&logs[1], bytes).unwrap();
    assert!(Raft::open(&store, &dir.path().join("raft")).is_err());
}

#[test]
fn a_log_that_cannot_be_read_is_not_cut() {
    let (dir, store) = place();
    put(&mut Raft::with(&store, in_one_log(&dir)).unwrap(), 0..20);
    let (log, files) = (logs(&dir).pop().unwrap(), EncryptedFileSystem::new(&store));
    let before = fs::read(&log).unwrap();
    let handle = Arc::new(files.open(&log, Permission::ReadWrite).unwrap());
    let mut reader = files.new_reader(handle.clone()).unwrap();
    store.access().revoke().unwrap();
    reader.read(&mut [0; 100]).unwrap_err();
    store.access().restore().unwrap();
    handle.truncate(0).unwrap_err();
    assert_eq!(fs::read(&log).unwrap(), before);
    has(&Raft::strict(&store, &dir.path().join("raft")).unwrap(), 20);
}

#[test]
fn what_was_written_is_made_durable_without_the_customer_s_key() {
    let (dir, store) = place();
    let (path, files) = (dir.path().join("raft/log"), EncryptedFileSystem::new(&store));
    let handle = Arc::new(files.create(&path).unwrap());
    let mut writer = files.new_writer(handle.clone()).unwrap();
    writer.write_all(text(0).as_bytes()).unwrap();
    store.access().revoke().unwrap();
    handle.sync().unwrap();
    writer.write_all(b"more").unwrap_err();
    handle.sync().unwrap();
    store.access().restore().unwrap();
    writer.write_all(b"more").unwrap();
    assert_eq!(handle.file_size().unwrap(), text(0).len() + 4);
}

#[test]
fn a_write_in_the_middle_begins_a_file_under_a_new_key() {
    let (dir, store) = place();
    let (path, files) = (dir.path().join("raft/log"), EncryptedFileSystem::new(&store));
    let handle = Arc::new(files.create(&path).unwrap());
    let mut writer = files.new_writer(handle.clone()).unwrap();
    writer.write_all(b"one two").unwrap();
    let before = fs::read(&path).unwrap();
    writer.seek(SeekFrom::Start(4)).unwrap();
    writer.write_all(b"six").unwrap();
    assert_ne!(fs::read(&path).unwrap()[96..128], before[96..128], "the same salt");
    let mut read = String::new();
    files.new_reader(handle).unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read, "one six");
}
