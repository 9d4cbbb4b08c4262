//! Access that is withdrawn, and given back, on request: by the process itself, by a mark of the
//! store, by a file beside the keyring.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use atrest::keyring::{Access, AccessState, AuditKind, DirectoryStorage, FileSpec, FilesBeside};
use atrest::kms::KmsErrorKind;
use atrest::{ErrorKind, FileKind, Keyring};

use super::{Store, store};
use crate::renewal::exchange::{Between, Call};
use crate::support::options;
use atrest::vfs::Rename;

use AccessState::*;

#[test]
fn revoking_on_request_is_remembered_until_restored_on_request() {
    let store = store("request");
    store.keyring.access().revoke().unwrap();
    assert!(store.keyring.access().status().revoked_on_request);
    assert!(!store.serves());
    // The service would still give the key; nobody asks it.
    let asked = store.kms.unwraps();
    assert_eq!(store.after(1000), Revoked);
    assert_eq!(store.kms.unwraps(), asked);
    assert_eq!(store.open(), Err(ErrorKind::CmekRevoked));
    let read =
        Keyring::open_read_only(store.storage.clone(), store.kms.clone(), options(&store.clock));
    assert_eq!(read.unwrap_err().kind(), ErrorKind::CmekRevoked);

    store.keyring.access().restore().unwrap();
    assert!(store.serves());
    assert_eq!(store.keyring.access().status().state, Restored);
    assert_eq!(store.open(), Ok(()));
    let what: Vec<_> =
        store.keyring.audit().events().unwrap().into_iter().map(|e| e.what).collect();
    let expected = [
        AuditKind::Created,
        AuditKind::Access,
        AuditKind::Revoked,
        AuditKind::Access,
        AuditKind::Restored,
    ];
    assert_eq!(what, expected);
}

#[test]
fn a_mark_outlives_the_process_and_is_removed_by_opening_to_restore() {
    let store = store("mark");
    store.keyring.access().revoke().unwrap();
    let (storage, kms) = (store.storage.clone(), store.kms.clone());
    drop(store.keyring);
    let open = || Keyring::open(storage.clone(), kms.clone(), options(&store.clock));
    assert_eq!(open().unwrap_err().kind(), ErrorKind::CmekRevoked);
    kms.fail(KmsErrorKind::AccessDenied);
    let restore = || Access::open_and_restore(storage.clone(), kms.clone(), options(&store.clock));
    assert_eq!(restore().unwrap_err().kind(), ErrorKind::Kms(KmsErrorKind::AccessDenied));
    kms.fail(None);
    assert_eq!(open().unwrap_err().kind(), ErrorKind::CmekRevoked);
    drop(restore().unwrap());
    drop(open().unwrap());
}

#[test]
fn another_process_can_ask_for_revocation() {
    let store = store("asked");
    Access::request_revocation(&*store.storage).unwrap();
    assert!(store.serves());
    // From now on nobody opens it, and its owner gives the keys up at the next check.
    assert_eq!(store.open(), Err(ErrorKind::CmekRevoked));
    assert_eq!(store.after(331), Revoked);
    assert!(!store.serves());
    // The owner made it a mark that cannot be deleted like a file.
    assert_eq!(store.storage.load_beside("revoke").unwrap(), None);
    assert_eq!(store.open(), Err(ErrorKind::CmekRevoked));
    store.keyring.access().restore().unwrap();
    assert_eq!(store.open(), Ok(()));
}

#[test]
fn a_request_is_heeded_however_often_the_keyring_is_committed_or_read_again() {
    let (writing, reading) = (store("busy"), store("reread"));
    let reader = reading.reader();
    for store in [&writing, &reading] {
        Access::request_revocation(&*store.storage).unwrap();
    }
    for _ in 0..5 {
        drop(writing.keyring.keys().rotate());
        drop(reader.reload());
        for (store, keyring) in [(&writing, &writing.keyring), (&reading, &reader)] {
            store.clock.advance(Duration::from_secs(60));
            drop(keyring.maintain());
        }
    }
    for (store, keyring) in [(&writing, &writing.keyring), (&reading, &reader)] {
        store.clock.advance(Duration::from_secs(31));
        drop(keyring.maintain());
        assert_eq!(keyring.access().status().state, Revoked);
    }
}

