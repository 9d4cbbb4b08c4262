//! The same work on many items, by several threads.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::descriptors;
use crate::error::Result;

/// Works on every item. Returns the results in the order of the items.
///
/// # Errors
/// The first that `work` returns; what is under way is finished, nothing new is begun.
pub(crate) fn each<T: Sync, R: Send + Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let error = OnceLock::new();
    // One place each: a million results of each thread, sorted later, would be there three times.
    let results: Vec<OnceLock<R>> = items.iter().map(|_| OnceLock::new()).collect();
    let one = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((item, place)) = items.get(index).zip(results.get(index)) else { break };
            match work(item) {
                Ok(result) => drop(place.set(result)),
                Err(failed) => {
                    stop.store(true, Ordering::Relaxed);
                    drop(error.set(failed));
                }
            }
        }
    };
    on_threads(thread_count().min(items.len()), one);
    match error.into_inner() {
        Some(error) => Err(error),
        // OK because without an error each item has been worked on.
        None => {
            Ok(results.into_iter().map(|place| place.into_inner().expect("a result")).collect())
        }
    }
}

/// Threads worth having: opening files is all system calls.
pub(crate) fn thread_count() -> usize {
    let worth = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    descriptors::threads(worth)
}

/// Runs `work`, which shares what there is to do, in `count` threads, one of them the caller's.
/// Where the system starts fewer, these do all of it: in the end the caller alone.
pub(crate) fn on_threads<R: Send>(count: usize, work: impl Fn() -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, &work).ok();
        let others: Vec<_> = (1..count).map_while(start).collect();
        let mut results = vec![work()];
        for thread in others {
            let result = thread.join();
            results.push(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_works_along_and_alone_if_need_be() {
        let caller = std::thread::current().id();
        for count in 0..4 {
            let ran = on_threads(count, || std::thread::current().id());
            assert_eq!((ran.len(), ran[0]), (count.max(1), caller));
        }
    }

    #[test]
    fn a_panic_in_another_thread_is_the_callers() {
        let caller = std::thread::current().id();
        let work = || assert_eq!(std::thread::current().id(), caller, "another");
        let caught = std::panic::catch_unwind(|| on_threads(2, work));
        assert!(caught.is_err());
    }
}
