//! A key service's client, held to its deadlines. Nothing in the keyring calls one otherwise.
//!
//! Each call runs in a thread of its own: a client that overstays or panics is left behind,
//! and holds up neither the watch over the keys nor whoever waits for the writer's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::kms::{
    Credential, Deadline, KeyUri, Kms, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey,
};
use crate::secret::scrubbed_deeply;

/// How often a wait for the key service looks whether it is cancelled.
const LOOK: Duration = Duration::from_millis(20);
/// Stack of the thread that asks, in bytes: what threads have by default.
const STACK_BYTES: usize = 2 << 20;
/// Calls under way at once, those included that nobody waits for any more. More come only
/// from a client that hangs each time.
const CALLS_MAX: usize = 16;

/// Ends a wait early.
pub(super) type Cancelled<'a> = &'a dyn Fn() -> bool;

/// Of a caller who waits as long as the deadline lets him.
pub(super) const NEVER: Cancelled<'static> = &|| false;

pub(super) struct Client {
    kms: Arc<dyn Kms>,
    under_way: Arc<AtomicUsize>,
}

impl Client {
    pub(super) fn new(kms: Arc<dyn Kms>) -> Arc<Self> {
        Arc::new(Self { kms, under_way: Arc::default() })
    }

    pub(super) fn all(kms: Vec<Arc<dyn Kms>>) -> Vec<Arc<Self>> {
        kms.into_iter().map(Self::new).collect()
    }

    pub(super) fn key_uri(&self) -> &KeyUri {
        self.kms.key_uri()
    }

    /// What is known of the credential, which asks nobody.
    pub(super) fn credential(&self) -> Option<Credential> {
        self.kms.credential()
    }

    pub(super) fn wrap(
        &self,
        key: &Arc<SlotKey>,
        context: WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        let key = key.clone();
        self.call(deadline, NEVER, move |kms, deadline| kms.wrap(&key, &context, deadline))
    }

    pub(super) fn unwrap(
        &self,
        wrapped: WrappedKey,
        context: WrapContext,
        deadline: Deadline,
        cancelled: Cancelled<'_>,
    ) -> Result<SlotKey, KmsError> {
        let call = move |kms: &dyn Kms, deadline| kms.unwrap(&wrapped, &context, deadline);
        self.call(deadline, cancelled, call)
    }

    pub(super) fn rewrap(
        &self,
        wrapped: WrappedKey,
        context: WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        let call = move |kms: &dyn Kms, deadline| kms.rewrap(&wrapped, &context, deadline);
        self.call(deadline, NEVER, call)
    }

    fn call<T: Send + 'static>(
        &self,
        deadline: Deadline,
        cancelled: Cancelled<'_>,
        run: impl FnOnce(&dyn Kms, Deadline) -> Result<T, KmsError> + Send + 'static,
    ) -> Result<T, KmsError> {
        let unclear =
            |kind, what: &str| Err(KmsError::new(kind, what).with_key_uri(self.kms.key_uri()));
        let under_way = UnderWay::new(&self.under_way);
        if under_way.before >= CALLS_MAX {
            return unclear(KmsErrorKind::Unreachable, "earlier calls have not returned yet");
        }
        // A little less for the client, so that its own words arrive before time is up.
        let within = deadline.remaining();
        let for_client = Deadline::after(within - within / 20);
        let kms = self.kms.clone();
        let (sender, receiver) = channel();
        let spawned = std::thread::Builder::new()
            .name("atrest-kms".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _under_way = under_way;
                let answer = scrubbed_deeply(|| run(&*kms, for_client));
                // Nobody may wait any more; then a key ends here.
                drop(sender.send(answer));
            });
        if spawned.is_err() {
            return unclear(KmsErrorKind::Unreachable, "no thread can be started to ask");
        }
        loop {
            let left = deadline.remaining();
            match receiver.recv_timeout(left.min(LOOK)) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => {
                    return unclear(KmsErrorKind::Protocol, "the client panicked");
                }
                Err(RecvTimeoutError::Timeout) if cancelled() => {
                    return unclear(KmsErrorKind::Unreachable, "cancelled");
                }
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    return unclear(KmsErrorKind::Unreachable, "no answer within the deadline");
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// One call, however it ends.
struct UnderWay {
    calls: Arc<AtomicUsize>,
    before: usize,
}

impl UnderWay {
    fn new(calls: &Arc<AtomicUsize>) -> Self {
        Self { before: calls.fetch_add(1, Ordering::Relaxed), calls: calls.clone() }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
