//! `atrest reencrypt`: rewriting cold files under the newest key.

use std::path::Path;
use std::time::Duration;

use atrest::fs::TornFile;
use atrest::store::{Reencrypt, ReencryptProgress, ReencryptReport, Skipped, StalePolicy};
use atrest::walk::PassedBy;
use atrest::{FileKind, FileSpec};
use serde::Serialize;

use crate::advice::Verdict;
use crate::failure::Result;
use crate::output::Out;
use crate::paint::{YELLOW, clean};
use crate::scan::passed_by;
use crate::store::StoreArgs;
use crate::{progress, signal, torn, units};

/// Files named to people; machines get all.
const SHOWN_MAX: usize = 10;

/// Rewrite old files under the newest data key.
///
/// Without --older-than: files under exposed keys and files of a suite below the store's
/// minimum. Each file is written anew beside the old one, made durable, read back and
/// compared, and then takes its name. A run that was interrupted is gone on with by the
/// next one. A log that is cut off or damaged, and a file of suite 1 with a part that was never
/// written, is left as it is, and so keeps its data key in use. No other process may have the store open for writing: an engine in use calls
/// the library.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest reencrypt data --older-than 90d
  atrest reencrypt data --older-than 90d --rate 200MiB
  atrest reencrypt data --authenticated
  atrest reencrypt data --plaintext

JSON fields: files, bytes, leftovers_removed, cancelled, skipped [path, why], torn [path,
reason, kept_bytes, lost_bytes], merged (files whose appends cannot be told apart any more),
failed [path, kind, message], nested_stores, lost_found. The exit code is that of the first file that failed; 13 if none
did and a torn file was left as it is.
")]
pub(crate) struct Args {
    #[command(flatten)]
    at: StoreArgs,
    /// Files under data keys that were replaced and are at least this old, as in 90d.
    #[arg(long, value_name = "AGE", value_parser = units::parse_duration)]
    older_than: Option<Duration>,
    /// All files whose data key was replaced.
    #[arg(long, conflicts_with = "older_than")]
    all: bool,
    /// Files of suite 1 too, into an authenticated suite.
    #[arg(long)]
    authenticated: bool,
    /// Plaintext files too; the store has to allow plaintext. Every plaintext file in the
    /// directory: not for stores with files that the engine reads by itself.
    #[arg(long)]
    plaintext: bool,
    /// Rewrite every encrypted file as PLAINTEXT, to leave encryption behind. The store
    /// has to allow plaintext.
    #[arg(long, conflicts_with_all = ["older_than", "all", "authenticated", "plaintext"])]
    danger_to_plaintext: bool,
    /// Rewrite files that are cut off or damaged, too, up to there, and LOSE what is behind.
    #[arg(long)]
    danger_cut_torn: bool,
    /// At most so many bytes a second, as in 200MiB or 200MiB/s.
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    rate: Option<u64>,
    /// Files at the same time; the default is four for each processor. Fewer where the limit
    /// of open files is low: they take half of it.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

fn parse_rate(text: &str) -> Result<u64, String> {
    units::parse_bytes(text.strip_suffix("/s").unwrap_or(text))
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    files: u64,
    bytes: u64,
    leftovers_removed: u64,
    cancelled: bool,
    skipped: Vec<SkippedFile>,
    torn: Vec<TornFile>,
    #[serde(skip)]
    cut: bool,
    #[serde(flatten)]
    passed_by: PassedBy,
    merged: Vec<String>,
    failed: Vec<FailedFile>,
}

#[derive(Serialize)]
struct SkippedFile {
    path: String,
    why: Skipped,
}

#[derive(Serialize)]
struct FailedFile {
    path: String,
    kind: &'static str,
    message: String,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open()?;
        let scanning = progress::files("Reading headers", out.is_json());
        let on_scan = |p: atrest::store::ScanProgress| scanning.set_position(p.files);
        // The number of bytes is only known after the scan.
        let working = progress::bytes("Re-encrypting", Some(u64::MAX), out.is_json());
        let on_progress = |p: &ReencryptProgress| {
            scanning.finish_and_clear();
            working.set_length(p.bytes_total);
            working.set_position(p.bytes);
        };
        let mut how = Reencrypt::default();
        how.policy = self.policy();
        how.bytes_per_second = self.rate;
        how.threads = self.threads.map_or(how.threads, usize::from);
        how.plaintext = self.plaintext.then_some(&spec_of);
        how.on_scan = &on_scan;
        how.on_progress = &on_progress;
        how.cancel = Some(signal::cancel());
        if self.danger_to_plaintext {
            how = how.danger_to_plaintext();
        }
        if self.danger_cut_torn {
            how = how.danger_cut_torn();
        }
        let _stoppable = signal::Stoppable::begin();
        let report = store.store().renewal().reencrypt(&how);
        scanning.finish_and_clear();
        working.finish_and_clear();
        let mut done = report?;
        // Keeps the count of bytes under the data keys.
        store.close()?;
        let report = Report::new(&done, self.danger_cut_torn);
        out.result(&report, || report.text())?;
        if done.cancelled {
            signal::exit_if_interrupted();
        }
        if !done.failed.is_empty() {
            return Err(done.failed.swap_remove(0).1.into());
        }
        if self.danger_cut_torn {
            return Ok(());
        }
        torn::fail(&done.torn).map_err(|failure| failure.advise(
            "restore it from a backup; or give up what is behind with --danger-cut-torn, which reads and keeps what is in front",
        ))
    }