#[test]
fn a_request_that_cannot_be_read_counts() {
    let (dir, store) = (tempfile::tempdir().unwrap(), store("unreadable"));
    let storage = || DirectoryStorage::new(dir.path());
    let keyring = Keyring::create(storage(), store.kms.clone(), options(&store.clock)).unwrap();
    assert!(!Access::is_revocation_requested(&storage()).unwrap());
    // Another user's file, mode 0600, is none to the superuser; this is none to anybody.
    std::fs::create_dir(dir.path().join("KEYRING.revoke")).unwrap();
    assert!(Access::is_revocation_requested(&storage()).unwrap());
    let opened = Keyring::open_read_only(storage(), store.kms.clone(), options(&store.clock));
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::CmekRevoked);
    assert_eq!(keyring.access().check_now().state, Revoked);
    assert_eq!(keyring.keys().active_id().unwrap_err().kind(), ErrorKind::CmekRevoked);
}

/// Somebody asks for the keys to be given up once more while a restoration commits.
#[test]
fn a_request_that_comes_while_access_is_given_back_is_heeded() {
    let dir = tempfile::tempdir().unwrap();
    let (store, again) = (store("again"), Arc::new(AtomicBool::new(false)));
    let (asks, place) = (again.clone(), dir.path().to_owned());
    let between = Between::new(move |call| {
        let commits = matches!(call, Call::Rename(_, Rename::Replace));
        if commits && asks.swap(false, Ordering::SeqCst) {
            Access::request_revocation(&DirectoryStorage::new(&place)).unwrap();
        }
        Ok(())
    });
    let storage = || DirectoryStorage::with_vfs(dir.path(), Arc::new(between.clone()));
    let make = || (storage(), store.kms.clone(), options(&store.clock));
    let (first, kms, with) = make();
    let keyring = Keyring::create(first, kms, with).unwrap();
    let is_requested = || Access::is_revocation_requested(&storage()).unwrap();
    keyring.access().revoke().unwrap();
    for asked_again in [true, false] {
        Access::request_revocation(&storage()).unwrap();
        again.store(asked_again, Ordering::SeqCst);
        let restored = keyring.access().restore();
        assert_eq!((restored.is_err(), is_requested()), (asked_again, asked_again));
        assert_eq!(keyring.keys().active_id().is_err(), asked_again);
    }
    drop(keyring);
    // The same of what is opened to give access back.
    for asked_again in [true, false] {
        Access::request_revocation(&storage()).unwrap();
        again.store(asked_again, Ordering::SeqCst);
        let (place, kms, with) = make();
        let opened = Access::open_and_restore(place, kms, with).map(drop);
        assert_eq!((opened.is_err(), is_requested()), (asked_again, asked_again));
    }
}

/// The service answers late, and somebody asks for the keys to be given up before it does.
#[test]
fn a_request_that_comes_while_the_key_service_is_asked_is_heeded() {
    let store = store("late");
    let is_requested = || Access::is_revocation_requested(&*store.storage).unwrap();
    let opens = || {
        let (storage, kms) = (store.storage.clone(), store.kms.clone());
        Access::open_and_restore(storage, kms, options(&store.clock)).map(drop)
    };
    let restores = || store.keyring.access().restore();
    store.keyring.access().revoke().unwrap();
    for give_back in [&restores as &(dyn Fn() -> _ + Sync), &opens] {
        // With an older request there, and with none.
        for asked_before in [true, false] {
            if asked_before {
                Access::request_revocation(&*store.storage).unwrap();
            }
            let barrier = Arc::new(Barrier::new(2));
            store.kms.meet(&barrier);
            let given_back = std::thread::scope(|scope| {
                let giving = scope.spawn(give_back);
                barrier.wait();
                Access::request_revocation(&*store.storage).unwrap();
                barrier.wait();
                giving.join().unwrap()
            });
            assert_eq!(given_back.unwrap_err().kind(), ErrorKind::CmekRevoked);
            assert!(is_requested() && !store.serves());
            give_back().unwrap();
            assert!(!is_requested());
            restores().unwrap();
            store.keyring.access().revoke().unwrap();
        }
    }
}

#[test]
fn a_reader_follows_the_writers_revocation_and_restoration() {
    let store = store("reader");
    let reader = store.reader();
    let serves = || reader.keys().active_id().is_ok();
    store.keyring.access().revoke().unwrap();
    assert!(serves());
    assert_eq!(reader.access().check_now().state, Revoked);
    assert!(!serves());
    assert_eq!(reader.access().restore().unwrap_err().kind(), ErrorKind::CmekRevoked);
    assert_eq!(reader.access().check_now().state, Revoked);
    store.keyring.access().restore().unwrap();
    assert_eq!(reader.access().check_now().state, Restored);
    assert!(serves());
    // A reader revokes for itself alone.
    reader.access().revoke().unwrap();
    assert!(store.serves());
    assert_eq!(reader.access().check_now().state, Revoked);
    reader.access().restore().unwrap();
    assert!(serves());
}

