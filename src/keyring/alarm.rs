//! What wakes the keyring's thread before its time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Shortest sleep, so that a wrong clock cannot make the thread spin.
const SHORTEST: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(super) struct Alarm {
    state: Mutex<AlarmState>,
    condvar: Condvar,
}

#[derive(Default)]
struct AlarmState {
    ringing: bool,
    stopping: bool,
}

/// Why a sleep ended.
#[derive(PartialEq, Eq)]
pub(super) enum Woken {
    Stopped,
    Rung,
    Late,
}

impl Alarm {
    /// Wakes the thread: something may be due.
    pub(super) fn ring(&self) {
        self.state().ringing = true;
        self.condvar.notify_all();
    }

    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.condvar.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Sleeps until rung, stopped or timed out.
    pub(super) fn wait(&self, at_most: Duration) -> Woken {
        let waiting = |state: &mut AlarmState| !state.ringing && !state.stopping;
        let (mut state, _) = self
            .condvar
            .wait_timeout_while(self.state(), at_most.max(SHORTEST), waiting)
            .unwrap_or_else(PoisonError::into_inner);
        match (state.stopping, std::mem::take(&mut state.ringing)) {
            (true, _) => Woken::Stopped,
            (false, true) => Woken::Rung,
            (false, false) => Woken::Late,
        }
    }

    fn state(&self) -> MutexGuard<'_, AlarmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
