//! Making stores.

use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::DirectoryStorage;
use atrest::kms::{Deadline, Kms, KmsErrorKind};
use atrest::{ErrorKind, Keyring, Options, Store};

use super::StoreArgs;
use crate::failure::{Failure, Result};

/// Between two tries to make a store.
const PAUSE: Duration = Duration::from_secs(1);

impl StoreArgs {
    /// Creates the keyring of a new store in the directory, which exists.
    pub(crate) fn create(&self, key: Arc<dyn Kms>, options: Options) -> Result<Keyring> {
        let storage = self.mirrored(DirectoryStorage::new(&self.dir))?;
        let store = Store::create(storage, key, options);
        store.map(|store| store.keyring().clone()).map_err(|error| self.at(error))
    }

    /// Creates a keyring beside the plaintext files of a directory in use.
    pub(crate) fn enable(&self, key: Arc<dyn Kms>) -> Result<Keyring> {
        self.create(key, self.options().allowing_plaintext())
    }

    /// Makes a store, again and again while there is time to wait and the key service gives no
    /// answer about the key. An interruption waits for no pause.
    pub(crate) fn patiently(&self, make: impl Fn() -> Result<Keyring>) -> Result<Keyring> {
        let end = Deadline::after(self.wait_for_cmek.unwrap_or_default());
        loop {
            let made = make();
            let is_silent = made.as_ref().is_err_and(is_silent);
            if !is_silent || end.remaining().is_zero() {
                return made;
            }
            std::thread::sleep(PAUSE.min(end.remaining()));
        }
    }
}

fn is_silent(failure: &Failure) -> bool {
    match failure.kind() {
        Some(ErrorKind::Kms(kind)) => kind.is_transient() || kind == KmsErrorKind::Unauthenticated,
        _ => false,
    }
}
