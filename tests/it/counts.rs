//! How much was encrypted under a data key, when its process ends well and when it does not.

use std::sync::Arc;

use atrest::keyring::MemoryStorage;
use atrest::{EncryptedFs, ErrorKind, FileKind, Keyring};

use crate::support::{
    DIR, ManualClock, ScriptedKms, in_dir, killed, kind, manual, mem_create, mem_files, mem_open,
    mem_storage, ns,
};
use atrest_testkit::MemFs;

const LEN: u64 = 5000;

fn write(fs: &EncryptedFs, name: &str) {
    let mut writer = fs.create_new(in_dir(name), FileKind::Table).unwrap();
    writer.append(&[7; LEN as usize]).unwrap();
    writer.finish().unwrap();
}

/// Of the first data key, by what is on disk.
fn stored(mem: &MemFs, kms: &Arc<ScriptedKms>) -> u64 {
    let keyring = Keyring::open_read_only(mem_storage(&mem.fork()), kms.clone(), manual()).unwrap();
    keyring.status().data_keys[0].encrypted_bytes
}

fn generation(mem: &MemFs) -> u64 {
    atrest::keyring::KeyringInfo::read(&mem_storage(&mem.fork())).unwrap().generation
}

#[test]
fn a_clean_end_keeps_the_exact_count_with_one_commit() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(1));
    let fs = mem_create(&mem, &kms).unwrap();
    write(&fs, "one");
    assert_eq!((stored(&mem, &kms), generation(&mem)), (0, 1));
    atrest::Store::from(fs).close().unwrap();
    assert_eq!((stored(&mem, &kms), generation(&mem)), (LEN, 2));
    // The last handle, whichever it is, with a writer that is dropped and not finished.
    let fs = mem_open(&mem, &kms).unwrap();
    let other = fs.clone();
    let mut writer = fs.create_new(in_dir("two"), FileKind::Table).unwrap();
    writer.append(&[7; LEN as usize]).unwrap();
    drop(fs);
    drop(other);
    assert_eq!(generation(&mem), 2, "a writer still has the store");
    drop(writer);
    assert_eq!((stored(&mem, &kms), generation(&mem)), (2 * LEN, 3));
    let fs = mem_open(&mem, &kms).unwrap();
    // Nothing to keep, nothing written.
    mem.clear_log();
    atrest::Store::from(fs).close().unwrap();
    drop(mem_open(&mem, &kms).unwrap());
    assert_eq!(generation(&mem), 3);
    let appended = mem.log().iter().any(|op| matches!(op, atrest_testkit::mem_fs::Op::Append(..)));
    assert!(!appended, "{:?}", mem.log());
    // Read-only.
    let keyring = Keyring::open_read_only(mem_storage(&mem), kms.clone(), manual()).unwrap();
    let before = mem.files();
    keyring.close().unwrap();
    assert_eq!(mem.files(), before);
}

#[test]
fn the_background_thread_does_not_keep_the_last_handle_from_counting() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(1));
    for round in 1..=20 {
        let storage = mem_storage(&mem);
        let options = atrest::Options::default();
        let keyring = Keyring::open_or_create(storage, kms.clone(), options).unwrap();
        let fs = mem_files(&mem, keyring);
        write(&fs, &round.to_string());
        drop(fs);
        assert_eq!(stored(&mem, &kms), round * LEN);
    }
}

#[test]
fn a_killed_process_loses_an_hour_and_never_counts_too_much() {
    let (mem, kms, clock) = (MemFs::new(DIR), ScriptedKms::new(1), ManualClock::new());
    let mut options = manual();
    options.clock = clock.clone();
    let keyring = Keyring::create(mem_storage(&mem), kms.clone(), options.clone()).unwrap();
    let fs = mem_files(&mem, keyring);
    write(&fs, "one");
    const HOUR_NS: u64 = 3600 * 1_000_000_000;
    clock.advance(ns(HOUR_NS - 1));
    fs.keyring().maintain().unwrap();
    assert_eq!((stored(&mem, &kms), generation(&mem)), (0, 1));
    clock.advance(ns(1));
    fs.keyring().maintain().unwrap();
    assert_eq!((stored(&mem, &kms), generation(&mem)), (LEN, 2));
    // Nothing more: nothing to commit.
    clock.advance(ns(HOUR_NS));
    fs.keyring().maintain().unwrap();
    assert_eq!(generation(&mem), 2);
    write(&fs, "two");
    let mem = killed(&mem, fs);
    // Stopped anywhere in the next process's end, the count is between.
    let count = {
        let fork = mem.fork();
        let fs = mem_open(&fork, &kms).unwrap();
        write(&fs, "three");
        atrest::Store::from(fs).close().unwrap();
        fork.log().len()
    };
    for at in 0..=count {
        let stopped = mem.fork();
        stopped.stop_at(at);
        let Ok(fs) = mem_open(&stopped, &kms) else { continue };
        let Ok(mut writer) = fs.create_new(in_dir("three"), FileKind::Table) else { continue };
        let written = writer.append(&[7; LEN as usize]).and_then(|()| writer.finish());
        let closed = atrest::Store::from(fs).close();
        for (crash, left) in stopped.crashes() {
            let stored = stored(&left, &kms);
            println!("stopped at {at}, {crash:?}: {stored}");
            if written.is_ok() && closed.is_ok() {
                assert_eq!(stored, 2 * LEN);
            } else {
                assert!(stored == LEN || stored == 2 * LEN);
            }
        }
    }
}

#[test]
fn closing_does_not_fail_when_keys_are_withdrawn_and_tells_of_other_faults() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(1));
    let fs = mem_create(&mem, &kms).unwrap();
    write(&fs, "one");
    mem.room(Some(0));
    assert!(matches!(kind(atrest::Store::from(fs.clone()).close()), ErrorKind::Io(_)));
    mem.room(None);
    // The file is open for writing while keys are withdrawn and given back.
    let mut writer = fs.create_new(in_dir("two"), FileKind::Table).unwrap();
    writer.append(&[7; LEN as usize]).unwrap();
    fs.keyring().access().revoke().unwrap();
    fs.keyring().access().restore().unwrap();
    writer.append(&[7; LEN as usize]).unwrap();
    writer.finish().unwrap();
    atrest::Store::from(fs.clone()).close().unwrap();
    assert_eq!(stored(&mem, &kms), 3 * LEN);
    write(&fs, "three");
    fs.keyring().access().revoke().unwrap();
    let before = mem.files();
    atrest::Store::from(fs).close().unwrap();
    assert_eq!(mem.files(), before);
}

#[test]
fn a_drop_waits_for_no_network() {
    // A storage without a local directory is committed by `close` alone.
    let (storage, kms) = (Arc::new(MemoryStorage::new()), ScriptedKms::new(1));
    let encrypt = |keyring: &Keyring| {
        let mut encryptor = keyring.encryptor(FileKind::Table).unwrap();
        encryptor.append(&[7; LEN as usize], &mut Vec::new()).unwrap();
    };
    let stored = || {
        let keyring = Keyring::open_read_only(storage.clone(), kms.clone(), manual()).unwrap();
        keyring.status().data_keys[0].encrypted_bytes
    };
    let keyring = Keyring::create(storage.clone(), kms.clone(), manual()).unwrap();
    encrypt(&keyring);
    drop(keyring);
    assert_eq!(stored(), 0);
    let keyring = Keyring::open(storage.clone(), kms.clone(), manual()).unwrap();
    encrypt(&keyring);
    keyring.close().unwrap();
    assert_eq!(stored(), LEN);
}
