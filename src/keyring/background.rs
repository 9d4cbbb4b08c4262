//! The threads of an open keyring. One watches over access to the customer's key, the other
//! follows the storage and rotates data keys when they are due, so that no file creation
//! has to. The watch waits for neither the storage nor a lock that is held meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Inner;
use super::alarm::{Alarm, Woken};
use crate::error::{Error, Result};
use crate::process::Process;

/// Wait before the next try after a rotation that failed, or that may not be now.
const RETRY: Duration = Duration::from_secs(30);
/// Longest sleep: sleeping does not count the time that the machine is suspended, the
/// lease of the keys does.
const LONGEST: Duration = Duration::from_secs(10);

/// The running threads; dropping it ends them and waits for them, so that the store's
/// lock is free afterwards.
pub(super) struct Background {
    alarms: [Arc<Alarm>; 2],
    threads: Vec<JoinHandle<()>>,
    process: Process,
}

impl Background {
    pub(super) fn start(inner: &Arc<Inner>) -> Result<Self> {
        let alarms = [inner.watch.watcher.clone(), inner.watch.alarm.clone()];
        let process = Process::current();
        let mut started = Self { alarms: alarms.clone(), threads: Vec::new(), process };
        let [watcher, alarm] = alarms;
        let weak = Arc::downgrade(inner);
        started.spawn("atrest-watch", move || watch(&watcher, &weak))?;
        let weak = Arc::downgrade(inner);
        started.spawn("atrest-keyring", move || follow(&alarm, &weak))?;
        Ok(started)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().name(name.into()).spawn(run);
        let thread = thread.map_err(|e| Error::io("the keyring's threads cannot be started", e))?;
        self.threads.push(thread);
        Ok(())
    }
}

/// A panic must not end the watch over the keys. It was reported when it happened.
fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}

fn watch(alarm: &Alarm, inner: &Weak<Inner>) {
    let mut sleep = Duration::ZERO;
    loop {
        let woken = alarm.wait(sleep.min(LONGEST));
        let Some(inner) = inner.upgrade().filter(|_| woken != Woken::Stopped) else { return };
        guarded(|| inner.watch_access(&|| alarm.is_stopping()));
        if inner.watch.is_untold() {
            // Hooks are the engine's: they may wait for what the watch must not wait for.
            // They keep no keyring open, so nobody waits for them. Without a thread the
            // other one tells.
            let watch = inner.watch.clone();
            let tell = move || watch.deliver();
            drop(thread::Builder::new().name("atrest-hooks".into()).spawn(tell));
        }
        sleep = guarded(|| inner.until_watch()).flatten().unwrap_or(LONGEST);
    }
}

fn follow(alarm: &Alarm, inner: &Weak<Inner>) {
    let (mut sleep, mut maintained, mut until_due) = (Duration::ZERO, None, Duration::ZERO);
    loop {
        let woken = alarm.wait(sleep.min(LONGEST));
        let Some(inner) = inner.upgrade().filter(|_| woken != Woken::Stopped) else { return };
        guarded(|| inner.follow_if_due(&|| alarm.is_stopping()));
        let now = Instant::now();
        let due = maintained.is_none_or(|at: Instant| now.duration_since(at) >= until_due);
        if !inner.writable {
            until_due = LONGEST;
        } else if (due || woken == Woken::Rung) && !alarm.is_stopping() {
            let until = guarded(|| inner.maintain().map(|()| inner.until_due()));
            until_due = match until {
                Some(Ok(until)) if !until.is_zero() => until,
                _ => RETRY,
            };
            maintained = Some(now);
        }
        guarded(|| inner.watch.deliver());
        sleep = guarded(|| inner.until_follow()).unwrap_or(RETRY).min(until_due);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if !self.process.has_same_memory() {
            // A forked child has no such threads: it would wait for ever.
            self.threads.drain(..).for_each(std::mem::forget);
            return;
        }
        self.alarms.iter().for_each(|alarm| alarm.stop());
        for thread in self.threads.drain(..) {
            if thread.thread().id() != thread::current().id() {
                // A panic in the thread was reported when it happened.
                drop(thread.join());
            }
        }
    }
}
