//! An allocator that wipes what is freed.
//!
//! The library wipes its own keys. What a key service sends passes through the buffers of
//! the TLS and HTTP clients, which are freed as they are; a process that must not keep
//! even those uses an allocator like this one.

// The trait is unsafe, and so is handing memory back.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::slice;

use zeroize::Zeroize;

pub(crate) struct Wiping;

// SAFETY: `System` does the work; memory is written to while it is still allocated. A
// reallocation is the trait's own: a new block, a copy, and a wiped old block.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller gives back a block of this layout, which nobody else uses.
        unsafe {
            slice::from_raw_parts_mut(at, layout.size()).zeroize();
            System.dealloc(at, layout);
        }
    }
}
