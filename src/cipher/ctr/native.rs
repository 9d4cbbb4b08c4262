//! AES-256-CTR with the processor's own instructions, in several widths from one source.
//!
//! [`kernels`] is written once, over [`vector::Vector`]; `x86` instantiates it for AES-NI, VAES on
//! 256 bits and VAES on 512 bits, `aarch64` for NEON without and with three-way XORs. Nothing here
//! branches on, or indexes with, a secret: control flow depends on lengths, offsets and block
//! numbers alone.

// The only unsafe code of the core, with the modules below: vector instructions that the compiler
// may not assume, on pointers because reading and writing in place is the same code as source to
// destination.
#![allow(unsafe_code)]

mod bulk;
pub(in crate::cipher) mod kernels;
pub(in crate::cipher) mod vector;

#[cfg(target_arch = "aarch64")]
pub(in crate::cipher) mod aarch64;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(in crate::cipher) mod x86;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use x86 as arch;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Width;
pub(in crate::cipher) use arch::dispatch;
pub(super) use arch::is_available;

pub(in crate::cipher) const ROUNDS: usize = 14;
pub(in crate::cipher) const BLOCK_BYTES: usize = 16;

/// The 15 round keys, with a width that was found available: no other value can be made, which
/// is what the `unsafe` calls below rest on.
pub(in crate::cipher) struct RoundKeys {
    pub(in crate::cipher) keys: [u128; ROUNDS + 1],
    pub(in crate::cipher) nonce: u64,
    width: Width,
}

impl Drop for RoundKeys {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

impl ZeroizeOnDrop for RoundKeys {}

impl RoundKeys {
    #[inline]
    pub(in crate::cipher) fn new(key: &[u8; 32], nonce: u64, width: Width) -> Option<Self> {
        if !is_available(width) {
            return None;
        }
        // Expanded in its final place, so that no second copy of the keys is left on the stack.
        let mut this = Self { keys: [0; ROUNDS + 1], nonce, width };
        // SAFETY: every available width implies the features.
        unsafe { arch::expand(key, &mut this.keys) };
        Some(this)
    }

    pub(in crate::cipher) fn width(&self) -> Width {
        self.width
    }

    #[inline]
    pub(super) fn apply_in_place(&self, block: u64, skip: usize, buf: &mut [u8]) {
        let dst = buf.as_mut_ptr();
        // SAFETY: `buf` is valid for reads and writes of its length.
        unsafe { self.run(block, skip, dst, dst, buf.len()) }
    }

    #[inline]
    pub(super) fn apply(&self, block: u64, skip: usize, src: &[u8], dst: &mut [u8]) {
        assert_eq!(src.len(), dst.len());
        // SAFETY: both slices are valid for the length, and `dst` is borrowed exclusively, so
        // that they do not overlap.
        unsafe { self.run(block, skip, src.as_ptr(), dst.as_mut_ptr(), dst.len()) }
    }

    /// # Safety
    ///
    /// `src` is valid for reads, and `dst` for writes, of `len` bytes; they are equal or do not
    /// overlap.
    #[inline]
    unsafe fn run(&self, block: u64, skip: usize, src: *const u8, dst: *mut u8, len: usize) {
        debug_assert!(skip < BLOCK_BYTES);
        // SAFETY: the width was found available in `new`; the pointers are the caller's duty.
        unsafe { dispatch!(self.width, run(self, block, skip, src, dst, len)) }
    }
}

/// See [`super::limit`].
pub(super) fn limit(width: Width, blocks: u64) -> Option<u64> {
    // SAFETY: the width is available.
    is_available(width).then(|| unsafe { dispatch!(width, limit(blocks)) })
}
