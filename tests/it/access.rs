//! The life cycle: what a process does when its customer's key goes away and comes back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use atrest::keyring::{
    AccessState, AuditKind, Grace, KeyringStorage, KeyspaceId, MemoryStorage, Options,
};
use atrest::kms::{Kms, KmsErrorKind};
use atrest::{Clock, ErrorKind, FileKind, Keyring, PlaintextPolicy, SystemClock};

use crate::support::options;
use atrest_testkit::{ManualClock, Mode, ScriptedKms};

use AccessState::*;

mod requests;

struct Store {
    storage: Arc<MemoryStorage>,
    kms: Arc<ScriptedKms>,
    clock: Arc<ManualClock>,
    keyring: Keyring,
}

fn store(name: &str) -> Store {
    let (storage, kms) = (Arc::new(MemoryStorage::new()), ScriptedKms::new(name));
    let clock = ManualClock::new();
    let keyring = Keyring::create(storage.clone(), kms.clone(), options(&clock)).unwrap();
    Store { storage, kms, clock, keyring }
}

impl Store {
    /// What the background thread does, `seconds` later.
    fn after(&self, seconds: u64) -> AccessState {
        self.clock.advance(Duration::from_secs(seconds));
        drop(self.keyring.maintain());
        self.keyring.access().status().state
    }

    fn reader(&self) -> Keyring {
        let options = options(&self.clock);
        Keyring::open_read_only(self.storage.clone(), self.kms.clone(), options).unwrap()
    }

    fn open(&self) -> Result<(), ErrorKind> {
        let opened = Keyring::open(self.storage.clone(), self.kms.clone(), options(&self.clock));
        opened.map(drop).map_err(|error| error.kind())
    }

    fn serves(&self) -> bool {
        self.keyring.encryptor(FileKind::Table).is_ok()
    }
}

#[test]
fn confirmed_denials_withdraw_all_keys_and_access_given_back_resumes() {
    let store = store("denied");
    let mut encryptor = store.keyring.encryptor(FileKind::Table).unwrap();
    let header = atrest::Header::parse(encryptor.header()).unwrap();
    let decryptor = store.keyring.decryptor(&header, &Default::default()).unwrap();
    let mut data = *b"one page of data";
    encryptor.encrypt_in_place(&mut data).unwrap();
    let first = data;

    store.kms.fail(KmsErrorKind::AccessDenied);
    assert_eq!(store.after(331), Suspect);
    assert!(store.serves());
    let keyspaces = store.keyring.keyspaces();
    for refused in [
        store.keyring.keys().rotate().map(drop),
        keyspaces.rotate(KeyspaceId::default()).map(drop),
        keyspaces.create("tenant").map(drop),
    ] {
        let denied = ErrorKind::Kms(KmsErrorKind::AccessDenied);
        assert_eq!(refused.unwrap_err().kind(), denied);
    }
    assert_eq!(store.after(16), Suspect);
    assert_eq!(store.after(16), Revoked);
    let access = store.keyring.access().status();
    assert_eq!(access.kms_error, Some(KmsErrorKind::AccessDenied));
    assert!(!access.revoked_on_request && access.keys_expire_in.is_none());
    assert!(!store.keyring.status().unlocked);

    let refused = |result: atrest::error::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::CmekRevoked);
    };
    refused(encryptor.encrypt_in_place(&mut data));
    refused(encryptor.check_access());
    refused(decryptor.decrypt_in_place(0, &mut data));
    refused(store.keyring.encryptor(FileKind::Table).map(drop));
    refused(store.keyring.decryptor(&header, &Default::default()).map(drop));
    refused(store.keyring.keys().rotate().map(drop));
    refused(store.keyring.keys().rotate_store_key().map(drop));
    assert_eq!(data, first);

    // Nothing is marked: the next process asks the service itself.
    assert_eq!(store.open(), Err(ErrorKind::Kms(KmsErrorKind::AccessDenied)));
    store.kms.fail(None);
    assert_eq!(store.after(67), Restored);
    encryptor.encrypt_in_place(&mut data).unwrap();
    let mut back = first;
    decryptor.decrypt_in_place(0, &mut back).unwrap();
    assert_eq!(&back, b"one page of data");
    assert_eq!(store.after(331), Active);

    let audit = store.keyring.audit().events().unwrap();
    let transitions: Vec<_> =
        audit.iter().filter(|e| e.what == AuditKind::Access).map(|e| e.detail.as_str()).collect();
    assert_eq!(
        transitions,
        [
            "active -> suspect: access denied",
            "suspect -> revoked: access denied",
            "revoked -> restored",
            "restored -> active"
        ]
    );
}

