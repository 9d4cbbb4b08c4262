//! CMEK slots.

use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::{AccessState, AuditKind, LiveKeys, MemoryStorage, Options};
use atrest::kms::{Kms, KmsErrorKind};
use atrest::{DataKeyId, ErrorKind, Keyring};

use crate::support::options;
use atrest_testkit::{ManualClock, Mode, ScriptedKms};

fn store() -> (Arc<MemoryStorage>, Arc<ScriptedKms>, Arc<ScriptedKms>) {
    let storage = Arc::new(MemoryStorage::new());
    let (eu, us) = (ScriptedKms::new("eu"), ScriptedKms::new("us"));
    let keyring = Keyring::create(storage.clone(), eu.clone(), Options::default()).unwrap();
    keyring.slots().add("us", us.clone()).unwrap();
    (storage, eu, us)
}

fn both(eu: &Arc<ScriptedKms>, us: &Arc<ScriptedKms>) -> Vec<Arc<dyn Kms>> {
    vec![eu.clone(), us.clone()]
}

fn names(keyring: &Keyring) -> Vec<String> {
    keyring.slots().list().into_iter().map(|slot| slot.name).collect()
}

#[test]
fn each_slot_opens_the_store_alone_and_by_preference() {
    let (storage, eu, us) = store();
    for one in [&eu, &us] {
        let keyring = Keyring::open(storage.clone(), one.clone(), Options::default()).unwrap();
        assert_eq!(names(&keyring), ["default", "us"]);
    }
    let asked = |eu: &ScriptedKms, us: &ScriptedKms| (eu.take_unwraps(), us.take_unwraps());
    asked(&eu, &us);
    drop(Keyring::open(storage.clone(), both(&eu, &us), Options::default()).unwrap());
    assert_eq!(asked(&eu, &us), (1, 0));
    drop(Keyring::open(storage.clone(), both(&us, &eu), Options::default()).unwrap());
    assert_eq!(asked(&eu, &us), (0, 1));
    let mut options = Options::default();
    options.slot = Some("us".into());
    drop(Keyring::open(storage.clone(), both(&eu, &us), options.clone()).unwrap());
    assert_eq!(asked(&eu, &us), (0, 1));
    options.slot = Some("mars".into());
    let error = Keyring::open(storage, both(&eu, &us), options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_rotation_of_the_customers_key_takes_the_default_slot_or_the_only_one() {
    let (storage, eu, us) = store();
    let keyring = Keyring::open(storage, both(&eu, &us), Options::default()).unwrap();
    let (next, last) = (ScriptedKms::new("next"), ScriptedKms::new("last"));
    let uris = || -> Vec<_> {
        let slots = keyring.slots().list().into_iter();
        slots.map(|slot| format!("{} {}", slot.name, slot.key_uri)).collect()
    };
    keyring.slots().rotate(next.clone()).unwrap();
    assert_eq!(uris(), ["default scripted:next", "us scripted:us"]);
    let told = keyring.audit().events().unwrap().pop().unwrap();
    assert_eq!(
        (told.what, &*told.detail),
        (AuditKind::CmekReplaced, "default scripted:next version 1")
    );
    keyring.slots().remove("default").unwrap();
    keyring.slots().rotate(last).unwrap();
    assert_eq!(uris(), ["us scripted:last"]);
    // Neither of two is the default.
    keyring.slots().add("another", next).unwrap();
    let refused = keyring.slots().rotate(eu).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn the_next_slot_stands_in_for_an_outage_and_never_for_a_denial() {
    let (storage, eu, us) = store();
    let open = |kind: KmsErrorKind| {
        eu.fail(kind);
        us.take_unwraps();
        let opened = Keyring::open(storage.clone(), both(&eu, &us), Options::default());
        (opened.map(drop).map_err(|error| error.kind()), us.unwraps())
    };
    for kind in [
        KmsErrorKind::Unreachable,
        KmsErrorKind::Throttled,
        KmsErrorKind::Integrity,
        KmsErrorKind::Unauthenticated,
    ] {
        assert_eq!(open(kind), (Ok(()), 1), "{kind}");
    }
    for kind in [
        KmsErrorKind::AccessDenied,
        KmsErrorKind::KeyDisabled,
        KmsErrorKind::PendingDeletion,
        KmsErrorKind::VersionRetired,
        KmsErrorKind::NotFound,
        KmsErrorKind::Destroyed,
        // Mistakes are to be seen at opening, not papered over.
        KmsErrorKind::Misconfigured,
        KmsErrorKind::Protocol,
    ] {
        assert_eq!(open(kind), (Err(ErrorKind::Kms(kind)), 0), "{kind}");
    }
    us.fail(KmsErrorKind::Unreachable);
    let (result, _) = open(KmsErrorKind::Throttled);
    assert_eq!(result, Err(ErrorKind::Kms(KmsErrorKind::Throttled)));
}

#[test]
fn the_slot_of_a_denied_key_is_not_removed_while_the_denial_is_confirmed() {
    let (storage, eu, us) = store();
    let clock = ManualClock::new();
    let keyring = Keyring::open(storage, both(&eu, &us), options(&clock)).unwrap();
    let after = |seconds| {
        clock.advance(Duration::from_secs(seconds));
        drop(keyring.maintain());
        keyring.access().status().state
    };
    eu.fail(KmsErrorKind::AccessDenied);
    let denied = ErrorKind::Kms(KmsErrorKind::AccessDenied);
    // Before the first check, too.
    assert_eq!(keyring.slots().remove("default").unwrap_err().kind(), denied);
    assert_eq!(after(331), AccessState::Suspect);
    assert_eq!(keyring.slots().remove("default").unwrap_err().kind(), denied);
    assert_eq!([after(16), after(16)], [AccessState::Suspect, AccessState::Revoked]);
    assert_eq!(names(&keyring), ["default", "us"]);
}

#[test]
fn a_service_that_lies_makes_way_for_the_next_slot() {
    let (storage, eu, us) = store();
    eu.set(Mode::Garbage);
    drop(Keyring::open(storage.clone(), both(&eu, &us), Options::default()).unwrap());
    let error = Keyring::open(storage, eu, Options::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongStoreKey);
}

#[test]
fn slots_are_added_and_removed_and_the_last_one_stays() {
    let (storage, eu, us) = store();
    let keyring = Keyring::open(storage.clone(), both(&eu, &us), Options::default()).unwrap();
    let kind = |result: atrest::error::Result<()>| result.unwrap_err().kind();
    let third = ScriptedKms::new("third");
    assert_eq!(kind(keyring.slots().add("us", third.clone())), ErrorKind::InvalidArgument);
    assert_eq!(kind(keyring.slots().add("again", us.clone())), ErrorKind::InvalidArgument);
    assert_eq!(kind(keyring.slots().add("", third.clone())), ErrorKind::InvalidArgument);
    assert_eq!(kind(keyring.slots().replace("us", eu.clone())), ErrorKind::InvalidArgument);
    third.set(Mode::Garbage);
    assert_eq!(kind(keyring.slots().add("third", third.clone())), ErrorKind::WrongStoreKey);
    assert_eq!(kind(keyring.slots().replace("us", third)), ErrorKind::WrongStoreKey);
    assert_eq!(kind(keyring.slots().remove("mars")), ErrorKind::InvalidArgument);
    assert_eq!(names(&keyring), ["default", "us"]);

    keyring.slots().remove("default").unwrap();
    assert_eq!(kind(keyring.slots().remove("us")), ErrorKind::InvalidArgument);
    drop(keyring);
    assert!(storage_has_no_old_images(&storage));
    let error = Keyring::open(storage.clone(), eu, Options::default()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Kms(_)), "{error}");
    let keyring = Keyring::open(storage, us, Options::default()).unwrap();
    assert_eq!(names(&keyring), ["us"]);
}

fn storage_has_no_old_images(storage: &MemoryStorage) -> bool {
    use atrest::keyring::KeyringStorage;
    storage.kept().unwrap().is_empty()
}

#[test]
fn rewrapping_takes_the_newest_version_of_the_same_key() {
    let (storage, eu, us) = store();
    let keyring = Keyring::open(storage, both(&eu, &us), Options::default()).unwrap();
    let versions =
        || keyring.slots().list().into_iter().map(|slot| slot.key_version).collect::<Vec<_>>();
    eu.rotate();
    us.rotate();
    assert_eq!(keyring.slots().rewrap(Some("us")).unwrap(), 1);
    assert_eq!(versions(), ["1", "2"]);
    assert_eq!(
        keyring.slots().rewrap(Some("mars")).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    us.fail(KmsErrorKind::Unreachable);
    us.rotate();
    let error = keyring.slots().rewrap(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Unreachable));
    assert_eq!(versions(), ["1", "2"]);
    us.fail(None);
    assert_eq!(keyring.slots().rewrap(None).unwrap(), 2);
    assert_eq!(versions(), ["2", "3"]);
    eu.set(Mode::Garbage);
    assert_eq!(keyring.slots().rewrap(None).unwrap_err().kind(), ErrorKind::WrongStoreKey);
}

#[test]
fn a_new_store_key_needs_every_slots_service() {
    let (storage, eu, us) = store();
    {
        let keyring = Keyring::open(storage.clone(), eu.clone(), Options::default()).unwrap();
        let error = keyring.keys().rotate_store_key().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Misconfigured));
    }
    {
        let keyring = Keyring::open(storage.clone(), both(&eu, &us), Options::default()).unwrap();
        us.fail(KmsErrorKind::Unreachable);
        assert!(keyring.keys().rotate_store_key().is_err());
        us.fail(None);
        keyring.keys().rotate_store_key().unwrap();
    }
    for one in [eu, us] {
        drop(Keyring::open(storage.clone(), one, Options::default()).unwrap());
    }
}

