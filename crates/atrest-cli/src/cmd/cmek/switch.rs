//! Putting a store under a customer's key, and taking it back.

use std::path::PathBuf;

use atrest::keyring::DirectoryStorage;
use atrest::{Keyring, StoreKeyId};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::key::{self, CmeksArg, Words};
use crate::output::{Out, clean};
use crate::{signal, store};

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    done: &'static str,
    key_uri: String,
    store_key_id: StoreKeyId,
    generation: u64,
}

impl Report {
    fn new(done: &'static str, keyring: &Keyring) -> Self {
        let info = keyring.status().info;
        Self {
            done,
            key_uri: info.slots[0].key_uri.clone(),
            store_key_id: info.store_key_id,
            generation: info.generation,
        }
    }

    fn text(&self, headline: &str) -> String {
        format!(
            "{headline}\n  key         {}\n  store key   {}",
            clean(&self.key_uri),
            self.store_key_id
        )
    }
}

/// Put a store in use under a customer's key.
///
/// A directory without a keyring gets one: what is written from now on is encrypted, the
/// plaintext files that are there can still be read. A store under a locally managed key,
/// given by --cmek, gets a new store key and new data keys, wrapped by the customer's key
/// alone.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek enable data --new-cmek file:///etc/app/cmek.key
  atrest cmek enable data --cmek file:///etc/app/local.key --new-cmek file:///mnt/hsm/cmek.key

JSON fields: done (\"enabled\"), key_uri, store_key_id, generation
")]
pub(crate) struct Enable {
    /// The directory.
    dir: PathBuf,
    /// The present, local key of a store that has one.
    #[arg(long, value_name = "URI", env = "ATREST_CMEK")]
    cmek: Option<String>,
    /// The customer's key.
    #[arg(long, value_name = "URI")]
    new_cmek: String,
}

impl Enable {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let new = key::open(&self.new_cmek, Words::New, key::NEW_PASSPHRASE_VARIABLE)?;
        if !self.dir.is_dir() {
            let what = "expected the directory of a store in use";
            let failure = Failure::new(atrest::ErrorKind::InvalidArgument, what);
            return Err(failure.advise("create a new store with `atrest init DIR --cmek URI`"));
        }
        let has_keyring =
            match atrest::keyring::KeyringInfo::read(&DirectoryStorage::new(&self.dir)) {
                Ok(_) => true,
                Err(error) if error.kind() == atrest::ErrorKind::KeyringMissing => false,
                Err(error) => return Err(error.with_path(&self.dir).into()),
            };
        let committing = signal::Committing::begin();
        let keyring = if has_keyring {
            let uri = self.cmek.as_deref().unwrap_or_default();
            let present = key::open(uri, Words::Known, key::PASSPHRASE_VARIABLE)?;
            let keyring = store::open(&self.dir, present)?;
            keyring.slots().enable_cmek(new)?;
            keyring
        } else {
            let storage = DirectoryStorage::new(&self.dir);
            Keyring::create(storage, new, store::options().allowing_plaintext())
                .map_err(|error| error.with_path(&self.dir))?
        };
        drop(committing);
        let report = Report::new("enabled", &keyring);
        out.result(&report, || report.text("The store is under the customer's key."))
    }
}

/// Return a store to a locally managed key: the customer's keys open it no more.
///
/// There are a new store key and new data keys; the old data keys are wrapped anew. Needs
/// a customer's key that still has access: this is no way around a revocation.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek disable data --cmek file:///mnt/hsm/cmek.key --new-cmek file:///etc/app/local.key

JSON fields: done (\"disabled\"), key_uri, store_key_id, generation
")]
pub(crate) struct Disable {
    /// The store's directory.
    dir: PathBuf,
    #[command(flatten)]
    cmek: CmeksArg,
    /// The local key.
    #[arg(long, value_name = "URI")]
    new_cmek: String,
}

impl Disable {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        drop(store::storage(&self.dir)?);
        let new = key::open(&self.new_cmek, Words::New, key::NEW_PASSPHRASE_VARIABLE)?;
        let keyring = store::open(&self.dir, self.cmek.open()?)?;
        let committing = signal::Committing::begin();
        keyring.slots().disable_cmek(new)?;
        drop(committing);
        let report = Report::new("disabled", &keyring);
        out.result(&report, || report.text("The store is under a local key."))
    }
}
