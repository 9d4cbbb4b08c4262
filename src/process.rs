//! Which process this is, without a system call each time: a forked child must not go on
//! with its parent's keystream, and every short append asks.

// Besides the kernels and the registers the only unsafe code of the core: memory that a
// fork empties has no safe interface.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
use std::sync::OnceLock;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicU32, Ordering};

/// The id of this process, also in a child that was forked since the last call.
#[inline]
pub(crate) fn id() -> u32 {
    #[cfg(target_os = "linux")]
    {
        static REMEMBERED: OnceLock<Option<&AtomicU32>> = OnceLock::new();
        if let Some(remembered) = *REMEMBERED.get_or_init(emptied_by_fork) {
            // Only the id itself is read, so nothing has to be ordered.
            match remembered.load(Ordering::Relaxed) {
                0 => remembered.store(std::process::id(), Ordering::Relaxed),
                id => return id,
            }
        }
    }
    std::process::id()
}

/// A number in memory that the system sets to 0 in a forked child (`MADV_WIPEONFORK`,
/// madvise(2), Linux 4.14), whatever call forked it. `None` where there is no such memory.
#[cfg(target_os = "linux")]
fn emptied_by_fork() -> Option<&'static AtomicU32> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
    let len = rustix::param::page_size();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a mapping of its own, at an address that the system chooses.
    let page =
        unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: the page is ours, and nothing is in it yet. One that is refused stays mapped:
    // this runs once.
    unsafe { madvise(page, len, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: zeroed, aligned, never unmapped, and reached through this reference alone.
    Some(unsafe { &*page.cast::<AtomicU32>() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    unsafe extern "C" {
        fn fork() -> i32;
        fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
        fn _exit(status: i32) -> !;
    }

    /// Runs `check` in a forked child and returns what it says there. It may not panic,
    /// nor wait for another thread.
    pub(crate) fn in_forked_child(check: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child has this thread alone, and leaves without unwinding or
        // running anything of the parent's.
        unsafe {
            let child = fork();
            assert!(child >= 0, "no fork");
            if child == 0 {
                _exit(if check() { 0 } else { 1 });
            }
            let mut status = 0;
            assert_eq!(waitpid(child, &mut status, 0), child);
            status == 0
        }
    }

    #[test]
    fn a_child_and_its_child_have_ids_of_their_own() {
        let parent = id();
        assert_eq!(parent, std::process::id());
        assert!(in_forked_child(|| {
            let child = id();
            child != parent
                && child == std::process::id()
                && child == id()
                && in_forked_child(|| id() != child && id() == std::process::id())
        }));
        assert_eq!(id(), parent);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_id_is_remembered_on_this_kernel() {
        assert!(emptied_by_fork().is_some(), "every call would be a system call");
    }
}
