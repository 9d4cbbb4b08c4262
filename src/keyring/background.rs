//! The thread that rotates data keys when they are due, so that no file creation has to.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Inner;

/// Wait after a failed rotation before the next try.
const RETRY: Duration = Duration::from_secs(30);
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

impl Alarm {
    /// Wakes the thread: something may be due.
    pub(super) fn ring(&self) {
        self.state().ringing = true;
        self.condvar.notify_all();
    }

    fn stop(&self) {
        self.state().stopping = true;
        self.condvar.notify_all();
    }

    /// Sleeps until rung, stopped or timed out; false once stopped.
    fn wait(&self, at_most: Duration) -> bool {
        let waiting = |state: &mut AlarmState| !state.ringing && !state.stopping;
        let (mut state, _) = self
            .condvar
            .wait_timeout_while(self.state(), at_most.max(SHORTEST), waiting)
            .unwrap_or_else(PoisonError::into_inner);
        state.ringing = false;
        !state.stopping
    }

    fn state(&self) -> std::sync::MutexGuard<'_, AlarmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running thread; dropping it ends the thread and waits for it, so that the store's
/// lock is free afterwards.
pub(super) struct Background {
    alarm: Arc<Alarm>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(super) fn start(inner: &Arc<Inner>) -> Self {
        let alarm = inner.alarm.clone();
        let weak = Arc::downgrade(inner);
        let waiting = alarm.clone();
        let thread = thread::Builder::new()
            .name("atrest-keyring".into())
            .spawn(move || run(&waiting, &weak))
            // Without a thread the caller's `maintain` still rotates.
            .ok();
        Self { alarm, thread }
    }
}

fn run(alarm: &Alarm, inner: &Weak<Inner>) {
    let mut sleep = Duration::ZERO;
    while alarm.wait(sleep) {
        let Some(inner) = inner.upgrade() else { return };
        sleep = match inner.maintain() {
            Ok(()) => inner.until_due(),
            Err(_) => RETRY,
        };
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.alarm.stop();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic in the thread was reported when it happened.
            drop(thread.join());
        }
    }
}
