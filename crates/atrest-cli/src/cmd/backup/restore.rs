//! `atrest backup restore`.

use std::path::PathBuf;
use std::time::Instant;

use atrest::ErrorKind;
use atrest::backup::{RestoreReport, RestoreSpec};
use serde::Serialize;

use super::{Dest, lacking, open_read_only, shown};
use crate::failure::{Failure, Result};
use crate::key::{self, CmekArgs, Words};
use crate::output::Out;
use crate::paint::{BOLD, clean};
use crate::place::refuse_uri;
use crate::{progress, signal, units};

/// Restore a backup as a new store, under new keys.
///
/// NEWDIR becomes a store only when every file is written and proven. Run again after it
/// was interrupted, it goes on where it was.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest backup restore /backup/data restored --cmek file:///etc/app/cmek.key
  atrest backup restore s3://backups/data restored --cmek file:///etc/app/cmek.key
  atrest backup restore /backup/data restored --number 3
  atrest backup restore /backup/data restored --cmek passphrase: --new-cmek file:///etc/b.key

A new passphrase is asked for on the terminal, or comes from ATREST_NEW_PASSPHRASE.

JSON fields: directory, chain_id, number, created_ns, source_store_id, store_id,
data_key_id, files, bytes, resumed_files, lacks, key_uri, seconds
")]
pub(super) struct Args {
    #[command(flatten)]
    dest: Dest,
    /// The new store's directory: new or empty.
    newdir: PathBuf,
    #[command(flatten)]
    cmek: CmekArgs,
    /// The customer's key of the new store; without it, the first one of the backup.
    #[arg(long, value_name = "URI")]
    new_cmek: Option<String>,
    /// The backup's number, as `atrest backup list` shows it; without it, the last one.
    #[arg(long)]
    number: Option<u64>,
    /// Refuse another manifest than the one with this hash, as noted when it was made.
    #[arg(long, value_name = "HEX")]
    manifest_sha256: Option<String>,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    directory: String,
    #[serde(flatten)]
    restore: RestoreReport,
    key_uri: String,
    seconds: f64,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let place = self.dest.place()?;
        refuse_uri(&self.newdir)?;
        let keys = self.cmek.some()?;
        let new_key = match &self.new_cmek {
            Some(uri) => key::open(uri, Words::New, key::NEW_PASSPHRASE_VARIABLE)?,
            None => keys[0].clone(),
        };
        let started = Instant::now();
        let chain = open_read_only(&place, keys)?;
        let mut spec = RestoreSpec::new(&self.newdir, new_key.clone());
        spec.number = self.number;
        spec.manifest_sha256 = self.manifest_sha256.clone();
        let bar = progress::work("restoring", out.is_json());
        let _stoppable = signal::Stoppable::begin();
        let restored = chain.restore(&spec, &|progress| progress::show(&bar, progress));
        bar.finish_and_clear();
        let restore = restored.map_err(|error| match error.kind() {
            ErrorKind::KeyringExists | ErrorKind::Io(std::io::ErrorKind::DirectoryNotEmpty) => {
                Failure::from(error).advise("restore into a new or empty directory")
            }
            _ => place.explain(error),
        })?;
        for lack in &restore.lacks {
            out.warn(&lacking(lack));
        }
        let report = Report {
            directory: shown(&self.newdir),
            restore,
            key_uri: new_key.key_uri().to_string(),
            seconds: started.elapsed().as_secs_f64(),
        };
        out.result(&report, || report.text())
    }
}

impl Report {
    fn text(&self) -> String {
        let restore = &self.restore;
        format!(
            "Restored backup {} of {} to the store {} in {}.\n  files            {}, {}\n  \
             customer's key   {}",
            restore.number,
            units::time(restore.created_ns),
            restore.store_id,
            BOLD.paint(&clean(&self.directory)),
            units::count(restore.files),
            units::bytes(restore.bytes),
            clean(&self.key_uri),
        )
    }
}
