//! When keys rotate, and what a rotation leaves behind.

use std::collections::HashSet;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use atrest::keyring::{KeyState, KeyringStorage, MemoryStorage, Options};
use atrest::{DataKeyId, ErrorKind, FileKind, Header, Keyring, Settings};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::support::{
    DIR, ManualClock, Mode, ScriptedKms, TestStore, check_file, in_dir, key_file, kind, manual,
    mem_create, mem_files, mem_open, mem_storage, ns, write_file,
};
use atrest_testkit::MemFs;

const DAY: u64 = 86_400_000_000_000;

/// A store in memory with a clock and settings.
struct Store {
    storage: Arc<MemoryStorage>,
    clock: Arc<ManualClock>,
    kms: Arc<ScriptedKms>,
}

impl Store {
    fn new(settings: Settings) -> (Self, Keyring) {
        let storage = Arc::new(MemoryStorage::new());
        let store = Self { storage, clock: ManualClock::new(), kms: ScriptedKms::new(1) };
        let mut options = store.options();
        options.settings = settings;
        let keyring = Keyring::create(store.storage.clone(), store.kms.clone(), options).unwrap();
        (store, keyring)
    }

    fn options(&self) -> Options {
        let mut options = manual();
        options.clock = self.clock.clone();
        options
    }

    fn open(&self) -> Keyring {
        Keyring::open(self.storage.clone(), self.kms.clone(), self.options()).unwrap()
    }
}

fn with_period(period: Duration) -> Settings {
    let mut settings = Settings::default();
    settings.rotation_period = period;
    settings
}

fn with_bytes(limit: u64) -> Settings {
    let mut settings = Settings::default();
    settings.rotation_bytes = Some(limit);
    settings
}

/// Calls `maintain`; whether the data key rotated.
fn rotates(keyring: &Keyring) -> bool {
    let before = keyring.keys().active_id().unwrap();
    keyring.maintain().unwrap();
    keyring.keys().active_id().unwrap() != before
}

/// Encrypts `len` bytes under the active data key.
fn encrypt(keyring: &Keyring, len: usize) {
    let mut encryptor = keyring.encryptor(FileKind::Table).unwrap();
    encryptor.encrypt_in_place(&mut vec![0; len]).unwrap();
}

#[test]
fn a_data_key_rotates_after_thirty_days() {
    let (store, keyring) = Store::new(Settings::default());
    store.clock.advance(ns(30 * DAY - 1));
    assert!(!rotates(&keyring));
    store.clock.advance(ns(1));
    // A file creation does not rotate: it has a usable key.
    let before = keyring.keys().active_id().unwrap();
    drop(keyring.encryptor(FileKind::Table).unwrap());
    assert_eq!(keyring.keys().active_id().unwrap(), before);
    assert!(rotates(&keyring));
    assert!(!rotates(&keyring));
    store.clock.advance(ns(30 * DAY));
    assert!(rotates(&keyring));
    let keys = keyring.status().data_keys;
    let states: Vec<_> = keys.iter().map(|key| key.state).collect();
    assert_eq!(states, [KeyState::DecryptOnly, KeyState::DecryptOnly, KeyState::Active]);
    assert_eq!(keys[0].retired_ns, Some(keys[1].created_ns));
}

#[test]
fn the_period_is_configurable_and_survives_reopening() {
    let (store, keyring) = Store::new(with_period(Duration::from_secs(3600)));
    store.clock.advance(ns(DAY / 24));
    assert!(rotates(&keyring));
    keyring.keys().configure(&with_period(Duration::from_secs(86_400))).unwrap();
    drop(keyring);
    let keyring = store.open();
    assert_eq!(keyring.settings().rotation_period, Duration::from_secs(86_400));
    store.clock.advance(ns(DAY - 1));
    assert!(!rotates(&keyring));
    store.clock.advance(ns(1));
    assert!(rotates(&keyring));
}

