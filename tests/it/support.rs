//! What several tests need: stores on disk and in memory, a clock and a key service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use atrest::keyring::{DirectoryStorage, Options};
use atrest::kms::{
    self, Deadline, KeyUri, Kms, KmsError, KmsErrorKind, WrapContext, WrappedKey, generate_key_file,
};
use atrest::{Clock, EncryptedFs, Error, ErrorKind, FileKind, Keyring, Store, StoreKey};

use crate::mem_fs::MemFs;

/// A fresh directory with a key file beside the store.
pub struct TestStore {
    pub dir: tempfile::TempDir,
}

impl TestStore {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        generate_key_file(dir.path().join("cmek.key")).unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        Self { dir }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn kms(&self) -> Arc<dyn Kms> {
        key_file(&self.dir.path().join("cmek.key"))
    }

    pub fn storage(&self) -> DirectoryStorage {
        DirectoryStorage::new(self.data())
    }

    pub fn keyring(&self) -> Keyring {
        Keyring::open_or_create(self.storage(), self.kms(), Options::default()).unwrap()
    }

    pub fn fs(&self) -> EncryptedFs {
        Store::over(self.keyring()).unwrap().files().clone()
    }

    /// Names and contents of the directory, without the lock file.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(self.data()).unwrap().map(|entry| entry.unwrap().path());
        entries
            .filter(|path| path.is_file() && !path.ends_with("KEYRING.lock"))
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, std::fs::read(path).unwrap())
            })
            .collect()
    }
}

pub fn key_file(path: &Path) -> Arc<dyn Kms> {
    kms::from_uri(&format!("file://{}", path.display())).unwrap()
}

/// The store that these files are of.
pub fn store_of(fs: &EncryptedFs) -> Store {
    fs.clone().into()
}

/// Options without a background thread, so that nothing happens by itself.
pub fn manual() -> Options {
    let mut options = Options::default();
    options.background = false;
    options
}

/// The kind of the error, which there must be.
pub fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.kind(),
    }
}

/// A clock that stands where it is put.
#[derive(Debug)]
pub struct TestClock(AtomicU64);

impl TestClock {
    pub const DAY_NS: u64 = 86_400 * 1_000_000_000;

    /// Stands somewhere in 2023.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_700_000_000_000_000_000)))
    }

    pub fn forward(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::Relaxed);
    }

    pub fn back(&self, ns: u64) {
        self.0.fetch_sub(ns, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the key service of a test does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Good,
    /// Unwraps with success to other bytes.
    Garbage,
    /// Wraps, and fails each unwrap so.
    NoUnwrap(KmsErrorKind),
    /// Fails each call so.
    Down(KmsErrorKind),
}

/// A key service with a script. Wraps by XOR: what it is for is the caller's behaviour.
#[derive(Debug)]
pub struct TestKms {
    uri: KeyUri,
    secret: u8,
    mode: Mutex<Mode>,
    calls: AtomicU64,
}

impl TestKms {
    pub fn new(secret: u8) -> Arc<Self> {
        let uri = format!("test:{secret}").parse().unwrap();
        Arc::new(Self { uri, secret, mode: Mutex::new(Mode::Good), calls: AtomicU64::new(0) })
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn call(&self) -> Result<Mode, KmsError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match *self.mode.lock().unwrap() {
            Mode::Down(kind) => Err(KmsError::new(kind, "as scripted")),
            mode => Ok(mode),
        }
    }
}

impl Kms for TestKms {
    fn key_uri(&self) -> &KeyUri {
        &self.uri
    }

    fn wrap(
        &self,
        key: &StoreKey,
        context: &WrapContext,
        _deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.call()?;
        let mut blob = vec![self.secret];
        blob.extend_from_slice(&context.to_bytes());
        blob.extend(key.expose().iter().map(|byte| byte ^ self.secret));
        Ok(WrappedKey { key_version: "1".into(), blob })
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        _deadline: Deadline,
    ) -> Result<StoreKey, KmsError> {
        match self.call()? {
            Mode::NoUnwrap(kind) => return Err(KmsError::new(kind, "as scripted")),
            Mode::Garbage => return Ok(StoreKey::from_slice(&[0xee; 32]).unwrap()),
            _ => {}
        }
        let blob = &wrapped.blob;
        if blob.len() != 67 || blob[0] != self.secret || blob[1..35] != context.to_bytes() {
            return Err(KmsError::new(KmsErrorKind::Integrity, "another key's"));
        }
        let key: Vec<u8> = blob[35..].iter().map(|byte| byte ^ self.secret).collect();
        Ok(StoreKey::from_slice(&key).unwrap())
    }
}

/// The directory of stores in memory.
pub const DIR: &str = "/store";

pub fn in_dir(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

pub fn mem_storage(mem: &MemFs) -> DirectoryStorage {
    DirectoryStorage::with_vfs(DIR, Arc::new(mem.clone()))
}

pub fn mem_open(mem: &MemFs, kms: &Arc<TestKms>) -> Result<EncryptedFs, Error> {
    Ok(Store::open(mem_storage(mem), kms.clone(), manual())?.files().clone())
}

/// A new store in memory.
pub fn mem_create(mem: &MemFs, kms: &Arc<TestKms>) -> Result<EncryptedFs, Error> {
    Ok(Store::create(mem_storage(mem), kms.clone(), manual())?.files().clone())
}

/// The process is killed: what it counted is not kept, nor its locks.
pub fn killed(mem: &MemFs, fs: EncryptedFs) -> MemFs {
    std::mem::forget(fs);
    mem.fork()
}

/// Writes a whole durable file whose content is its name.
pub fn write_file(fs: &EncryptedFs, name: &str) -> Result<(), Error> {
    let mut writer = fs.create_new(in_dir(name), FileKind::Table)?;
    writer.append(name.as_bytes())?;
    writer.finish()?;
    fs.sync_dir(DIR)
}

/// Reads a file of [`write_file`] and compares it.
pub fn check_file(fs: &EncryptedFs, name: &str) {
    let reader = fs.open(in_dir(name)).unwrap();
    let mut buf = vec![0; name.len()];
    assert_eq!(reader.len().unwrap(), name.len() as u64);
    reader.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(buf, name.as_bytes());
}
