//! The keyring in an object store.

use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::{KeyringStorage, MemoryStorage, Options};
use atrest::kms::{Kms, generate_key_file};
use atrest::{ErrorKind, Expect, FileKind, Header, Keyring};
use atrest_testkit::keyring_storage_conformance;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;

use crate::meddle::{Fate, Meddle};
use crate::served::{EncryptedStore, ObjectStoreKeyringStorage};
use crate::support::{key_file, pattern, read};

pub fn storage(store: impl ObjectStore) -> ObjectStoreKeyringStorage {
    let storage = ObjectStoreKeyringStorage::new(Arc::new(store), &Path::from("db")).unwrap();
    storage.with_timeout(Duration::from_secs(20))
}

pub fn options() -> Options {
    let mut options = Options::default();
    options.background = false;
    options
}

pub fn customer_key() -> (tempfile::TempDir, Arc<dyn Kms>) {
    let dir = tempfile::tempdir().unwrap();
    generate_key_file(dir.path().join("cmek.key")).unwrap();
    let kms = key_file(&dir);
    (dir, kms)
}

fn names(store: &InMemory) -> Vec<String> {
    let metas: Vec<_> = futures_executor::block_on(store.list(None).try_collect()).unwrap();
    metas.into_iter().map(|meta: object_store::ObjectMeta| meta.location.to_string()).collect()
}

#[test]
fn the_storage_keeps_the_contract() {
    keyring_storage_conformance(&|| Box::new(storage(InMemory::new())));
}

fn lives_in(raw: &Arc<InMemory>, kms: &Arc<dyn Kms>) {
    let keyring = Keyring::create(storage(raw.clone()), kms.clone(), options()).unwrap();
    let error = Keyring::create(storage(raw.clone()), kms.clone(), options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyringExists);
    let reader = Keyring::open_read_only(storage(raw.clone()), kms.clone(), options()).unwrap();
    let first = keyring.encryptor(FileKind::Table).unwrap().header().to_vec();
    for _ in 0..4 {
        keyring.keys().rotate().unwrap();
    }
    assert_eq!(
        names(raw),
        ["db/_atrest/KEYRING", "db/_atrest/KEYRING.3", "db/_atrest/KEYRING.4"],
        "the last two, and nothing of the proof that the store knows conditions"
    );
    keyring.keys().rotate_store_key().unwrap();
    assert_eq!(names(raw), ["db/_atrest/KEYRING"], "no image has the old store key");
    let last = keyring.encryptor(FileKind::Table).unwrap().header().to_vec();
    drop(keyring);
    let again = Keyring::open(storage(raw.clone()), kms.clone(), options()).unwrap();
    for header in [first, last] {
        let header = Header::parse(&header).unwrap();
        again.decryptor(&header, &Expect::default()).unwrap();
        reader.decryptor(&header, &Expect::default()).unwrap();
    }
}

#[test]
fn it_lives_inside_and_outside_of_any_runtime() {
    let (_dir, kms) = customer_key();
    lives_in(&Arc::default(), &kms);
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    one.block_on(async { lives_in(&Arc::default(), &kms) });
    let many = tokio::runtime::Runtime::new().unwrap();
    many.block_on(async { lives_in(&Arc::default(), &kms) });
}

#[test]
fn the_store_of_the_objects_keeps_their_keyring_too() {
    let (_dir, kms) = customer_key();
    let raw = Arc::new(InMemory::new());
    let writer = Keyring::create(storage(raw.clone()), kms.clone(), options()).unwrap();
    let reader = Keyring::open_read_only(storage(raw.clone()), kms, options()).unwrap();
    let [writer, reader] =
        [writer, reader].map(|keyring| EncryptedStore::new(raw.clone(), keyring));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for n in 0..5 {
            let path = Path::from(format!("db/{n}"));
            writer.put(&path, pattern(100, n).into()).await.unwrap();
            assert_eq!(read(&reader, &path).await.unwrap(), pattern(100, n));
            writer.keyring().keys().rotate().unwrap();
        }
        let metas: Vec<_> = reader.list(None).try_collect().await.unwrap();
        assert_eq!(metas.len(), 5, "the keyring is not listed");
    });
}

