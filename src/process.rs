//! Which process this is, without a system call each time: neither a forked child nor a copy
//! of the whole machine must go on with a keystream, and every short append asks.

// Besides the kernels and the registers the only unsafe code of the core: memory that a
// fork empties has no safe interface.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

#[cfg(target_os = "linux")]
mod machine;
mod made;

pub(crate) use made::Made;

/// The process that something was made in, by a random number that a fork replaces: a
/// process id does not tell a child in a new PID namespace from its parent. And the run of the
/// machine, where that is known: a snapshot that is started twice has one process twice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    token: u64,
    machine: u64,
}

impl Process {
    /// This process, also in a child that was forked since the last call.
    #[inline]
    pub(crate) fn current() -> Self {
        Self { token: token(), machine: machine() }
    }

    /// Whether this is still the same process, in the same run of the machine.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        self.has_same_memory() && self.machine == machine()
    }

    /// Whether its memory, its threads and its locks are still here: a copy of the machine has
    /// them too, a forked child has not.
    #[inline]
    pub(crate) fn has_same_memory(self) -> bool {
        self.token != 0 && self.token == token()
    }

    /// Refuses in another process.
    ///
    /// # Errors
    /// [`Poisoned`](ErrorKind::Poisoned), saying `what`.
    #[inline]
    pub(crate) fn check(self, what: &str) -> Result<()> {
        if self.is_current() { Ok(()) } else { Err(Error::new(ErrorKind::Poisoned, what)) }
    }
}

/// What names this run of the machine; 0 where nothing does.
#[inline]
fn machine() -> u64 {
    #[cfg(target_os = "linux")]
    let run = machine::generation();
    #[cfg(not(target_os = "linux"))]
    let run = 0;
    #[cfg(test)]
    let run = run.wrapping_add(tests::COPIES.get());
    run
}

/// What names this process; 0, which names none, where the system has no randomness.
#[inline]
fn token() -> u64 {
    #[cfg(target_os = "linux")]
    {
        static PAGE: Made<Option<&AtomicU64>> = Made::new();
        if let Some(page) = *PAGE.get_or_make(emptied_by_fork) {
            // Only the number itself is read, so nothing has to be ordered.
            return match page.load(Ordering::Relaxed) {
                0 => draw(page),
                token => token,
            };
        }
    }
    // The last resort, where no memory is emptied by a fork: safe Rust hears of a fork in no
    // other way (`pthread_atfork`). It does not tell a child in a new PID namespace, nor one
    // that got its dead parent's id.
    u64::from(std::process::id())
}

#[cfg(target_os = "linux")]
#[cold]
fn draw(page: &AtomicU64) -> u64 {
    let mut bytes = [0; 8];
    if crate::random::fill(&mut bytes).is_err() {
        return 0;
    }
    let token = u64::from_ne_bytes(bytes).max(1);
    match page.compare_exchange(0, token, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => token,
        // Another thread was first.
        Err(token) => token,
    }
}

/// A number in memory that the system sets to 0 in a forked child (`MADV_WIPEONFORK`,
/// madvise(2), Linux 4.14), whatever call forked it. `None` where there is no such memory.
#[cfg(target_os = "linux")]
fn emptied_by_fork() -> Option<&'static AtomicU64> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
    let len = rustix::param::page_size();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a mapping of its own, at an address that the system chooses.
    let page =
        unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: the page is ours, and nothing is in it yet. One that is refused stays mapped,
    // and one of a thread that comes second: once in a process.
    unsafe { madvise(page, len, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: zeroed, aligned, never unmapped, and reached through this reference alone.
    Some(unsafe { &*page.cast::<AtomicU64>() })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// How often the machine was copied, to the eyes of this thread.
        pub(super) static COPIES: Cell<u64> = const { Cell::new(0) };
    }

    /// What is copied is one again when this is dropped: the next test may run in this thread.
    pub(crate) struct MachineCopies;

    impl MachineCopies {
        /// This thread goes on in a copy of the machine.
        pub(crate) fn make() {
            COPIES.set(COPIES.get() + 1);
        }
    }

    impl Drop for MachineCopies {
        fn drop(&mut self) {
            COPIES.set(0);
        }
    }

    unsafe extern "C" {
        fn fork() -> i32;
        fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
        fn _exit(status: i32) -> !;
    }

    /// Runs `check` in a forked child and returns what it says there. It may not panic,
    /// nor wait for another thread.
    pub(crate) fn in_forked_child(check: impl FnOnce() -> bool) -> bool {
        beside_forked_child(check, || ())
    }

    /// The same, while the parent does something too.
    pub(crate) fn beside_forked_child(
        check: impl FnOnce() -> bool,
        meanwhile: impl FnOnce(),
    ) -> bool {
        // SAFETY: the child has this thread alone, and leaves without unwinding or
        // running anything of the parent's.
        unsafe {
            let child = fork();
            assert!(child >= 0, "no fork");
            if child == 0 {
                _exit(if check() { 0 } else { 1 });
            }
            meanwhile();
            let mut status = 0;
            assert_eq!(waitpid(child, &mut status, 0), child);
            status == 0
        }
    }

    #[test]
    fn a_child_and_its_child_are_processes_of_their_own() {
        let parent = Process::current();
        assert!(parent.is_current());
        assert!(in_forked_child(|| {
            let child = Process::current();
            child.is_current()
                && !parent.is_current()
                && parent.check("refused").is_err()
                && in_forked_child(|| !child.is_current() && !parent.is_current())
                && child.is_current()
        }));
        assert!(parent.is_current());
    }

    #[test]
    fn the_same_process_in_another_copy_of_its_machine_is_another() {
        let now = Process::current();
        assert!(now.is_current());
        let before = Process { machine: now.machine.wrapping_sub(1), ..now };
        assert!(!before.is_current() && before.check("refused").is_err());
        assert!(before.has_same_memory());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_with_its_parents_id_is_another_process() {
        unsafe extern "C" {
            fn unshare(flags: i32) -> i32;
        }
        const CLONE_NEWUSER: i32 = 0x1000_0000;
        const CLONE_NEWPID: i32 = 0x2000_0000;
        // SAFETY: no memory is passed.
        let namespace = |flags| unsafe { unshare(flags) } == 0;
        let both = CLONE_NEWUSER | CLONE_NEWPID;
        if !in_forked_child(|| namespace(both)) {
            return atrest_testkit::left_out("there are no PID namespaces here");
        }
        assert!(in_forked_child(|| {
            namespace(both)
                && in_forked_child(|| {
                    let parent = Process::current();
                    std::process::id() == 1
                        && namespace(CLONE_NEWPID)
                        && in_forked_child(|| std::process::id() == 1 && !parent.is_current())
                })
        }));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_fork_empties_memory_on_this_kernel() {
        assert!(emptied_by_fork().is_some(), "a process would be told by its id alone");
    }
}
