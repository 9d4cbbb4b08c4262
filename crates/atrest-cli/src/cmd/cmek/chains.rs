//! Backups, which a customer's key that was replaced in the store still opens, and nothing
//! else does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::keyring::SlotInfo;
use atrest::kms::Kms;
use serde::Serialize;

use crate::cmd::backup::is_chain;
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
    chains: Vec<Known>,
    slots: Vec<SlotInfo>,
    /// Whether the keys that change are those of backups themselves.
    is_chain: bool,
}

struct Known {
    shown: String,
    place: Place,
    slots: Vec<SlotInfo>,
}

impl Chains {
    /// Before anything is changed in `dir`, which has these slots: a place that is none must not
    /// be found out after it.
    pub(crate) fn before(&self, dir: &Path, slots: Vec<SlotInfo>) -> Result<Before> {
        let chains = self.places.iter().map(|given| {
            let place = Place::parse(given)?;
            let slots = store::inspect_anywhere(&place)?.slots;
            Ok(Known { shown: given.display().to_string(), place, slots })
        });
        let is_chain = is_chain(&Place::parse(dir)?)?;
        Ok(Before { chains: chains.collect::<Result<_>>()?, slots, is_chain })
    }
}

impl Before {
    /// Warns of the backups that still need what the store was opened by until now. It has the
    /// slots `after`, and `new` if a key was given for them: that one may have the old one's URI.
    pub(crate) fn warn(
        &self,
        after: &[SlotInfo],
        new: Option<&Arc<dyn Kms>>,
        out: &mut Out,
    ) -> Vec<ChainReport> {
        let is_replaced = |slot: &&SlotInfo| match new {
            Some(_) => !after.contains(slot),
            None => !has(after, slot),
        };
        let replaced: Vec<_> = self.slots.iter().filter(is_replaced).collect();
        let report = |chain: &Known| ChainReport {
            destination: chain.shown.clone(),
            needs_old_key: replaced.iter().any(|old| chain.needs(old, new)),
        };
        let reports: Vec<_> = self.chains.iter().map(report).collect();
        if replaced.is_empty() || self.is_chain {
            return reports;
        }
        let old: Vec<_> = replaced.iter().map(|slot| named(slot, after)).collect();
        let old = old.join(", ");
        let need: Vec<_> = reports.iter().filter(|report| report.needs_old_key).collect();
        let again =
            "keep it until the same command, or `rotate cmek`, was run with their directory or URI";
        if self.chains.is_empty() {
            out.warn(&format!("backups made under {old} still need it: {again}"));
        } else if !need.is_empty() {
            let places: Vec<_> = need.iter().map(|report| clean(&report.destination)).collect();
            out.warn(&format!("{} still need {old}: {again}", places.join(", ")));
        }
        reports
    }
}

impl Known {
    fn needs(&self, old: &SlotInfo, new: Option<&Arc<dyn Kms>>) -> bool {
        if !has(&self.slots, old) {
            return false;
        }
        // Without versions the names may be those of the new key, and only a try tells.
        let tells = !old.key_version.is_empty();
        tells || new.is_none_or(|new| !store::opens(&self.place, new.clone()))
    }
}

/// Whether one of the slots is by the same version of the same key, as far as names tell.
fn has(slots: &[SlotInfo], wanted: &SlotInfo) -> bool {
    let key = |slot: &SlotInfo| (slot.key_uri.clone(), slot.key_version.clone());
    slots.iter().any(|slot| key(slot) == key(wanted))
}

fn named(slot: &SlotInfo, after: &[SlotInfo]) -> String {
    let uri = clean(&slot.key_uri);
    match slot.key_version.as_str() {
        "" if has(after, slot) => format!("the old {uri}"),
        "" => uri,
        version => format!("{uri} in version {}", clean(version)),
    }
}
