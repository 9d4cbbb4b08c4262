//! `atrest demo`: a real storage engine, encrypted, in front of the user.

use std::path::PathBuf;

use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Out;
use crate::paint::{BOLD, DIM, GREEN, RED, clean};
use crate::{key, units};
use place::Place;
use story::{Step, Story};

mod clock;
mod engine;
mod place;
mod play;
mod records;
mod search;
mod story;
mod usage;

const EXAMPLES: &str = "\
Examples:
  atrest demo
  atrest demo /tmp/shop
  atrest demo --engine slatedb
  atrest demo --json | jq '.steps[] | {name, held, seconds}'

JSON fields: engine, held, seconds, records, directory (null if it was removed), error (null if it
came to its end), steps [name, held, seconds, checks [what, held], numbers]
";

/// Run a real storage engine on encrypted files, and prove it.
///
/// The engine loads a data set; months pass and data keys rotate; the engine's own compaction
/// moves data to the newest key; every record is verified; every byte on disk is searched
/// for plaintext; the customer's key is withdrawn and given back. Exit code 0 only if
/// every step held.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A new or empty directory, which stays; without it a temporary one, which is
    /// removed.
    dir: Option<PathBuf>,
    /// The engine: those that this command was built with. RocksDB is not one of them, since it
    /// loads the library and not the other way round.
    #[arg(long, value_enum, default_value_t = engine::Kind::Slatedb)]
    engine: engine::Kind,
    /// Keep the temporary directory.
    #[arg(long)]
    keep: bool,
    /// How many records to load.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    records: u64,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    engine: &'static str,
    held: bool,
    seconds: f64,
    records: u64,
    directory: Option<String>,
    error: Option<String>,
    steps: Vec<Step>,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let place = Place::new(self.dir.as_deref(), self.keep)?;
        let (mut story, engine) = (Story::new(out), self.engine.engine());
        story.show(&format!(
            "{}\n{}",
            BOLD.paint(&format!("{} on encrypted files", engine.name())),
            DIM.paint(&clean(&format!("in {}", place.root().display())))
        ))?;
        let played = play::play(&mut story, &place, engine, self.records);
        if played.is_err() {
            story.broken();
        }
        self.conclude(story, &place, played)
    }

    fn conclude(&self, story: Story<'_>, place: &Place, played: Result<()>) -> Result<()> {
        let seconds = story.seconds();
        let (out, steps) = story.into_steps();
        let error = match &played {
            Err(failure) => failure.report().map(|report| report.message),
            Ok(()) => None,
        };
        let held = played.is_ok() && steps.iter().all(Step::held);
        let report = Report {
            engine: self.engine.engine().name(),
            held,
            seconds,
            records: self.records,
            directory: place.is_kept().then(|| place.root().display().to_string()),
            error,
            steps,
        };
        out.result(&report, || report.text(place))?;
        played?;
        if held { Ok(()) } else { Err(Failure::Unheld) }
    }
}

impl Report {
    fn text(&self, place: &Place) -> String {
        let held = self.steps.iter().filter(|step| step.held()).count();
        let all = self.steps.len();
        let seconds = self.seconds;
        let mut text = if self.held {
            GREEN.paint(&format!("\nAll {all} steps held, in {seconds:.1} s."))
        } else {
            RED.paint(&format!("\n{held} of {all} steps held, in {seconds:.1} s."))
        };
        if place.is_kept() {
            let store = clean(&place.store().display().to_string());
            let uri = clean(&key::file_uri(&place.key_file()));
            text.push_str(&format!("\nLook around:\n  atrest status {store} --cmek {uri}"));
        } else {
            let note = "The directory is removed; `--keep` or a directory of yours keeps it.";
            text.push_str(&format!("\n{}", DIM.paint(note)));
        }
        text
    }
}

/// A rate for people.
fn rate(bytes: u64, seconds: f64) -> String {
    format!("{}/s", units::bytes((bytes as f64 / seconds.max(0.01)) as u64))
}