#[test]
fn an_outage_is_borne_then_suspends_and_ends_by_itself() {
    let store = store("outage");
    store.kms.fail(KmsErrorKind::Unreachable);
    assert_eq!(store.after(331), Unreachable);
    assert!(store.serves());
    // Reads and writes, but no new keys.
    let period = 31 * 86_400;
    let before = store.keyring.keys().active_id().unwrap();
    assert_eq!(store.after(3599), Unreachable);
    assert_eq!(store.keyring.keys().active_id().unwrap(), before);
    assert_eq!(store.after(1), Suspended);
    assert!(!store.serves());
    // No grace at opening.
    assert_eq!(store.open(), Err(ErrorKind::Kms(KmsErrorKind::Unreachable)));
    assert_eq!(store.after(period), Suspended);
    store.kms.fail(None);
    assert_eq!(store.after(67), Restored);
    assert!(store.serves());
    // The rotation that was due meanwhile.
    assert_ne!(store.keyring.keys().active_id().unwrap(), before);
}

#[test]
fn a_key_is_not_rotated_while_its_service_is_silent() {
    let clock = ManualClock::new();
    let (storage, kms) = (Arc::new(MemoryStorage::new()), ScriptedKms::new("silent"));
    let mut with = options(&clock);
    with.access.unreachable_grace = Grace::Forever;
    with.access.view_grace = Grace::Forever;
    let keyring = Keyring::create(storage, kms.clone(), with).unwrap();
    let before = keyring.keys().active_id().unwrap();
    kms.fail(KmsErrorKind::Unreachable);
    clock.advance(Duration::from_secs(31 * 86_400));
    keyring.maintain().unwrap();
    assert_eq!(keyring.access().status().state, Unreachable);
    assert_eq!(keyring.keys().active_id().unwrap(), before);
    assert_eq!(
        keyring.keys().rotate().unwrap_err().kind(),
        ErrorKind::Kms(KmsErrorKind::Unreachable)
    );
    kms.fail(None);
    clock.advance(Duration::from_secs(67));
    keyring.maintain().unwrap();
    assert_ne!(keyring.keys().active_id().unwrap(), before);
}

#[test]
fn a_slot_that_denied_is_not_replaced_by_the_next_when_it_falls_silent() {
    let store = store("barrier");
    let other = ScriptedKms::new("bystander");
    store.keyring.slots().add("other", other.clone()).unwrap();
    // Silent first: the other slot keeps the store active.
    store.kms.fail(KmsErrorKind::Unreachable);
    assert_eq!(store.after(331), Active);
    // Denied, then silent: the other slot is no way around.
    store.kms.fail(KmsErrorKind::AccessDenied);
    assert_eq!(store.after(331), Suspect);
    store.kms.fail(KmsErrorKind::Unreachable);
    let asked = other.unwraps();
    assert_eq!(store.after(16), Suspect);
    assert_eq!(store.after(300), Suspended);
    assert_eq!(store.after(67), Suspended);
    assert!(store.keyring.access().restore().is_err());
    assert_eq!(other.unwraps(), asked);
    store.kms.fail(None);
    assert_eq!(store.after(67), Restored);
}

