//! `atrest backup list`.

use atrest::StoreId;
use atrest::backup::BackupInfo;
use serde::Serialize;

use super::{Dest, open_read_only, shown};
use crate::failure::Result;
use crate::key::CmekArgs;
use crate::output::Out;
use crate::paint::{BOLD, DIM, clean};
use crate::table::{Align, Table};
use crate::units;

/// List the backups of a directory. Every manifest is proven.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest backup list /backup/data --cmek file:///etc/app/cmek.key
  atrest backup list s3://backups/data --cmek file:///etc/app/cmek.key
  atrest backup list /backup/data --json | jq '.backups[-1].number'

JSON fields: directory, chain_id, backups [number, full, created_ns, source_store_id,
source_generation, files, bytes, copied_files, added_bytes, lacks, manifest_sha256]
")]
pub(super) struct Args {
    #[command(flatten)]
    dest: Dest,
    #[command(flatten)]
    cmek: CmekArgs,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    directory: String,
    chain_id: StoreId,
    backups: Vec<BackupInfo>,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let place = self.dest.place()?;
        let chain = open_read_only(&place, self.cmek.some()?)?;
        let backups = chain.list().map_err(|error| place.explain(error))?;
        let directory = shown(place.path());
        let report = Report { directory, chain_id: chain.id(), backups };
        out.result(&report, || report.text())
    }
}

impl Report {
    fn text(&self) -> String {
        let head = format!("{}: chain {}", BOLD.paint(&clean(&self.directory)), self.chain_id);
        if self.backups.is_empty() {
            return format!("{head}\n  {}", DIM.paint("no finished backup"));
        }
        use Align::{Left, Right};
        let mut table = Table::new(&[
            ("backup", Right),
            ("kind", Left),
            ("made", Left),
            ("files", Right),
            ("plaintext", Right),
            ("added", Right),
            ("lacks", Right),
            ("manifest", Left),
        ]);
        for backup in &self.backups {
            table.row([
                backup.number.to_string().into(),
                if backup.full { "full" } else { "incremental" }.into(),
                units::time(backup.created_ns).into(),
                units::count(backup.files).into(),
                units::bytes(backup.bytes).into(),
                units::bytes(backup.added_bytes).into(),
                units::count(backup.lacks.len() as u64).into(),
                backup.manifest_sha256[..16].into(),
            ]);
        }
        format!("{head}\n{}", table.render())
    }
}
