//! A key service that does not accept this process's credentials, or does not answer yet.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use atrest::keyring::{Access, AccessState, AuditKind, MemoryStorage, Options};
use atrest::kms::{
    Credential, Deadline, KeyUri, Kms, KmsError, KmsErrorKind, LapsedCredential, SlotKey,
    WrapContext, WrappedKey,
};
use atrest::{ErrorKind, FileKind, Keyring};

use crate::support::{kind, manual, options};
use atrest_testkit::{ManualClock, ScriptedKms};

use AccessState::*;

const LAPSED: KmsErrorKind = KmsErrorKind::Unauthenticated;

struct Store {
    kms: Arc<ScriptedKms>,
    clock: Arc<ManualClock>,
    keyring: Keyring,
}

fn store(name: &str, policy: LapsedCredential) -> Store {
    let (kms, clock) = (ScriptedKms::new(name), ManualClock::new());
    let mut options = options(&clock);
    options.access.lapsed_credential = policy;
    let keyring = Keyring::create(MemoryStorage::new(), kms.clone(), options).unwrap();
    Store { kms, clock, keyring }
}

impl Store {
    fn after(&self, time: Duration) -> AccessState {
        self.clock.advance(time);
        drop(self.keyring.maintain());
        self.keyring.access().status().state
    }

    fn serves(&self) -> bool {
        self.keyring.encryptor(FileKind::Table).is_ok()
    }
}

#[test]
fn a_lapsed_credential_is_an_outage_and_no_revocation() {
    let store = store("lapsed", LapsedCredential::NoAnswer);
    let check = Duration::from_secs(331);
    store.kms.fail(LAPSED);
    for _ in 0..5 {
        assert_eq!(store.after(check), Unreachable);
    }
    assert!(store.serves());
    assert_eq!(store.keyring.access().status().kms_error, Some(LAPSED));
    // Renewed, it goes on.
    store.kms.fail(None);
    assert_eq!(store.after(check), Active);

    // Who takes access away so has the bound of an outage.
    let bound = store.keyring.access().status().worst_case_unreachable.unwrap();
    store.kms.fail(LAPSED);
    let mut passed = Duration::ZERO;
    while store.after(Duration::from_secs(60)).serves() {
        passed += Duration::from_secs(60);
        assert!(passed <= bound, "{passed:?}");
    }
    assert_eq!(store.keyring.access().status().state, Suspended);
    assert!(!store.serves());
    store.kms.fail(None);
    assert_eq!(store.after(Duration::from_secs(67)), Restored);
    let audit = store.keyring.audit().events().unwrap();
    let access = audit.iter().filter(|event| event.what == AuditKind::Access);
    assert!(access.clone().any(|event| event.detail.contains("unauthenticated")));
    assert!(access.clone().all(|event| !event.detail.contains("revoked")));
}

#[test]
fn by_policy_a_credential_that_is_taken_away_takes_access_away() {
    let store = store("taken", LapsedCredential::Denial);
    store.kms.fail(LAPSED);
    let bound = store.keyring.access().status().worst_case;
    let mut passed = Duration::ZERO;
    while store.after(Duration::from_secs(1)) != Revoked {
        passed += Duration::from_secs(1);
        assert!(passed <= bound, "{passed:?}");
    }
    assert!(!store.serves());
    store.kms.fail(None);
    assert_eq!(store.after(Duration::from_secs(67)), Restored);
    assert!(store.serves());
}

/// The key of a second slot stands in for one whose credential lapsed, and by the other
/// policy does not.
#[test]
fn another_slot_stands_in_for_a_lapsed_credential_unless_it_denies() {
    for (policy, opens) in [(LapsedCredential::NoAnswer, true), (LapsedCredential::Denial, false)] {
        let storage = Arc::new(MemoryStorage::new());
        let (first, second) = (ScriptedKms::new("first"), ScriptedKms::new("second"));
        let clock = ManualClock::new();
        let with = || {
            let mut options = options(&clock);
            options.access.lapsed_credential = policy;
            options
        };
        let keyring = Keyring::create(storage.clone(), first.clone(), with()).unwrap();
        keyring.slots().add("other", second.clone()).unwrap();
        drop(keyring);
        first.fail(LAPSED);
        let keys: Vec<Arc<dyn Kms>> = vec![first.clone(), second];
        match Keyring::open(storage.clone(), keys, with()) {
            Ok(_) => assert!(opens),
            Err(error) => {
                assert!(!opens, "{error}");
                assert_eq!(error.kind(), ErrorKind::Kms(LAPSED));
            }
        }
    }
}

/// A service whose credential ends.
#[derive(Debug)]
struct Ending(Arc<ScriptedKms>, Credential);

impl Kms for Ending {
    fn key_uri(&self) -> &KeyUri {
        self.0.key_uri()
    }

    fn wrap(&self, key: &SlotKey, at: &WrapContext, by: Deadline) -> Result<WrappedKey, KmsError> {
        self.0.wrap(key, at, by)
    }

    fn unwrap(
        &self,
        key: &WrappedKey,
        at: &WrapContext,
        by: Deadline,
    ) -> Result<SlotKey, KmsError> {
        self.0.unwrap(key, at, by)
    }

    fn credential(&self) -> Option<Credential> {
        Some(self.1)
    }
}

