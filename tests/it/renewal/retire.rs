//! Retirement, holds, keyspaces.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use atrest::keyring::{
    DirectoryStorage, KeyState, LiveKeys, MemoryStorage, RetireOutcome, Retirement,
};
use atrest::store::{ScanProgress, StorePlace};
use atrest::vfs::OsVfs;
use atrest::{Clock, DataKeyId, EncryptedFs, ErrorKind, FileKind, FileSpec, Keyring, Store};

use super::write;
use crate::support::{ManualClock, TestStore, kind, options, refused, store_of};

mod clocks;
mod during;
mod left;

const GRACE: Duration = atrest::keyring::RETIRE_GRACE;

fn quiet(_: ScanProgress) {}

fn open(store: &TestStore, clock: &Arc<ManualClock>) -> EncryptedFs {
    let opened = Store::open_or_create(store.data(), store.kms(), options(clock));
    opened.unwrap().files().clone()
}

fn retire(fs: &EncryptedFs) -> Retirement {
    store_of(fs).renewal().retire(None, GRACE, &quiet).unwrap()
}

/// What became of a key.
fn outcome(retirement: &Retirement, id: DataKeyId) -> RetireOutcome {
    retirement.keys.iter().find(|key| key.id == id).unwrap().outcome.clone()
}

fn state(fs: &EncryptedFs, id: DataKeyId) -> KeyState {
    let status = fs.keyring().status();
    status.data_keys.iter().find(|key| key.id == id).unwrap().state
}

#[test]
fn an_unused_key_is_destroyed_after_its_grace_and_not_before() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let path = |name: &str| store.data().join(name);
    let old = write(&fs, &path("old"), &[1; 5000]);
    assert_eq!(retire(&fs).keys, [], "the active key is no candidate");
    assert_eq!(GRACE, Duration::from_secs(604_800), "seven days");
    let new = fs.keyring().keys().rotate().unwrap();
    write(&fs, &path("new"), b"new");
    assert_eq!(outcome(&retire(&fs), old), RetireOutcome::InUse);
    let old_image = std::fs::read(path("KEYRING")).unwrap();
    let store_key = fs.keyring().status().info.store_key_id;

    let old_file = std::fs::read(path("old")).unwrap();
    fs.remove(path("old")).unwrap();
    let RetireOutcome::Retiring { until_ns } = outcome(&retire(&fs), old) else { panic!() };
    assert_eq!(state(&fs, old), KeyState::Retiring);
    clock.advance(6 * ManualClock::DAY);
    assert_eq!(outcome(&retire(&fs), old), RetireOutcome::Retiring { until_ns });
    assert_eq!(
        kind(store_of(&fs).renewal().prove_destroyed(old, &quiet)),
        ErrorKind::InvalidArgument
    );
    clock.advance(1 * ManualClock::DAY);
    let last = retire(&fs);
    assert_eq!(last.destroyed().collect::<Vec<_>>(), [old]);
    assert_eq!(state(&fs, old), KeyState::Destroyed);
    assert_ne!(fs.keyring().status().info.store_key_id, store_key);

    // Neither the current image nor an older one has the wrapped key.
    let proof = store_of(&fs).renewal().prove_destroyed(old, &quiet).unwrap();
    assert_eq!((proof.key.encrypted_bytes, proof.files_read), (5000, 1));
    assert!(proof.key.destroyed_ns.is_some());
    assert_eq!(store_of(&fs).renewal().prove_all_destroyed(&quiet).unwrap(), [proof]);
    // Files that no key of this store is needed for were read all the same.
    let foreign = TestStore::new();
    write(&foreign.fs(), &foreign.data().join("a"), b"another store's");
    let foreign = std::fs::read(foreign.data().join("a")).unwrap();
    let new_file = std::fs::read(path("new")).unwrap();
    for (name, bytes) in [
        ("plain", &b"in plain sight"[..]),
        ("torn", &new_file[..100]),
        ("foreign 1", &foreign),
        ("foreign 2", &foreign),
    ] {
        std::fs::write(path(name), bytes).unwrap();
    }
    let proof = store_of(&fs).renewal().prove_destroyed(old, &quiet).unwrap();
    assert_eq!(proof.files_read, 5);
    // A file that came back.
    std::fs::write(path("old"), &old_file).unwrap();
    let back = store_of(&fs).renewal().prove_all_destroyed(&quiet);
    assert_eq!(kind(back), ErrorKind::KeyDestroyed);
    std::fs::remove_file(path("old")).unwrap();
    std::fs::write(path("damaged"), [&new_file[..60], &[0; 4036]].concat()).unwrap();
    let damaged = store_of(&fs).renewal().prove_destroyed(old, &quiet);
    assert_eq!(kind(damaged), ErrorKind::CorruptHeader);
    std::fs::remove_file(path("damaged")).unwrap();
    let unknown = store_of(&fs).renewal().prove_destroyed(DataKeyId::from_bytes([7; 16]), &quiet);
    assert_eq!(kind(unknown), ErrorKind::UnknownKey);
    for entry in std::fs::read_dir(store.data()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let older = name.strip_prefix("KEYRING.").is_some_and(|g| g.parse::<u64>().is_ok());
        assert!(!older, "{name}");
    }
    drop(fs);
    let fs = open(&store, &clock);
    assert_eq!(state(&fs, old), KeyState::Destroyed);
    assert_eq!(fs.open(path("new")).unwrap().len().unwrap(), 3);
    assert_eq!(fs.keyring().keys().active_id().unwrap(), new);
    // Somebody brings the old image back: only an anchor kept outside shows that.
    let anchor = fs.keyring().anchor();
    drop(fs);
    std::fs::write(path("KEYRING"), old_image).unwrap();
    let mut options = options(&clock);
    options.anchor = Some(anchor);
    let rolled = Keyring::open(store.storage(), store.kms(), options);
    assert_eq!(kind(rolled), ErrorKind::KeyringRolledBack);
}

