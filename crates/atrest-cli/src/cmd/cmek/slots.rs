//! The CMEK slots of a store: which keys open it.

use std::path::PathBuf;
use std::sync::Arc;

use atrest::keyring::{KeyringInfo, SlotInfo};
use atrest::kms::Kms;
use atrest::{ErrorKind, Keyring};
use serde::Serialize;

use super::chains::{ChainReport, Chains};
use crate::failure::Result;
use crate::key::{self, Words};
use crate::output::Out;
use crate::paint::clean;
use crate::place::Place;
use crate::store::StoreArgs;
use crate::table::{Align, Table};
use crate::{store, units};

/// What every command about slots reports. Field names are stable.
#[derive(Serialize)]
struct Report {
    done: &'static str,
    generation: u64,
    slots: Vec<SlotInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backups: Option<Vec<ChainReport>>,
}

impl Report {
    fn new(done: &'static str, info: KeyringInfo) -> Self {
        Self { done, generation: info.generation, slots: info.slots, backups: None }
    }

    fn text(&self, headline: &str) -> String {
        format!("{headline}\n{}", table(&self.slots))
    }
}

fn table(slots: &[SlotInfo]) -> String {
    let columns = ["slot", "customer's key", "version", "wrapped"];
    let mut table = Table::new(&columns.map(|column| (column, Align::Left)));
    for slot in slots {
        table.row([
            clean(&slot.name).into(),
            clean(&slot.key_uri).into(),
            clean(&slot.key_version).into(),
            units::time(slot.created_ns).into(),
        ]);
    }
    table.render()
}

/// Opens the store, changes it, and reports the slots; warns of backups where a key may have
/// been replaced, by a new one if that is given beside them.
fn change(
    at: &StoreArgs,
    done: &'static str,
    out: &mut Out,
    headline: &str,
    chains: Option<(&Chains, Option<&Arc<dyn Kms>>)>,
    change: impl FnOnce(&Keyring) -> atrest::Result<()>,
) -> Result<()> {
    let store = at.open_keys()?;
    let slots = store.keyring().slots().list();
    let before = match chains {
        Some((chains, new)) => Some((chains.before(&at.dir, slots)?, new)),
        None => None,
    };
    store.commit(|fs| change(fs.keyring())).map_err(|failure| match failure.kind() {
        Some(ErrorKind::InvalidArgument) => failure.advise(present(store.keyring())),
        _ => failure,
    })?;
    let mut report = Report::new(done, store.keyring().status().info);
    report.backups = before.map(|(before, new)| before.warn(&report.slots, new, out));
    out.result(&report, || report.text(headline))
}

fn present(keyring: &Keyring) -> String {
    let slots = keyring.slots().list();
    let names: Vec<_> = slots.iter().map(|slot| clean(&slot.name)).collect();
    format!("the store has the slots {}", names.join(", "))
}

/// List the slots: the customer's keys that open the store, each by itself.
///
/// Needs no key; what it shows is not authenticated. `cmek status` tries the keys.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek list data
  atrest cmek list s3://backups/data
  atrest cmek list data --json | jq -r '.slots[].key_uri'

JSON fields: done (\"listed\"), generation, slots [name, key_uri, key_version, created_ns]
")]
pub(crate) struct List {
    /// The store's directory, or that of backups; or their prefix in an object store.
    dir: PathBuf,
}

impl List {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let report = Report::new("listed", store::inspect_anywhere(&Place::parse(&self.dir)?)?);
        out.result(&report, || table(&report.slots))
    }
}

/// Add a slot: another customer's key, in another region or for emergencies.
///
/// The new wrapped key is proven by an unwrap first. Files are not touched.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek add data us-east --cmek file:///etc/app/eu.key --new-cmek file:///etc/app/us.key

