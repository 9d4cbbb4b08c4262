//! `atrest doctor`: what is wrong with a store, and what to do about it.

use atrest::ErrorKind;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Out;
use crate::paint::{BOLD, DIM, GREEN, RED, YELLOW, clean};
use crate::place::refuse_uri;
use crate::store::StoreArgs;

mod checks;
mod findings;
mod owners;

/// Examine a store's directory: keyring, lock, leftovers, modes, owners, files,
/// clock, place.
///
/// Nothing is changed. Without --cmek: what can be seen without any key. Ends with exit
/// code 1 if there is a problem; notes are no problems.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest doctor data
  atrest doctor data --cmek file:///etc/app/cmek.key
  atrest doctor data --json | jq '.findings[] | select(.level == \"problem\")'

JSON fields: directory, healthy, findings [level (good, note, problem), check, what,
advice or null]
")]
pub(crate) struct Args {
    #[command(flatten)]
    at: StoreArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    Good,
    Note,
    Problem,
}

/// One thing that was looked at. Field names are stable.
#[derive(Serialize)]
struct Finding {
    level: Level,
    check: &'static str,
    what: String,
    advice: Option<&'static str>,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    directory: String,
    healthy: bool,
    findings: Vec<Finding>,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        refuse_uri(&self.at.dir)?;
        match self.at.dir.metadata() {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                let what = "expected a directory, found a file";
                let error = atrest::Error::new(ErrorKind::InvalidArgument, what);
                return Err(error.with_path(&self.at.dir).into());
            }
            Err(e) => return Err(Failure::io("the store cannot be opened", &self.at.dir, e)),
        }
        let keys = self.at.cmek.open()?;
        let findings = checks::all(&self.at, keys, out.is_json())?;
        let problems = findings.iter().filter(|finding| finding.level == Level::Problem).count();
        let directory = self.at.dir.display().to_string();
        let report = Report { directory, healthy: problems == 0, findings };
        out.result(&report, || report.text())?;
        if problems == 0 {
            return Ok(());
        }
        let plural = if problems == 1 { "" } else { "s" };
        let what = format!("found {problems} problem{plural}");
        Err(Failure::new(ErrorKind::Poisoned, what).advise("follow the advice above, top down"))
    }
}

impl Report {
    fn text(&self) -> String {
        let mut lines = vec![BOLD.paint(&clean(&self.directory))];
        for finding in &self.findings {
            let mark = match finding.level {
                Level::Good => GREEN.paint("✓"),
                Level::Note => YELLOW.paint("•"),
                Level::Problem => RED.paint("✗"),
            };
            lines.push(format!("  {mark} {:<9} {}", finding.check, clean(&finding.what)));
            if let Some(advice) = finding.advice {
                lines.push(format!("              {}", DIM.paint(advice)));
            }
        }
        lines.join("\n")
    }
}
