//! An engine, the process that it lives in now, and what all of its processes did.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use atrest_soak::{Any, Done, Life};
use serde_json::{Value, json};

use super::Kind;
use super::bao::Bao;
use super::process::{Heard, Look, Process};

/// Looks at a process younger than this do not count: it is still warming up.
const WARM: Duration = Duration::from_secs(20);

/// An engine and all of its lives.
pub(super) struct Subject {
    pub(super) kind: Kind,
    /// Another program than this one.
    program: Option<PathBuf>,
    dir: PathBuf,
    scratch: PathBuf,
    pub(super) process: Option<Process>,
    lives: u64,
    pub(super) kills: u64,
    pub(super) done: Done,
    pub(super) wrong: Vec<String>,
    refused: BTreeMap<String, u64>,
    /// When, of the whole soak, and what.
    pub(super) looks: Vec<(Duration, Look)>,
}

impl Subject {
    /// One that has not lived yet, and keeps its store in `dir`.
    pub(super) fn new(
        kind: Kind,
        program: Option<PathBuf>,
        dir: PathBuf,
        scratch: PathBuf,
    ) -> Self {
        let (process, lives, kills, done) = Default::default();
        let (wrong, refused, looks) = Default::default();
        Self { kind, program, dir, scratch, process, lives, kills, done, wrong, refused, looks }
    }

    pub(super) fn start(&mut self, bao: &Bao) -> Any<()> {
        self.lives += 1;
        let command = match &self.program {
            Some(program) => Command::new(program),
            None => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("soak-engine").arg(self.kind.as_str());
                command
            }
        };
        let (dir, scratch, uri) = (self.dir.clone(), self.scratch.clone(), bao.uri.clone());
        let life = Life { dir, scratch, uri, seed: self.lives };
        self.process = Some(Process::start(command, &life, &bao.token)?);
        Ok(())
    }

    pub(super) fn take(&mut self, heard: Heard) {
        self.done.add(&heard.done);
        self.wrong.extend(heard.wrong);
        for (what, count) in heard.refused {
            *self.refused.entry(what).or_default() += count;
        }
    }

    pub(super) fn kill(&mut self, bao: &Bao) -> Any<()> {
        if let Some(process) = self.process.take() {
            self.kills += 1;
            let heard = process.kill()?;
            self.take(heard);
        }
        self.start(bao)
    }

    /// Reads and writes of the present life.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        let process = self.process.as_ref()?;
        let heard = process.heard();
        heard.ready.then_some((heard.done.written, heard.done.read))
    }

    /// Changes whenever it reads or writes a record.
    pub(super) fn worked(&self) -> (u64, u64) {
        let done = self.all();
        (done.written, done.read)
    }

    /// In all lives so far, the present one too.
    pub(super) fn all(&self) -> Done {
        let mut all = self.done;
        if let Some(process) = &self.process {
            all.add(&process.heard().done);
        }
        all
    }

    /// Medians of the first and the last quarter of the looks, of one of their figures.
    pub(super) fn drift(&self, of: fn(&Look) -> u64) -> [u64; 2] {
        let warm = self.looks.iter().filter(|(_, look)| look.age >= WARM);
        let figures: Vec<u64> = warm.map(|(_, look)| of(look)).collect();
        let quarter = figures.len().div_ceil(4);
        let median = |part: &[u64]| {
            let mut part = part.to_vec();
            part.sort_unstable();
            part.get(part.len() / 2).copied().unwrap_or_default()
        };
        [median(&figures[..quarter]), median(&figures[figures.len() - quarter..])]
    }

    /// Medians of resident KiB by the age of the process: growth that goes on would show here.
    pub(super) fn resident_by_age(&self) -> BTreeMap<u64, u64> {
        let mut of: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (_, look) in &self.looks {
            of.entry(look.age.as_secs() / 60).or_default().push(look.resident_kib);
        }
        let median = |figures: &mut Vec<u64>| {
            figures.sort_unstable();
            figures[figures.len() / 2]
        };
        of.iter_mut().map(|(minute, figures)| (*minute, median(figures))).collect()
    }

    pub(super) fn figures(&self) -> Value {
        let most = |of: fn(&Look) -> u64| self.looks.iter().map(|(_, look)| of(look)).max();
        let longest = self.looks.iter().map(|(_, look)| look.age.as_secs()).max();
        json!({
            "engine": self.kind.as_str(),
            "done": self.done,
            "kills": self.kills,
            "resident_kib_first_and_last_quarter": self.drift(|look| look.resident_kib),
            "resident_kib_by_minutes_of_age": self.resident_by_age(),
            "resident_kib_most": most(|look| look.resident_kib),
            "descriptors_first_and_last_quarter": self.drift(|look| look.descriptors),
            "descriptors_most": most(|look| look.descriptors),
            "longest_life_s": longest,
            "wrong": self.wrong,
            "refusals": self.refused,
        })
    }
}