JSON fields: done (\"added\"), generation, slots [name, key_uri, key_version, created_ns]
")]
pub(crate) struct Add {
    #[command(flatten)]
    at: StoreArgs,
    /// The slot's name: a region or a purpose.
    name: String,
    /// The customer's key for the new slot.
    #[arg(long, value_name = "URI")]
    new_cmek: String,
}

impl Add {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let new = key::open(&self.new_cmek, Words::New, key::NEW_PASSPHRASE_VARIABLE)?;
        let headline = "Added the slot; an unwrap proved it.";
        change(&self.at, "added", out, headline, None, |keyring| {
            keyring.slots().add(&self.name, new)
        })
    }
}

/// Remove a slot, never the last one: its key opens the store no more.
///
/// Whoever had that key and the keyring may have the store key: follow with `rotate
/// store-key` if that matters.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek remove data us-east --cmek file:///etc/app/eu.key

JSON fields: done (\"removed\"), generation, slots [name, key_uri, key_version, created_ns],
backups [destination, needs_old_key]
")]
pub(crate) struct Remove {
    #[command(flatten)]
    at: StoreArgs,
    #[command(flatten)]
    chains: Chains,
    /// The slot's name.
    name: String,
}

impl Remove {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let chains = Some((&self.chains, None));
        change(&self.at, "removed", out, "Removed the slot.", chains, |keyring| {
            keyring.slots().remove(&self.name)
        })
    }
}

/// Wrap the slots' keys anew by the newest version of the same customer's key.
///
/// In all slots, or in one. Needs the key of each slot that is wrapped anew, and an
/// unwrap proves each before the old one is dropped.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek rewrap data --cmek file:///etc/app/eu.key --cmek file:///etc/app/us.key
  atrest cmek rewrap data us-east --cmek file:///etc/app/us.key

JSON fields: done (\"rewrapped\"), generation, slots [name, key_uri, key_version, created_ns],
backups [destination, needs_old_key]
")]
pub(crate) struct Rewrap {
    #[command(flatten)]
    at: StoreArgs,
    #[command(flatten)]
    chains: Chains,
    /// The slot's name; without it all slots.
    name: Option<String>,
}

impl Rewrap {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let headline = "Wrapped the slot's key anew; an unwrap proved it.";
        change(&self.at, "rewrapped", out, headline, Some((&self.chains, None)), |keyring| {
            keyring.slots().rewrap(self.name.as_deref()).map(drop)
        })
    }
}

/// Rotate the customer's key: to its newest version, or to another key.
///
/// Without --new-cmek each slot's key is wrapped anew by the newest version of the same
/// customer's key. With it, the slot gets the new key, which an unwrap proves first. Files are not
/// touched.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek rotate data --cmek file:///etc/app/cmek.key
  atrest cmek rotate data --cmek file:///etc/app/2026.key --new-cmek file:///etc/app/2027.key
  atrest cmek rotate data --slot us-east --cmek env:US --new-cmek env:US_NEW

JSON fields: done (\"rotated\"), generation, slots [name, key_uri, key_version, created_ns],
backups [destination, needs_old_key]
")]
pub(crate) struct Rotate {
    #[command(flatten)]
    at: StoreArgs,
    #[command(flatten)]
    chains: Chains,
    /// The slot; without it the one named `default`, or the only one.
    #[arg(long, value_name = "NAME")]
    slot: Option<String>,
    /// The new customer's key; without it the newest version of the present one.
    #[arg(long, value_name = "URI")]
    new_cmek: Option<String>,
}

impl Rotate {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let Some(uri) = &self.new_cmek else {
            let headline = "Wrapped the slot's key by the newest version of the customer's.";
            let chains = Some((&self.chains, None));
            return change(&self.at, "rotated", out, headline, chains, |keyring| {
                keyring.slots().rewrap(self.slot.as_deref()).map(drop)
            });
        };
        let new = key::open(uri, Words::New, key::NEW_PASSPHRASE_VARIABLE)?;
        let headline = "Replaced the customer's key; an unwrap proved the new one.";
        let chains = Some((&self.chains, Some(&new)));
        change(&self.at, "rotated", out, headline, chains, |keyring| match &self.slot {
            Some(slot) => keyring.slots().replace(slot, new.clone()),
            None => keyring.slots().rotate(new.clone()),
        })
    }
}