#[test]
fn a_wrong_key_a_panic_and_a_call_that_never_returns_count_as_no_answer() {
    let store = store("liar");
    store.kms.set(Mode::Garbage);
    assert_eq!(store.after(331), Unreachable);
    assert_eq!(store.keyring.access().status().kms_error, Some(KmsErrorKind::Integrity));

    let store = self::store("panics");
    store.kms.set(Mode::Panic);
    assert_eq!(store.after(331), Unreachable);
    assert_eq!(store.keyring.access().status().kms_error, Some(KmsErrorKind::Protocol));

    let clock = ManualClock::new();
    let (storage, kms) = (Arc::new(MemoryStorage::new()), ScriptedKms::new("stuck"));
    let mut with = options(&clock);
    with.access.check_deadline = Duration::from_millis(50);
    let keyring = Keyring::create(storage, kms.clone(), with).unwrap();
    let barrier = Arc::new(Barrier::new(2));
    kms.meet(&barrier);
    assert_eq!(keyring.access().check_now().state, Unreachable);
    // Still under way, which does not keep a service from being asked that is well again.
    clock.advance(Duration::from_secs(67));
    assert_eq!(keyring.access().check_now().state, Active);
    barrier.wait();
    barrier.wait();
}

#[test]
fn a_status_counts_checks_and_time() {
    let store = store("counted");
    let seconds = Duration::from_secs;
    let shown = || {
        let status = store.keyring.access().status();
        (status.checks, status.checks_failed, status.in_state, status.since_good_check)
    };
    assert_eq!(shown(), (0, 0, seconds(0), seconds(0)));
    store.clock.advance(seconds(100));
    assert_eq!(shown(), (0, 0, seconds(100), seconds(100)));
    assert_eq!(store.keyring.access().check_now().state, Active);
    assert_eq!(shown(), (1, 0, seconds(100), seconds(0)));
    store.kms.fail(KmsErrorKind::Unreachable);
    assert_eq!(store.after(331), Unreachable);
    assert_eq!(shown(), (2, 1, seconds(0), seconds(331)));
    store.clock.advance(seconds(7));
    assert_eq!(shown(), (2, 1, seconds(7), seconds(338)));
    store.kms.fail(None);
    assert_eq!(store.keyring.access().check_now().state, Active);
    assert_eq!(shown(), (3, 1, seconds(0), seconds(0)));
}

