//! The thread that checks access to the customer's key and rotates data keys when they
//! are due, so that no file creation has to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Inner;
use super::alarm::{Alarm, Woken};
use crate::error::{Error, Result};
use crate::process::Process;

/// Wait after a failed rotation before the next try.
const RETRY: Duration = Duration::from_secs(30);
/// Longest sleep: sleeping does not count the time that the machine is suspended, the
/// lease of the keys does.
const LONGEST: Duration = Duration::from_secs(10);

/// The running thread; dropping it ends the thread and waits for it, so that the store's
/// lock is free afterwards.
pub(super) struct Background {
    alarm: Arc<Alarm>,
    thread: Option<JoinHandle<()>>,
    process: Process,
}

impl Background {
    pub(super) fn start(inner: &Arc<Inner>) -> Result<Self> {
        let alarm = inner.watch.alarm.clone();
        let weak = Arc::downgrade(inner);
        let waiting = alarm.clone();
        let thread = thread::Builder::new()
            .name("atrest-keyring".into())
            .spawn(move || run(&waiting, &weak))
            .map_err(|source| Error::io("the keyring's thread cannot be started", source))?;
        Ok(Self { alarm, thread: Some(thread), process: Process::current() })
    }
}

fn run(alarm: &Alarm, inner: &Weak<Inner>) {
    let (mut sleep, mut maintained, mut until_due) = (Duration::ZERO, None, Duration::ZERO);
    loop {
        let woken = alarm.wait(sleep.min(LONGEST));
        let Some(inner) = inner.upgrade().filter(|_| woken != Woken::Stopped) else { return };
        // A panic must not end the watch over the keys. It was reported when it happened.
        let watched = AssertUnwindSafe(|| inner.watch_access(&|| alarm.is_stopping()));
        drop(catch_unwind(watched));
        let now = Instant::now();
        let due = maintained.is_none_or(|at: Instant| now.duration_since(at) >= until_due);
        if inner.writable && (due || woken == Woken::Rung) && !alarm.is_stopping() {
            until_due = match catch_unwind(AssertUnwindSafe(|| inner.maintain())) {
                Ok(Ok(())) => inner.until_due(),
                _ => RETRY,
            };
            maintained = Some(now);
        }
        sleep = inner.until_watch().min(until_due);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // A forked child has no such thread: it would wait for ever.
            std::mem::forget(self.thread.take());
            return;
        }
        self.alarm.stop();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic in the thread was reported when it happened.
            drop(thread.join());
        }
    }
}
