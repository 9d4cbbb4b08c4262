//! The locks and swaps that the protocols of keys and files stand on. In the crate's own tests a
//! model may go on with another thread before each use of one, see [`in_many_orders`]; otherwise
//! they are what they are called.

#[cfg(not(test))]
pub(crate) use arc_swap::ArcSwapAny;
#[cfg(not(test))]
pub(crate) use std::sync::atomic::AtomicBool;
#[cfg(not(test))]
pub(crate) use std::sync::{Mutex, RwLock};

#[cfg(test)]
pub(crate) use looked_between::*;

use std::sync::{TryLockError, TryLockResult};

/// The lock that was tried, if nobody had it: also after a panic of somebody who did, as in what a
/// caller gave to be called.
pub(crate) fn unless_held<T>(tried: TryLockResult<T>) -> Option<T> {
    match tried {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod looked_between {
    use std::cell::Cell;
    use std::sync::atomic::Ordering;
    use std::sync::{LockResult, MutexGuard, RwLockReadGuard, RwLockWriteGuard, TryLockError};
    use std::sync::{TryLockResult, atomic};

    use arc_swap::{Guard, RefCnt};

    thread_local! {
        static IN_MODEL: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `model` many times, each time with another order of its threads, which
    /// [`shuttle::thread::spawn`] starts.
    pub(crate) fn in_many_orders(orders: usize, model: impl Fn() + Send + Sync + 'static) {
        let mut config = shuttle::Config::new();
        // Scrubbing takes 16 KiB, and code that is not optimised more than other code.
        config.stack_size = 1 << 20;
        let scheduler = shuttle::scheduler::RandomScheduler::new(orders);
        shuttle::Runner::new(scheduler, config).run(move || {
            IN_MODEL.set(true);
            model();
        });
        IN_MODEL.set(false);
    }

    fn point() {
        if IN_MODEL.get() {
            shuttle::thread::yield_now();
        }
    }

    /// All threads of a model are one thread of the system's, which may not wait.
    fn wait<T>(mut lock: impl FnMut() -> TryLockResult<T>) -> LockResult<T> {
        loop {
            point();
            match lock() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Err(poisoned),
                Err(TryLockError::WouldBlock) => {}
            }
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            if IN_MODEL.get() { wait(|| self.0.try_lock()) } else { self.0.lock() }
        }

        pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
            point();
            self.0.try_lock()
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
            if IN_MODEL.get() { wait(|| self.0.try_read()) } else { self.0.read() }
        }

        pub(crate) fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
            if IN_MODEL.get() { wait(|| self.0.try_write()) } else { self.0.write() }
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct AtomicBool(atomic::AtomicBool);

    impl AtomicBool {
        pub(crate) fn load(&self, order: Ordering) -> bool {
            point();
            self.0.load(order)
        }

        pub(crate) fn store(&self, value: bool, order: Ordering) {
            point();
            self.0.store(value, order);
        }
    }

    pub(crate) struct ArcSwapAny<T: RefCnt>(arc_swap::ArcSwapAny<T>);

    impl<T: RefCnt> ArcSwapAny<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(arc_swap::ArcSwapAny::new(value))
        }

        pub(crate) fn load(&self) -> Guard<T> {
            point();
            self.0.load()
        }

        pub(crate) fn load_full(&self) -> T {
            point();
            self.0.load_full()
        }

        pub(crate) fn store(&self, value: T) {
            point();
            self.0.store(value);
        }
    }
}
