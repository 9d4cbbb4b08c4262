//! Keyrings and files that are wrong in some way: each its own kind of error, and the
//! store stays as it was.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use atrest::error::KmsErrorKind;
use atrest::keyring::{DirectoryStorage, ImagePlace, KeyringInfo, KeyringStorage, MemoryStorage};
use atrest::kms::Kms;
use atrest::{
    ErrorKind, Expect, FileId, FileKind, FileSpec, Header, Integrity, Keyring, PlaintextPolicy,
    Settings, Store, Suite,
};

use crate::support::{
    DIR, Mode, ScriptedKms, TestStore, check_file, in_dir, killed, kind, left_out, manual,
    mem_create, mem_open, mem_storage, write_file,
};
use atrest_testkit::MemFs;

mod beside;

/// A store in memory with one file.
fn base() -> (MemFs, Arc<ScriptedKms>) {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(1));
    let fs = mem_create(&mem, &kms).unwrap();
    write_file(&fs, "file").unwrap();
    (killed(&mem, fs), kms)
}

/// A storage with this keyring.
fn storage_of(keyring: &[u8]) -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.commit(keyring, 1, None).unwrap();
    storage
}

#[test]
fn every_bit_flip_of_a_keyring_is_refused() {
    let (mem, kms) = base();
    let good = mem.files()["KEYRING"].clone();
    for bit in 0..8 * good.len() {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let refused = kind(Keyring::open(storage_of(&bad), kms.clone(), manual()));
        let expected: &[ErrorKind] = match bit / 8 {
            8..10 => &[ErrorKind::UnsupportedVersion],
            12..20 => &[ErrorKind::KeyringCorrupt, ErrorKind::KeyringTruncated],
            _ => &[ErrorKind::KeyringCorrupt],
        };
        assert!(expected.contains(&refused), "bit {bit}: {refused:?}");
    }
}

#[test]
fn every_truncation_of_a_keyring_is_refused() {
    let (mem, kms) = base();
    let good = mem.files()["KEYRING"].clone();
    for len in 0..good.len() {
        mem.put(&in_dir("KEYRING"), &good[..len]);
        let before = mem.files();
        assert_eq!(kind(mem_open(&mem, &kms)), ErrorKind::KeyringTruncated, "{len} bytes");
        let again = Keyring::open_or_create(mem_storage(&mem), kms.clone(), manual());
        assert_eq!(kind(again), ErrorKind::KeyringTruncated);
        let created = Keyring::create(mem_storage(&mem), kms.clone(), manual());
        assert_eq!(kind(created), ErrorKind::KeyringExists);
        assert_eq!(mem.files(), before);
    }
}

#[test]
fn a_wrong_customers_key_is_refused() {
    let (mem, kms) = base();
    let before = mem.files();
    let integrity = ErrorKind::Kms(KmsErrorKind::Integrity);
    assert_eq!(kind(mem_open(&mem, &ScriptedKms::new(2))), integrity);
    kms.set(Mode::Garbage);
    assert_eq!(kind(mem_open(&mem, &kms)), ErrorKind::WrongStoreKey);
    for failure in [KmsErrorKind::Unreachable, KmsErrorKind::KeyDisabled, KmsErrorKind::NotFound] {
        kms.set(Mode::Down(failure));
        assert_eq!(kind(mem_open(&mem, &kms)), ErrorKind::Kms(failure));
    }
    let none: Vec<Arc<dyn Kms>> = Vec::new();
    let refused = kind(Keyring::open(mem_storage(&mem), none, manual()));
    assert_eq!(refused, ErrorKind::Kms(KmsErrorKind::Misconfigured));
    assert_eq!(mem.files(), before);
    kms.set(Mode::Good);
    check_file(&mem_open(&mem, &kms).unwrap(), "file");
}

#[test]
fn another_stores_file_is_refused() {
    let (mem, kms) = base();
    let (other, _) = base();
    mem.put(&in_dir("theirs"), &other.files()["file"]);
    let fs = mem_open(&mem, &kms).unwrap();
    assert_eq!(kind(fs.open(in_dir("theirs"))), ErrorKind::IdentityMismatch);
    // Their keyring in our place gives their store, and our files are refused.
    mem.put(&in_dir("KEYRING"), &other.files()["KEYRING"]);
    assert_eq!(kind(fs.keyring().reload()), ErrorKind::IdentityMismatch);
    check_file(&fs, "file");
    assert_eq!(kind(fs.keyring().keys().rotate()), ErrorKind::IdentityMismatch);
    assert_eq!(mem.files()["KEYRING"], other.files()["KEYRING"]);
}

