//! Memory for keys, as far as the system gives it: locked, so that it is never swapped out; left
//! out of core dumps; empty in a forked child; between two pages that nobody may touch.

// Mapping memory, and what is asked of it, has no safe interface.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mlock, mmap_anonymous, mprotect, munmap};

/// A mapping of whole pages, zeroed at first.
pub(super) struct Pages {
    at: NonNull<u8>,
    len: usize,
    /// Bytes from the start on that are locked.
    locked: usize,
    /// Whether a core dump leaves them out.
    left_out: bool,
    /// Whether a forked child finds zeros there.
    wiped: bool,
}

// SAFETY: what is there is used through the pointer alone, by whoever was given a part.
unsafe impl Send for Pages {}

impl Pages {
    /// At least `len` bytes; `None` if the system gives none.
    pub(super) fn map(len: usize) -> Option<Self> {
        let page = rustix::param::page_size();
        let len = len.next_multiple_of(page);
        let whole = len + 2 * page;
        // SAFETY: a mapping of its own, at an address that the system chooses.
        let guard = unsafe {
            mmap_anonymous(ptr::null_mut(), whole, ProtFlags::empty(), MapFlags::PRIVATE)
        };
        let at = NonNull::new(guard.ok()?.cast::<u8>().wrapping_add(page))?;
        let mut pages = Self { at, len, locked: 0, left_out: false, wiped: false };
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: the middle of the mapping.
        unsafe { mprotect(at.as_ptr().cast(), len, access) }.ok()?;
        #[cfg(target_os = "linux")]
        {
            use rustix::mm::{Advice, madvise};
            // SAFETY: the pages are ours, and nothing is in them yet.
            let advise = |advice| unsafe { madvise(at.as_ptr().cast(), len, advice) };
            pages.left_out = advise(Advice::LinuxDontDump).is_ok();
            pages.wiped = advise(Advice::LinuxWipeOnFork).is_ok();
        }
        pages.lock();
        Some(pages)
    }

    /// As much of what is not locked as `RLIMIT_MEMLOCK` leaves.
    pub(super) fn lock(&mut self) {
        let page = rustix::param::page_size();
        let mut step = self.len - self.locked;
        while step >= page {
            let rest = self.at.as_ptr().wrapping_add(self.locked);
            let fits = step <= self.len - self.locked;
            // SAFETY: within the pages.
            if fits && unsafe { mlock(rest.cast(), step) }.is_ok() {
                self.locked += step;
            } else {
                step = (step / 2).next_multiple_of(page).min(step - page);
            }
        }
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.at
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn locked(&self) -> usize {
        self.locked
    }

    pub(super) fn left_out(&self) -> bool {
        self.left_out
    }

    pub(super) fn wiped(&self) -> bool {
        self.wiped
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let page = rustix::param::page_size();
        let guard = self.at.as_ptr().wrapping_sub(page);
        // SAFETY: the whole mapping, of which nobody has a part any more. If it fails, the
        // address space is all that is lost.
        let _ = unsafe { munmap(guard.cast(), self.len + 2 * page) };
    }
}
