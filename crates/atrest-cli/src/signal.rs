//! Ctrl-C and its kin: what is half made is removed, what is being committed is finished.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{ErrorReport, Failure, Result};
use crate::output::note;

static STATE: Mutex<State> = Mutex::new(State {
    half_made: Vec::new(),
    committing: 0,
    stoppable: 0,
    terminal: None,
    json: false,
    ignored: 0,
});
/// The signal that stoppable work has to end for; 0 for none.
static INTERRUPTED: AtomicI32 = AtomicI32::new(0);
/// The same for work of the library that looks at a flag.
static CANCEL: AtomicBool = AtomicBool::new(false);

struct State {
    /// Files and directories to remove when the process is interrupted.
    half_made: Vec<PathBuf>,
    /// Commits that an interruption has to wait for.
    committing: usize,
    /// Pieces of work that look at [`is_interrupted`].
    stoppable: usize,
    /// The terminal, and how it was before its echo was switched off.
    terminal: Option<(File, Termios)>,
    /// Whether machines read standard error.
    json: bool,
    /// Signals that were ignored when the process began, a bit for each.
    ignored: u64,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that waits for signals.
pub(crate) fn install(json: bool) -> Result<()> {
    {
        let mut state = state();
        (state.json, state.ignored) = (json, ignored());
    }
    let what = "signals cannot be handled";
    let heeded = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = Signals::new(heeded).map_err(|e| atrest::Error::io(what, e))?;
    let wait = move || {
        let mut seen = false;
        for signal in signals.forever() {
            // Held until the end of the process, so that nothing new is begun meanwhile.
            let state = state();
            if state.committing > 0 && !seen {
                seen = true;
                tell(&state, "interrupted: finishing the commit first; once more stops now");
                continue;
            }
            if state.stoppable > 0 && !seen {
                seen = true;
                INTERRUPTED.store(signal, Ordering::Relaxed);
                CANCEL.store(true, Ordering::Relaxed);
                tell(&state, "interrupted: cleaning up first; once more stops now");
                continue;
            }
            end(&state, signal);
        }
    };
    let name = "atrest-signals".to_owned();
    match thread::Builder::new().name(name).spawn(wait) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::from(atrest::Error::io(what, error)).advise(
            "raise the limit of threads (`ulimit -u`, TasksMax= of the service): nothing was begun",
        )),
    }
}

/// What the process began with, as the system tells it; elsewhere than on Linux it does not.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Whether whoever started the process had it ignore this signal, as `nohup` does, and shells do
/// for jobs in the background.
pub(crate) fn is_ignored(signal: i32) -> bool {
    state().ignored >> (signal - 1) & 1 == 1
}

/// Ends the process as Ctrl-C does, for a reader of the terminal that took it itself.
pub(crate) fn interrupted() -> ! {
    end(&state(), SIGINT)
}

/// Called with the lock held, so that only one thread ends the process.
fn end(state: &State, signal: i32) -> ! {
    state.half_made.iter().for_each(|path| remove(path));
    if let Some((terminal, before)) = &state.terminal {
        // Nothing better can be done if the terminal is gone.
        let _ = tcsetattr(terminal, OptionalActions::Now, before);
    }
    let exit_code = u8::try_from(128 + signal).unwrap_or(u8::MAX);
    if state.json {
        note(&interruption(exit_code).json(&[]));
    } else {
        note("interrupted");
    }
    std::process::exit(exit_code.into());
}

/// For people: machines get one document, at the end.
fn tell(state: &State, what: &str) {
    if !state.json {
        note(what);
    }
}

fn interruption(exit_code: u8) -> ErrorReport {
    ErrorReport {
        kind: "interrupted",
        message: "interrupted by a signal".into(),
        path: None,
        causes: Vec::new(),
        advice: "run the command again: no half-made file has its own name".into(),
        exit_code,
    }
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

/// While this guard lives, an interruption gives the terminal its echo back.
pub(crate) struct NoEcho(());

impl NoEcho {
    /// Before the echo is switched off.
    pub(crate) fn begin() -> Self {
        let terminal = File::open("/dev/tty").ok();
        let saved = terminal.and_then(|tty| tcgetattr(&tty).ok().map(|before| (tty, before)));
        state().terminal = saved;
        Self(())
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        state().terminal = None;
    }
}

/// While this guard lives, the first interruption only asks the work to end, so that it
/// can clean up.
pub(crate) struct Stoppable(());

impl Stoppable {
    pub(crate) fn begin() -> Self {
        state().stoppable += 1;
        Self(())
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        state().stoppable -= 1;
    }
}

/// Becomes true when stoppable work is asked to end.
pub(crate) fn cancel() -> &'static AtomicBool {
    &CANCEL
}

/// Whether stoppable work was asked to end.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed) != 0
}

/// Ends the process as the signal would have, if work was ended for one.
pub(crate) fn exit_if_interrupted() {
    let signal = INTERRUPTED.load(Ordering::Relaxed);
    if signal != 0 {
        end(&state(), signal)
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