#[test]
fn hooks_see_every_transition_and_may_call_the_keyring() {
    let store = Arc::new(store("hooks"));
    let seen: Arc<Mutex<Vec<[AccessState; 3]>>> = Arc::default();
    let (weak, seen_by_hook) = (Arc::downgrade(&store), seen.clone());
    store.keyring.access().on_transition(move |transition| {
        let Some(store) = weak.upgrade() else { return };
        let keyring = &store.keyring;
        let now = keyring.access().status().state;
        // A panic here would only be reported: the keys' absence is part of what is seen.
        let now = if store.serves() == transition.to.serves() { now } else { Destroyed };
        seen_by_hook.lock().unwrap().push([transition.from, transition.to, now]);
        drop(keyring.status());
        drop(keyring.reload());
        drop(keyring.keys().rotate());
        keyring.access().check_now();
    });
    let again = seen.clone();
    store.keyring.access().on_transition(move |_| {
        assert!(!again.lock().unwrap().is_empty());
        panic!("a hook's panic harms nobody");
    });
    store.keyring.access().revoke().unwrap();
    store.keyring.access().restore().unwrap();
    let expected =
        [[Active, Revoked, Revoked], [Revoked, Restored, Restored], [Restored, Active, Active]];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[test]
fn the_background_thread_notices_by_itself() {
    let (storage, kms) = (Arc::new(MemoryStorage::new()), ScriptedKms::new("thread"));
    let mut with = Options::default();
    let ms = Duration::from_millis;
    with.access.check_interval = ms(10);
    with.access.recovery_interval = ms(10);
    with.access.confirm_over = ms(20);
    let keyring = Keyring::create(storage, kms.clone(), with).unwrap();
    let wait_for = |state: &dyn Fn(AccessState) -> bool| {
        while !state(keyring.access().status().state) {
            std::thread::yield_now();
        }
    };
    kms.fail(KmsErrorKind::KeyDisabled);
    wait_for(&|state| state == Disabled);
    assert!(keyring.encryptor(FileKind::Table).is_err());
    kms.fail(None);
    wait_for(&|state| state.serves());
    assert!(keyring.encryptor(FileKind::Table).is_ok());
    // A call under way does not keep the keyring from closing.
    let barrier = Arc::new(Barrier::new(2));
    kms.meet(&barrier);
    barrier.wait();
    drop(keyring);
    barrier.wait();
}

/// A clock that counts how often somebody looks.
#[derive(Debug, Default)]
struct Looks(AtomicU64);

impl Clock for Looks {
    fn now_ns(&self) -> u64 {
        SystemClock.now_ns()
    }

    fn since_boot(&self) -> Duration {
        self.0.fetch_add(1, Ordering::SeqCst);
        SystemClock.since_boot()
    }
}

#[test]
fn threads_that_have_nothing_to_do_sleep() {
    let (storage, kms) = (Arc::new(MemoryStorage::new()), ScriptedKms::new("idle"));
    let clock = Arc::new(Looks::default());
    let mut with = Options::default();
    with.clock = clock.clone();
    with.settings.rotation_period = Duration::from_secs(1);
    let looks = |wait: Duration| {
        std::thread::sleep(wait);
        let before = clock.0.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(500));
        clock.0.load(Ordering::SeqCst) - before
    };
    let writer = Keyring::create(storage.clone(), kms.clone(), with.clone()).unwrap();
    kms.fail(KmsErrorKind::Unreachable);
    assert_eq!(writer.access().check_now().state, Unreachable);
    let key = writer.keys().active_id().unwrap();
    let busy = looks(Duration::from_millis(1100));
    assert_eq!(writer.keys().active_id().unwrap(), key, "it is due, and may not rotate");
    assert!(busy < 20, "{busy} looks of a writer");
    kms.fail(None);
    assert_eq!(writer.access().check_now().state, Active);
    while writer.keys().active_id().unwrap() == key {
        std::thread::yield_now();
    }
    drop(writer);
    let _reader = Keyring::open_read_only(storage, kms, with).unwrap();
    let busy = looks(Duration::from_millis(100));
    assert!(busy < 20, "{busy} looks of a reader");
}

#[test]
fn writers_readers_and_plaintext_files_stop_and_go_on_together() {
    let dir = tempfile::tempdir().unwrap();
    let kms = ScriptedKms::new("files");
    std::fs::write(dir.path().join("old.sst"), b"from before encryption").unwrap();
    let options = Options::default().allowing_plaintext();
    let store = atrest::Store::create(dir.path(), kms, options).unwrap();
    assert_eq!(store.keyring().settings().plaintext, PlaintextPolicy::Allow);
    assert_eq!(store.audit().events().unwrap()[0].what, AuditKind::Enabled);
    let fs = store.files();
    let old = fs.open(dir.path().join("old.sst")).unwrap();
    let path = dir.path().join("new.log");
    let mut writer = fs.create_new(&path, FileKind::Log).unwrap();
    writer.append(b"before").unwrap();
    writer.sync().unwrap();
    let reader = fs.open(&path).unwrap();
    let mut idle = fs.create_new(dir.path().join("idle.log"), FileKind::Log).unwrap();
    idle.append(b"kept in the buffer").unwrap();

    fs.keyring().access().revoke().unwrap();
    let kind = |result: atrest::error::Result<()>| result.unwrap_err().kind();
    let mut buf = [9; 6];
    assert_eq!(kind(old.read_exact_at(&mut buf, 0)), ErrorKind::CmekRevoked);
    assert_eq!(buf, [0; 6]);
    assert_eq!(kind(reader.read_exact_at(&mut buf, 0)), ErrorKind::CmekRevoked);
    assert_eq!(kind(writer.append(b" after")), ErrorKind::CmekRevoked);
    assert_eq!(kind(writer.sync()), ErrorKind::CmekRevoked);
    assert_eq!(kind(idle.flush()), ErrorKind::CmekRevoked);
    let create = fs.create_new(dir.path().join("none"), FileKind::Log);
    assert_eq!(create.unwrap_err().kind(), ErrorKind::CmekRevoked);
    assert!(!dir.path().join("none").exists());
    for name in ["old.sst", "new.log"] {
        let error = fs.open(dir.path().join(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CmekRevoked);
    }

    fs.keyring().access().restore().unwrap();
    old.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"from b");
    writer.append(b" after").unwrap();
    writer.finish().unwrap();
    idle.finish().unwrap();
    let mut buf = [0; 12];
    reader.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"before after");
    let idle = fs.open(dir.path().join("idle.log")).unwrap();
    assert_eq!(idle.len().unwrap(), 18);
}