#[test]
fn a_rotation_period_of_milliseconds_is_refused() {
    let short = Settings::ROTATION_PERIOD_MIN - Duration::from_nanos(1);
    let (store, keyring) = Store::new(with_period(Settings::ROTATION_PERIOD_MIN));
    for period in [Duration::ZERO, Duration::from_millis(30), short] {
        let refused = keyring.keys().configure(&with_period(period)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        assert!(refused.to_string().contains("at least 1s"), "{refused}");
        let mut options = manual();
        options.settings = with_period(period);
        let created = Keyring::create(MemoryStorage::new(), ScriptedKms::new(1), options);
        assert_eq!(kind(created), ErrorKind::InvalidArgument);
    }
    drop(keyring);
    assert_eq!(store.open().settings().rotation_period, Settings::ROTATION_PERIOD_MIN);
}

#[test]
fn a_data_key_rotates_after_a_number_of_bytes() {
    let (_store, keyring) = Store::new(with_bytes(8 << 20));
    encrypt(&keyring, (8 << 20) - 1);
    assert!(!rotates(&keyring));
    encrypt(&keyring, 1);
    assert!(rotates(&keyring));
    assert!(!rotates(&keyring));
    assert_eq!(keyring.status().data_keys[0].encrypted_bytes, 8 << 20);
}

#[test]
fn the_byte_count_survives_reopening_to_an_eighth() {
    let limit = 8 << 20;
    let (store, mut keyring) = Store::new(with_bytes(limit));
    let mut written = 0;
    // Each session ends without warning, a little after it wrote something.
    loop {
        encrypt(&keyring, 700_000);
        written += 700_000;
        if rotates(&keyring) {
            break;
        }
        let counted = keyring.status().data_keys[0].encrypted_bytes;
        keyring = store.open();
        let kept = keyring.status().data_keys[0].encrypted_bytes;
        assert!(counted - kept < limit / 8, "{counted} was kept as {kept}");
        assert!(written <= 100 * limit, "never rotates");
        // Too little in one session to be kept adds up within one session.
        encrypt(&keyring, 700_000);
        written += 700_000;
        keyring.maintain().unwrap();
    }
}

#[test]
fn a_tiny_byte_limit_does_not_commit_for_nothing() {
    let (_store, keyring) = Store::new(with_bytes(4));
    let before = keyring.anchor().generation;
    keyring.maintain().unwrap();
    keyring.maintain().unwrap();
    assert_eq!(keyring.anchor().generation, before);
    encrypt(&keyring, 4);
    assert!(rotates(&keyring));
}

#[test]
fn a_clock_set_back_rotates_neither_early_nor_never() {
    let (store, keyring) = Store::new(Settings::default());
    store.clock.set_back(ns(400 * DAY));
    assert!(!rotates(&keyring));
    // Reopening forgets nothing.
    drop(keyring);
    let keyring = store.open();
    store.clock.advance(ns(29 * DAY));
    assert!(!rotates(&keyring));
    store.clock.advance(ns(DAY));
    assert!(rotates(&keyring), "stuck until the clock is where it was");
    assert!(!rotates(&keyring));
    // Set right again, the key that was made in the past is due.
    store.clock.advance(ns(370 * DAY));
    assert!(rotates(&keyring));
}

#[test]
fn a_clock_set_back_twice_still_rotates() {
    let (store, keyring) = Store::new(Settings::default());
    store.clock.set_back(ns(10 * DAY));
    assert!(!rotates(&keyring));
    store.clock.advance(ns(5 * DAY));
    store.clock.set_back(ns(100 * DAY));
    assert!(!rotates(&keyring));
    store.clock.advance(ns(30 * DAY));
    assert!(rotates(&keyring));
}

#[test]
fn a_clock_set_back_by_hours_delays_by_hours() {
    let (store, keyring) = Store::new(Settings::default());
    store.clock.set_back(ns(DAY / 2));
    assert!(!rotates(&keyring));
    store.clock.advance(ns(30 * DAY));
    assert!(!rotates(&keyring));
    store.clock.advance(ns(DAY / 2));
    assert!(rotates(&keyring));
}

#[test]
fn the_background_thread_rotates_by_itself() {
    let storage = Arc::new(MemoryStorage::new());
    let mut options = Options::default();
    let clock = ManualClock::new();
    options.clock = clock.clone();
    let keyring = Keyring::create(storage, ScriptedKms::new(1), options).unwrap();
    let before = keyring.keys().active_id().unwrap();
    // Not `advance`: no time passes without a word from the key service.
    clock.set_forward(ns(31 * DAY));
    // The creation of a file tells the thread. It goes on with the key it has.
    loop {
        drop(keyring.encryptor(FileKind::Table).unwrap());
        if keyring.keys().active_id().unwrap() != before {
            break;
        }
        std::thread::yield_now();
    }
    assert_eq!(keyring.status().data_keys.len(), 2);
}

#[test]
fn the_background_thread_ends_with_the_last_handle() {
    let store = TestStore::new();
    let keyring = store.keyring();
    let clone = keyring.clone();
    drop(keyring);
    let busy = Keyring::open(store.storage(), store.kms(), Options::default());
    assert_eq!(kind(busy), ErrorKind::KeyringBusy);
    drop(clone);
    Keyring::open(store.storage(), store.kms(), Options::default()).unwrap();
}

#[test]
fn a_rotation_is_seen_by_other_handles_and_by_readers() {
    let mem = MemFs::new(DIR);
    let kms = ScriptedKms::new(1);
    let fs = mem_create(&mem, &kms).unwrap();
    let clone = fs.clone();
    let reader = Keyring::open_read_only(mem_storage(&mem), kms.clone(), manual()).unwrap();
    let reader = mem_files(&mem, reader);
    let id = fs.keyring().keys().rotate().unwrap();
    assert_eq!(clone.keyring().keys().active_id().unwrap(), id);
    write_file(&clone, "new").unwrap();
    assert_ne!(reader.keyring().keys().active_id().unwrap(), id);
    let calls = kms.calls();
    check_file(&reader, "new");
    assert_eq!(reader.keyring().keys().active_id().unwrap(), id);
    assert_eq!(kms.calls(), calls, "the store key was in memory");
    // A new store key asks the key service once.
    fs.keyring().keys().rotate_store_key().unwrap();
    write_file(&fs, "newer").unwrap();
    let calls = kms.calls();
    check_file(&reader, "newer");
    check_file(&reader, "new");
    assert_eq!(kms.calls(), calls + 1);
    assert_eq!(kind(reader.keyring().keys().rotate()), ErrorKind::ReadOnly);
    assert_eq!(kind(reader.keyring().maintain()), ErrorKind::ReadOnly);
}

#[test]
fn files_created_during_racing_rotations_open() {
    let (store, keyring) = Store::new(Settings::default());
    let barrier = Barrier::new(4);
    let headers: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let rotating = [(); 2].map(|()| {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..25 {
                    keyring.keys().rotate().unwrap();
                }
            })
        });
        let creating = [(); 2].map(|()| {
            scope.spawn(|| {
                barrier.wait();
                let encrypt = |_| {
                    let mut encryptor = keyring.encryptor(FileKind::Table).unwrap();
                    let mut file = b"some plaintext".to_vec();
                    encryptor.encrypt_in_place(&mut file).unwrap();
                    [encryptor.header(), &file[..]].concat()
                };
                (0..500).map(encrypt).collect::<Vec<_>>()
            })
        });
        rotating.into_iter().for_each(|thread| thread.join().unwrap());
        creating.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    // A keyring read anew has only what was committed.
    let keyring = store.open();
    assert_eq!(keyring.status().data_keys.len(), 51);
    let mut keys = HashSet::<DataKeyId>::new();
    for mut file in headers {
        let header = Header::parse(&file).unwrap();
        keys.insert(header.data_key_id);
        let decryptor = keyring.decryptor(&header, &atrest::Expect::default()).unwrap();
        decryptor.decrypt_in_place(0, &mut file[4096..]).unwrap();
        assert_eq!(&file[4096..], b"some plaintext");
    }
    assert!(keys.len() > 1, "no rotation while files were created");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    /// Whatever happens to keys and clock, every file ever made opens, and a data key is
    /// never older than its period when it was just maintained.
    #[test]
    fn every_file_opens_after_any_sequence(steps in proptest::collection::vec((0_u8..7, any::<u8>()), 1..20)) {
        let (store, mut keyring) = Store::new(with_bytes(1 << 20));
        let mut files = Vec::new();
        for (step, amount) in steps {
            match step {
                0 => drop(keyring.keys().rotate().unwrap()),
                1 => drop(keyring.keys().rotate_store_key().unwrap()),
                2 => store.clock.advance(ns(u64::from(amount) * DAY)),
                3 => store.clock.set_back(ns(u64::from(amount) * DAY)),
                4 => keyring = store.open(),
                5 => { keyring.access().revoke().unwrap(); keyring.access().restore().unwrap(); }
                _ => encrypt(&keyring, usize::from(amount) << 12),
            }
            keyring.maintain().unwrap();
            let mut encryptor = keyring.encryptor(FileKind::Log).unwrap();
            let mut body = vec![amount; 33];
            encryptor.encrypt_in_place(&mut body).unwrap();
            files.push((*encryptor.header(), body, amount));
        }
        let keyring = store.open();
        for (header, mut body, amount) in files {
            let header = Header::parse(&header).unwrap();
            let decryptor = keyring.decryptor(&header, &atrest::Expect::default()).unwrap();
            decryptor.decrypt_in_place(0, &mut body).unwrap();
            prop_assert_eq!(body, vec![amount; 33]);
        }
    }
}