#[test]
fn a_missing_keyring_is_never_made_up() {
    let (mem, kms) = base();
    let fs = mem_open(&mem, &kms).unwrap();
    fs.keyring().keys().rotate().unwrap();
    fs.keyring().keys().rotate().unwrap();
    drop(fs);
    let whole = mem.files();
    mem.delete(&in_dir("KEYRING"));
    let before = mem.files();
    let refused = mem_open(&mem, &kms).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::KeyringMissing);
    assert!(refused.to_string().contains("1, 2"), "{refused}");
    let again = Keyring::open_or_create(mem_storage(&mem), kms.clone(), manual());
    assert_eq!(kind(again), ErrorKind::KeyringMissing);
    let created = Keyring::create(mem_storage(&mem), kms.clone(), manual());
    assert_eq!(kind(created), ErrorKind::KeyringExists);
    let read = Keyring::open_read_only(mem_storage(&mem), kms.clone(), manual());
    assert_eq!(kind(read), ErrorKind::KeyringMissing);
    assert_eq!(kind(KeyringInfo::read(&mem_storage(&mem))), ErrorKind::KeyringMissing);
    assert_eq!(mem.files(), before);
    // Put back, it opens.
    mem.put(&in_dir("KEYRING"), &whole["KEYRING"]);
    check_file(&mem_open(&mem, &kms).unwrap(), "file");
    // Without older images.
    for image in ["KEYRING", "KEYRING.1", "KEYRING.2"] {
        mem.delete(&in_dir(image));
    }
    let refused = mem_open(&mem, &kms).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::KeyringMissing);
    assert!(!refused.to_string().contains("older"), "{refused}");
}

#[test]
fn a_keyring_that_vanishes_under_a_writer_is_not_replaced() {
    let (mem, kms) = base();
    let fs = mem_open(&mem, &kms).unwrap();
    mem.delete(&in_dir("KEYRING"));
    let refused = kind(fs.keyring().keys().rotate());
    assert_eq!(refused, ErrorKind::KeyringMissing);
    assert!(!mem.files().contains_key("KEYRING"));
    check_file(&fs, "file");
}

#[test]
fn a_keyring_older_than_the_anchor_is_refused() {
    let (mem, kms) = base();
    let old = mem.files()["KEYRING"].clone();
    let fs = mem_open(&mem, &kms).unwrap();
    let first = fs.keyring().anchor();
    fs.keyring().keys().rotate().unwrap();
    let second = fs.keyring().anchor();
    fs.keyring().keys().rotate().unwrap();
    let third = fs.keyring().anchor();
    // Put back under an open handle.
    let now = mem.files()["KEYRING"].clone();
    mem.put(&in_dir("KEYRING"), &old);
    assert_eq!(kind(fs.keyring().reload()), ErrorKind::KeyringRolledBack);
    assert_eq!(kind(fs.keyring().keys().rotate()), ErrorKind::KeyringRolledBack);
    drop(fs);
    let open = |keyring: &[u8], anchor| {
        let mut options = manual();
        options.anchor = Some(anchor);
        Keyring::open(storage_of(keyring), kms.clone(), options)
    };
    for anchor in [first, second, third] {
        open(&now, anchor).unwrap();
    }
    open(&old, first).unwrap();
    assert_eq!(kind(open(&old, second)), ErrorKind::KeyringRolledBack);
    assert_eq!(kind(open(&old, third)), ErrorKind::KeyringRolledBack);
    // Another history of the same length, and one that is a step longer.
    let mut forked = third;
    forked.mac[0] ^= 1;
    assert_eq!(kind(open(&now, forked)), ErrorKind::KeyringRolledBack);
    let mut forked = second;
    forked.mac[31] ^= 1;
    assert_eq!(kind(open(&now, forked)), ErrorKind::KeyringRolledBack);
    let (other, _) = base();
    let foreign = mem_open(&other, &kms).unwrap().keyring().anchor();
    assert_eq!(kind(open(&now, foreign)), ErrorKind::IdentityMismatch);
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let store = TestStore::new();
    let first = store.keyring();
    let before = store.contents();
    let second = Keyring::open(store.storage(), store.kms(), manual());
    assert_eq!(kind(second), ErrorKind::KeyringBusy);
    let second = Keyring::open_or_create(store.storage(), store.kms(), manual());
    assert_eq!(kind(second), ErrorKind::KeyringBusy);
    let second = Keyring::create(store.storage(), store.kms(), manual());
    assert_eq!(kind(second), ErrorKind::KeyringBusy);
    Keyring::open_read_only(store.storage(), store.kms(), manual()).unwrap();
    assert_eq!(store.contents(), before);
    drop(first);
    Keyring::open(store.storage(), store.kms(), manual()).unwrap();
    let second = Keyring::create(store.storage(), store.kms(), manual());
    assert_eq!(kind(second), ErrorKind::KeyringExists);
}

