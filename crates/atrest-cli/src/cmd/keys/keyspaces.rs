//! Keyspaces: lines of data keys of their own.

use atrest::keyring::{KeyspaceId, KeyspaceStatus};
use serde::Serialize;

use crate::failure::Result;
use crate::output::Out;
use crate::paint::{DIM, clean};
use crate::store::StoreArgs;
use crate::table::{Align, Cell, Table};

/// List the keyspaces, shredded ones too.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys keyspaces data
  atrest keys keyspaces data --json | jq -r '.keyspaces[] | select(.active) | .name'

JSON fields: keyspaces [id, name, active (the data key; null if it was shredded)]
")]
pub(super) struct Keyspaces {
    #[command(flatten)]
    at: StoreArgs,
}

/// Add a keyspace: a line of data keys of its own, as for one tenant.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys add-keyspace data tenant-17
  atrest encrypt data invoice.pdf 17/invoice.pdf --keyspace tenant-17

JSON fields: keyspace, id
")]
pub(super) struct AddKeyspace {
    #[command(flatten)]
    at: StoreArgs,
    /// Its name.
    name: String,
}

/// Field names are stable.
#[derive(Serialize)]
struct KeyspacesReport {
    keyspaces: Vec<KeyspaceStatus>,
}

/// Field names are stable.
#[derive(Serialize)]
struct KeyspaceReport<'a> {
    keyspace: &'a str,
    id: KeyspaceId,
}

impl Keyspaces {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let keyspaces = self.at.open_read_only()?.keyring().keyspaces().list();
        let report = KeyspacesReport { keyspaces };
        out.result(&report, || {
            let mut table = Table::new(&[("keyspace", Align::Left), ("data key", Align::Left)]);
            for keyspace in &report.keyspaces {
                let key = match keyspace.active {
                    Some(id) => id.to_string().into(),
                    None => Cell::painted("shredded", DIM),
                };
                table.row([clean(&keyspace.name).into(), key]);
            }
            table.render()
        })
    }
}

impl AddKeyspace {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open()?;
        let id = store.commit(|store| store.keyring().keyspaces().create(&self.name))?;
        let report = KeyspaceReport { keyspace: &self.name, id };
        out.result(&report, || format!("Added the keyspace {}.", clean(&self.name)))
    }
}
