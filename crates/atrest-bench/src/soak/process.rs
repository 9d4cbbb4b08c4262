//! A child that is started, listened to, and killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use atrest_soak::{Any, Done, Life, Said};

/// What was heard of a life.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) ready: bool,
    pub(super) done: Done,
    pub(super) wrong: Vec<String>,
    /// Refusals by their words, digits left out.
    pub(super) refused: BTreeMap<String, u64>,
}

pub(super) struct Process {
    child: Child,
    heard: Arc<Mutex<Heard>>,
    listener: Option<JoinHandle<()>>,
    begun: Instant,
}

/// One look at a process: its age, resident memory and open descriptors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) age: Duration,
    pub(super) resident_kib: u64,
    pub(super) descriptors: u64,
}

impl Process {
    /// Starts a program that knows its engine already.
    pub(super) fn start(mut command: Command, life: &Life, token: &str) -> Any<Self> {
        command.arg(&life.dir).arg(&life.scratch).arg(&life.uri).arg(life.seed.to_string());
        command.env("VAULT_TOKEN", token).env("RUST_BACKTRACE", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (out, to) = (child.stdout.take().ok_or("no output")?, heard.clone());
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let mut heard = to.lock().unwrap_or_else(PoisonError::into_inner);
                match serde_json::from_str(&line) {
                    Ok(Said::Ready) => heard.ready = true,
                    Ok(Said::Done(done)) => heard.done = done,
                    Ok(Said::Wrong(what)) => heard.wrong.push(what),
                    Ok(Said::Refused(what)) => {
                        let what = what.replace(|c: char| c.is_ascii_digit(), "");
                        *heard.refused.entry(what).or_default() += 1;
                    }
                    // A line that a kill cut off.
                    Err(_) => {}
                }
            }
        });
        Ok(Self { child, heard, listener: Some(listener), begun: Instant::now() })
    }

    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended by itself, which it should not.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    pub(super) fn look(&self) -> Option<Look> {
        let proc = Path::new("/proc").join(self.child.id().to_string());
        let status = std::fs::read_to_string(proc.join("status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident_kib = resident.trim().trim_end_matches(" kB").parse().ok()?;
        let descriptors = std::fs::read_dir(proc.join("fd")).ok()?.count() as u64;
        Some(Look { age: self.begun.elapsed(), resident_kib, descriptors })
    }

    /// SIGKILL, and all that it still said.
    pub(super) fn kill(mut self) -> Any<Heard> {
        self.child.kill()?;
        self.end().map(|(heard, _)| heard)
    }

    /// Lets it end by itself. Whether it succeeded.
    pub(super) fn finish(mut self) -> Any<(Heard, bool)> {
        drop(self.child.stdin.take());
        self.end()
    }

    fn end(&mut self) -> Any<(Heard, bool)> {
        let status = self.child.wait()?;
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
        Ok((std::mem::take(&mut *self.heard()), status.success()))
    }
}
