//! The directories of a store's files: where `keys retire` looks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use atrest::ErrorKind;
use atrest::store::Directories as Registered;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Out;
use crate::paint::{YELLOW, clean};
use crate::store::StoreArgs;

/// List the directories that hold the store's files: its own, and those registered when
/// a file was first created in them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys directories data
  atrest keys directories data --json | jq -r '.directories[] | select(.exists | not) | .path'

JSON fields: directories [path, registered (false for the store's own), exists]
")]
pub(super) struct Directories {
    #[command(flatten)]
    at: StoreArgs,
}

/// Forget a registered directory that is gone, so that `keys retire` does not look for it.
///
/// A disk that is only not mounted looks gone too: forget no directory whose files come
/// back, or data keys may be destroyed that they need. One that is still there is refused,
/// unless it is another store's, of which this one is a copy.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys forget-directory data /mnt/old/tables

JSON fields: forgotten
")]
pub(super) struct ForgetDirectory {
    #[command(flatten)]
    at: StoreArgs,
    /// The directory, as `keys directories` shows it.
    path: PathBuf,
}

/// Say that the store was moved here, and that a directory which it registered before is its
/// own still.
///
/// A copy looks as if it was moved: a copy that takes over what its original still uses
/// rewrites the original's files under keys that only the copy has, so that they are lost.
/// A copy forgets the directory instead.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys take-directory data /mnt/wal

JSON fields: taken
")]
pub(super) struct TakeDirectory {
    #[command(flatten)]
    at: StoreArgs,
    /// The directory, as `keys directories` shows it.
    path: PathBuf,
}

/// Field names are stable.
#[derive(Serialize)]
struct TakenReport {
    taken: String,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    directories: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    path: String,
    registered: bool,
    exists: bool,
}

/// Field names are stable.
#[derive(Serialize)]
struct ForgottenReport {
    forgotten: String,
}

/// Whether something is there, or cannot be said not to be.
fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

fn is_foreign(directories: &Registered, path: &Path) -> bool {
    directories.foreign().iter().any(|(foreign, _)| foreign == path)
}

impl Directories {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open_read_only()?;
        let own = self.at.dir.canonicalize().unwrap_or_else(|_| self.at.dir.clone());
        let entry = |path: PathBuf| Entry {
            path: path.to_string_lossy().into_owned(),
            registered: path != own,
            exists: exists(&path),
        };
        let known = store.store().directories();
        let paths: BTreeSet<_> = known.list().into_iter().chain(known.registered()).collect();
        let directories = paths.into_iter().map(entry).collect();
        let report = Report { directories };
        out.result(&report, || {
            let line = |entry: &Entry| match entry.exists {
                true => clean(&entry.path).to_string(),
                false => format!("{} {}", clean(&entry.path), YELLOW.paint("is gone")),
            };
            report.directories.iter().map(line).collect::<Vec<_>>().join("\n")
        })
    }
}

impl ForgetDirectory {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open()?;
        if exists(&self.path) && !is_foreign(store.store().directories(), &self.path) {
            let what =
                format!("{}: expected a directory that is gone, found one", self.path.display());
            return Err(Failure::new(ErrorKind::InvalidArgument, what)
                .advise("move its files below another of the store's directories and remove it"));
        }
        store.commit(|store| store.directories().unregister(&self.path))?;
        let report = ForgottenReport { forgotten: self.path.to_string_lossy().into_owned() };
        out.result(&report, || format!("Forgot the directory {}.", clean(&report.forgotten)))
    }
}

impl TakeDirectory {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open()?;
        store.commit(|store| store.directories().take_over(&self.path))?;
        let report = TakenReport { taken: self.path.to_string_lossy().into_owned() };
        out.result(&report, || format!("Took over the directory {}.", clean(&report.taken)))
    }
}
