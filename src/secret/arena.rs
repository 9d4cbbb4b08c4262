//! Where keys are kept: slots of equal length in [`Pages`], one run of slabs for each length.
//!
//! A lock is taken where a key is made or dropped, never where one is used. All that is known of
//! the slots is kept elsewhere, since a forked child finds the pages empty; a child has an arena
//! of its own, for another thread of its parent's may have held the lock when it was forked.

// A pointer to what is never freed.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::pages::Pages;
use crate::process::Process;

/// The first slab of a length. All the lengths there are fit a limit of 64 KiB of locked memory,
/// with their first slabs.
const SLAB_BYTES_MIN: usize = 8 << 10;
/// A slab is as long as all those before it, up to this.
const SLAB_BYTES_MAX: usize = 1 << 20;

/// What the system gave to the keys of this process, in bytes.
///
/// Locked memory is bounded by `RLIMIT_MEMLOCK`. Keys beyond it are kept as well as the rest,
/// but may be swapped out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyMemory {
    /// Memory set apart for keys.
    pub bytes: u64,
    /// The part of it that is never swapped out.
    pub locked_bytes: u64,
    /// The part of it that no core dump of the system's holds.
    pub undumped_bytes: u64,
    /// The part of it that is empty in a forked child.
    pub unforked_bytes: u64,
    /// Keys that are outside of it, with the rest of the process's memory, since the system gave
    /// no more.
    pub outside_bytes: u64,
}

impl KeyMemory {
    /// What this process has now.
    #[must_use]
    pub fn now() -> Self {
        let outside_bytes = OUTSIDE_BYTES.load(Ordering::Relaxed) as u64;
        let mut found = Self { outside_bytes, ..Self::default() };
        let Some(arena) = present() else { return found };
        for slab in arena.lock().values().flat_map(|class| class.slabs.values()) {
            let len = slab.pages.len() as u64;
            let part = |has: bool| if has { len } else { 0 };
            found.bytes += len;
            found.locked_bytes += slab.pages.locked() as u64;
            found.undumped_bytes += part(slab.pages.left_out());
            found.unforked_bytes += part(slab.pages.wiped());
        }
        found
    }

    /// Whether no key can be swapped out.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.outside_bytes == 0 && self.locked_bytes == self.bytes
    }

    /// What of it is worth telling whoever runs the process; `None` if all is well.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let Self { bytes, locked_bytes, outside_bytes, .. } = *self;
        (!self.is_locked()).then(|| {
            format!(
                "{} of {} bytes of key memory may be swapped out",
                bytes - locked_bytes + outside_bytes,
                bytes + outside_bytes
            )
        })
    }
}

static ARENA: AtomicPtr<Arena> = AtomicPtr::new(ptr::null_mut());
static OUTSIDE_BYTES: AtomicUsize = AtomicUsize::new(0);

struct Arena {
    process: Process,
    classes: Mutex<Classes>,
}

/// By the length of a slot.
type Classes = BTreeMap<usize, Class>;

#[derive(Default)]
struct Class {
    /// By their addresses.
    slabs: BTreeMap<usize, Slab>,
    /// The addresses of those with a free slot.
    open: BTreeSet<usize>,
    free: usize,
    bytes: usize,
}

struct Slab {
    pages: Pages,
    /// Offsets of the free slots, in bytes.
    free: Vec<usize>,
    slots: usize,
}

impl Slab {
    fn new(bytes: usize, slot: usize) -> Option<Self> {
        let pages = Pages::map(bytes)?;
        let slots = pages.len() / slot;
        // The last is taken first, and the pages are locked from the start on.
        let free = (0..slots).rev().map(|i| i * slot).collect();
        Some(Self { pages, free, slots })
    }
}

/// A slot of `bytes`, zeroed and aligned to any power of two that divides `bytes`; `None` if
/// the system gives none.
pub(super) fn take(bytes: usize) -> Option<NonNull<u8>> {
    #[cfg(all(test, target_os = "linux"))]
    if tests::REFUSED.replace(tests::REFUSED.get() >> 1) & 1 != 0 {
        return None;
    }
    let mut classes = current()?.lock();
    classes.entry(bytes).or_default().take(bytes)
}

/// Gives a slot back, which the caller wiped. A forked child's parent's are not taken.
pub(super) fn give_back(slot: NonNull<u8>, bytes: usize) {
    let Some(arena) = present() else { return };
    let emptied = arena.lock().get_mut(&bytes).and_then(|class| class.give_back(slot));
    // Without the lock.
    drop(emptied);
}

/// Counts what the arena had no room for.
pub(super) fn count_outside(change: isize) {
    OUTSIDE_BYTES.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
}

impl Class {
    fn take(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let at = match self.open.first() {
            Some(at) => *at,
            None => self.grow(bytes)?,
        };
        let slab = self.slabs.get_mut(&at)?;
        let offset = slab.free.pop()?;
        if slab.free.is_empty() {
            self.open.remove(&at);
        }
        self.free -= 1;
        NonNull::new(slab.pages.start().as_ptr().wrapping_add(offset))
    }

    #[cold]
    fn grow(&mut self, slot: usize) -> Option<usize> {
        let bytes = self.bytes.clamp(SLAB_BYTES_MIN, SLAB_BYTES_MAX);
        let slab = Slab::new(bytes.max(slot), slot)?;
        let at = slab.pages.start().addr().get();
        self.bytes += slab.pages.len();
        self.free += slab.slots;
        self.open.insert(at);
        self.slabs.insert(at, slab);
        Some(at)
    }

    /// A slab that is no longer needed is the caller's to drop.
    fn give_back(&mut self, slot: NonNull<u8>) -> Option<Slab> {
        let address = slot.addr().get();
        let (at, slab) = self.slabs.range_mut(..=address).next_back()?;
        let (at, offset) = (*at, address - *at);
        if offset >= slab.pages.len() {
            return None;
        }
        slab.free.push(offset);
        self.free += 1;
        self.open.insert(at);
        // As many free slots are to be left as would go, or the next key would bring them back.
        if slab.free.len() < slab.slots {
            return None;
        }
        if self.free < 2 * slab.slots {
            // There may be room again.
            slab.pages.lock();
            return None;
        }
        self.open.remove(&at);
        let slab = self.slabs.remove(&at)?;
        self.free -= slab.slots;
        self.bytes -= slab.pages.len();
        Some(slab)
    }
}

impl Arena {
    fn lock(&self) -> MutexGuard<'_, Classes> {
        // No panic can leave it half changed.
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This process's arena, if it has one.
fn present() -> Option<&'static Arena> {
    let arena = ARENA.load(Ordering::Acquire);
    // SAFETY: those that were stored there are never freed.
    unsafe { arena.as_ref() }.filter(|arena| arena.process.has_same_memory())
}

/// This process's arena. `None` where nothing tells which process this is.
fn current() -> Option<&'static Arena> {
    present().or_else(|| {
        let (known, process) = (ARENA.load(Ordering::Acquire), Process::current());
        if !process.has_same_memory() {
            return None;
        }
        let new = Box::into_raw(Box::new(Arena { process, classes: Mutex::default() }));
        // Whoever comes second leaves a few bytes behind, once in a process.
        let _ = ARENA.compare_exchange(known, new, Ordering::AcqRel, Ordering::Acquire);
        present()
    })
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests;