#[test]
fn the_customers_key_is_switched_off_and_on() {
    let store = store("customer");
    let local = ScriptedKms::new("local");
    let other = ScriptedKms::new("second");
    store.keyring.slots().add("other", other.clone()).unwrap();
    let mut encryptor = store.keyring.encryptor(FileKind::Table).unwrap();
    let header = atrest::Header::parse(encryptor.header()).unwrap();
    encryptor.encrypt_in_place(&mut [0; 10]).unwrap();
    let before = store.keyring.status();

    // A revocation that nobody noticed yet is no time to switch off.
    store.kms.fail(KmsErrorKind::AccessDenied);
    let denied = ErrorKind::Kms(KmsErrorKind::AccessDenied);
    assert_eq!(store.keyring.slots().disable_cmek(local.clone()).unwrap_err().kind(), denied);
    assert_eq!(store.keyring.slots().add("x", local.clone()).unwrap_err().kind(), denied);
    assert_eq!(store.keyring.slots().replace("other", local.clone()).unwrap_err().kind(), denied);
    store.kms.fail(None);

    store.keyring.slots().disable_cmek(local.clone()).unwrap();
    let after = store.keyring.status();
    assert_ne!(after.info.store_key_id, before.info.store_key_id);
    assert_eq!(after.data_keys.len(), before.data_keys.len() + 1);
    assert_eq!(after.info.slots.len(), 1);
    assert_eq!(after.info.slots[0].key_uri, "scripted:local");
    assert!(store.storage.kept().unwrap().is_empty());
    store.keyring.decryptor(&header, &Default::default()).unwrap();
    for customers in [&store.kms, &other] {
        let open = Keyring::open(store.storage.clone(), customers.clone(), Options::default());
        assert!(open.is_err());
    }
    // The customer's key is no longer asked.
    store.kms.fail(KmsErrorKind::Destroyed);
    assert_eq!(store.after(331), Active);
    let local: Arc<dyn Kms> = local;
    let again = Keyring::open(store.storage.clone(), local, Options::default()).unwrap();
    let customers = ScriptedKms::new("third-customer".split('-').next().unwrap());
    again.slots().enable_cmek(customers).unwrap();
    let what: Vec<_> = again.audit().events().unwrap().into_iter().map(|e| e.what).collect();
    assert_eq!(what.last(), Some(&AuditKind::Enabled));
    assert!(what.contains(&AuditKind::Disabled));
    again.decryptor(&header, &Default::default()).unwrap();
}

/// Whatever a service said by mistake, it costs no more than what the policy names.
#[test]
fn a_mistaken_denial_of_any_kind_ends_in_two_minutes() {
    use KmsErrorKind::*;
    let all = [
        Unauthenticated,
        AccessDenied,
        KeyDisabled,
        PendingDeletion,
        VersionRetired,
        NotFound,
        Destroyed,
        Unreachable,
        Throttled,
        Integrity,
        Misconfigured,
        Protocol,
    ];
    for kind in all {
        let store = store("mistaken");
        store.kms.fail(kind);
        // Denied and lost, or without an answer for longer than its grace; then for long.
        for seconds in [331, 16, 16, 4000, 4000, 67] {
            store.after(seconds);
        }
        assert!(!store.serves(), "{kind}");
        store.kms.fail(None);
        let mut seconds = 0;
        while !store.serves() {
            assert!(seconds < 120, "{kind}: not back after {seconds} s");
            store.after(10);
            seconds += 10;
        }
        assert!(store.keyring.access().status().state.serves());
    }
}
