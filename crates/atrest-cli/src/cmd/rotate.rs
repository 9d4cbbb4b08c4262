//! `atrest rotate`: new keys, at any level of the hierarchy.

use atrest::keyring::KeyringInfo;
use atrest::{DataKeyId, StoreKeyId};
use clap::Subcommand;
use serde::Serialize;

use super::cmek::chains::{ChainReport, Chains};
use crate::failure::Result;
use crate::key::{self, Words};
use crate::output::Out;
use crate::store::StoreArgs;

/// Start a new data key, store key or customer's key.
///
/// Old files stay readable. New files are encrypted under the new data key.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest rotate data-key data --cmek file:///etc/app/cmek.key
  atrest rotate store-key data --cmek file:///etc/app/cmek.key
  atrest rotate cmek data --cmek file:///etc/app/2026.key --new-cmek file:///etc/app/2027.key
")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    DataKey(DataKey),
    StoreKey(StoreKey),
    Cmek(Cmek),
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        match &self.what {
            What::DataKey(args) => args.run(out),
            What::StoreKey(args) => args.run(out),
            What::Cmek(args) => args.run(out),
        }
    }
}

/// Start a new data key for the files created from now on.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest rotate data-key data --cmek file:///etc/app/cmek.key
  atrest rotate data-key s3://stores/data --cmek file:///etc/app/cmek.key

JSON fields: rotated (\"data-key\"), old_data_key_id, data_key_id, generation
")]
struct DataKey {
    #[command(flatten)]
    at: StoreArgs,
}

/// Replace the store key, wrap every data key by the new one, and start a new data key.
///
/// For when the store key may be known outside. Files are not touched.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest rotate store-key data --cmek file:///etc/app/cmek.key
  atrest rotate store-key data --cmek file:///etc/app/eu.key --cmek file:///etc/app/us.key

A store with several slots needs the key of each.

JSON fields: rotated (\"store-key\"), old_store_key_id, store_key_id, old_data_key_id,
data_key_id, generation
")]
struct StoreKey {
    #[command(flatten)]
    at: StoreArgs,
}

/// Replace the customer's key: the new one opens the store from then on.
///
/// The new key is proven by an unwrap before the old wrapped copy is dropped. Data keys
/// and files are not touched. If the old key may be known outside, follow with `rotate
/// store-key`: whoever had the old key and the keyring had the store key.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest rotate cmek data --cmek file:///etc/app/2026.key --new-cmek file:///etc/app/2027.key
  atrest rotate cmek data --cmek passphrase: --new-cmek passphrase:
  atrest rotate cmek s3://backups/data --cmek env:OLD --new-cmek env:NEW

Two passphrases are asked for on the terminal, or come from ATREST_PASSPHRASE and
ATREST_NEW_PASSPHRASE.

Backups of the store still need the old key, until the same command was run with them.

JSON fields: rotated (\"cmek\"), old_key_uri, key_uri, generation, backups [destination,
needs_old_key]
")]
struct Cmek {
    #[command(flatten)]
    at: StoreArgs,
    /// The new customer's key.
    #[arg(long, value_name = "URI")]
    new_cmek: String,
    #[command(flatten)]
    chains: Chains,
}

/// Field names are stable.
#[derive(Serialize)]
struct DataKeyReport {
    rotated: &'static str,
    old_data_key_id: DataKeyId,
    data_key_id: DataKeyId,
    generation: u64,
}

impl DataKey {
    fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open_keys()?;
        let keyring = store.keyring();
        let old_data_key_id = keyring.keys().active_id()?;
        let data_key_id = store.commit(|store| store.keyring().keys().rotate())?;
        let generation = keyring.status().info.generation;
        let report =
            DataKeyReport { rotated: "data-key", old_data_key_id, data_key_id, generation };
        out.result(&report, || {
            format!("Rotated the data key.\n  old   {old_data_key_id}\n  new   {data_key_id}")
        })
    }
}

/// Field names are stable.
#[derive(Serialize)]
struct StoreKeyReport {
    rotated: &'static str,
    old_store_key_id: StoreKeyId,
    store_key_id: StoreKeyId,
    old_data_key_id: DataKeyId,
    data_key_id: DataKeyId,
    generation: u64,
}

impl StoreKey {
    fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open_keys()?;
        let keyring = store.keyring();
        let old_store_key_id = keyring.status().info.store_key_id;
        let old_data_key_id = keyring.keys().active_id()?;
        let store_key_id = store.commit(|store| store.keyring().keys().rotate_store_key())?;
        let report = StoreKeyReport {
            rotated: "store-key",
            old_store_key_id,
            store_key_id,
            old_data_key_id,
            data_key_id: keyring.keys().active_id()?,
            generation: keyring.status().info.generation,
        };
        out.result(&report, || {
            format!(
                "Rotated the store key and the data key.\n  old store key   {old_store_key_id}\n  \
                 new store key   {store_key_id}\n  old data key    {old_data_key_id}\n  new data key    {}",
                report.data_key_id
            )
        })
    }
}

/// Field names are stable.
#[derive(Serialize)]
struct CmekReport {
    rotated: &'static str,
    old_key_uri: String,
    key_uri: String,
    generation: u64,
    backups: Vec<ChainReport>,
}

impl Cmek {
    fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open_keys()?;
        let new = key::open(&self.new_cmek, Words::New, key::NEW_PASSPHRASE_VARIABLE)?;
        let key_uri = new.key_uri().to_string();
        let before = store.keyring().slots().list();
        let chains = self.chains.before(&self.at.dir, before.clone())?;
        store.commit(|store| store.keyring().slots().rotate(new.clone()))?;
        let KeyringInfo { generation, slots, .. } = store.keyring().status().info;
        let replaced = before.into_iter().find(|slot| !slots.contains(slot));
        let old_key_uri = replaced.map_or_else(|| key_uri.clone(), |slot| slot.key_uri);
        let backups = chains.warn(&slots, Some(&new), out);
        let report = CmekReport { rotated: "cmek", old_key_uri, key_uri, generation, backups };
        out.result(&report, || {
            format!(
                "Replaced the customer's key; the new one was proven by an unwrap.\n  old   {}\n  new   {}",
                report.old_key_uri, report.key_uri
            )
        })
    }
}