#[test]
fn a_store_that_cannot_or_does_not_keep_conditions_is_refused() {
    let (_dir, kms) = customer_key();
    let dir = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    let error = Keyring::create(storage(local), kms.clone(), options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("conditional put, found LocalFileSystem"), "{error}");
    let left = walk(dir.path());
    assert!(left.is_empty(), "{left:?}");
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// A commit whose answer is lost is looked into; one that may still arrive is not guessed
/// at.
#[test]
fn the_outcome_of_a_commit_is_found_out() {
    use Fate::*;
    let cases: &[(&[Fate], Result<(), ErrorKind>)] = &[
        (&[Done], Ok(())),
        (&[Unheard], Ok(())),
        (&[Lost], Ok(())),
        (&[Lost, Lost, Lost, Lost, Lost, Lost, Done], Ok(())),
        (&[Lost, Lost, Lost, Unheard], Ok(())),
        (&[Lost, Unheard, Lost, Lost], Ok(())),
        (&[Lost; 7], Err(ErrorKind::Poisoned)),
        (&[Lost, Denied, Denied, Denied, Denied, Denied, Denied], Err(ErrorKind::Poisoned)),
        (&[Denied], Err(ErrorKind::Io(std::io::ErrorKind::PermissionDenied))),
        (&[Hangs], Ok(())),
    ];
    let (_dir, kms) = customer_key();
    for (fates, expected) in cases {
        let store = Meddle::default();
        let hangs = fates.contains(&Hangs);
        let timeout = Duration::from_millis(if hangs { 500 } else { 20_000 });
        let storage = storage(store.clone()).with_timeout(timeout);
        let keyring = Keyring::create(storage, kms.clone(), options()).unwrap();
        let before = keyring.keys().active_id().unwrap();
        store.puts_end(fates.iter().copied());
        let outcome = keyring.keys().rotate();
        store.puts_end([]);
        let found = outcome.as_ref().map(drop).map_err(atrest::Error::kind);
        assert_eq!(found, *expected, "{fates:?}");
        let fresh = Keyring::open(self::storage(store), kms.clone(), options()).unwrap();
        match outcome {
            Ok(id) => {
                assert_ne!(id, before);
                assert_eq!(fresh.keys().active_id().unwrap(), id, "{fates:?}");
                assert_eq!(fresh.anchor(), keyring.anchor(), "one commit, known: {fates:?}");
            }
            Err(error) => {
                assert_eq!(keyring.keys().active_id().unwrap(), before);
                assert_eq!(fresh.keys().active_id().unwrap(), before);
                assert_eq!(Err(error.kind()), *expected);
                // All is well again, and so is the handle.
                let again = keyring.keys().rotate().unwrap();
                fresh.reload().unwrap();
                assert_eq!(fresh.keys().active_id().unwrap(), again, "{fates:?}");
                keyring.keys().rotate_store_key().unwrap();
                keyring.maintain().unwrap();
            }
        }
    }
}

#[test]
fn a_commit_that_was_not_heard_is_not_done_twice() {
    let (_dir, kms) = customer_key();
    let store = Meddle::default();
    let keyring = Keyring::create(storage(store.clone()), kms, options()).unwrap();
    for fate in [Fate::Unheard, Fate::Lost] {
        let generation = keyring.anchor().generation;
        store.puts_end([fate]);
        keyring.keys().rotate_store_key().unwrap();
        assert_eq!(keyring.anchor().generation, generation + 1, "{fate:?}");
    }
}

#[test]
fn of_two_rotations_at_once_one_happens() {
    let (_dir, kms) = customer_key();
    let mut injected = 0;
    for request in 0..20 {
        let raw = Arc::new(InMemory::new());
        let meddle = Meddle::new(raw.clone());
        let one = Keyring::create(storage(meddle.clone()), kms.clone(), options()).unwrap();
        let other = Keyring::open(storage(raw.clone()), kms.clone(), options()).unwrap();
        let before = one.keys().active_id().unwrap();
        let second = other.clone();
        // In the midst of the first rotation a whole other one, before each of its requests.
        meddle.before(request, move || _ = second.keys().rotate().unwrap());
        let new = one.keys().rotate().unwrap();
        if !meddle.happened() {
            continue;
        }
        injected += 1;
        assert_ne!(new, before);
        assert_eq!(other.keys().active_id().unwrap(), new, "before request {request}");
        let fresh = Keyring::open(storage(raw), kms.clone(), options()).unwrap();
        assert_eq!(fresh.keys().active_id().unwrap(), new);
        assert_eq!(fresh.anchor().generation, 2, "before request {request}");
        assert_eq!(fresh.status().data_keys.len(), 2);
    }
    assert!(injected >= 3, "{injected} interleavings only");
}

#[test]
fn of_two_creations_at_once_one_happens() {
    let (_dir, kms) = customer_key();
    for request in 0..12 {
        let meddle = Meddle::default();
        let (raw, kms2) = (meddle.inner.clone(), kms.clone());
        let (done, second) = std::sync::mpsc::channel();
        meddle.before(request, move || {
            let created = Keyring::create(storage(raw), kms2, options());
            done.send(created.map(drop).map_err(|error| error.kind())).unwrap();
        });
        let first = Keyring::create(storage(meddle.clone()), kms.clone(), options());
        let first = first.map(drop).map_err(|error| error.kind());
        if meddle.happened() {
            let mut outcomes = [first, second.recv().unwrap()];
            outcomes.sort_by_key(Result::is_err);
            assert_eq!(outcomes, [Ok(()), Err(ErrorKind::KeyringExists)], "{request}");
        }
        Keyring::open(storage(meddle), kms.clone(), options()).unwrap();
    }
}

#[test]
fn a_lost_race_leaves_no_image_with_a_replaced_key() {
    let (_dir, kms) = customer_key();
    let (_other_dir, other_kms) = customer_key();
    for (request, cmek) in (0..20).flat_map(|request| [(request, false), (request, true)]) {
        let raw = Arc::new(InMemory::new());
        let meddle = Meddle::new(raw.clone());
        let one = Keyring::create(storage(meddle.clone()), kms.clone(), options()).unwrap();
        one.keys().rotate().unwrap();
        let other = Keyring::open(storage(raw.clone()), kms.clone(), options()).unwrap();
        let new = other_kms.clone();
        meddle.before(request, move || {
            if cmek {
                other.slots().rotate(new).unwrap();
            } else {
                other.keys().rotate_store_key().unwrap();
            }
        });
        one.keys().rotate().unwrap();
        if !meddle.happened() {
            continue;
        }
        let storage = storage(raw);
        let current = atrest::keyring::KeyringInfo::read(&storage).unwrap();
        for generation in storage.kept().unwrap() {
            let bytes = storage.load_kept(generation).unwrap().unwrap();
            let image = MemoryStorage::new();
            image.commit(&bytes, generation, None).unwrap();
            let kept = atrest::keyring::KeyringInfo::read(&image).unwrap();
            let same = (kept.store_key_id, &kept.slots) == (current.store_key_id, &current.slots);
            assert!(same, "before request {request}, {cmek}: image {generation}");
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    RotateDataKey,
    RotateStoreKey,
    Maintain,
    Reload,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::RotateDataKey),
        1 => Just(Op::RotateStoreKey),
        1 => Just(Op::Maintain),
        1 => Just(Op::Reload),
    ]
}

fn apply(keyring: &Keyring, op: &Op) {
    match op {
        Op::RotateDataKey => drop(keyring.keys().rotate().unwrap()),
        Op::RotateStoreKey => drop(keyring.keys().rotate_store_key().unwrap()),
        Op::Maintain => keyring.maintain().unwrap(),
        Op::Reload => keyring.reload().unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// Whatever three writers do in whatever order, the midst of each other's commits
    /// included: no key that one of them encrypted under is ever missing.
    #[test]
    fn no_interleaving_loses_a_key(
        steps in prop::collection::vec((0usize..3, op(), 0usize..8, 0usize..3, op()), 1..8),
    ) {
        let (_dir, kms) = customer_key();
        let raw = Arc::new(InMemory::new());
        let stores: Vec<_> = (0..3).map(|_| Meddle::new(raw.clone())).collect();
        let keyrings: Vec<_> = stores
            .iter()
            .map(|store| Keyring::open_or_create(storage(store.clone()), kms.clone(), options()).unwrap())
            .collect();
        let mut headers = Vec::new();
        for (writer, op, request, meddler, between) in steps {
            if writer != meddler {
                let other = keyrings[meddler].clone();
                stores[writer].before(request, move || apply(&other, &between));
            }
            apply(&keyrings[writer], &op);
            stores[writer].happened();
            for keyring in &keyrings {
                headers.push(keyring.encryptor(FileKind::Table).unwrap().header().to_vec());
            }
        }
        let fresh = Keyring::open(storage(raw), kms, options()).unwrap();
        for header in &headers {
            let header = Header::parse(header).unwrap();
            for keyring in keyrings.iter().chain([&fresh]) {
                keyring.decryptor(&header, &Expect::default()).unwrap();
            }
        }
    }
}
