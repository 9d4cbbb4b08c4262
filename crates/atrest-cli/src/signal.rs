//! Ctrl-C and its kin: what is half made is removed, what is being committed is finished.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::Result;
use crate::output::note;

static STATE: Mutex<State> = Mutex::new(State { half_made: Vec::new(), committing: 0 });

struct State {
    /// Files and directories to remove when the process is interrupted.
    half_made: Vec<PathBuf>,
    /// Commits that an interruption has to wait for.
    committing: usize,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that waits for signals.
pub(crate) fn install() -> Result<()> {
    let what = "signals cannot be handled";
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|e| atrest::Error::io(what, e))?;
    let wait = move || {
        let mut seen = false;
        for signal in signals.forever() {
            // Held until the end of the process, so that nothing new is begun meanwhile.
            let state = state();
            if state.committing > 0 && !seen {
                seen = true;
                note("interrupted: finishing the commit first; once more stops now");
                continue;
            }
            state.half_made.iter().for_each(|path| remove(path));
            note("interrupted");
            std::process::exit(128 + signal);
        }
    };
    let name = "atrest-signals".to_owned();
    thread::Builder::new().name(name).spawn(wait).map_err(|e| atrest::Error::io(what, e))?;
    Ok(())
}

/// Something that is removed when the process is interrupted while this guard lives.
/// Made **before** the thing itself.
pub(crate) struct HalfMade(PathBuf);

impl HalfMade {
    pub(crate) fn new(path: &Path) -> Self {
        state().half_made.push(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        let mut state = state();
        if let Some(at) = state.half_made.iter().rposition(|path| *path == self.0) {
            state.half_made.remove(at);
        }
    }
}

/// While this guard lives, the first interruption waits: a keyring is being committed,
/// and whoever asked for it wants to know that it was.
pub(crate) struct Committing(());

impl Committing {
    pub(crate) fn begin() -> Self {
        state().committing += 1;
        Self(())
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        state().committing -= 1;
    }
}

fn remove(path: &Path) {
    // Other threads may still be adding files to a directory.
    for _ in 0..8 {
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        if removed.is_ok() || !path.exists() {
            return;
        }
    }
}
