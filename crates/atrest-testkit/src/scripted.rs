//! A key service that answers what the test wants.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard};
use std::time::Duration;

use atrest::error::KmsErrorKind;
use atrest::kms::{Deadline, KeyUri, Kms, KmsError, SlotKey, WrapContext, WrappedKey};

/// How a [`ScriptedKms`] answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As a key service should.
    #[default]
    Good,
    /// Unwraps with success to another key.
    Garbage,
    /// Wraps, and fails each unwrap so.
    NoUnwrap(KmsErrorKind),
    /// Fails each call so.
    Down(KmsErrorKind),
    /// Panics at each unwrap, as a broken client does.
    Panic,
}

/// A key service with a script. Its key follows from its name: two of one name open each
/// other's blobs. It protects nothing.
#[derive(Debug)]
pub struct ScriptedKms {
    uri: KeyUri,
    seed: u64,
    mode: Mutex<Mode>,
    meet: Mutex<Option<Arc<Barrier>>>,
    wraps: AtomicU64,
    unwraps: AtomicU64,
    version: AtomicU64,
    nonce: AtomicU64,
    patience: Mutex<Duration>,
}

const NONCE_LEN: usize = 8;
const CONTEXT_LEN: usize = 34;
const KEY_AT: usize = NONCE_LEN + CONTEXT_LEN;
const TAG_AT: usize = KEY_AT + 32;
const BLOB_LEN: usize = TAG_AT + 8;

impl ScriptedKms {
    /// A working key service for the key `scripted:<name>`.
    pub fn new(name: impl Display) -> Arc<Self> {
        let uri: KeyUri = format!("scripted:{name}").parse().unwrap();
        let seed = hash(0, uri.as_str().as_bytes());
        Arc::new(Self {
            uri,
            seed,
            mode: Mutex::default(),
            meet: Mutex::default(),
            wraps: AtomicU64::new(0),
            unwraps: AtomicU64::new(0),
            version: AtomicU64::new(1),
            nonce: AtomicU64::new(1),
            patience: Mutex::default(),
        })
    }

    /// All later calls are answered so.
    pub fn set(&self, mode: Mode) {
        *self.mode() = mode;
    }

    /// All later calls fail so, or work with `None`.
    pub fn fail(&self, kind: impl Into<Option<KmsErrorKind>>) {
        self.set(kind.into().map_or(Mode::Good, Mode::Down));
    }

    /// The next unwrap waits at this barrier twice: when it begins and before it returns.
    pub fn meet(&self, barrier: &Arc<Barrier>) {
        *self.meet.lock().unwrap() = Some(barrier.clone());
    }

    /// The key gets a new version, which later wraps name.
    pub fn rotate(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Calls of unwrap so far.
    pub fn unwraps(&self) -> u64 {
        self.unwraps.load(Ordering::SeqCst)
    }

    /// The same, and counts anew from here.
    pub fn take_unwraps(&self) -> u64 {
        self.unwraps.swap(0, Ordering::SeqCst)
    }

    /// How long the last unwrap was allowed to take.
    pub fn patience(&self) -> Duration {
        *self.patience.lock().unwrap()
    }

    /// All calls so far.
    pub fn calls(&self) -> u64 {
        self.wraps.load(Ordering::SeqCst) + self.unwraps()
    }

    fn mode(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap()
    }

    fn pad(&self, nonce: &[u8]) -> [u8; 32] {
        std::array::from_fn(|at| hash(self.seed ^ at as u64, nonce).to_le_bytes()[3])
    }

    fn tag(&self, message: &[u8]) -> [u8; 8] {
        hash(!self.seed, message).to_le_bytes()
    }

    fn open(&self, wrapped: &WrappedKey, context: &WrapContext) -> Result<SlotKey, KmsError> {
        let blob = &wrapped.blob;
        let good = blob.len() == BLOB_LEN
            && blob[NONCE_LEN..KEY_AT] == context.to_bytes()[..]
            && blob[TAG_AT..] == self.tag(&blob[..TAG_AT]);
        if !good {
            return Err(self.error(KmsErrorKind::Integrity));
        }
        let pad = self.pad(&blob[..NONCE_LEN]);
        let key: Vec<u8> = blob[KEY_AT..TAG_AT].iter().zip(pad).map(|(a, b)| a ^ b).collect();
        Ok(SlotKey::from_slice(&key).unwrap())
    }

    fn error(&self, kind: KmsErrorKind) -> KmsError {
        KmsError::new(kind, "as scripted").with_key_uri(&self.uri)
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
        _deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.wraps.fetch_add(1, Ordering::SeqCst);
        if let Mode::Down(kind) = *self.mode() {
            return Err(self.error(kind));
        }
        let nonce = self.nonce.fetch_add(1, Ordering::SeqCst) ^ self.seed.rotate_left(17);
        let mut blob = nonce.to_le_bytes().to_vec();
        blob.extend_from_slice(&context.to_bytes());
        blob.extend(key.expose().iter().zip(self.pad(&nonce.to_le_bytes())).map(|(a, b)| a ^ b));
        blob.extend_from_slice(&self.tag(&blob));
        let key_version = self.version.load(Ordering::SeqCst).to_string();
        Ok(WrappedKey { key_version, blob })
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        *self.patience.lock().unwrap() = deadline.remaining();
        let meet = self.meet.lock().unwrap().take();
        if let Some(barrier) = &meet {
            barrier.wait();
        }
        let mode = *self.mode();
        let answer = match mode {
            Mode::Panic => panic!("as scripted"),
            Mode::Garbage => Ok(SlotKey::from_slice(&[0xee; 32]).unwrap()),
            Mode::Down(kind) | Mode::NoUnwrap(kind) => Err(self.error(kind)),
            Mode::Good => self.open(wrapped, context),
        };
        if let Some(barrier) = &meet {
            barrier.wait();
        }
        answer
    }
}

/// A hash that nobody attacks (FNV-1a, with a last mixing of splitmix64).
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let start = seed ^ 0xcbf2_9ce4_8422_2325;
    let folded = bytes
        .iter()
        .fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (folded ^ (folded >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
