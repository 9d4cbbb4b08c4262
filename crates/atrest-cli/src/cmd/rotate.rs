//! `atrest rotate`: new keys, at any level of the hierarchy.

use std::path::PathBuf;

use atrest::{DataKeyId, StoreKeyId};
use clap::Subcommand;
use serde::Serialize;

use crate::failure::Result;
use crate::key::{self, CmekArg, Words};
use crate::output::Out;
use crate::{signal, store};

/// Start a new data key, store key or customer's key.
///
/// Old files stay readable. New files are encrypted under the new data key.
#[derive(clap::Args)]
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

JSON fields: rotated (\"data-key\"), old_data_key_id, data_key_id, generation
")]
struct DataKey {
    /// The store's directory.
    dir: PathBuf,
    #[command(flatten)]
    cmek: CmekArg,
}

/// Replace the store key, wrap every data key by the new one, and start a new data key.
///
/// For when the store key may be known outside. Files are not touched.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest rotate store-key data --cmek file:///etc/app/cmek.key

JSON fields: rotated (\"store-key\"), old_store_key_id, store_key_id, old_data_key_id,
data_key_id, generation
")]
struct StoreKey {
    /// The store's directory.
    dir: PathBuf,
    #[command(flatten)]
    cmek: CmekArg,
}

/// Replace the customer's key: the store key is wrapped by the new one.
///
/// The new key is proven by an unwrap before the old wrapped copy is dropped. Data keys
/// and files are not touched. If the old key may be known outside, follow with `rotate
/// store-key`: whoever had the old key and the keyring had the store key.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest rotate cmek data --cmek file:///etc/app/2026.key --new-cmek file:///etc/app/2027.key
  atrest rotate cmek data --cmek passphrase: --new-cmek passphrase:

Two passphrases are asked for on the terminal, or come from ATREST_PASSPHRASE and
ATREST_NEW_PASSPHRASE.

JSON fields: rotated (\"cmek\"), old_key_uri, key_uri, generation
")]
struct Cmek {
    /// The store's directory.
    dir: PathBuf,
    #[command(flatten)]
    cmek: CmekArg,
    /// The new customer's key.
    #[arg(long, value_name = "URI")]
    new_cmek: String,
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
        drop(store::storage(&self.dir)?);
        let kms = key::open(&self.cmek.cmek, Words::Known, key::PASSPHRASE_VARIABLE)?;
        let keyring = store::open(&self.dir, kms)?;
        let old_data_key_id = keyring.keys().active_id()?;
        let committing = signal::Committing::begin();
        let data_key_id = keyring.keys().rotate()?;
        drop(committing);
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
        drop(store::storage(&self.dir)?);
        let kms = key::open(&self.cmek.cmek, Words::Known, key::PASSPHRASE_VARIABLE)?;
        let keyring = store::open(&self.dir, kms)?;
        let old_store_key_id = keyring.status().info.store_key_id;
        let old_data_key_id = keyring.keys().active_id()?;
        let committing = signal::Committing::begin();
        let store_key_id = keyring.keys().rotate_store_key()?;
        drop(committing);
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
}

impl Cmek {
    fn run(&self, out: &mut Out) -> Result<()> {
        drop(store::storage(&self.dir)?);
        let old = key::open(&self.cmek.cmek, Words::Known, key::PASSPHRASE_VARIABLE)?;
        let new = key::open(&self.new_cmek, Words::New, key::NEW_PASSPHRASE_VARIABLE)?;
        let old_key_uri = old.key_uri().to_string();
        let key_uri = new.key_uri().to_string();
        let keyring = store::open(&self.dir, old)?;
        let committing = signal::Committing::begin();
        keyring.slots().rotate(new)?;
        drop(committing);
        let generation = keyring.status().info.generation;
        let report = CmekReport { rotated: "cmek", old_key_uri, key_uri, generation };
        out.result(&report, || {
            format!(
                "Replaced the customer's key; the new one was proven by an unwrap.\n  old   {}\n  new   {}",
                report.old_key_uri, report.key_uri
            )
        })
    }
}