#[test]
fn a_copied_directory_starts_a_new_data_key() {
    let store = TestStore::new();
    let fs = store.fs();
    let id = fs.keyring().keys().active_id().unwrap();
    drop(fs);
    // In its place it goes on with the key it has.
    let fs = store.fs();
    assert_eq!(fs.keyring().keys().active_id().unwrap(), id);
    let mut writer = fs.create_new(store.data().join("file"), FileKind::Table).unwrap();
    writer.append(b"bytes").unwrap();
    writer.finish().unwrap();
    drop(fs);
    let copy = store.dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for (name, bytes) in store.contents() {
        std::fs::write(copy.join(name), bytes).unwrap();
    }
    let copied = atrest::Store::open(&copy, store.kms(), manual()).unwrap();
    assert_ne!(copied.keys().active_id().unwrap(), id);
    let mut buf = [0; 5];
    let reader = copied.files().open(copy.join("file")).unwrap();
    reader.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"bytes");
    // A reader of a copy changes nothing.
    let copy2 = store.dir.path().join("copy2");
    std::fs::create_dir(&copy2).unwrap();
    std::fs::copy(store.data().join("KEYRING"), copy2.join("KEYRING")).unwrap();
    let storage = atrest::keyring::DirectoryStorage::new(&copy2);
    let reader = Keyring::open_read_only(storage, store.kms(), manual()).unwrap();
    assert_eq!(reader.keys().active_id().unwrap(), id);
}