#[test]
fn a_read_only_directory_is_readable() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("file");
    fs.create_new(&path, FileKind::Table).unwrap().finish().unwrap();
    drop(fs);
    let before = store.contents();
    let locked = store.data().join("KEYRING.lock");
    std::fs::remove_file(locked).unwrap();
    let mode = |mode| {
        std::fs::set_permissions(store.data(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o500);
    // The superuser writes everywhere; then only the reader is shown.
    let denied = std::fs::write(store.data().join("probe"), b"").is_err();
    if denied {
        let refused = kind(Keyring::open(store.storage(), store.kms(), manual()));
        assert_eq!(refused, ErrorKind::Io(io::ErrorKind::PermissionDenied));
    } else {
        std::fs::remove_file(store.data().join("probe")).unwrap();
    }
    let reader = Store::open_read_only(store.data(), store.kms(), manual()).unwrap();
    reader.files().open(&path).unwrap();
    mode(0o700);
    assert_eq!(store.contents(), before);
    assert!(!store.data().join("KEYRING.lock").exists(), "a reader wrote a lock file");
}

/// A full disk of the real kind, where the test may mount one.
#[test]
fn a_full_file_system_leaves_the_store_as_it_was() {
    let store = TestStore::new();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(store.data())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        return left_out("this user may not mount a file system");
    }
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
        }
    }
    let _mounted = Mounted(store.data());
    let fs = store.create(manual()).files().clone();
    let path = store.data().join("file");
    let mut writer = fs.create_new(&path, FileKind::Table).unwrap();
    writer.append(b"bytes").unwrap();
    writer.finish().unwrap();
    // Fill the rest, to the last byte.
    let mut filler = std::fs::File::create(store.data().join("filler")).unwrap();
    while io::Write::write(&mut filler, &[0; 512]).is_ok() {}
    drop(filler);
    let before = store.contents();
    let full = ErrorKind::Io(io::ErrorKind::StorageFull);
    assert_eq!(kind(fs.keyring().keys().rotate()), full);
    assert_eq!(kind(fs.keyring().keys().rotate_store_key()), full);
    let mut writer = fs.create_new(store.data().join("new"), FileKind::Table).unwrap();
    writer.append(&[1; 100_000]).unwrap();
    assert_eq!(kind(writer.finish()), full);
    std::fs::remove_file(store.data().join("new")).unwrap();
    assert_eq!(store.contents(), before);
    let mut buf = [0; 5];
    fs.open(&path).unwrap().read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"bytes");
    std::fs::remove_file(store.data().join("filler")).unwrap();
    fs.keyring().keys().rotate().unwrap();
    drop(fs);
    store.open(manual()).files().open(&path).unwrap();
}

#[test]
fn a_directory_that_is_not_there_is_an_error_of_its_own() {
    let store = TestStore::new();
    let nowhere = DirectoryStorage::new(store.data().join("nowhere"));
    let refused = kind(Keyring::open_or_create(nowhere, store.kms(), manual()));
    assert_eq!(refused, ErrorKind::Io(io::ErrorKind::NotFound));
}

