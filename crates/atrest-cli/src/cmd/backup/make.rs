//! `atrest backup create` and `incremental`.

use std::path::PathBuf;
use std::time::Instant;

use atrest::backup::{BackupReport, Chain, Snapshot};
use atrest::{Error, ErrorKind};
use serde::Serialize;

use super::{lacking, shown};
use crate::advice::INCOMPLETE;
use crate::failure::{Failure, Partial, Result};
use crate::output::Out;
use crate::paint::{BOLD, clean};
use crate::place::Place;
use crate::store::StoreArgs;
use crate::{progress, signal, units};

/// Make a full backup in a new directory.
///
/// Run again after it was interrupted, it goes on where it was. Of several keys the first
/// one opens the backups.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest backup create data /backup/data --cmek file:///etc/app/cmek.key
  atrest backup create data s3://backups/data --cmek file:///etc/app/cmek.key

JSON fields: destination, chain_id, number, full, created_ns, source_store_id,
source_generation, files, bytes, copied_files, added_bytes, lacks [path, why,
kept_bytes, lost_bytes], manifest_sha256, resumed_files, others, lost_found, torn,
seconds

A backup that lacks something of the store is made, and ends with exit code 13.
")]
pub(super) struct Create {
    #[command(flatten)]
    args: Make,
}

/// Copy what is new since the last backup.
///
/// The headers of all files are read, and the whole of those that are new. Run again after
/// it was interrupted, it goes on where it was.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest backup incremental data /backup/data --cmek file:///etc/app/cmek.key
  atrest backup incremental data s3://backups/data --json

JSON fields: those of `atrest backup create`
")]
pub(super) struct Incremental {
    #[command(flatten)]
    args: Make,
}

#[derive(clap::Args)]
struct Make {
    #[command(flatten)]
    at: StoreArgs,
    /// The directory of backups, outside of the store, or a URI: s3://BUCKET/PREFIX, gs://…,
    /// az://…, file:///…
    dest: PathBuf,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    destination: String,
    #[serde(flatten)]
    backup: BackupReport,
    seconds: f64,
}

impl Create {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        self.args.run(out, true)
    }
}

impl Incremental {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        self.args.run(out, false)
    }
}

impl Make {
    fn run(&self, out: &mut Out, create: bool) -> Result<()> {
        self.at.check()?;
        let place = Place::parse(&self.dest)?;
        let keys = self.at.keys()?;
        let target = if create { place.prepared(&self.at.dir)? } else { place.existing()? };
        let started = Instant::now();
        let store = self.at.read_only_with(keys.clone())?;
        let chain = if create {
            Chain::open_or_create(target, keys[0].clone())
        } else {
            Chain::open(target, keys)
        };
        let chain = chain.map_err(|error| place.at(error))?;
        let count = chain.list().map_err(|error| place.explain(error))?.len();
        match (create, count) {
            (true, 1..) => {
                let kind = ErrorKind::Io(std::io::ErrorKind::AlreadyExists);
                let error = Error::new(kind, "a full backup is there already");
                return Err(Failure::from(error.with_path(place.path())).advise(
                    "add to it with `atrest backup incremental`, or give another destination",
                ));
            }
            (false, 0) => {
                let what = "expected a full backup to build on, found none";
                let error = Error::new(ErrorKind::BrokenBackup, what).with_path(place.path());
                return Err(Failure::from(error).advise("make one with `atrest backup create`"));
            }
            _ => {}
        }
        let bar = progress::work("copying", out.is_json());
        let _stoppable = signal::Stoppable::begin();
        let snapshot = Snapshot::take(store.store(), &self.at.dir)?;
        let backup =
            chain.back_up(store.store(), &snapshot, &|progress| progress::show(&bar, progress));
        drop(snapshot);
        bar.finish_and_clear();
        let backup = backup.map_err(|error| {
            // Of a file it has that file's path.
            let is_chain = error.kind() == ErrorKind::IdentityMismatch && error.path().is_none();
            let failure = place.explain(error);
            if !is_chain {
                return failure;
            }
            failure.advise(
                "these are backups of another store, and a restored store is a new one: begin a chain for it elsewhere with `atrest backup create`",
            )
        })?;
        warn(&backup, out);
        let seconds = started.elapsed().as_secs_f64();
        let report = Report { destination: shown(place.path()), backup, seconds };
        out.result(&report, || report.text())?;
        complete(&report.backup)
    }
}

/// A backup that lacks something of the store is told by its exit code, too.
fn complete(backup: &BackupReport) -> Result<()> {
    let lacks = &backup.info.lacks;
    let Some(first) = lacks.first() else { return Ok(()) };
    let count = units::counted(lacks.len() as u64, "file");
    let first = lacking(first);
    Err(Failure::Partial(Partial {
        name: "incomplete-backup",
        exit_code: INCOMPLETE,
        message: format!(
            "the backup is made, but not whole: {count} left out or cut, the first: {first}"
        ),
        path: None,
        advice: "see to these files, then make another: `atrest verify DIR` tells more".into(),
    }))
}

fn warn(backup: &BackupReport, out: &mut Out) {
    for lack in &backup.info.lacks {
        out.warn(&lacking(lack));
    }
    for dir in &backup.lost_found {
        let dir = dir.display();
        out.warn(&format!("not looked into: {dir} of the file system, closed to this user"));
    }
    if backup.others > 0 {
        let count = units::counted(backup.others, "special file");
        out.warn(&format!("not in the backup: {count}"));
    }
}

impl Report {
    fn text(&self) -> String {
        let info = &self.backup.info;
        let kind = if info.full { "full backup" } else { "incremental backup" };
        let rate = info.added_bytes as f64 / self.seconds.max(1e-9);
        let resumed = match self.backup.resumed_files {
            0 => String::new(),
            files => format!(", {} of an interrupted run", units::counted(files, "copy")),
        };
        format!(
            "Made {kind} {} in {}.\n  files      {}, {} of plaintext\n  copied     {}{resumed}\n  \
             added      {}, {}/s\n  manifest   {}",
            info.number,
            BOLD.paint(&clean(&self.destination)),
            units::count(info.files),
            units::bytes(info.bytes),
            units::counted(info.copied_files, "file"),
            units::bytes(info.added_bytes),
            units::bytes(rate as u64),
            info.manifest_sha256,
        )
    }
}
