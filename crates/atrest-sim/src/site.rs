//! What is the same before and after a crash: names, key services, the clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::error::KmsErrorKind;
use atrest::keyring::{Access, DirectoryStorage};
use atrest::kms::Kms;
use atrest::store::StorePlace;
use atrest::{Error, ErrorKind, Keyring, Options, Store};
use atrest_testkit::{ManualClock, MemFs, Mode, ScriptedKms};

use crate::steps::{Service, Setup};
/// The directory of the store.
pub(crate) const DIR: &str = "/store";
/// The directory of its mirror.
pub(crate) const MIRROR: &str = "/mirror";
/// The directory of its backups.
pub(crate) const BACKUP: &str = "/backup";
/// The customer's keys.
const KEYS: usize = 4;

/// What is the same before and after a crash.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) setup: Setup,
    pub(crate) kms: Vec<Arc<ScriptedKms>>,
    pub(crate) clock: Arc<ManualClock>,
}

impl Site {
    pub(crate) fn new(setup: Setup) -> Self {
        let kms = (0..KEYS).map(ScriptedKms::new).collect();
        Self { setup, kms, clock: ManualClock::new() }
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::default();
        options.background = false;
        options.clock = self.clock.clone();
        options
    }

    pub(crate) fn storage(&self, fs: &MemFs) -> DirectoryStorage {
        let storage = DirectoryStorage::with_vfs(DIR, Arc::new(fs.clone()));
        if self.setup.mirror { storage.with_mirror(MIRROR) } else { storage }
    }

    pub(crate) fn place(&self, fs: &MemFs) -> StorePlace {
        StorePlace::new(self.storage(fs), Arc::new(fs.clone()))
    }

    pub(crate) fn all_kms(&self) -> Vec<Arc<dyn Kms>> {
        self.kms.iter().map(|kms| kms.clone() as Arc<dyn Kms>).collect()
    }

    pub(crate) fn open(&self, fs: &MemFs) -> Result<Store, Error> {
        Store::open(self.place(fs), self.all_kms(), self.options())
    }

    /// Opens a store whoever withdrew access to it.
    pub(crate) fn open_and_restore(&self, fs: &MemFs) -> Result<Store, Error> {
        let keyring: Keyring =
            Access::open_and_restore(self.storage(fs), self.all_kms(), self.options())?;
        Store::over_vfs(keyring, Arc::new(fs.clone()))
    }

    pub(crate) fn serve(&self, service: Service) {
        let mode = match service {
            Service::Good => Mode::Good,
            Service::Away => Mode::Down(KmsErrorKind::Unreachable),
            Service::Wrong => Mode::Garbage,
        };
        self.kms.iter().for_each(|kms| kms.set(mode));
    }
}

/// A file of the store.
pub(crate) fn in_dir(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// What says that there is no such file.
pub(crate) fn not_found() -> ErrorKind {
    ErrorKind::Io(std::io::ErrorKind::NotFound)
}

/// An error with its causes.
pub(crate) fn told(error: &Error) -> String {
    let mut text = format!("{:?}: {error}", error.kind());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
