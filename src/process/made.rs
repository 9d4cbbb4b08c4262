//! What a process makes once, without a lock: a child that is forked while another thread is at
//! it has no such thread, and would wait for it for ever.

// A pointer to what is never freed.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value for a `static`, made by whoever asks first.
pub(crate) struct Made<T: 'static>(AtomicPtr<T>);

impl<T: Send + Sync> Made<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value. Of threads that ask at once each makes one, and the first is kept.
    #[inline]
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> T) -> &'static T {
        // SAFETY: what is stored there is never changed nor freed.
        match unsafe { self.0.load(Ordering::Acquire).as_ref() } {
            Some(made) => made,
            None => self.keep(Box::new(make())),
        }
    }

    #[cold]
    fn keep(&self, new: Box<T>) -> &'static T {
        let (none, new) = (ptr::null_mut(), Box::into_raw(new));
        match self.0.compare_exchange(none, new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: as above.
            Ok(_) => unsafe { &*new },
            Err(first) => {
                // SAFETY: it was made here, and nobody else has it.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: as above.
                unsafe { &*first }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::sync::{Arc, Barrier};
    use std::time::Duration;

    use super::*;
    use crate::process::tests::in_forked_child;

    unsafe extern "C" {
        fn alarm(seconds: u32) -> u32;
    }

    #[test]
    fn all_have_the_first_one_and_the_others_are_dropped() {
        const THREADS: usize = 8;
        static MADE: Made<(Arc<()>, usize)> = Made::new();
        let (token, makers) = (Arc::new(()), AtomicUsize::new(0));
        let barrier = Barrier::new(THREADS);
        let made = std::thread::scope(|scope| {
            let ask = || {
                barrier.wait();
                let number = || makers.fetch_add(1, Ordering::Relaxed);
                &raw const *MADE.get_or_make(|| (token.clone(), number())) as usize
            };
            let asked: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
            asked.into_iter().map(|asked| asked.join().unwrap_or(0)).collect::<Vec<_>>()
        });
        assert!(made[0] != 0 && made.iter().all(|other| *other == made[0]));
        assert_eq!(Arc::strong_count(&token), 2);
    }

    #[test]
    fn a_forked_child_does_not_wait_for_a_thread_it_has_not() {
        static MADE: Made<u32> = Made::new();
        let (begun, forked) = (AtomicBool::new(false), AtomicBool::new(false));
        let wait = |until: &AtomicBool| {
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                MADE.get_or_make(|| {
                    begun.store(true, Ordering::Relaxed);
                    wait(&forked);
                    1
                })
            });
            wait(&begun);
            let in_time = in_forked_child(|| {
                // SAFETY: no memory is passed. It ends a child that waits.
                unsafe { alarm(10) };
                *MADE.get_or_make(|| 2) == 2
            });
            forked.store(true, Ordering::Relaxed);
            assert!(in_time);
        });
        assert_eq!(*MADE.get_or_make(|| 3), 1);
    }

    /// The statics of this directory that make their values under a lock.
    fn waiting(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).expect("the sources") {
            let path = entry.expect("an entry").path();
            // What tests and fuzz targets alone have may wait.
            let theirs = ["tests.rs", "fuzz.rs", "oracle.rs"];
            if path.is_dir() {
                waiting(&path, found);
            } else if !theirs.iter().any(|name| path.ends_with(name)) {
                let text = std::fs::read_to_string(&path).expect("a source");
                let code = text.split("mod tests {").next().unwrap_or_default();
                let code = code.replace("\nstatic ", "\n static ");
                let statics =
                    code.split(" static ").skip(1).filter_map(|it| it.split(" = ").next());
                let locks = |it: &&str| {
                    ["OnceLock<", "LazyLock<", "Once"].iter().any(|lock| it.contains(lock))
                };
                found.extend(statics.filter(locks).map(|it| format!("{}: {it}", path.display())));
            }
        }
    }

    #[test]
    fn no_static_waits_for_the_thread_that_makes_it() {
        let (root, mut found) = (Path::new(env!("CARGO_MANIFEST_DIR")), Vec::new());
        waiting(&root.join("src"), &mut found);
        assert_eq!(found, [""; 0]);
    }
}
