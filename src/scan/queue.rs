//! Work for the threads of a scan, until all of it is done.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A queue that ends when it is empty and nobody works on what could add to it.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    condvar: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    /// Items taken whose work is not done.
    working: usize,
}

impl<T> Queue<T> {
    pub(super) fn new(items: impl IntoIterator<Item = T>) -> Self {
        let state = State { items: items.into_iter().collect(), working: 0 };
        Self { state: Mutex::new(state), condvar: Condvar::new() }
    }

    /// Adds an item, unless `len_max` wait already: then it comes back, for the caller to
    /// do at once.
    pub(super) fn push(&self, item: T, len_max: usize) -> Option<T> {
        let mut state = self.state();
        if state.items.len() >= len_max {
            return Some(item);
        }
        state.items.push_back(item);
        drop(state);
        self.condvar.notify_one();
        None
    }

    /// Gives every item to `work` until none is left and none is under way.
    pub(super) fn work(&self, mut work: impl FnMut(T)) {
        let mut state = self.state();
        loop {
            if let Some(item) = state.items.pop_front() {
                state.working += 1;
                drop(state);
                let done = Done(self);
                work(item);
                drop(done);
                state = self.state();
            } else if state.working == 0 {
                return;
            } else {
                state = self.condvar.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts the item as done even when the work panics, so that the others end.
struct Done<'a, T>(&'a Queue<T>);

impl<T> Drop for Done<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.working -= 1;
        if state.working == 0 && state.items.is_empty() {
            self.0.condvar.notify_all();
        }
    }
}