#[test]
fn wrong_files_have_their_own_kinds() {
    let (mem, kms) = base();
    let good = mem.files()["file"].clone();
    let mut unknown = good.clone();
    unknown[48] ^= 1;
    // As a power cut leaves a header that was not synced, but for the last.
    let lost = [vec![0; 4096], good[4096..].to_vec()].concat();
    let part = [vec![0; 4095], vec![1; 100]].concat();
    let cases: [(&str, Vec<u8>, ErrorKind); 12] = [
        ("empty", Vec::new(), ErrorKind::EmptyFile),
        ("plain", b"SSTable v1 ...".to_vec(), ErrorKind::NotEncrypted),
        ("plain4k", vec![b'x'; 9000], ErrorKind::NotEncrypted),
        ("torn", good[..4095].to_vec(), ErrorKind::TruncatedHeader),
        ("begun", good[..5].to_vec(), ErrorKind::TruncatedHeader),
        ("one byte", good[..1].to_vec(), ErrorKind::TruncatedHeader),
        ("age", b"age-encryption.org/v1\n".to_vec(), ErrorKind::ForeignFile),
        ("keyring", mem.files()["KEYRING"].clone(), ErrorKind::ForeignFile),
        ("lost", lost, ErrorKind::TruncatedHeader),
        ("zeros", vec![0; 9000], ErrorKind::TruncatedHeader),
        ("few zeros", vec![0; 5], ErrorKind::TruncatedHeader),
        ("part", part, ErrorKind::NotEncrypted),
    ];
    let read_as_they_are = ["plain", "plain4k", "age", "lost", "zeros", "few zeros", "part"];
    for policy in [PlaintextPolicy::Require, PlaintextPolicy::Allow] {
        let fs = mem_open(&mem, &kms).unwrap();
        let mut settings = Settings::default();
        settings.plaintext = policy;
        fs.keyring().keys().configure(&settings).unwrap();
        for (name, bytes, expected) in &cases {
            mem.put(&in_dir(name), bytes);
            let before = mem.files();
            // What is not encrypted is read as it is under `Allow`, but never an empty or
            // torn file, and never a keyring.
            let plain = read_as_they_are.contains(name);
            if policy == PlaintextPolicy::Allow && plain {
                let reader = fs.open(in_dir(name)).unwrap();
                let mut buf = vec![0; bytes.len()];
                reader.read_exact_at(&mut buf, 0).unwrap();
                assert_eq!((&buf, reader.suite()), (bytes, None));
                assert_eq!(reader.len().unwrap(), bytes.len() as u64);
            } else {
                assert_eq!(kind(fs.open(in_dir(name))), *expected, "{name} under {policy:?}");
            }
            // Nothing gets a header in front, or a second one.
            let again = kind(fs.create_new(in_dir(name), FileKind::Table));
            assert_eq!(again, ErrorKind::Io(io::ErrorKind::AlreadyExists), "{name}");
            assert_eq!(mem.files(), before);
        }
        let allowed = policy == PlaintextPolicy::Allow;
        let expected = if allowed { read_as_they_are.len() as u64 } else { 0 };
        assert_eq!(fs.report().plaintext_files_opened, expected);
        assert_eq!(fs.report().encrypted_files_opened, 0);
    }
    let fs = mem_open(&mem, &kms).unwrap();
    assert_eq!(kind(fs.open(in_dir("absent"))), ErrorKind::Io(io::ErrorKind::NotFound));
}

/// Somebody who can compute checksums, but has no key, changes a file.
#[test]
fn a_header_under_an_unknown_or_another_key_is_refused() {
    use sha2::{Digest, Sha256};
    let (mem, kms) = base();
    let fs = mem_open(&mem, &kms).unwrap();
    let good = mem.files()["file"].clone();
    fs.keyring().keys().rotate().unwrap();
    let other = *fs.keyring().keys().active_id().unwrap().as_bytes();
    let edited = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        let sum = Sha256::digest(&file[..160]);
        file[160..176].copy_from_slice(&sum[..16]);
        mem.put(&in_dir("edited"), &file);
        kind(fs.open(in_dir("edited")))
    };
    assert_eq!(edited(48, &[9; 16]), ErrorKind::UnknownKey);
    assert_eq!(edited(48, &other), ErrorKind::WrongKey);
    assert_eq!(edited(32, &[9; 16]), ErrorKind::WrongKey);
    assert_eq!(edited(20, &[1]), ErrorKind::WrongKey);
    assert_eq!(edited(96, &[0; 32]), ErrorKind::WrongKey);
    assert_eq!(edited(128, &[0; 32]), ErrorKind::WrongKey);
    assert_eq!(edited(16, &[1]), ErrorKind::UnsupportedFeature);
    check_file(&fs, "file");
}