#[test]
fn a_file_that_comes_back_saves_its_key() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let (path, outside) = (store.data().join("a"), store.dir.path().join("outside"));
    let old = write(&fs, &path, b"1");
    std::fs::rename(&path, &outside).unwrap();
    fs.keyring().keys().rotate().unwrap();
    assert!(matches!(outcome(&retire(&fs), old), RetireOutcome::Retiring { .. }));
    clock.advance(30 * ManualClock::DAY);
    std::fs::rename(&outside, &path).unwrap();
    assert_eq!(outcome(&retire(&fs), old), RetireOutcome::InUse);
    assert_eq!(state(&fs, old), KeyState::DecryptOnly);
    // The grace starts anew.
    fs.remove(&path).unwrap();
    assert!(matches!(outcome(&retire(&fs), old), RetireOutcome::Retiring { .. }));
    assert_eq!(fs.keyring().status().data_keys[0].destroyed_ns, None);
}

#[test]
fn a_hold_keeps_its_keys() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let keyring = fs.keyring();
    let old = keyring.keys().active_id().unwrap();
    keyring.holds().register("backup 1", &[old]).unwrap();
    let next = keyring.keys().rotate().unwrap();
    keyring.holds().register("backup 1", &[old, next]).unwrap();
    keyring.keys().rotate().unwrap();
    drop(fs);
    let fs = open(&store, &clock);
    let keyring = fs.keyring();
    assert_eq!(keyring.holds().list()[0].keys, [old, next]);
    clock.advance(30 * ManualClock::DAY);
    let held = RetireOutcome::Held { by: vec!["backup 1".into()] };
    let first = retire(&fs);
    assert_eq!((outcome(&first, old), outcome(&first, next)), (held.clone(), held));
    assert_eq!(kind(keyring.holds().release("backup 2")), ErrorKind::InvalidArgument);
    keyring.holds().release("backup 1").unwrap();
    retire(&fs);
    // A hold that comes in the time of grace counts too.
    keyring.holds().register("backup 2", &[next]).unwrap();
    clock.advance(7 * ManualClock::DAY);
    let last = retire(&fs);
    assert_eq!(outcome(&last, old), RetireOutcome::Destroyed);
    assert!(matches!(outcome(&last, next), RetireOutcome::Held { .. }));
    assert_eq!(kind(keyring.holds().register("late", &[old])), ErrorKind::KeyDestroyed);
}