#[test]
fn the_old_store_key_is_gone_after_its_rotation() {
    let mem = MemFs::new(DIR);
    let kms = ScriptedKms::new(1);
    let fs = mem_create(&mem, &kms).unwrap();
    write_file(&fs, "file").unwrap();
    fs.keyring().keys().rotate().unwrap();
    fs.keyring().keys().rotate().unwrap();
    assert!(mem.files().contains_key("KEYRING.1") && mem.files().contains_key("KEYRING.2"));
    let old = fs.keyring().status().info.store_key_id;
    let new = fs.keyring().keys().rotate_store_key().unwrap();
    assert_ne!(new, old);
    for (name, bytes) in mem.files() {
        assert!(!name.starts_with("KEYRING.") || name == "KEYRING.lock", "{name} is left");
        let header = 64..80;
        assert!(name != "KEYRING" || bytes[header] == *new.as_bytes());
        // Every record's store key id, too; only the history may name the old one.
        let named = bytes.windows(16).filter(|window| window == old.as_bytes()).count();
        let events = fs.keyring().status().history.len();
        assert!(named < events, "{name} names the old store key {named} times");
    }
    check_file(&fs, "file");
}

#[test]
fn an_interrupted_store_key_rotation_is_cleaned_up_at_the_next_opening() {
    let mem = MemFs::new(DIR);
    let kms = ScriptedKms::new(1);
    let fs = mem_create(&mem, &kms).unwrap();
    fs.keyring().keys().rotate().unwrap();
    let old = mem.files()["KEYRING"].clone();
    fs.keyring().keys().rotate_store_key().unwrap();
    drop(fs);
    mem.put(&in_dir("KEYRING.2"), &old);
    // A reader removes nothing.
    drop(Keyring::open_read_only(mem_storage(&mem), kms.clone(), manual()).unwrap());
    assert!(mem.files().contains_key("KEYRING.2"));
    drop(mem_open(&mem, &kms).unwrap());
    assert!(!mem.files().contains_key("KEYRING.2"));
    // Older images of the same store key stay.
    let fs = mem_open(&mem, &kms).unwrap();
    fs.keyring().keys().rotate().unwrap();
    drop(fs);
    drop(mem_open(&mem, &kms).unwrap());
    assert!(mem.files().contains_key("KEYRING.3"));
}

#[test]
fn an_old_key_file_opens_nothing_after_a_cmek_rotation() {
    let store = TestStore::new();
    let new_path = store.dir.path().join("new.key");
    atrest::kms::generate_key_file(&new_path).unwrap();
    let fs = store.fs();
    let path = store.data().join("file");
    let mut writer = fs.create_new(&path, FileKind::Table).unwrap();
    writer.append(b"online").unwrap();
    let id = fs.keyring().keys().active_id().unwrap();
    fs.keyring().keys().rotate().unwrap();
    fs.keyring().slots().rotate(key_file(&new_path)).unwrap();
    // Files being written and read go on.
    writer.append(b" all the time").unwrap();
    writer.finish().unwrap();
    assert_eq!(fs.open(&path).unwrap().len().unwrap(), 19);
    assert_ne!(fs.keyring().keys().active_id().unwrap(), id);
    drop(fs);
    let old = || store.kms();
    for (name, bytes) in store.contents() {
        if name.starts_with("KEYRING") {
            let storage = MemoryStorage::new();
            storage.commit(&bytes, 1, None).unwrap();
            let refused = kind(Keyring::open(storage, old(), manual()));
            let integrity = ErrorKind::Kms(atrest::error::KmsErrorKind::Integrity);
            assert_eq!(refused, integrity, "{name} opens with the old key");
        }
    }
    Keyring::open(store.storage(), key_file(&new_path), manual()).unwrap();
}

