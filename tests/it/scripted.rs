//! A key service that answers what the test wants, and a clock that stands still.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use atrest::Clock;
use atrest::keyring::Options;
use atrest::kms::{
    Deadline, EnvKey, KeyUri, Kms, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey,
};

/// Wraps as `env:` does, under a URI of its own.
#[derive(Debug)]
pub struct ScriptedKms {
    uri: KeyUri,
    inner: EnvKey,
    script: Mutex<Script>,
    pub unwraps: AtomicUsize,
    version: AtomicUsize,
}

#[derive(Debug, Default)]
struct Script {
    error: Option<KmsErrorKind>,
    garbage: bool,
    panics: bool,
    meet: Option<Arc<Barrier>>,
}

impl ScriptedKms {
    pub fn new(name: &str) -> Arc<Self> {
        // A key for each name. Tests run in threads: the variable must not change later.
        let variable = format!("ATREST_TEST_{}", name.to_uppercase());
        static SETTING: Mutex<()> = Mutex::new(());
        let _setting = SETTING.lock().unwrap();
        if std::env::var_os(&variable).is_none() {
            let digit = format!("{:02x}", name.bytes().fold(7_u8, |a, b| a.wrapping_mul(31) ^ b));
            // SAFETY: one thread at a time, and no C code reads the environment here.
            #[allow(unsafe_code)]
            unsafe {
                std::env::set_var(&variable, digit.repeat(32));
            }
        }
        Arc::new(Self {
            uri: format!("scripted:{name}").parse().unwrap(),
            inner: EnvKey::new(&variable).unwrap(),
            script: Mutex::default(),
            unwraps: AtomicUsize::new(0),
            version: AtomicUsize::new(1),
        })
    }

    /// From now on all calls fail so, or work with `None`.
    pub fn fail(&self, error: impl Into<Option<KmsErrorKind>>) {
        self.script.lock().unwrap().error = error.into();
    }

    /// From now on unwrapping gives another key, successfully.
    pub fn lie(&self) {
        self.script.lock().unwrap().garbage = true;
    }

    /// From now on unwrapping panics.
    pub fn panic(&self) {
        self.script.lock().unwrap().panics = true;
    }

    /// The next unwrap waits at this barrier twice: when it begins and before it returns.
    pub fn meet(&self, barrier: &Arc<Barrier>) {
        self.script.lock().unwrap().meet = Some(barrier.clone());
    }

    /// The key gets a new version.
    pub fn rotate(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), KmsError> {
        match self.script.lock().unwrap().error {
            Some(kind) => Err(KmsError::new(kind, "as scripted").with_key_uri(&self.uri)),
            None => Ok(()),
        }
    }
}

impl Kms for ScriptedKms {
    fn key_uri(&self) -> &KeyUri {
        &self.uri
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.check()?;
        let key_version = self.version.load(Ordering::SeqCst).to_string();
        Ok(WrappedKey { key_version, ..self.inner.wrap(key, context, deadline)? })
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        let meet = self.script.lock().unwrap().meet.take();
        if let Some(barrier) = &meet {
            barrier.wait();
        }
        let (garbage, panics) = {
            let script = self.script.lock().unwrap();
            (script.garbage, script.panics)
        };
        assert!(!panics, "as scripted");
        let answer = match self.check() {
            Ok(()) if garbage => Ok(SlotKey::from_slice(&[1; 32]).unwrap()),
            Ok(()) => self.inner.unwrap(wrapped, context, deadline),
            Err(error) => Err(error),
        };
        if let Some(barrier) = &meet {
            barrier.wait();
        }
        answer
    }
}

/// Moves when told.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_000_000_000_000_000_000)))
    }

    pub fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn since_boot(&self) -> Duration {
        Duration::from_nanos(self.now_ns())
    }
}

/// Without a background thread, by this clock.
pub fn options(clock: &Arc<ManualClock>) -> Options {
    let mut options = Options::default();
    options.background = false;
    options.clock = clock.clone();
    options
}