#[test]
fn a_status_tells_when_a_credential_ends_and_whether_somebody_has_to_act() {
    let hour = Duration::from_secs(3600);
    for (left, renews, ending) in [(21, false, false), (19, false, true), (19, true, false)] {
        let expires_in = Duration::from_secs(60) * left;
        let credential = Credential { expires_in, lifetime: hour, renews };
        let kms = Arc::new(Ending(ScriptedKms::new("ending"), credential));
        let clock = ManualClock::new();
        let keyring = Keyring::create(MemoryStorage::new(), kms, options(&clock)).unwrap();
        drop(keyring.access().check_now());
        let json = serde_json::to_value(keyring.access().status()).unwrap();
        let expected = serde_json::json!([{
            "key_uri": "scripted:ending",
            "expires_in_s": expires_in.as_secs_f64(),
            "renews": renews,
            "ending": ending,
        }]);
        assert_eq!(json["credentials"], expected);
    }
}

#[test]
fn opening_waits_for_a_key_service_when_told_to() {
    let storage = Arc::new(MemoryStorage::new());
    let kms = ScriptedKms::new("late");
    let waiting = |kms_wait| {
        let mut options = Options::default();
        options.background = false;
        options.kms_wait = kms_wait;
        options
    };
    drop(Keyring::create(storage.clone(), kms.clone(), waiting(Duration::ZERO)).unwrap());
    let open = |options| Keyring::open(storage.clone(), kms.clone(), options).map(drop);
    let refused = |options| open(options).unwrap_err().kind();
    for kind in [KmsErrorKind::Unreachable, KmsErrorKind::Throttled, LAPSED] {
        kms.fail(kind);
        let before = kms.unwraps();
        assert_eq!(refused(waiting(Duration::ZERO)), ErrorKind::Kms(kind));
        assert_eq!(kms.unwraps(), before + 1, "one try without a wait");
        assert_eq!(refused(waiting(Duration::from_millis(300))), ErrorKind::Kms(kind));
        assert!(kms.unwraps() > before + 2, "{kind}");
        std::thread::scope(|scope| {
            let opened = scope.spawn(|| open(waiting(Duration::from_secs(600))));
            let (tries, start) = (kms.unwraps(), Instant::now());
            while kms.unwraps() < tries + 2 {
                assert!(start.elapsed() < Duration::from_secs(60), "nobody tries");
                std::thread::sleep(Duration::from_millis(10));
            }
            kms.fail(None);
            opened.join().unwrap().unwrap();
        });
    }
    // What a key service says is not waited out.
    for kind in [KmsErrorKind::AccessDenied, KmsErrorKind::NotFound, KmsErrorKind::Misconfigured] {
        kms.fail(kind);
        let before = kms.unwraps();
        assert_eq!(refused(waiting(Duration::from_secs(600))), ErrorKind::Kms(kind));
        assert_eq!(kms.unwraps(), before + 1, "{kind}");
    }
    let mut options = waiting(Duration::from_secs(600));
    options.access.lapsed_credential = LapsedCredential::Denial;
    kms.fail(LAPSED);
    assert_eq!(refused(options), ErrorKind::Kms(LAPSED));
}

/// A service that does not answer the first time, when somebody does something to the store.
struct Meanwhile {
    inner: Arc<ScriptedKms>,
    happens: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Kms for Meanwhile {
    fn key_uri(&self) -> &KeyUri {
        self.inner.key_uri()
    }

    fn wrap(&self, key: &SlotKey, at: &WrapContext, by: Deadline) -> Result<WrappedKey, KmsError> {
        self.inner.wrap(key, at, by)
    }

    fn unwrap(
        &self,
        key: &WrappedKey,
        at: &WrapContext,
        by: Deadline,
    ) -> Result<SlotKey, KmsError> {
        if let Some(happens) = self.happens.lock().unwrap().take() {
            happens();
            return Err(KmsError::new(KmsErrorKind::Unreachable, "not yet"));
        }
        self.inner.unwrap(key, at, by)
    }
}

#[test]
fn an_opening_heeds_what_others_did_while_it_waited() {
    let mut waiting = manual();
    waiting.kms_wait = Duration::from_secs(600);
    type Act = fn(&Keyring, &MemoryStorage);
    let acts: [(Act, Option<ErrorKind>); 5] = [
        (|_, storage| Access::request_revocation(storage).unwrap(), Some(ErrorKind::CmekRevoked)),
        (|other, _| other.access().revoke().unwrap(), Some(ErrorKind::CmekRevoked)),
        (|other, _| assert!(other.keys().rotate().is_ok()), None),
        (|other, _| assert!(other.keys().rotate_store_key().is_ok()), None),
        (|_, _| (), None),
    ];
    for (index, (act, refused)) in acts.into_iter().enumerate() {
        for writable in [true, false] {
            let (storage, inner) = (Arc::new(MemoryStorage::new()), ScriptedKms::new("meanwhile"));
            let other = Keyring::create(storage.clone(), inner.clone(), manual()).unwrap();
            let act = {
                let (other, storage) = (other.clone(), storage.clone());
                move || act(&other, &storage)
            };
            let happens = Mutex::new(Some(Box::new(act) as Box<dyn FnOnce() + Send>));
            let kms = Arc::new(Meanwhile { inner, happens });
            let open = if writable { Keyring::open } else { Keyring::open_read_only };
            let opened = open(storage, kms, waiting.clone());
            match refused {
                Some(refused) => assert_eq!(kind(opened), refused, "{index}"),
                None => {
                    let opened = opened.unwrap();
                    assert_eq!(opened.status().info, other.status().info, "{index}");
                    let active = opened.keys().active_id().unwrap();
                    assert_eq!(active, other.keys().active_id().unwrap(), "{index}");
                }
            }
        }
    }
}
