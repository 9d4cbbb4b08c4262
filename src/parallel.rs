//! The same work on many items, by several threads.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::Result;
use crate::scan::thread_count;

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
    std::thread::scope(|scope| {
        let count = thread_count().min(items.len());
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    match error.into_inner() {
        Some(error) => Err(error),
        // OK because without an error each item has been worked on.
        None => {
            Ok(results.into_iter().map(|place| place.into_inner().expect("a result")).collect())
        }
    }
}
