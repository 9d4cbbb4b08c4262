//! What several tests need: stores on disk and in memory, a clock and a key service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::{DirectoryStorage, Options};
use atrest::kms::{self, Kms, generate_key_file};
use atrest::store::StorePlace;
use atrest::{EncryptedFs, Error, ErrorKind, FileKind, Keyring, Reader, Store};
use atrest_testkit::MemFs;
pub use atrest_testkit::{ManualClock, Mode, ScriptedKms, left_out};

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

    /// Its files, of a store with the default options.
    pub fn fs(&self) -> EncryptedFs {
        let store = Store::open_or_create(self.data(), self.kms(), Options::default());
        store.unwrap().files().clone()
    }

    /// A new store.
    pub fn create(&self, options: Options) -> Store {
        Store::create(self.data(), self.kms(), options).unwrap()
    }

    /// The store that is there.
    pub fn open(&self, options: Options) -> Store {
        Store::open(self.data(), self.kms(), options).unwrap()
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

/// So many nanoseconds.
pub fn ns(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}

/// Without a background thread, by this clock.
pub fn options(clock: &Arc<ManualClock>) -> Options {
    let mut options = manual();
    options.clock = clock.clone();
    options
}

/// The directory of stores in memory.
pub const DIR: &str = "/store";

pub fn in_dir(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

pub fn mem_storage(mem: &MemFs) -> DirectoryStorage {
    DirectoryStorage::with_vfs(DIR, Arc::new(mem.clone()))
}

fn mem_place(mem: &MemFs) -> StorePlace {
    StorePlace::new(mem_storage(mem), Arc::new(mem.clone()))
}

pub fn mem_open(mem: &MemFs, kms: &Arc<ScriptedKms>) -> Result<EncryptedFs, Error> {
    Ok(Store::open(mem_place(mem), kms.clone(), manual())?.files().clone())
}

/// The files of a store in memory over a keyring that was opened in its own way.
pub fn mem_files(mem: &MemFs, keyring: Keyring) -> EncryptedFs {
    Store::over_vfs(keyring, Arc::new(mem.clone())).unwrap().files().clone()
}

/// A new store in memory.
pub fn mem_create(mem: &MemFs, kms: &Arc<ScriptedKms>) -> Result<EncryptedFs, Error> {
    Ok(Store::create(mem_place(mem), kms.clone(), manual())?.files().clone())
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

/// The error of a read, which must leave zeros behind.
pub fn refused(reader: &Reader, offset: u64, len: usize) -> ErrorKind {
    let mut buf = vec![0xaa; len];
    let error = reader.read_at(&mut buf, offset).unwrap_err();
    assert!(buf.iter().all(|byte| *byte == 0), "a failed read left something behind");
    error.kind()
}

/// Copies a directory with all in it. Not by a command: until another program runs in it, a new
/// process holds the locks of all stores that are open in this one.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