#[test]
fn a_customers_key_is_replaced_and_the_change_is_in_the_audit() {
    let (storage, eu, us) = store();
    let new = ScriptedKms::new("new");
    {
        let keyring = Keyring::open(storage.clone(), both(&eu, &us), Options::default()).unwrap();
        keyring.slots().replace("us", new.clone()).unwrap();
        keyring.keys().rotate_store_key().unwrap();
        keyring.slots().rewrap(Some("us")).unwrap();
        keyring.slots().remove("default").unwrap();
        let what: Vec<_> = keyring.audit().events().unwrap().into_iter().map(|e| e.what).collect();
        use AuditKind::*;
        let expected = [
            Created,
            SlotAdded,
            CmekReplaced,
            DataKeyRotated,
            StoreKeyRotated,
            SlotRewrapped,
            SlotRemoved,
        ];
        assert_eq!(what, expected);
    }
    assert!(Keyring::open(storage.clone(), us, Options::default()).is_err());
    drop(Keyring::open(storage, new, Options::default()).unwrap());
}

/// There are no files.
struct NoFiles;

impl LiveKeys for NoFiles {
    fn keys_in_use(&self) -> atrest::Result<Vec<DataKeyId>> {
        Ok(Vec::new())
    }
}

/// Destroys one data key by retirement, with the keys given, and shreds a keyspace.
fn destroy_something(keyring: &Keyring) {
    let status = keyring.status();
    let old = status.data_keys.iter().find(|key| key.keyspace == "default").unwrap().id;
    keyring.keys().rotate().unwrap();
    let retire = || keyring.keys().retire(&NoFiles, Duration::ZERO).unwrap();
    retire();
    assert!(retire().destroyed().any(|id| id == old));
    keyring.keyspaces().create("tenant").unwrap();
    keyring.keyspaces().danger_shred("tenant").unwrap();
}