/// How often the service was asked in ten intervals of a keyring that is revoked.
fn asked(store: &Store, reader: &Keyring) -> u64 {
    let before = store.kms.unwraps();
    for _ in 0..10 {
        store.clock.advance(Duration::from_secs(120));
        for _ in 0..10 {
            drop(reader.maintain());
            assert_eq!(reader.access().status().state, Revoked);
        }
    }
    store.kms.unwraps() - before
}

#[test]
fn a_reader_asks_once_about_each_mark() {
    let store = store("marks");
    let (reader, writer) = (store.reader(), &store.keyring);
    Access::request_revocation(&*store.storage).unwrap();
    assert_eq!(reader.access().check_now().state, Revoked);
    assert_eq!(asked(&store, &reader), 0);
    // The writer makes a mark of the request: another image than the reader heeded.
    assert_eq!(writer.access().check_now().state, Revoked);
    assert!(!Access::is_revocation_requested(&*store.storage).unwrap());
    assert_eq!(asked(&store, &reader), 1);
    writer.access().restore().unwrap();
    assert_eq!(reader.access().check_now().state, Restored);
    // Revoked and restored between two looks, and revoked again.
    writer.access().revoke().unwrap();
    assert_eq!(reader.access().check_now().state, Revoked);
    writer.access().restore().unwrap();
    writer.access().revoke().unwrap();
    assert_eq!(asked(&store, &reader), 1);
    writer.access().restore().unwrap();
    assert_eq!(reader.access().check_now().state, Restored);
    assert!(reader.keys().active_id().is_ok());
}

#[test]
fn a_request_that_outlives_a_restoration_and_goes_keeps_no_reader_out() {
    let store = store("outlives");
    let (writer, reader) = (&store.keyring, store.reader());
    Access::request_revocation(&*store.storage).unwrap();
    assert_eq!(reader.access().check_now().state, Revoked);
    assert_eq!(writer.access().check_now().state, Revoked);
    writer.access().restore().unwrap();
    // As if the restoration could not remove it.
    Access::request_revocation(&*store.storage).unwrap();
    assert!((1..=10).contains(&asked(&store, &reader)), "once for each interval");
    store.storage.remove_beside("revoke").unwrap();
    assert_eq!(reader.access().check_now().state, Restored);
}

#[test]
fn a_service_that_answers_again_opens_no_store_that_was_revoked_meanwhile() {
    let store = store("meanwhile");
    let reader = store.reader();
    let states: Arc<Mutex<Vec<AccessState>>> = Arc::default();
    let told = states.clone();
    reader.access().on_transition(move |change| told.lock().unwrap().push(change.to));
    store.kms.fail(KmsErrorKind::Unreachable);
    for seconds in [331, 3600] {
        store.clock.advance(Duration::from_secs(seconds));
        drop(reader.maintain());
    }
    assert_eq!(reader.access().status().state, Suspended);
    store.keyring.access().revoke().unwrap();
    store.kms.fail(None);
    store.clock.advance(Duration::from_secs(67));
    drop(reader.maintain());
    let status = reader.access().status();
    assert!(status.state == Revoked && status.revoked_on_request && status.kms_error.is_none());
    assert_eq!(asked(&store, &reader), 0, "the mark is known");
    assert_eq!(*states.lock().unwrap(), [Unreachable, Suspended, Revoked]);
    store.keyring.access().restore().unwrap();
    assert_eq!(reader.access().check_now().state, Restored);
}

#[test]
fn what_was_unwrapped_before_a_revocation_is_not_let_in_after_it() {
    let store = store("late");
    store.keyring.access().revoke().unwrap();
    let barrier = Arc::new(Barrier::new(2));
    store.kms.meet(&barrier);
    std::thread::scope(|scope| {
        let restoring = scope.spawn(|| store.keyring.access().restore());
        barrier.wait();
        // The service is answering; access is withdrawn once more.
        store.keyring.access().revoke().unwrap();
        barrier.wait();
        assert_eq!(restoring.join().unwrap().unwrap_err().kind(), ErrorKind::CmekRevoked);
    });
    assert!(!store.serves());
}

#[test]
fn a_late_answer_takes_a_restored_keyring_to_no_older_generation() {
    let store = store("lookers");
    let keyring = &store.keyring;
    let tenant = keyring.keyspaces().create("tenant").unwrap();
    store.kms.fail(KmsErrorKind::AccessDenied);
    assert_eq!([331, 16, 16].map(|seconds| store.after(seconds)), [Suspect, Suspect, Revoked]);
    store.kms.fail(None);
    let barrier = Arc::new(Barrier::new(2));
    store.kms.meet(&barrier);
    let generation = std::thread::scope(|scope| {
        let looking = scope.spawn(|| keyring.access().check_now());
        barrier.wait();
        // The service answers somebody else first.
        keyring.access().restore().unwrap();
        keyring.keyspaces().danger_shred("tenant").unwrap();
        let generation = keyring.anchor().generation;
        barrier.wait();
        looking.join().unwrap();
        generation
    });
    assert!(keyring.anchor().generation >= generation);
    let created = keyring.encryptor(FileSpec::new(FileKind::Table).keyspace(tenant));
    assert_eq!(created.unwrap_err().kind(), ErrorKind::KeyDestroyed);
    assert!(store.serves());
}

