//! `atrest backup`: copies of a store under a key of their own, and the way back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::ErrorKind;
use atrest::backup::{Chain, LABEL_NAME, Lack, LackReason};
use atrest::kms::Kms;
use clap::Subcommand;

use crate::failure::Result;
use crate::output::Out;
use crate::paint::clean;
use crate::units;

mod list;
mod make;
mod restore;
mod verify;

pub(super) use verify::verify;

use crate::place::Place;

/// Back up a store while it is in use, and restore it.
///
/// A directory of backups, or a prefix of an object store, holds one full backup and the
/// incremental ones on top of it. It has a keyring of its own, wrapped by the customer's
/// key: it opens without the store. `atrest status`, `verify`, `rotate` and `cmek list`, `add`,
/// `remove`, `rewrap`, `rotate` and `status` work on backups as on a store, in an object store
/// too.
#[derive(clap::Args)]
#[command(after_help = OBJECT_STORES_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

/// Where a destination in an object store has its settings from.
const OBJECT_STORES_HELP: &str = "\
Examples:
  atrest backup create data /backup/data --cmek file:///etc/app/cmek.key
  atrest backup incremental data /backup/data --cmek file:///etc/app/cmek.key
  atrest backup restore /backup/data restored --cmek file:///etc/app/cmek.key

Object stores:
  s3://BUCKET/PREFIX      AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
                          AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP
  gs://BUCKET/PREFIX      GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT
  az://CONTAINER/PREFIX   AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY,
                          AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_ENDPOINT
Without keys the identity that the cloud gives to the machine is used.
";

#[derive(Subcommand)]
enum What {
    Create(make::Create),
    Incremental(make::Incremental),
    List(list::Args),
    Verify(verify::Args),
    Restore(restore::Args),
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        match &self.what {
            What::Create(args) => args.run(out),
            What::Incremental(args) => args.run(out),
            What::List(args) => args.run(out),
            What::Verify(args) => args.run(out),
            What::Restore(args) => args.run(out),
        }
    }
}

fn open_read_only(place: &Place, keys: Vec<Arc<dyn Kms>>) -> Result<Chain> {
    Chain::open_read_only(place.existing()?, keys).map_err(|error| place.at(error))
}

/// Whether the place has backups and no store.
pub(super) fn is_chain(place: &Place) -> Result<bool> {
    let missing = ErrorKind::Io(std::io::ErrorKind::NotFound);
    match place.existing()?.open(LABEL_NAME) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == missing => Ok(false),
        Err(error) => Err(place.at(error)),
    }
}

/// A path as JSON and people see it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// What a backup lacks, in words.
fn lacking(lack: &Lack) -> String {
    let path = clean(&shown(&lack.path));
    let (kept, lost) = (units::bytes(lack.kept_bytes), units::bytes(lack.lost_bytes));
    match lack.why {
        LackReason::Unfinished => {
            format!("{path} is not in the backup: it has no end, no reader would open it")
        }
        LackReason::Torn => {
            format!("{path} is in the backup up to where it is torn: {kept}, not {lost}")
        }
        LackReason::Elsewhere => {
            format!("{path}, a directory of the store elsewhere, is not in the backup")
        }
        LackReason::Link => format!("{path} is not in the backup: it is a symbolic link"),
        LackReason::Emptied => {
            format!(
                "{path} is in the backup without a byte: {lost} are in the one before, or behind a \
                 header that is lost"
            )
        }
        LackReason::KeyDestroyed => {
            format!("{path} is not in the backup: its data key was destroyed, nobody reads it")
        }
        _ => format!("{path} is not in the backup as it should be"),
    }
}

#[derive(clap::Args)]
struct Dest {
    /// The directory of backups, or its URI: s3://BUCKET/PREFIX, gs://…, az://…, file:///…
    dest: PathBuf,
}

impl Dest {
    fn place(&self) -> Result<Place> {
        Place::parse(&self.dest)
    }
}