    fn policy(&self) -> StalePolicy {
        let mut policy = StalePolicy::default();
        policy.key_age_max = if self.all { Some(Duration::ZERO) } else { self.older_than };
        policy.require_authenticated = self.authenticated;
        policy.plaintext = self.plaintext;
        policy
    }
}

/// What a plaintext file is, as far as its name tells.
fn spec_of(path: &Path) -> Option<FileSpec> {
    let name = path.file_name()?.to_str().unwrap_or_default();
    Some(FileSpec::new(match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "sst" | "ldb" => FileKind::Table,
        "log" | "wal" => FileKind::Log,
        "blob" | "vlog" => FileKind::Blob,
        _ if name.starts_with("MANIFEST") => FileKind::Manifest,
        _ => FileKind::Other,
    }))
}

/// An error with what is next below it, such as a full disk.
fn with_cause(error: &atrest::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl Report {
    fn new(done: &ReencryptReport, cut: bool) -> Self {
        let text = |path: &Path| clean(&path.display().to_string());
        let skipped =
            done.skipped.iter().map(|(path, why)| SkippedFile { path: text(path), why: *why });
        let failed = done.failed.iter().map(|(path, error)| FailedFile {
            path: text(path),
            kind: Verdict::of_error(error).name,
            message: clean(&with_cause(error)),
        });
        Self {
            files: done.files,
            bytes: done.bytes,
            leftovers_removed: done.leftovers_removed,
            cancelled: done.cancelled,
            skipped: skipped.collect(),
            torn: done.torn.clone(),
            cut,
            passed_by: done.passed_by.clone(),
            merged: done.merged.iter().map(|path| text(path)).collect(),
            failed: failed.collect(),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![format!(
            "Rewrote {}, {}.",
            units::counted(self.files, "file"),
            units::bytes(self.bytes)
        )];
        if self.cancelled {
            lines.push("  interrupted: the next run goes on from here".into());
        }
        if self.leftovers_removed > 0 {
            let leftovers = units::counted(self.leftovers_removed, "leftover");
            lines.push(format!("  removed {leftovers} of an interrupted run"));
        }
        let words = |why| match why {
            Skipped::Gone => "is gone",
            Skipped::Changed => "changed meanwhile",
            Skipped::BeingWritten => "is being written",
            Skipped::Fresh => "is up to date",
            _ => "was left alone",
        };
        // Below, with more to say.
        let is_told = |file: &&SkippedFile| file.why != Skipped::Torn;
        let skipped = self.skipped.iter().filter(is_told);
        let skipped = skipped.map(|file| format!("  {} {}", file.path, words(file.why)));
        let failed = self
            .failed
            .iter()
            .map(|file| format!("  {} {}: {}", YELLOW.paint("!"), file.path, file.message));
        let all: Vec<_> = failed.chain(skipped).collect();
        let hidden = all.len().saturating_sub(SHOWN_MAX);
        lines.extend(all.into_iter().take(SHOWN_MAX));
        if hidden > 0 {
            lines.push(format!("  and {hidden} more"));
        }
        lines.extend(torn::lines(&self.torn, SHOWN_MAX));
        if self.cut && !self.torn.is_empty() {
            lines.push("  rewritten up to there: what was behind is gone".into());
        }
        lines.extend(passed_by(&self.passed_by, "looked into"));
        if !self.merged.is_empty() {
            let files = units::counted(self.merged.len() as u64, "file");
            lines.push(format!("  in {files} the appends cannot be told apart any more"));
        }
        lines.join("\n")
    }
}