#[test]
fn an_open_file_keeps_its_key() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let path = store.data().join("wal");
    let mut writer = fs.create_new(&path, FileKind::Log).unwrap();
    writer.append(b"in the buffer alone").unwrap();
    let old = fs.keyring().keys().active_id().unwrap();
    fs.keyring().keys().rotate().unwrap();
    retire(&fs);
    clock.advance(8 * ManualClock::DAY);
    // No header on the disk names the key yet.
    assert_eq!(outcome(&retire(&fs), old), RetireOutcome::Open);
    writer.finish().unwrap();
    assert_eq!(outcome(&retire(&fs), old), RetireOutcome::InUse);
    let reader = fs.open(&path).unwrap();
    fs.remove(&path).unwrap();
    retire(&fs);
    clock.advance(8 * ManualClock::DAY);
    assert_eq!(outcome(&retire(&fs), old), RetireOutcome::Open);
    let mut buf = [0; 19];
    reader.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"in the buffer alone");
    drop(reader);
    assert_eq!(outcome(&retire(&fs), old), RetireOutcome::Destroyed);
}

#[test]
fn files_in_other_directories_count() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let elsewhere = tempfile::tempdir().unwrap();
    // As an engine with a second disk may have it.
    let link = store.data().join("ssd");
    std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
    let first = write(&fs, &link.join("a"), b"1");
    let generation = fs.keyring().anchor().generation;
    write(&fs, &link.join("b"), b"1");
    assert_eq!(fs.keyring().anchor().generation, generation, "one commit a directory");
    let canonical = elsewhere.path().canonicalize().unwrap();
    assert!(store_of(&fs).directories().list().contains(&canonical));
    fs.keyring().keys().rotate().unwrap();
    drop(fs);

    let fs = open(&store, &clock);
    assert_eq!(outcome(&retire(&fs), first), RetireOutcome::InUse);
    assert_eq!(store_of(&fs).renewal().usage().unwrap().of_key(first).unwrap().count.files, 2);
    // A rename is as good as a creation.
    let third = tempfile::tempdir().unwrap();
    fs.rename(link.join("a"), third.path().join("a")).unwrap();
    fs.remove(link.join("b")).unwrap();
    assert_eq!(outcome(&retire(&fs), first), RetireOutcome::InUse);
    // A directory that is not there is no proof of anything.
    std::fs::rename(elsewhere.path(), store.dir.path().join("away")).unwrap();
    assert!(matches!(kind(store_of(&fs).renewal().retire(None, GRACE, &quiet)), ErrorKind::Io(_)));
    store_of(&fs).directories().unregister(&canonical).unwrap();
    // Nor is the link to it.
    assert_eq!(
        kind(store_of(&fs).renewal().retire(None, GRACE, &quiet)),
        ErrorKind::InvalidArgument
    );
    std::fs::remove_file(&link).unwrap();
    assert_eq!(outcome(&retire(&fs), first), RetireOutcome::InUse);
}

#[test]
fn a_header_that_cannot_be_read_stops_everything() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let path = store.data().join("a");
    write(&fs, &path, b"1");
    fs.keyring().keys().rotate().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60] ^= 1; // In the data key's id.
    std::fs::write(&path, bytes).unwrap();
    let refused = store_of(&fs).renewal().retire(None, GRACE, &quiet).unwrap_err();
    assert_eq!((refused.kind(), refused.path()), (ErrorKind::CorruptHeader, Some(&*path)));
}

#[derive(Default)]
struct Listed(Mutex<Vec<DataKeyId>>);

impl LiveKeys for Listed {
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>, atrest::Error> {
        Ok(self.0.lock().unwrap().clone())
    }
}

#[test]
fn a_store_without_directories_has_its_own_list() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let place = StorePlace::new(MemoryStorage::new(), Arc::new(OsVfs));
    let files = Store::create(place, store.kms(), options(&clock)).unwrap();
    let keyring = files.keyring().clone();
    let old = keyring.keys().active_id().unwrap();
    keyring.keys().rotate().unwrap();
    let live = Listed(Mutex::new(vec![old]));
    let unlisted = files.renewal().retire(None, GRACE, &quiet);
    assert_eq!(kind(unlisted), ErrorKind::InvalidArgument);
    let found = files.renewal().retire(Some(&live), GRACE, &quiet).unwrap();
    assert_eq!(outcome(&found, old), RetireOutcome::InUse);
    drop(files);
    let retire = || keyring.keys().retire(&live, GRACE).unwrap();
    assert_eq!(outcome(&retire(), old), RetireOutcome::InUse);
    live.0.lock().unwrap().clear();
    retire();
    clock.advance(7 * ManualClock::DAY);
    assert_eq!(outcome(&retire(), old), RetireOutcome::Destroyed);
}

