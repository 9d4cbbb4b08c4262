//! An allocator that wipes what is freed.

// The trait is unsafe, and so is handing memory back.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

/// The system's allocator, which wipes each block when it is freed.
///
/// The library wipes its own keys. What a key service sends passes through the buffers of TLS
/// and HTTP clients, which are freed as they are; so is the plaintext of an engine. A process
/// that is not to keep even those has this allocator, as the command `atrest` does:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: atrest::WipingAllocator = atrest::WipingAllocator;
/// # fn main() {}
/// ```
///
/// It costs a pass over each block that is freed, and growing a block in place: a block that
/// grows is copied and the old one wiped.
#[derive(Clone, Copy, Debug, Default)]
pub struct WipingAllocator;

// SAFETY: `System` does the work; memory is written to while it is still allocated. A
// reallocation is the trait's own: a new block, a copy, and a wiped old block.
unsafe impl GlobalAlloc for WipingAllocator {
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
            at.write_bytes(0, layout.size());
            // Otherwise what nobody reads before it is freed would not be written.
            System.dealloc(black_box(at), layout);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Read from outside of the program, as an attacker would: whoever else has the block by
    /// then did not write this into it.
    #[test]
    fn what_is_freed_or_moved_is_wiped() {
        const LEN: usize = 3000;
        let layout = Layout::from_size_align(LEN, 16).unwrap();
        // What is allocated later could be where the block was.
        let memory = File::open("/proc/self/mem").unwrap();
        let mut bytes = vec![0; LEN];
        let mut is_left = |at: *mut u8| {
            memory.read_exact_at(&mut bytes, at.addr() as u64).is_ok()
                && bytes.windows(64).any(|bytes| bytes == [0xc7; 64])
        };
        // SAFETY: each block is used while it is allocated, and freed with its layout.
        unsafe {
            let first = WipingAllocator.alloc(layout);
            first.write_bytes(0xc7, LEN);
            assert!(is_left(first));
            let second = WipingAllocator.realloc(first, layout, 100 * LEN);
            assert!(is_left(second) && (first == second || !is_left(first)));
            let layout = Layout::from_size_align(100 * LEN, 16).unwrap();
            WipingAllocator.dealloc(second, layout);
            assert!(!is_left(second));
        }
    }
}
