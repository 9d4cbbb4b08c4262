//! The stated longest time from a denial to the loss of all keys, with a storage and with
//! other calls that hang; and a process that cannot follow its keyring.

use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

use atrest::error::Result;
use atrest::keyring::{
    AccessState, AuditKind, FilesBeside, Grace, KeyringImage, KeyringStorage, Location,
    MemoryStorage, Options,
};
use atrest::kms::{
    Deadline, KeyUri, Kms, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey,
};
use atrest::{Error, ErrorKind, FileKind, Keyring};

use crate::support::{ManualClock, ScriptedKms, kind, manual, options};

/// Where calls wait while it is shut.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<(bool, u32)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += u32::from(state.0);
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| state.0).unwrap());
    }

    fn shut(&self) {
        self.state.lock().unwrap().0 = true;
    }

    /// Until a call waits.
    fn wait_for_one(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| state.1 == 0).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }
}

/// Opens the gate whatever happens, so that a failed test ends.
struct Opens(Arc<Gate>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A storage that hangs, or fails, on demand.
#[derive(Debug, Default)]
struct Faulty {
    inner: MemoryStorage,
    gate: Arc<Gate>,
    down: Mutex<bool>,
    /// Whether a request to revoke is there cannot be told; all else can.
    deaf: Mutex<bool>,
}

impl Faulty {
    fn reach(&self) -> Result<&MemoryStorage> {
        self.gate.pass();
        if *self.down.lock().unwrap() {
            let kind = ErrorKind::Io(std::io::ErrorKind::TimedOut);
            return Err(Error::new(kind, "the storage is down"));
        }
        Ok(&self.inner)
    }

    fn beside(&self) -> Result<&MemoryStorage> {
        if *self.deaf.lock().unwrap() {
            let kind = ErrorKind::Io(std::io::ErrorKind::PermissionDenied);
            return Err(Error::new(kind, "a part of the storage is down"));
        }
        self.reach()
    }
}

#[deny(clippy::missing_trait_methods)]
impl KeyringStorage for Faulty {
    fn lock(&self) -> Result<()> {
        self.reach()?.lock()
    }

    fn load(&self) -> Result<Option<KeyringImage>> {
        self.reach()?.load()
    }

    fn commit(
        &self,
        bytes: &[u8],
        generation: u64,
        previous: Option<&KeyringImage>,
    ) -> Result<String> {
        self.reach()?.commit(bytes, generation, previous)
    }

    fn settle_unknown(&self) -> Result<()> {
        self.reach()?.settle_unknown()
    }

    fn load_kept(&self, generation: u64) -> Result<Option<Vec<u8>>> {
        self.reach()?.load_kept(generation)
    }

    fn kept(&self) -> Result<Vec<u64>> {
        self.reach()?.kept()
    }

    fn forget_kept(&self, before: u64) -> Result<()> {
        self.reach()?.forget_kept(before)
    }

    fn copies_aside(&self) -> Result<Vec<String>> {
        self.reach()?.copies_aside()
    }

    fn forget_aside(&self) -> Result<()> {
        self.reach()?.forget_aside()
    }

    fn check_mirrors(&self) -> Result<()> {
        self.reach()?.check_mirrors()
    }

    fn location(&self) -> Location {
        self.inner.location()
    }
}

#[deny(clippy::missing_trait_methods)]
impl FilesBeside for Faulty {
    fn put_beside(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.reach()?.put_beside(name, bytes)
    }

    fn exists_beside(&self, name: &str) -> Result<bool> {
        self.beside()?.exists_beside(name)
    }

    fn load_beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.beside()?.load_beside(name)
    }

    fn remove_beside(&self, name: &str) -> Result<()> {
        self.reach()?.remove_beside(name)
    }
}

/// A key service that overstays every deadline when it is to wrap.
#[derive(Debug)]
struct SlowToWrap {
    inner: Arc<ScriptedKms>,
    gate: Arc<Gate>,
}