#[test]
fn a_file_put_in_anothers_place_is_refused() {
    let (mem, kms) = base();
    let fs = mem_open(&mem, &kms).unwrap();
    for number in [1_u64, 2] {
        let spec = FileSpec::new(FileKind::Table).file_id(number);
        let path = in_dir(&number.to_string());
        fs.create_new(path, spec).unwrap().finish().unwrap();
    }
    let expecting = |name: &str, kind, file_id: Option<u64>| {
        let expect = Expect { kind, file_id: file_id.map(FileId::from) };
        fs.open_expecting(in_dir(name), &expect)
    };
    expecting("1", Some(FileKind::Table), Some(1)).unwrap();
    assert_eq!(kind(expecting("1", None, Some(2))), ErrorKind::IdentityMismatch);
    assert_eq!(kind(expecting("1", Some(FileKind::Log), None)), ErrorKind::IdentityMismatch);
    fs.rename(in_dir("1"), in_dir("2")).unwrap();
    assert_eq!(kind(expecting("2", None, Some(2))), ErrorKind::IdentityMismatch);
}

#[test]
fn a_suite_below_the_minimum_is_refused() {
    let (mem, kms) = base();
    let fs = mem_open(&mem, &kms).unwrap();
    let mut settings = Settings::default();
    settings.integrity = Integrity::Authenticated.into();
    fs.keyring().keys().configure(&settings).unwrap();
    assert_eq!(kind(fs.open(in_dir("file"))), ErrorKind::SuiteTooWeak);
    let before = mem.files();
    let weak = FileSpec::new(FileKind::Table).suite(Suite::Aes256Ctr);
    assert_eq!(kind(fs.create_new(in_dir("new"), weak)), ErrorKind::SuiteTooWeak);
    assert_eq!(mem.files(), before);
}

#[test]
fn the_engine_cannot_touch_the_keyring() {
    let (mem, kms) = base();
    let fs = mem_open(&mem, &kms).unwrap();
    let before = mem.files();
    for name in ["KEYRING", "KEYRING.1", "KEYRING.lock", "KEYRING.new"] {
        let path = in_dir(name);
        assert_eq!(kind(fs.remove(&path)), ErrorKind::InvalidArgument);
        assert_eq!(kind(fs.rename(&path, in_dir("x"))), ErrorKind::InvalidArgument);
        assert_eq!(kind(fs.rename(in_dir("file"), &path)), ErrorKind::InvalidArgument);
        assert_eq!(kind(fs.hard_link(in_dir("file"), &path)), ErrorKind::InvalidArgument);
        assert_eq!(kind(fs.hard_link(&path, in_dir("x"))), ErrorKind::InvalidArgument);
        assert_eq!(kind(fs.create_new(&path, FileKind::Other)), ErrorKind::InvalidArgument);
        assert_eq!(kind(fs.reuse_for_write(&path, FileKind::Other)), ErrorKind::InvalidArgument);
        assert_eq!(kind(fs.create_dir(&path)), ErrorKind::InvalidArgument);
    }
    assert!(fs.list(DIR).unwrap().iter().all(|entry| entry.path == in_dir("file")));
    assert_eq!(mem.files(), before);
}

#[test]
fn nothing_secret_is_shown() {
    let store = TestStore::new();
    let secret = std::fs::read(store.dir.path().join("cmek.key")).unwrap();
    let fs = store.fs();
    let path = store.data().join("file");
    let mut writer = fs.create_new(&path, FileKind::Table).unwrap();
    writer.append(b"sesame").unwrap();
    let mut shown = format!("{fs:?} {writer:?} {:?} {:?}", fs.keyring(), store.kms());
    writer.finish().unwrap();
    let reader = fs.open(&path).unwrap();
    let status = serde_json::to_string(&fs.keyring().status()).unwrap();
    shown.push_str(&format!("{reader:?} {status}"));
    let header = Header::parse(&std::fs::read(&path).unwrap()).unwrap();
    let decryptor = fs.keyring().decryptor(&header, &Expect::default()).unwrap();
    let encryptor = fs.keyring().encryptor(FileKind::Table).unwrap();
    shown.push_str(&format!("{decryptor:?} {encryptor:?}"));
    let hex: String = secret[32..].iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{:?}", &secret[32..40]);
    assert!(!shown.contains(&hex[..16]) && !shown.contains(list.trim_matches(['[', ']'])));
    assert!(!shown.contains("sesame"));
}

