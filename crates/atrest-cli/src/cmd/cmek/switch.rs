//! Putting a store under a customer's key, and taking it back.

use atrest::{ErrorKind, Keyring, StoreKeyId};
use serde::Serialize;

use super::chains::{ChainReport, Chains};
use crate::failure::{Failure, Result};
use crate::key::{self, Words};
use crate::output::Out;
use crate::paint::clean;
use crate::place::refuse_uri;
use crate::scan::{refuse_foreign, scan};
use crate::signal;
use crate::store::StoreArgs;

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    done: &'static str,
    key_uri: String,
    store_key_id: StoreKeyId,
    generation: u64,
    backups: Vec<ChainReport>,
}

impl Report {
    fn new(done: &'static str, keyring: &Keyring, backups: Vec<ChainReport>) -> Self {
        let info = keyring.status().info;
        Self {
            done,
            key_uri: info.slots[0].key_uri.clone(),
            store_key_id: info.store_key_id,
            generation: info.generation,
            backups,
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
/// given by --cmek, gets a new store key, to which the customer's key alone leads, and new
/// data keys.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek enable data --new-cmek file:///etc/app/cmek.key
  atrest cmek enable data --cmek file:///etc/app/local.key --new-cmek file:///mnt/hsm/cmek.key

JSON fields: done (\"enabled\"), key_uri, store_key_id, generation,
backups [destination, needs_old_key]
")]
pub(crate) struct Enable {
    #[command(flatten)]
    at: StoreArgs,
    #[command(flatten)]
    chains: Chains,
    /// The customer's key.
    #[arg(long, value_name = "URI")]
    new_cmek: String,
}

impl Enable {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        refuse_uri(&self.at.dir)?;
        let new = key::open(&self.new_cmek, Words::New, key::NEW_PASSPHRASE_VARIABLE)?;
        if !self.at.dir.is_dir() {
            let what = "expected the directory of a store in use";
            let failure = Failure::new(ErrorKind::InvalidArgument, what);
            return Err(failure.advise("create a new store with `atrest init DIR --cmek URI`"));
        }
        let (keyring, before) = if self.at.has_keyring()? {
            let store = self.at.open()?;
            let before = self.chains.before(&self.at.dir, store.keyring().slots().list())?;
            store.commit(|store| store.keyring().slots().enable_cmek(new.clone()))?;
            (store.keyring().clone(), before)
        } else {
            self.at.refuse_pins()?;
            refuse_foreign(&scan(&self.at.dir, None, out.is_json())?, &self.at.dir)?;
            let before = self.chains.before(&self.at.dir, Vec::new())?;
            let made = self.at.patiently(|| {
                let _committing = signal::Committing::begin();
                self.at.enable(new.clone())
            })?;
            (made, before)
        };
        let backups = before.warn(&keyring.slots().list(), Some(&new), out);
        let report = Report::new("enabled", &keyring, backups);
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

JSON fields: done (\"disabled\"), key_uri, store_key_id, generation,
backups [destination, needs_old_key]
")]
pub(crate) struct Disable {
    #[command(flatten)]
    at: StoreArgs,
    #[command(flatten)]
    chains: Chains,
    /// The local key.
    #[arg(long, value_name = "URI")]
    new_cmek: String,
}

impl Disable {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open()?;
        let new = key::open(&self.new_cmek, Words::New, key::NEW_PASSPHRASE_VARIABLE)?;
        let before = self.chains.before(&self.at.dir, store.keyring().slots().list())?;
        store.commit(|store| store.keyring().slots().disable_cmek(new.clone()))?;
        let backups = before.warn(&store.keyring().slots().list(), Some(&new), out);
        let report = Report::new("disabled", store.keyring(), backups);
        out.result(&report, || report.text("The store is under a local key."))
    }
}
