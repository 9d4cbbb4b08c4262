//! How long the services of several slots may take together.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use atrest::keyring::MemoryStorage;
use atrest::kms::{
    Deadline, KeyUri, Kms, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey,
};
use atrest::{ErrorKind, Keyring};

use crate::support::{ScriptedKms, kind, manual};

/// A key service that does not answer, and notes how long it may take.
#[derive(Debug)]
struct Noting {
    inner: Arc<ScriptedKms>,
    told: Arc<Mutex<Vec<Duration>>>,
}

impl Kms for Noting {
    fn key_uri(&self) -> &KeyUri {
        self.inner.key_uri()
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.inner.wrap(key, context, deadline)
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        self.told.lock().unwrap().push(deadline.remaining());
        self.inner.unwrap(wrapped, context, deadline)
    }
}

/// Else a service that hangs would take the time of those that come behind it, or more.
#[test]
fn all_slots_share_the_time_of_one_operation() {
    let (storage, told) = (Arc::new(MemoryStorage::new()), Arc::default());
    let (first, second) = (ScriptedKms::new("first"), ScriptedKms::new("second"));
    let keyring = Keyring::create(storage.clone(), first.clone(), manual()).unwrap();
    keyring.slots().add("second", second.clone()).unwrap();
    drop(keyring);
    let noting = |inner: &Arc<ScriptedKms>| -> Arc<dyn Kms> {
        inner.fail(KmsErrorKind::Unreachable);
        Arc::new(Noting { inner: inner.clone(), told: Arc::clone(&told) })
    };
    let services = vec![noting(&first), noting(&second)];
    let (all, half) = (Duration::from_secs(2000), Duration::from_secs(1000));
    let mut with = manual();
    with.kms_deadline = all;
    let unreachable = ErrorKind::Kms(KmsErrorKind::Unreachable);
    assert_eq!(kind(Keyring::open(storage, services, with)), unreachable);
    let told = told.lock().unwrap();
    assert!(told.len() == 2 && told[0] <= half && told[1] > half && told[1] <= all, "{told:?}");
}