#[test]
fn another_store_than_the_pinned_one_is_refused_before_its_key_service_is_asked() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(1));
    let fs = mem_create(&mem, &kms).unwrap();
    let (id, anchor) = (fs.keyring().store_id(), fs.keyring().anchor());
    assert_eq!(anchor.to_string().parse::<atrest::keyring::Anchor>().unwrap(), anchor);
    for bad in ["", "x", &id.to_string(), &format!("{anchor}0"), &format!("{anchor}:1")] {
        let parsed = bad.parse::<atrest::keyring::Anchor>();
        assert_eq!(kind(parsed), ErrorKind::InvalidArgument, "{bad}");
    }
    drop(fs);
    // Somebody with the customer's key, or its public half, puts a store of his own there.
    let theirs = MemFs::new(DIR);
    drop(mem_create(&theirs, &kms).unwrap());
    let mut pins = [manual(), manual()];
    pins[0].store_id = Some(id);
    pins[1].anchor = Some(anchor);
    for options in pins {
        Keyring::open(mem_storage(&mem), kms.clone(), options.clone()).unwrap();
        let asked = kms.calls();
        let opened = Keyring::open(mem_storage(&theirs), kms.clone(), options.clone());
        assert_eq!(kind(opened), ErrorKind::IdentityMismatch);
        let read = Keyring::open_read_only(mem_storage(&theirs), kms.clone(), options);
        assert_eq!(kind(read), ErrorKind::IdentityMismatch);
        assert_eq!(kms.calls(), asked);
    }
}

#[test]
fn a_recovery_asks_nobody_about_another_store_than_the_pinned_one() {
    let (mem, kms) = base();
    let theirs = MemFs::new(DIR);
    drop(mem_create(&theirs, &kms).unwrap());
    let mut pinned = manual();
    pinned.store_id = Some(KeyringInfo::read(&mem_storage(&mem)).unwrap().store_id);
    let asked = kms.calls();
    let keys: [Arc<dyn Kms>; 1] = [kms.clone()];
    let images = mem_storage(&theirs).images(&keys, &pinned).unwrap();
    assert!(images.iter().all(|image| image.info.is_some() && image.data_keys.is_none()));
    assert!(images[0].problem.as_ref().unwrap().contains("expected store"), "{images:?}");
    assert_eq!(kms.calls(), asked);
    // Nor about what stands in the place of the image that is put back: no more than if it
    // were nothing at all.
    let calls = |current: &[u8]| {
        let mem = mem.fork();
        mem.put(&in_dir("KEYRING.1"), &mem.read(&in_dir("KEYRING")).unwrap());
        mem.put(&in_dir("KEYRING"), current);
        let before = kms.calls();
        let recovered =
            mem_storage(&mem).recover(ImagePlace::Kept(1), vec![kms.clone()], pinned.clone());
        recovered.unwrap();
        kms.calls() - before
    };
    assert_eq!(calls(&theirs.read(&in_dir("KEYRING")).unwrap()), calls(b"nothing"));
}

/// What an engine that knows `std::io` alone sees.
#[test]
fn errors_are_told_as_those_of_the_system_with_all_that_they_say() {
    use io::ErrorKind::*;
    for (kind, told) in [
        (ErrorKind::Io(StorageFull), StorageFull),
        (ErrorKind::KeyringMissing, NotFound),
        (ErrorKind::KeyringExists, AlreadyExists),
        (ErrorKind::KeyringBusy, ResourceBusy),
        (ErrorKind::Kms(KmsErrorKind::Unreachable), TimedOut),
        (ErrorKind::Kms(KmsErrorKind::AccessDenied), PermissionDenied),
        (ErrorKind::CmekRevoked, PermissionDenied),
        (ErrorKind::ReadOnly, PermissionDenied),
        (ErrorKind::InvalidArgument, InvalidInput),
        (ErrorKind::FileTooLarge, FileTooLarge),
        (ErrorKind::EmptyFile, UnexpectedEof),
        (ErrorKind::TruncatedHeader, UnexpectedEof),
        (ErrorKind::KeyringTruncated, UnexpectedEof),
        (ErrorKind::Poisoned, Other),
        (ErrorKind::KeyringConflict, Other),
        (ErrorKind::Authentication, InvalidData),
        (ErrorKind::UnknownKey, InvalidData),
        (ErrorKind::KeyDestroyed, InvalidData),
    ] {
        let error = io::Error::from(atrest::Error::new(kind, "what it was").with_path("1.sst"));
        assert_eq!(error.kind(), told, "{kind:?}");
        let inside = error.get_ref().unwrap().downcast_ref::<atrest::Error>().unwrap();
        assert_eq!(inside.kind(), kind);
        assert!(error.to_string().contains("what it was") && error.to_string().contains("1.sst"));
    }
}
