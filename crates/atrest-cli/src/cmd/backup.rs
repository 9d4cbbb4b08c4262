//! `atrest backup`: copies of a store under a key of their own, and the way back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::backup::{Chain, DirectoryTarget};
use atrest::kms::Kms;
use atrest::{Error, ErrorKind};
use clap::Subcommand;

use crate::failure::{Failure, Result};
use crate::output::Out;

mod list;
mod make;
mod restore;
mod verify;

/// Back up a store while it is in use, and restore it.
///
/// A directory of backups holds one full backup and the incremental ones on top of it. It
/// has a keyring of its own, wrapped by the customer's key: it opens without the store.
/// `atrest status`, `verify` and `rotate cmek` work on it as on a store.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

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

/// An existing directory of backups.
fn existing(dest: &Path) -> Result<DirectoryTarget> {
    match dest.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(DirectoryTarget::new(dest)),
        Ok(_) => {
            let what = "expected a directory of backups, found a file";
            Err(Error::new(ErrorKind::InvalidArgument, what).with_path(dest).into())
        }
        Err(source) => Err(Failure::io("the backups cannot be opened", dest, source)),
    }
}

fn open_read_only(dest: &Path, kms: Arc<dyn Kms>) -> Result<Chain> {
    Chain::open_read_only(existing(dest)?, vec![kms]).map_err(|error| at(error, dest))
}

/// A failure of the directory of backups as a whole.
fn at(error: Error, dest: &Path) -> Failure {
    let advice = match error.kind() {
        ErrorKind::KeyringMissing | ErrorKind::BrokenBackup => {
            Some("give the directory that `atrest backup create` wrote to, whole")
        }
        ErrorKind::Io(std::io::ErrorKind::DirectoryNotEmpty) => {
            Some("give a new or empty directory; each store has its own for backups")
        }
        _ => None,
    };
    let failure = Failure::from(error.with_path(dest));
    match advice {
        Some(advice) => failure.advise(advice),
        None => failure,
    }
}

/// A path as JSON and people see it.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[derive(clap::Args)]
struct Dest {
    /// The directory of backups.
    dest: PathBuf,
}