#[test]
fn a_store_key_rotation_after_a_cmek_rotation_uses_the_new_key() {
    for moved in [false, true] {
        let store = TestStore::new();
        let old = store.kms();
        let keyring = Keyring::create(store.storage(), old.clone(), manual()).unwrap();
        // Two keys of one URI, as two passphrases are: the file is replaced in place.
        let new_path = store.dir.path().join(if moved { "new.key" } else { "cmek.key" });
        drop(std::fs::remove_file(&new_path));
        atrest::kms::generate_key_file(&new_path).unwrap();
        let new = key_file(&new_path);
        keyring.slots().rotate(new.clone()).unwrap();
        keyring.keys().rotate_store_key().unwrap();
        drop(keyring);
        Keyring::open(store.storage(), new, manual()).unwrap();
    }
}

#[cfg(feature = "passphrase")]
#[test]
fn a_store_key_rotation_does_not_go_back_to_an_old_passphrase() {
    use atrest::kms::Passphrase;
    let passphrase = |words: &str| Arc::new(Passphrase::new(words.into()).unwrap());
    let storage = Arc::new(MemoryStorage::new());
    let keyring = Keyring::create(storage.clone(), passphrase("old words"), manual()).unwrap();
    keyring.slots().rotate(passphrase("new words")).unwrap();
    keyring.keys().rotate_store_key().unwrap();
    Keyring::open(storage.clone(), passphrase("new words"), manual()).unwrap();
    let refused = kind(Keyring::open(storage, passphrase("old words"), manual()));
    assert_eq!(refused, ErrorKind::Kms(atrest::error::KmsErrorKind::Integrity));
}

#[test]
fn a_key_service_that_does_not_prove_its_wrap_changes_nothing() {
    let unreachable = atrest::error::KmsErrorKind::Unreachable;
    let denied = atrest::error::KmsErrorKind::AccessDenied;
    let cases = [
        (Mode::Garbage, ErrorKind::WrongStoreKey),
        (Mode::NoUnwrap(denied), ErrorKind::Kms(denied)),
        (Mode::Down(unreachable), ErrorKind::Kms(unreachable)),
    ];
    for (mode, expected) in cases {
        let mem = MemFs::new(DIR);
        let kms = ScriptedKms::new(1);
        kms.set(mode);
        assert_eq!(kind(mem_create(&mem, &kms)), expected);
        assert!(!mem.files().contains_key("KEYRING"));
        kms.set(Mode::Good);
        let fs = mem_create(&mem, &kms).unwrap();
        let before = mem.files();
        kms.set(mode);
        assert_eq!(kind(fs.keyring().keys().rotate_store_key()), expected);
        let other = ScriptedKms::new(2);
        other.set(mode);
        assert_eq!(kind(fs.keyring().slots().rotate(other)), expected);
        assert_eq!(mem.files(), before);
        // The handle serves on, and a data key needs no key service.
        fs.keyring().keys().rotate().unwrap();
        write_file(&fs, "file").unwrap();
        kms.set(Mode::Good);
        drop(fs);
        check_file(&mem_open(&mem, &kms).unwrap(), "file");
    }
}

#[test]
fn a_directory_in_the_new_images_place_stops_no_rotation() {
    let store = TestStore::new();
    let keyring = store.keyring();
    let new = store.data().join("KEYRING.new");
    std::fs::create_dir(&new).unwrap();
    keyring.keys().rotate().unwrap();
    std::fs::create_dir(&new).unwrap();
    std::fs::write(new.join("file"), b"somebody's").unwrap();
    keyring.keys().rotate().unwrap();
    assert!(!new.exists());
    // It is kept, and told.
    let aside = keyring.keys().copies_aside().unwrap();
    assert!(aside[0].starts_with("KEYRING.bad-") && aside.len() == 1, "{aside:?}");
    assert_eq!(std::fs::read(store.data().join(&aside[0]).join("file")).unwrap(), b"somebody's");
}