/// Something may land where it has looked before, and the grace has to be over by then.
#[test]
fn a_look_that_begins_within_the_grace_destroys_nothing() {
    struct ADay(Arc<ManualClock>);
    impl LiveKeys for ADay {
        fn keys_in_use(&self) -> Result<Vec<DataKeyId>, atrest::Error> {
            self.0.advance(ManualClock::DAY);
            Ok(Vec::new())
        }
    }
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let keyring = Keyring::create(MemoryStorage::new(), store.kms(), options(&clock)).unwrap();
    let old = keyring.keys().active_id().unwrap();
    keyring.keys().rotate().unwrap();
    let live = ADay(clock.clone());
    let retire = || outcome(&keyring.keys().retire(&live, GRACE).unwrap(), old);
    let RetireOutcome::Retiring { until_ns } = retire() else { panic!() };
    clock.advance(6 * ManualClock::DAY);
    assert_eq!(retire(), RetireOutcome::Retiring { until_ns });
    assert_eq!(clock.now_ns(), until_ns);
    assert_eq!(retire(), RetireOutcome::Destroyed);
}

#[test]
fn files_in_directories_are_never_left_out() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let (fs, none) = (open(&store, &clock), Listed::default());
    let keyring = fs.keyring().clone();
    write(&fs, &store.data().join("one"), b"one");
    let old = keyring.keys().active_id().unwrap();
    keyring.keys().rotate().unwrap();
    let found = keyring.keys().retire(&none, GRACE).unwrap();
    assert_eq!(outcome(&found, old), RetireOutcome::InUse, "the store over it was asked");
    assert_eq!(kind(Store::over(keyring.clone())), ErrorKind::KeyringBusy);
    drop(fs);
    assert_eq!(kind(keyring.keys().retire(&none, GRACE)), ErrorKind::InvalidArgument);
    drop(Store::over(keyring).unwrap());
}

#[test]
fn a_read_only_handle_writes_no_file() {
    let store = TestStore::new();
    drop(store.fs());
    let files = Store::open_read_only(store.data(), store.kms(), Default::default()).unwrap();
    let keyring = files.keyring();
    assert_eq!(kind(keyring.encryptor(FileKind::Table)), ErrorKind::ReadOnly);
    assert_eq!(
        kind(files.renewal().retire(None, GRACE, &quiet).and_then(|r| {
            assert_eq!(r.keys, []);
            keyring.keys().rotate()
        })),
        ErrorKind::ReadOnly
    );
}

#[test]
fn shredding_a_keyspace_leaves_the_others() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let keyring = fs.keyring();
    let (red, blue) =
        (keyring.keyspaces().create("red").unwrap(), keyring.keyspaces().create("blue").unwrap());
    assert_eq!(kind(keyring.keyspaces().create("red")), ErrorKind::InvalidArgument);
    assert_eq!(kind(keyring.keyspaces().create("")), ErrorKind::InvalidArgument);
    let create = |name: &str, keyspace| {
        let spec = FileSpec::new(FileKind::Table).keyspace(keyspace);
        let mut writer = fs.create_new(store.data().join(name), spec).unwrap();
        writer.append(name.as_bytes()).unwrap();
        writer.finish().unwrap().data_key_id
    };
    let red_key = create("red", red);
    let blue_key = create("blue", blue);
    let mine = create("mine", Default::default());
    assert!(red_key != blue_key && blue_key != mine);
    keyring.keyspaces().rotate(red).unwrap();
    assert_eq!(create("blue2", blue), blue_key, "the others did not rotate");
    create("red2", red);
    assert_eq!(keyring.keyspaces().find("red"), Some(red));

    let reader = fs.open(store.data().join("red")).unwrap();
    assert_eq!(kind(keyring.keyspaces().danger_shred("default")), ErrorKind::InvalidArgument);
    assert_eq!(kind(keyring.keyspaces().danger_shred("green")), ErrorKind::InvalidArgument);
    keyring.keyspaces().danger_shred("red").unwrap();
    assert_eq!(kind(reader.read_exact_at(&mut [0; 3], 0)), ErrorKind::CmekRevoked);
    keyring.access().revoke().unwrap();
    keyring.access().restore().unwrap();
    assert_eq!(kind(reader.read_exact_at(&mut [0; 3], 0)), ErrorKind::CmekRevoked);
    assert_eq!(kind(keyring.keyspaces().create("red")), ErrorKind::InvalidArgument);
    drop(reader);
    let spec = FileSpec::new(FileKind::Table).keyspace(red);
    assert_eq!(kind(fs.create_new(store.data().join("red3"), spec)), ErrorKind::KeyDestroyed);
    let other = Keyring::create(MemoryStorage::new(), store.kms(), options(&clock)).unwrap();
    assert_eq!(kind(other.encryptor(spec)), ErrorKind::UnknownKey, "it has no such keyspace");
    clock.advance(40 * ManualClock::DAY);
    keyring.maintain().unwrap();
    drop(fs);

    let fs = open(&store, &clock);
    for name in ["red", "red2"] {
        assert_eq!(kind(fs.open(store.data().join(name))), ErrorKind::KeyDestroyed);
    }
    let proofs = store_of(&fs).renewal().prove_all_destroyed(&quiet).unwrap();
    assert!(proofs.iter().all(|proof| proof.shredded && proof.key.keyspace == "red"));
    assert_eq!(proofs.iter().map(|proof| proof.files).sum::<u64>(), 2);
    for name in ["blue", "blue2", "mine"] {
        let mut buf = vec![0; name.len()];
        fs.open(store.data().join(name)).unwrap().read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(buf, name.as_bytes());
    }
    assert_eq!(fs.keyring().keyspaces().list()[1].active, None);
}

