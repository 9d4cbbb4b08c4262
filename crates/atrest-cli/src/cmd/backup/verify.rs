//! `atrest backup verify`.

use std::sync::Arc;

use atrest::Error;
use atrest::backup::{BackupProblem, CheckReport};
use atrest::kms::Kms;
use serde::Serialize;

use super::{Dest, lacking, open_read_only, shown};
use crate::failure::{Failure, Result};
use crate::key::CmekArgs;
use crate::output::Out;
use crate::paint::{BOLD, GREEN, YELLOW, clean};
use crate::place::Place;
use crate::{progress, signal, units};

/// Copies that are named; more are only counted.
const SHOWN_MAX: usize = 10;

/// Read all of a directory of backups and compare it with its hashes.
///
/// Ends with the exit code of the first problem: 5 for a changed file, 6 for a missing or
/// damaged one.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest backup verify /backup/data --cmek file:///etc/app/cmek.key
  atrest backup verify s3://backups/data --cmek file:///etc/app/cmek.key --json

JSON fields: directory, good, chain_id, backups, files, bytes, leftovers,
problems [path, backup, message], lacks [path, why, kept_bytes, lost_bytes] of the last one
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
    good: bool,
    #[serde(flatten)]
    check: CheckReport,
}

impl Args {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        verify(&self.dest.place()?, self.cmek.some()?, out)
    }
}

/// Verifies the chain in a place, and reports it.
pub(in crate::cmd) fn verify(place: &Place, keys: Vec<Arc<dyn Kms>>, out: &mut Out) -> Result<()> {
    let chain = open_read_only(place, keys)?;
    let bar = progress::work("verifying", out.is_json());
    let _stoppable = signal::Stoppable::begin();
    let check = chain.verify(&|progress| progress::show(&bar, progress));
    bar.finish_and_clear();
    let check = check.map_err(|error| place.explain(error))?;
    let good = check.problems.is_empty();
    let report = Report { directory: shown(place.path()), good, check };
    out.result(&report, || report.text())?;
    report.check.problems.first().map_or(Ok(()), |first| Err(failure(first, &report.check)))
}

fn failure(first: &BackupProblem, check: &CheckReport) -> Failure {
    let count = units::counted(check.problems.len() as u64, "copied file");
    let what = format!("{count} missing or damaged, the first: {}", first.message);
    let error = Error::new(first.kind, what).with_path(&first.path);
    let before = first.backup - 1;
    let advice = match before {
        0 => "make a new full backup in another directory".to_owned(),
        _ => format!("make a new full backup; backups 1 to {before} do not need this file"),
    };
    Failure::from(error).advise(advice)
}

impl Report {
    fn text(&self) -> String {
        let check = &self.check;
        let verdict = if self.good { GREEN.paint("good") } else { YELLOW.paint("damaged") };
        let mut lines = vec![format!(
            "{}: {verdict}, {}, {} of {} read",
            BOLD.paint(&clean(&self.directory)),
            units::counted(check.backups, "backup"),
            units::counted(check.files, "copied file"),
            units::bytes(check.bytes),
        )];
        if check.leftovers > 0 {
            let files = units::counted(check.leftovers, "copy");
            lines.push(format!("  {files} of an unfinished backup"));
        }
        lines.extend(
            check
                .lacks
                .iter()
                .take(SHOWN_MAX)
                .map(|lack| format!("  {} {}", YELLOW.paint("-"), lacking(lack))),
        );
        lines.extend(check.problems.iter().take(SHOWN_MAX).map(|problem| {
            let path = clean(&shown(&problem.path));
            let (number, message) = (problem.backup, clean(&problem.message));
            format!("  {} {path} (backup {number}): {message}", YELLOW.paint("!"))
        }));
        lines.join("\n")
    }
}