#[test]
fn a_late_answer_takes_no_rotation_back_that_ended_meanwhile() {
    let store = store("overtaken");
    let keyring = &store.keyring;
    let (rotation, look) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    std::thread::scope(|scope| {
        store.kms.meet(&rotation);
        let rotating = scope.spawn(|| keyring.keys().rotate_store_key());
        rotation.wait();
        // The keys' time ends before the rotation does.
        store.clock.advance(Duration::from_secs(5000));
        assert_eq!(keyring.access().watch().state, Suspended);
        store.kms.meet(&look);
        let looking = scope.spawn(|| keyring.access().check_now());
        look.wait();
        rotation.wait();
        let store_key = rotating.join().unwrap().unwrap();
        let generation = keyring.anchor().generation;
        look.wait();
        assert_eq!(looking.join().unwrap().state, Suspended);
        assert_eq!(keyring.access().check_now().state, Restored);
        assert!(keyring.anchor().generation >= generation);
        assert_eq!(keyring.status().info.store_key_id, store_key);
    });
}

#[test]
fn a_rotation_that_ends_after_a_revocation_brings_no_key_back() {
    let store = store("rotating");
    let barrier = Arc::new(Barrier::new(2));
    store.kms.meet(&barrier);
    std::thread::scope(|scope| {
        let rotating = scope.spawn(|| store.keyring.keys().rotate_store_key());
        barrier.wait();
        // The rotation holds the writer's lock until the service answers; taking the keys
        // away must not wait for it.
        let gone = Arc::new(AtomicBool::new(false));
        let told = gone.clone();
        let revoking = scope.spawn(|| store.keyring.access().revoke());
        while store.serves() {
            std::thread::yield_now();
        }
        told.store(true, Ordering::SeqCst);
        barrier.wait();
        drop(rotating.join().unwrap());
        revoking.join().unwrap().unwrap();
        assert!(gone.load(Ordering::SeqCst));
    });
    assert!(!store.serves());
    assert_eq!(store.open(), Err(ErrorKind::CmekRevoked));
    store.keyring.access().restore().unwrap();
    assert!(store.serves());
}

#[test]
fn no_file_keeps_a_key_through_a_revocation_however_it_was_opened() {
    let store = store("races");
    let rounds = 300_u64;
    let round = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while round.load(Ordering::SeqCst) < rounds {
                    let now = round.load(Ordering::SeqCst);
                    let Ok(mut encryptor) = store.keyring.encryptor(FileKind::Table) else {
                        continue;
                    };
                    let header = atrest::Header::parse(encryptor.header()).unwrap();
                    let decryptor = store.keyring.decryptor(&header, &Default::default());
                    // Odd rounds are revoked: what was opened before may not go on.
                    loop {
                        let before = round.load(Ordering::SeqCst);
                        let wrote = encryptor.encrypt_in_place(&mut [1; 100]).is_ok();
                        let read = match &decryptor {
                            Ok(decryptor) => decryptor.decrypt_in_place(0, &mut [1; 10]).is_ok(),
                            Err(_) => false,
                        };
                        let after = round.load(Ordering::SeqCst);
                        assert!(!(before == after && before % 2 == 1 && (wrote || read)));
                        if after > now + 2 || after >= rounds {
                            break;
                        }
                    }
                }
            });
        }
        for _ in 0..rounds / 2 {
            store.keyring.access().revoke().unwrap();
            round.fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
            assert!(!store.serves());
            round.fetch_add(1, Ordering::SeqCst);
            store.keyring.access().restore().unwrap();
        }
        round.store(rounds, Ordering::SeqCst);
    });
}

#[test]
fn a_revocation_by_file_alone_is_in_the_audit_when_it_ends() {
    let store = store("file");
    let (storage, kms) = (store.storage.clone(), store.kms.clone());
    drop(store.keyring);
    Access::request_revocation(&*storage).unwrap();
    let with = options(&store.clock);
    let keyring = Access::open_and_restore(storage, kms, with).unwrap();
    let what: Vec<_> = keyring.audit().events().unwrap().into_iter().map(|e| e.what).collect();
    assert_eq!(what, [AuditKind::Created, AuditKind::Revoked, AuditKind::Restored]);
}