#[test]
fn files_open_elsewhere_refuse_once_their_shredding_is_known_there() {
    type Learn = fn(&Store);
    let learn: [Learn; 3] = [
        |other| other.keyring().reload().unwrap(),
        |other| drop(other.access().check_now()),
        |other| {
            other.access().revoke().unwrap();
            other.access().restore().unwrap();
        },
    ];
    for learn in learn {
        let (store, clock) = (TestStore::new(), ManualClock::new());
        let fs = open(&store, &clock);
        let (mine, theirs) = (store.data().join("mine"), store.data().join("theirs"));
        write(&fs, &mine, b"mine");
        let red = fs.keyring().keyspaces().create("red").unwrap();
        let spec = FileSpec::new(FileKind::Table).keyspace(red);
        let mut writer = fs.create_new(&theirs, spec).unwrap();
        writer.append(b"theirs").unwrap();
        writer.finish().unwrap();
        let other = Store::open_read_only(store.data(), store.kms(), options(&clock)).unwrap();
        let readers = [&mine, &theirs].map(|path| other.files().open(path).unwrap());
        fs.keyring().keyspaces().danger_shred("red").unwrap();
        readers[1].read_exact_at(&mut [0; 6], 0).unwrap();
        learn(&other);
        for _ in 0..2 {
            assert_eq!(refused(&readers[1], 0, 6), ErrorKind::CmekRevoked);
            assert_eq!(kind(other.files().open(&theirs)), ErrorKind::KeyDestroyed);
            readers[0].read_exact_at(&mut [0; 4], 0).unwrap();
            // Nor does it come back with the others.
            other.access().revoke().unwrap();
            other.access().restore().unwrap();
        }
    }
}

#[test]
fn a_shredded_store_is_a_record_of_itself() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let path = store.data().join("a");
    let key = write(&fs, &path, b"secret");
    let keyring = fs.keyring();
    assert_eq!(
        kind(keyring.keyspaces().danger_shred_store(Default::default())),
        ErrorKind::IdentityMismatch
    );
    assert!(fs.open(&path).is_ok());
    keyring.keyspaces().danger_shred_store(keyring.store_id()).unwrap();
    assert_eq!(kind(fs.open(&path)), ErrorKind::KeyDestroyed);
    assert_eq!(kind(keyring.encryptor(FileKind::Table)), ErrorKind::KeyDestroyed);
    drop(fs);
    let kept = DirectoryStorage::new(store.data());
    assert!(atrest::keyring::KeyringStorage::kept(&kept).unwrap().is_empty());
    let fs = open(&store, &clock);
    assert_eq!(state(&fs, key), KeyState::Destroyed);
    fs.keyring().keys().rotate_store_key().unwrap();
}
