//! `atrest verify`: whether every file of a store can be read and was not changed.

use std::path::Path;
use std::time::Instant;

use atrest::verify::VerifyReport;
use atrest::{Error, Keyring};
use serde::Serialize;

use super::backup;
use crate::bucket::Bucket;
use crate::failure::{Failure, Result};
use crate::output::Out;
use crate::paint::{BOLD, GREEN, YELLOW, clean};
use crate::place::Place;
use crate::scan::passed_by;
use crate::store::StoreArgs;
use crate::table::{Align, Table};
use crate::{progress, signal, torn, units};

/// Problem files shown to people; machines get all.
const SHOWN_MAX: usize = 20;

/// Prove every file of a store: headers by their keys, bodies where a suite authenticates
/// them.
///
/// A file of suite 1 has a proven header and a body that nothing authenticates; the report
/// counts them apart. Ends with the exit code of the first problem; with 13 if there is none
/// but a log that ends before its file does. Stores inside of this one, and a file
/// system's `lost+found` that this user may not list, are named and not looked at.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest verify data --cmek file:///etc/app/cmek.key
  atrest verify data --json | jq '.problems[].path'
  atrest verify s3://stores/data --cmek file:///etc/app/cmek.key

Of a store in an object store each object is read in the same way; backups there are verified
as by `atrest backup verify`, with its report.

JSON fields: directory, good, authenticated_files, authenticated_bytes,
unauthenticated_files, unauthenticated_bytes, plaintext_files, temporary_files, unfinished_files,
empty_files, empty (paths), torn_logs, torn [path, reason, kept_bytes, lost_bytes], problems [path,
message], nested_stores, lost_found, elsewhere (directories of the store's files that were not
looked at), seconds
")]
pub(crate) struct Args {
    #[command(flatten)]
    at: StoreArgs,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    directory: String,
    good: bool,
    #[serde(flatten)]
    verified: VerifyReport,
    seconds: f64,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let started = Instant::now();
        let place = Place::parse(&self.at.dir)?;
        let verified = match &place {
            Place::Directory(dir) => self.directory(dir, out)?,
            Place::Bucket(bucket) => {
                // Refuses what is not pinned, of a chain too.
                let store = self.at.read_keys(&place, self.at.cmek.some()?)?;
                if backup::is_chain(&place)? {
                    return backup::verify(&place, self.at.cmek.some()?, out);
                }
                in_bucket(bucket, store.keyring(), out)?
            }
        };
        let report = Report {
            directory: self.at.dir.display().to_string(),
            good: verified.problems.is_empty() && verified.torn.is_empty(),
            verified,
            seconds: started.elapsed().as_secs_f64(),
        };
        out.result(&report, || report.text())?;
        let problems = &report.verified.problems;
        if let Some(first) = problems.first() {
            let count = units::counted(problems.len() as u64, "file");
            let what = format!("{count} with problems, the first: {}", first.message);
            return Err(Failure::from(Error::new(first.kind, what)));
        }
        torn::fail(&report.verified.torn)
    }
}

impl Args {
    fn directory(&self, dir: &Path, out: &Out) -> Result<VerifyReport> {
        let store = self.at.read_keys(&Place::Directory(dir.to_owned()), self.at.keys_of(dir)?)?;
        let bar = progress::work("verifying", out.is_json());
        let _stoppable = signal::Stoppable::begin();
        let show = |progress| progress::show(&bar, progress);
        let verified = atrest::verify::verify(store.files(), dir, &show);
        bar.finish_and_clear();
        Ok(verified?)
    }
}

fn in_bucket(bucket: &Bucket, keyring: &Keyring, out: &Out) -> Result<VerifyReport> {
    let bar = progress::files("verifying", out.is_json());
    let verified = bucket.verify(keyring, || bar.inc(1));
    bar.finish_and_clear();
    let mut report = verified?;
    report.problems.sort_by(|one, other| one.path.cmp(&other.path));
    report.empty.sort();
    Ok(report)
}

impl Report {
    fn text(&self) -> String {
        let found = &self.verified;
        let verdict = if self.good { GREEN.paint("good") } else { YELLOW.paint("problems") };
        let mut table =
            Table::new(&[("", Align::Left), ("files", Align::Right), ("on disk", Align::Right)]);
        let problems = found.problems.len() as u64;
        let rows = [
            ("authenticated", found.authenticated_files, Some(found.authenticated_bytes)),
            (
                "header proven, body not",
                found.unauthenticated_files,
                Some(found.unauthenticated_bytes),
            ),
            ("plaintext, allowed", found.plaintext_files, None),
            ("temporary, of other processes", found.temporary_files, None),
            ("in the making, or left by what was broken off", found.unfinished_files, None),
            ("empty", found.empty_files, None),
            ("logs that end early", found.torn_logs, None),
            ("with problems", problems, None),
        ];
        for (index, (name, files, bytes)) in rows.into_iter().enumerate() {
            if index < 2 || files > 0 {
                let bytes = bytes.map_or(String::new(), units::bytes);
                table.row([name.into(), units::count(files).into(), bytes.into()]);
            }
        }
        let head = format!("{}: {verdict}", BOLD.paint(&clean(&self.directory)));
        let mut lines = vec![head, table.render()];
        lines.extend(
            found
                .problems
                .iter()
                .take(SHOWN_MAX)
                .map(|problem| format!("  {} {}", YELLOW.paint("!"), clean(&problem.message))),
        );
        lines.extend(torn::lines(&found.torn, SHOWN_MAX));
        lines.extend(passed_by(&found.passed_by, "verified"));
        let hidden = problems.saturating_sub(SHOWN_MAX as u64);
        if hidden > 0 {
            lines.push(format!("  {} and {hidden} more", YELLOW.paint("!")));
        }
        lines.join("\n")
    }
}
