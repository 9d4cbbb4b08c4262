//! Backups, which a customer's key that was replaced in the store still opens, and nothing
//! else does.

use std::path::{Path, PathBuf};

use atrest::keyring::SlotInfo;
use serde::Serialize;

use crate::failure::Result;
use crate::output::Out;
use crate::paint::clean;
use crate::place::Place;
use crate::store;

/// Where the store's backups are.
#[derive(clap::Args)]
pub(crate) struct Chains {
    /// The store's backups, a directory or URI, to see which need the old key: once for
    /// each. Nothing in a store says where its backups are.
    #[arg(long = "backups", value_name = "DEST")]
    places: Vec<PathBuf>,
}

/// Backups that were looked at. Field names are stable.
#[derive(Serialize)]
pub(crate) struct ChainReport {
    destination: String,
    needs_old_key: bool,
}

/// What opened each place, and the store.
pub(crate) struct Before {
    chains: Vec<(PathBuf, Vec<SlotInfo>)>,
    slots: Vec<SlotInfo>,
}

impl Chains {
    /// Before anything is changed: a place that is none must not be found out after it.
    pub(crate) fn before(&self, slots: Vec<SlotInfo>) -> Result<Before> {
        let chains = self.places.iter().map(|place| {
            let info = store::inspect_anywhere(&Place::parse(place)?)?;
            Ok((place.clone(), info.slots))
        });
        Ok(Before { chains: chains.collect::<Result<_>>()?, slots })
    }
}

impl Before {
    /// Warns of the backups that still need what `dir` was opened by until now.
    pub(crate) fn warn(&self, dir: &Path, after: &[SlotInfo], out: &mut Out) -> Vec<ChainReport> {
        let has = |slots: &[SlotInfo], wanted: &SlotInfo| {
            let key = |slot: &SlotInfo| (slot.key_uri.clone(), slot.key_version.clone());
            slots.iter().any(|slot| key(slot) == key(wanted))
        };
        let replaced: Vec<_> = self.slots.iter().filter(|slot| !has(after, slot)).collect();
        let report = |(place, slots): &(PathBuf, Vec<SlotInfo>)| ChainReport {
            destination: place.display().to_string(),
            needs_old_key: replaced.iter().any(|old| has(slots, old)),
        };
        let reports: Vec<_> = self.chains.iter().map(report).collect();
        if replaced.is_empty() || store::is_backups(dir) {
            return reports;
        }
        let old: Vec<_> = replaced.iter().map(|slot| named(slot)).collect();
        let old = old.join(", ");
        let need: Vec<_> = reports.iter().filter(|report| report.needs_old_key).collect();
        let again = "keep it until the same command was run with their directory or URI";
        if self.chains.is_empty() {
            out.warn(&format!("backups made under {old} still need it: {again}"));
        } else if !need.is_empty() {
            let places: Vec<_> = need.iter().map(|report| clean(&report.destination)).collect();
            out.warn(&format!("{} still need {old}: {again}", places.join(", ")));
        }
        reports
    }
}

fn named(slot: &SlotInfo) -> String {
    match slot.key_version.as_str() {
        "" => clean(&slot.key_uri),
        version => format!("{} in version {}", clean(&slot.key_uri), clean(version)),
    }
}