impl Kms for SlowToWrap {
    fn key_uri(&self) -> &KeyUri {
        self.inner.key_uri()
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> std::result::Result<WrappedKey, KmsError> {
        self.gate.pass();
        self.inner.wrap(key, context, deadline)
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> std::result::Result<SlotKey, KmsError> {
        self.inner.unwrap(wrapped, context, deadline)
    }
}

/// Real time, small numbers.
fn quick() -> Options {
    let ms = Duration::from_millis;
    let mut options = Options::default();
    options.access.check_interval = ms(100);
    options.access.check_deadline = ms(100);
    options.access.confirmations = 3;
    options.access.confirm_over = ms(100);
    options.access.recovery_interval = ms(50);
    options
}

/// What is waited for instead of for ever: the models tell when it has to come.
const GUARD: Duration = Duration::from_secs(60);

fn assert_ends_in_time(keyring: &Keyring, kms: &ScriptedKms) {
    assert!(keyring.access().status().worst_case < Duration::from_secs(1));
    kms.fail(KmsErrorKind::AccessDenied);
    let denied = Instant::now();
    while keyring.encryptor(FileKind::Table).is_ok() {
        assert!(denied.elapsed() <= GUARD, "serves {:?} after", denied.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    // The same way for everybody.
    assert!(!keyring.status().unlocked);
    assert_eq!(keyring.access().status().state, AccessState::Revoked);
}

#[test]
fn a_storage_that_hangs_does_not_keep_a_denied_key_in_use() {
    let (storage, kms) = (Arc::new(Faulty::default()), ScriptedKms::new("hung"));
    let keyring = Keyring::create(storage.clone(), kms.clone(), quick()).unwrap();
    let opens = Opens(storage.gate.clone());
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = told.clone();
    keyring.access().on_transition(move |change| hook.lock().unwrap().push(change.to));
    storage.gate.shut();
    storage.gate.wait_for_one();
    assert_ends_in_time(&keyring, &kms);
    let since = Instant::now();
    while told.lock().unwrap().last() != Some(&AccessState::Revoked) {
        assert!(since.elapsed() <= GUARD, "the hooks wait for the storage");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(opens);
}

#[test]
fn endless_graces_do_not_keep_a_denied_key_in_use() {
    let kms = ScriptedKms::new("endless");
    let mut with = quick();
    with.access.unreachable_grace = Grace::For(Duration::MAX);
    with.access.view_grace = Grace::For(Duration::MAX);
    with.access.suspicion_max = Duration::MAX;
    let keyring = Keyring::create(MemoryStorage::new(), kms.clone(), with).unwrap();
    assert_ends_in_time(&keyring, &kms);
}

#[test]
fn a_rotation_that_hangs_does_not_keep_a_denied_key_in_use() {
    let inner = ScriptedKms::new("rotates");
    let kms = Arc::new(SlowToWrap { inner: inner.clone(), gate: Arc::default() });
    let opens = Opens(kms.gate.clone());
    let keyring = Keyring::create(MemoryStorage::new(), kms.clone(), quick()).unwrap();
    kms.gate.shut();
    std::thread::scope(|scope| {
        let opens = opens;
        let rotating = scope.spawn(|| keyring.keys().rotate_store_key());
        kms.gate.wait_for_one();
        assert_ends_in_time(&keyring, &inner);
        drop(opens);
        assert!(rotating.join().unwrap().is_err());
    });
}

#[test]
fn a_client_that_overstays_its_deadline_holds_no_lock_for_ever() {
    let inner = ScriptedKms::new("overstays");
    let kms = Arc::new(SlowToWrap { inner: inner.clone(), gate: Arc::default() });
    let storage = Arc::new(MemoryStorage::new());
    let mut with = manual();
    with.kms_deadline = Duration::from_millis(200);
    let keyring = Keyring::create(storage.clone(), kms.clone(), with.clone()).unwrap();
    let _opens = Opens(kms.gate.clone());
    kms.gate.shut();
    let unreachable = ErrorKind::Kms(KmsErrorKind::Unreachable);
    assert_eq!(kind(keyring.keys().rotate_store_key()), unreachable);
    assert_eq!(kind(keyring.slots().rewrap(None)), unreachable);
    let other = SlowToWrap { inner: ScriptedKms::new("other"), gate: kms.gate.clone() };
    assert_eq!(kind(keyring.slots().add("other", Arc::new(other))), unreachable);
    assert_eq!(kind(Keyring::create(MemoryStorage::new(), kms.clone(), with)), unreachable);
    // Nobody has to wait for what was left behind.
    keyring.keys().rotate().unwrap();
    assert_eq!(keyring.slots().list().len(), 1);
    // A client that hangs each time is not given a thread each time.
    for _ in 0..20 {
        assert_eq!(kind(keyring.keys().rotate_store_key()), unreachable);
    }
    kms.gate.open();
    let since = Instant::now();
    while keyring.keys().rotate_store_key().is_err() {
        assert!(since.elapsed() <= GUARD, "the calls that hung have returned");
    }
}

#[test]
fn a_question_before_a_change_of_slots_does_not_hold_up_a_check() {
    let (clock, kms) = (ManualClock::new(), ScriptedKms::new("asked"));
    let keyring = Keyring::create(MemoryStorage::new(), kms.clone(), options(&clock)).unwrap();
    let barrier = Arc::new(Barrier::new(2));
    std::thread::scope(|scope| {
        kms.meet(&barrier);
        let adding = scope.spawn(|| keyring.slots().add("new", ScriptedKms::new("new")));
        kms.fail(KmsErrorKind::AccessDenied);
        barrier.wait();
        clock.advance(Duration::from_secs(331));
        assert_eq!(keyring.access().watch().state, AccessState::Suspect);
        barrier.wait();
        assert_eq!(kind(adding.join().unwrap()), ErrorKind::Kms(KmsErrorKind::AccessDenied));
    });
}

#[test]
fn without_threads_of_its_own_the_watch_needs_no_storage() {
    let (storage, clock) = (Arc::new(Faulty::default()), ManualClock::new());
    let kms = ScriptedKms::new("alone");
    let keyring = Keyring::create(storage.clone(), kms.clone(), options(&clock)).unwrap();
    let opens = Opens(storage.gate.clone());
    std::thread::scope(|scope| {
        let opens = opens;
        storage.gate.shut();
        clock.advance(Duration::from_secs(331));
        let maintaining = scope.spawn(|| keyring.maintain());
        storage.gate.wait_for_one();
        kms.fail(KmsErrorKind::AccessDenied);
        for seconds in [331, 16, 16] {
            clock.advance(Duration::from_secs(seconds));
            keyring.access().watch();
        }
        assert_eq!(keyring.access().status().state, AccessState::Revoked);
        assert!(!keyring.status().unlocked);
        drop(opens);
        drop(maintaining.join().unwrap());
    });
}

#[test]
fn an_answer_to_a_question_from_before_a_withdrawal_says_nothing() {
    let (clock, kms) = (ManualClock::new(), ScriptedKms::new("late"));
    let keyring = Keyring::create(MemoryStorage::new(), kms.clone(), options(&clock)).unwrap();
    kms.fail(KmsErrorKind::Unreachable);
    clock.advance(Duration::from_secs(331));
    assert_eq!(keyring.access().watch().state, AccessState::Unreachable);
    kms.fail(None);
    let barrier = Arc::new(Barrier::new(2));
    kms.meet(&barrier);
    std::thread::scope(|scope| {
        clock.advance(Duration::from_secs(3599));
        let asking = scope.spawn(|| keyring.access().watch());
        barrier.wait();
        // The keys' time is over while the service makes up its mind.
        clock.advance(Duration::from_secs(1));
        assert_eq!(keyring.access().watch().state, AccessState::Suspended);
        barrier.wait();
        assert_eq!(asking.join().unwrap().state, AccessState::Suspended, "and has no keys");
    });
    keyring.access().restore().unwrap();
    kms.fail(KmsErrorKind::AccessDenied);
    kms.meet(&barrier);
    std::thread::scope(|scope| {
        clock.advance(Duration::from_secs(331));
        let asking = scope.spawn(|| keyring.access().watch());
        barrier.wait();
        keyring.access().revoke().unwrap();
        kms.fail(None);
        keyring.access().restore().unwrap();
        barrier.wait();
        assert_eq!(asking.join().unwrap().state, AccessState::Restored, "no doubt of the new keys");
    });
}

#[test]
fn a_reader_whose_reload_hangs_at_a_service_loses_a_denied_key_in_time() {
    let storage = Arc::new(MemoryStorage::new());
    let kms = ScriptedKms::new("reader");
    let writer = Keyring::create(storage.clone(), kms.clone(), Options::default()).unwrap();
    let slow = Arc::new(SlowToUnwrapOthers { inner: kms.clone(), gate: Arc::default() });
    let reader = Keyring::open_read_only(storage, slow.clone(), quick()).unwrap();
    let opens = Opens(slow.gate.clone());
    slow.gate.shut();
    // Its image has a new store key, which only the service unwraps.
    writer.keys().rotate_store_key().unwrap();
    slow.gate.wait_for_one();
    kms.fail(KmsErrorKind::AccessDenied);
    assert!(reader.access().status().worst_case_unreachable.unwrap() > 10 * GUARD);
    let denied = Instant::now();
    while reader.keys().active_id().is_ok() {
        assert!(denied.elapsed() <= GUARD, "serves {:?} after", denied.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(opens);
}

/// A key service that hangs when it is asked for another slot key than the first.
#[derive(Debug)]
struct SlowToUnwrapOthers {
    inner: Arc<ScriptedKms>,
    gate: Arc<Gate>,
}

static FIRST: Mutex<Option<Vec<u8>>> = Mutex::new(None);

impl Kms for SlowToUnwrapOthers {
    fn key_uri(&self) -> &KeyUri {
        self.inner.key_uri()
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> std::result::Result<WrappedKey, KmsError> {
        self.inner.wrap(key, context, deadline)
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> std::result::Result<SlotKey, KmsError> {
        let other = FIRST.lock().unwrap().get_or_insert(wrapped.blob.clone()) != &wrapped.blob;
        if other {
            self.gate.pass();
        }
        self.inner.unwrap(wrapped, context, deadline)
    }
}

#[test]
fn a_process_that_cannot_follow_its_keyring_gives_its_keys_up() {
    let (storage, clock) = (Arc::new(Faulty::default()), ManualClock::new());
    let (ours, theirs) = (ScriptedKms::new("ours"), ScriptedKms::new("theirs"));
    let first = Keyring::create(storage.clone(), theirs.clone(), options(&clock)).unwrap();
    first.slots().add("ours", ours.clone()).unwrap();
    let second = Keyring::open(storage.clone(), ours.clone(), options(&clock)).unwrap();
    // Shut out: no key given to it opens what is there now.
    first.slots().remove("ours").unwrap();
    first.keys().rotate_store_key().unwrap();
    let after = |seconds| {
        clock.advance(Duration::from_secs(seconds));
        drop(second.maintain());
        second.access().status()
    };
    let status = after(331);
    assert_eq!(status.state, AccessState::Active);
    assert!(status.keyring_problem.is_some());
    assert_eq!(status.since_keyring_read, Duration::from_secs(331));
    // 330 s, twice 15 s and an hour, since it was read.
    assert_eq!(status.keys_expire_in, Some(Duration::from_secs(3960 - 331)));
    while second.access().status().state.serves() {
        let status = after(60);
        assert!(status.since_keyring_read < Duration::from_secs(2 * 3600), "{status:?}");
    }
    assert_eq!(second.access().status().state, AccessState::Suspended);
    assert_eq!(second.encryptor(FileKind::Table).unwrap_err().kind(), ErrorKind::CmekRevoked);
    assert!(!after(3600).state.serves());
    // Let in again.
    first.slots().add("ours", ours.clone()).unwrap();
    assert!(after(67).state.serves());
    assert!(second.access().status().keyring_problem.is_none());
}

#[test]
fn a_storage_that_fails_is_borne_for_the_grace_of_the_view() {
    // All of it, and what tells of requests to revoke.
    let parts: [fn(&Faulty) -> &Mutex<bool>; 2] = [|it| &it.down, |it| &it.deaf];
    for fails in parts {
        let (storage, clock) = (Arc::new(Faulty::default()), ManualClock::new());
        let kms = ScriptedKms::new("down");
        let mut with = options(&clock);
        with.access.view_grace = Grace::For(Duration::from_secs(600));
        let keyring = Keyring::create(storage.clone(), kms.clone(), with).unwrap();
        let after = |seconds| {
            clock.advance(Duration::from_secs(seconds));
            drop(keyring.maintain());
            keyring.access().status()
        };
        *fails(&storage).lock().unwrap() = true;
        let status = after(331);
        assert!(status.keyring_problem.unwrap().contains("down"));
        assert!(after(600).state.serves());
        // 330 s, twice 15 s, and the grace.
        assert_eq!(after(29).state, AccessState::Suspended);
        *fails(&storage).lock().unwrap() = false;
        let status = after(67);
        assert!(status.state.serves() && status.since_keyring_read.is_zero(), "{status:?}");
    }
}

#[test]
fn what_was_due_and_failed_is_in_the_audit_trail_once() {
    let (storage, clock) = (Arc::new(Faulty::default()), ManualClock::new());
    let kms = ScriptedKms::new("upkeep");
    let keyring = Keyring::create(storage.clone(), kms, options(&clock)).unwrap();
    clock.set_forward(Duration::from_secs(31 * 86_400));
    *storage.down.lock().unwrap() = true;
    for _ in 0..3 {
        assert!(keyring.maintain().is_err());
    }
    let problem = keyring.access().status().upkeep_problem.unwrap();
    *storage.down.lock().unwrap() = false;
    keyring.maintain().unwrap();
    assert_eq!(keyring.access().status().upkeep_problem, None);
    let events = keyring.audit().events().unwrap();
    let failed: Vec<_> =
        events.iter().filter(|event| event.what == AuditKind::UpkeepFailed).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].detail, problem);
}
