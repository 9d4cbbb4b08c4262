//! The watch over access to the customer's key: what it knows, and who is asking.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::super::alarm::Alarm;
use super::monitor::Monitor;
use crate::sync::Mutex;

pub(in super::super) struct Watch {
    monitor: Mutex<Monitor>,
    /// Serialises checks.
    pub(super) asking: Mutex<()>,
    /// Wakes the thread that follows the storage and rotates.
    pub(in super::super) alarm: Arc<Alarm>,
    /// Wakes the thread that watches over the keys.
    pub(in super::super) watcher: Arc<Alarm>,
}

impl Watch {
    pub(in super::super) fn new(monitor: Monitor) -> Self {
        Self {
            monitor: Mutex::new(monitor),
            asking: Mutex::new(()),
            alarm: Arc::default(),
            watcher: Arc::default(),
        }
    }

    pub(in super::super) fn monitor(&self) -> MutexGuard<'_, Monitor> {
        // Nothing that can panic runs while it is held.
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is something to tell, and nobody who does.
    pub(in super::super) fn is_untold(&self) -> bool {
        let monitor = self.monitor();
        !monitor.telling && monitor.giving_back == 0 && !monitor.untold.is_empty()
    }

    /// Tells the hooks what they do not know yet. Every entry point calls it at its end,
    /// when it holds no lock, since hooks call the keyring. If another thread, or a hook
    /// further up in this one, is telling already, it goes on with these.
    pub(in super::super) fn deliver(&self) {
        if std::mem::replace(&mut self.monitor().telling, true) {
            return;
        }
        loop {
            let (transition, hooks) = {
                let mut monitor = self.monitor();
                let Some(transition) = monitor.next_untold() else {
                    monitor.telling = false;
                    return;
                };
                (transition, monitor.hooks.clone())
            };
            for hook in hooks {
                // A hook's panic must not end the thread that watches access. The panic
                // itself was reported when it happened.
                drop(catch_unwind(AssertUnwindSafe(|| hook(&transition))));
            }
        }
    }
}
