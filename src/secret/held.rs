//! A value in the arena, and what a forked child finds in its place.

// A counted pointer to memory of our own, and what `arc-swap` asks of one.
#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use arc_swap::RefCnt;
use zeroize::Zeroize;

use super::arena;
use crate::error::{Error, ErrorKind, Result};

/// A reference to a secret, counted as an `Arc` is, that is wiped with the last one.
///
/// In a forked child the memory is empty, and [`get`](Self::get) says so: nothing is ever
/// encrypted or decrypted with the zeros.
pub(crate) struct Secret<T>(NonNull<Cell<T>>);

/// All zeros is a cell that a fork emptied, whose value **MUST NOT** be looked at.
#[repr(C)]
pub(crate) struct Cell<T> {
    place: AtomicU64,
    count: AtomicUsize,
    value: T,
}

const IN_ARENA: u64 = 1;
const ON_HEAP: u64 = 2;

// SAFETY: as for `Arc`.
unsafe impl<T: Send + Sync> Send for Secret<T> {}
// SAFETY: as for `Arc`.
unsafe impl<T: Send + Sync> Sync for Secret<T> {}

impl<T> Secret<T> {
    /// Moves `value` there. Its caller scrubs what the move leaves behind.
    pub(crate) fn new(value: T) -> Self {
        let layout = Layout::new::<Cell<T>>();
        let (at, place) = match arena::take(layout.size()) {
            Some(at) => (at.cast(), IN_ARENA),
            None => (allocate(layout).cast(), ON_HEAP),
        };
        let (place, count) = (AtomicU64::new(place), AtomicUsize::new(1));
        // SAFETY: both places are ours, long enough, and aligned: a type's length is a multiple
        // of its alignment.
        unsafe { NonNull::write(at, Cell { place, count, value }) };
        Self(at)
    }

    /// # Errors
    /// [`Poisoned`](ErrorKind::Poisoned) in a child that was forked since it was made.
    #[inline(always)]
    pub(crate) fn get(&self) -> Result<&T> {
        if self.is_here() {
            // SAFETY: it lives as long as it is counted, and nobody changes it meanwhile.
            Ok(unsafe { &(*self.0.as_ptr()).value })
        } else {
            Err(forked())
        }
    }

    /// # Panics
    /// If there is another reference.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        // SAFETY: the numbers are atomic, and valid as zeros.
        let count = unsafe { &(*self.0.as_ptr()).count };
        assert!(count.load(Ordering::Acquire) == 1, "a secret that is shared or gone is changed");
        // SAFETY: this is the only reference, and it is borrowed exclusively.
        unsafe { &mut (*self.0.as_ptr()).value }
    }

    #[inline(always)]
    fn place(&self) -> u64 {
        // SAFETY: the cell stays mapped while it is counted, and zeros are valid here.
        unsafe { &(*self.0.as_ptr()).place }.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn is_here(&self) -> bool {
        self.place() != 0
    }
}

#[cold]
fn forked() -> Error {
    Error::new(ErrorKind::Poisoned, "a forked child has no keys of its parent's: open the store")
}

/// For what is made, used and dropped in one call, and for what was asked [`Secret::get`] before:
/// a secret inside of another one too, which alone may have found room in the arena.
///
/// # Panics
/// In a forked child. Whoever may be in one asks [`Secret::get`].
impl<T> Deref for Secret<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        match self.get() {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }
}

impl<T> Clone for Secret<T> {
    fn clone(&self) -> Self {
        // SAFETY: as in `place`.
        let count = unsafe { &(*self.0.as_ptr()).count };
        let old = count.fetch_add(1, Ordering::Relaxed);
        // As for `Arc`: so many can only be forgotten ones.
        if old > isize::MAX.cast_unsigned() {
            std::process::abort();
        }
        Self(self.0)
    }
}

impl<T> Drop for Secret<T> {
    fn drop(&mut self) {
        let place = self.place();
        // What a fork emptied is not this process's to drop.
        if place == 0 {
            return;
        }
        let cell = self.0.as_ptr();
        // SAFETY: as in `place`.
        if unsafe { &(*cell).count }.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let layout = Layout::new::<Cell<T>>();
        // SAFETY: this was the last reference. Bytes of a cell may be wiped once its value is
        // dropped.
        unsafe {
            (&raw mut (*cell).value).drop_in_place();
            let bytes = cell.cast::<MaybeUninit<u8>>();
            std::slice::from_raw_parts_mut(bytes, layout.size()).zeroize();
        }
        if place == IN_ARENA {
            arena::give_back(self.0.cast(), layout.size());
        } else {
            release(self.0.cast(), layout);
        }
    }
}

#[cold]
fn allocate(layout: Layout) -> NonNull<u8> {
    arena::count_outside(layout.size().cast_signed());
    // SAFETY: a cell has bytes.
    let at = unsafe { std::alloc::alloc(layout) };
    NonNull::new(at).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cold]
fn release(at: NonNull<u8>, layout: Layout) {
    arena::count_outside(-layout.size().cast_signed());
    // SAFETY: it came from `allocate`, with this layout.
    unsafe { std::alloc::dealloc(at.as_ptr(), layout) };
}

// SAFETY: the pointer is that of the cell, whatever is done with references to it, and what
// `from_ptr` makes is the reference that `into_ptr` took.
unsafe impl<T> RefCnt for Secret<T> {
    type Base = Cell<T>;

    fn into_ptr(me: Self) -> *mut Cell<T> {
        ManuallyDrop::new(me).0.as_ptr()
    }

    fn as_ptr(me: &Self) -> *mut Cell<T> {
        me.0.as_ptr()
    }

    unsafe fn from_ptr(ptr: *const Cell<T>) -> Self {
        // SAFETY: it comes from `into_ptr`, which gives no null.
        Self(unsafe { NonNull::new_unchecked(ptr.cast_mut()) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
