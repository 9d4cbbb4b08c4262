//! `atrest audit`: what happened to a store's keys.

use atrest::keyring::AuditEvent;
use serde::Serialize;

use crate::failure::Result;
use crate::output::Out;
use crate::paint::clean;
use crate::store::StoreArgs;
use crate::table::{Align, Table};
use crate::units;

/// Show what happened to a store's keys, verified from the first event to the last.
///
/// The events are a part of the keyring's commits: none can be changed, removed or added
/// without the store key. Works for a store that was revoked on request too.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest audit data --cmek file:///etc/app/cmek.key
  atrest audit data --cmek file:///etc/app/cmek.key --json | jq -r '.events[] | .what'

JSON fields: events [number, at_ns, generation, what, store_key_id, detail]
")]
pub(crate) struct Args {
    #[command(flatten)]
    at: StoreArgs,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    events: Vec<AuditEvent>,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let report = Report { events: self.at.audit()? };
        out.result(&report, || report.text())
    }
}

impl Report {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            ("", Align::Right),
            ("time", Align::Left),
            ("generation", Align::Right),
            ("what", Align::Left),
            ("detail", Align::Left),
        ]);
        for event in &self.events {
            table.row([
                units::count(event.number).into(),
                units::time(event.at_ns).into(),
                units::count(event.generation).into(),
                event.what.as_str().into(),
                clean(&event.detail).into(),
            ]);
        }
        table.render()
    }
}