#[test]
fn keys_are_destroyed_without_the_services_of_the_other_slots() {
    for given in [true, false] {
        let (storage, eu, us) = store();
        {
            let kms = if given { both(&eu, &us) } else { vec![eu.clone() as Arc<dyn Kms>] };
            us.fail(KmsErrorKind::Unreachable);
            let keyring = Keyring::open(storage.clone(), kms, Options::default()).unwrap();
            let (before, asked) = (keyring.status().info, us.unwraps());
            destroy_something(&keyring);
            let after = keyring.status().info;
            assert_ne!(after.store_key_id, before.store_key_id);
            assert_eq!(after.slots, before.slots);
            assert_eq!(us.unwraps(), asked, "its service was called");
            let error = keyring.keys().rotate_store_key().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Kms(_)), "{error}");
        }
        us.fail(None);
        for one in [&eu, &us] {
            let keyring = Keyring::open(storage.clone(), one.clone(), Options::default()).unwrap();
            assert!(keyring.keyspaces().find("tenant").is_some());
            // And the one that was away can go on by itself.
            destroy_again(&keyring);
        }
    }
}

fn destroy_again(keyring: &Keyring) {
    let name = format!("tenant {}", keyring.keyspaces().list().len());
    keyring.keyspaces().create(&name).unwrap();
    keyring.keyspaces().danger_shred(&name).unwrap();
}

#[test]
fn a_removed_slots_key_opens_nothing_that_comes_after() {
    let (storage, eu, us) = store();
    let keyring = Keyring::open(storage.clone(), both(&eu, &us), Options::default()).unwrap();
    keyring.slots().remove("us").unwrap();
    let opens = |kms: &Arc<ScriptedKms>| {
        Keyring::open_read_only(storage.clone(), kms.clone(), Options::default()).is_ok()
    };
    assert!(!opens(&us) && opens(&eu));
    destroy_something(&keyring);
    assert!(!opens(&us) && opens(&eu));
    keyring.keys().rotate_store_key().unwrap();
    assert!(!opens(&us) && opens(&eu));
}

/// Else a service that hangs would take the time of those that come behind it, or more.
#[test]
fn all_slots_share_the_time_of_one_operation() {
    let (storage, eu, us) = store();
    eu.fail(KmsErrorKind::Unreachable);
    us.fail(KmsErrorKind::Unreachable);
    let (all, half) = (Duration::from_secs(2000), Duration::from_secs(1000));
    let mut with = Options::default();
    with.kms_deadline = all;
    let refused = Keyring::open(storage, both(&eu, &us), with).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Kms(KmsErrorKind::Unreachable));
    let [first, second] = [eu.patience(), us.patience()];
    assert!(!first.is_zero() && first <= half, "{first:?}");
    assert!(second > half && second <= all, "{second:?}");
}
