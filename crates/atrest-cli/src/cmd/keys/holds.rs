//! Holds: data keys that something outside of the store needs.

use atrest::DataKeyId;
use atrest::keyring::Hold;
use serde::Serialize;

use crate::failure::Result;
use crate::output::Out;
use crate::paint::clean;
use crate::store::StoreArgs;
use crate::units;

/// List the holds: what outside of the store keeps data keys from being destroyed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys holds data
  atrest keys holds data --json | jq -r '.holds[].name'

JSON fields: holds [name, created_ns, keys]
")]
pub(super) struct Holds {
    #[command(flatten)]
    at: StoreArgs,
}

/// Keep data keys from being destroyed: for a copy of files or hard links that are not
/// below the store's directories.
///
/// A name that is held already holds these keys too. It keeps a key from `keys retire`,
/// not from `keys shred`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys hold data 0123456789abcdef0123456789abcdef --name 'copy for the auditors'
  atrest keys list data --json | jq -r '.keys[] | select(.state != \"destroyed\") | .id' \\
    | xargs atrest keys hold data --name tape-7

JSON fields: hold [name, created_ns, keys]
")]
pub(super) struct AddHold {
    #[command(flatten)]
    at: StoreArgs,
    /// The data keys, as `keys list` shows them.
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<DataKeyId>,
    /// What needs the keys; the hold is released by this name.
    #[arg(long)]
    name: String,
}

/// End a hold: what needed the keys is gone.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys release data 'copy for the auditors'

JSON fields: released
")]
pub(super) struct Release {
    #[command(flatten)]
    at: StoreArgs,
    /// The hold's name.
    name: String,
}

/// Field names are stable.
#[derive(Serialize)]
struct HoldsReport {
    holds: Vec<Hold>,
}

/// Field names are stable.
#[derive(Serialize)]
struct HoldReport {
    hold: Hold,
}

/// Field names are stable.
#[derive(Serialize)]
struct ReleaseReport<'a> {
    released: &'a str,
}

fn text(hold: &Hold) -> String {
    let mut lines = vec![format!("{} since {}", clean(&hold.name), units::time(hold.created_ns))];
    lines.extend(hold.keys.iter().map(|key| format!("  {key}")));
    lines.join("\n")
}

impl Holds {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let report = HoldsReport { holds: self.at.open_read_only()?.keyring().holds().list() };
        out.result(&report, || match &report.holds[..] {
            [] => "Nothing holds data keys.".into(),
            holds => holds.iter().map(text).collect::<Vec<_>>().join("\n"),
        })
    }
}

impl AddHold {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open()?;
        store.commit(|store| store.keyring().holds().register(&self.name, &self.keys))?;
        let mut holds = store.keyring().holds().list().into_iter();
        // OK because the hold is in the keyring since the call above.
        let hold = holds.find(|hold| hold.name == self.name).expect("registered");
        let report = HoldReport { hold };
        out.result(&report, || text(&report.hold))
    }
}

impl Release {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open()?;
        store.commit(|store| store.keyring().holds().release(&self.name))?;
        let report = ReleaseReport { released: &self.name };
        out.result(&report, || format!("Released the hold {}.", clean(&self.name)))
    }
}
