//! AES-256-GCM with the processor's own instructions, in several widths from one source:
//! [`message`], over [`vector::HashVector`], as in counter mode.
//!
//! GHASH is computed as POLYVAL (RFC 8452, appendix A): the same field with its bits the other
//! way round, which is how the carry-less multiplication has them. Nothing here branches on, or
//! indexes with, a secret: control flow depends on lengths, ranges and message numbers alone.

// Vector instructions that the compiler may not assume, on pointers because the memory that is
// read may be somebody else's too: each byte of it is loaded once.
#![allow(unsafe_code)]

mod hash;
mod message;
mod run;
mod vector;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use x86 as arch;

use crate::cipher::ctr::Width;
use crate::cipher::ctr::native::{RoundKeys, dispatch};
use crate::secret::Secret;
use arch::is_available;
use message::Message;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::prefetch;

/// Blocks in the table of powers: those of a batch of the widest registers, one for the block
/// of lengths, and as many as an unaligned load of the last ones reads beyond them.
const POWERS: usize = 40;

/// The powers of the hash key for one width, highest first. Kept in a [`Secret`], which wipes
/// them.
#[repr(C, align(64))]
pub(super) struct Powers {
    powers: [u128; POWERS],
    /// The XOR of both halves of each, in both halves: Karatsuba's third factor.
    halves: [u128; POWERS],
}

impl Powers {
    fn empty() -> Self {
        Self { powers: [0; POWERS], halves: [0; POWERS] }
    }

    /// `None` where the machine cannot multiply in the width of the keys.
    pub(super) fn new(keys: &RoundKeys) -> Option<Secret<Self>> {
        if !is_available(keys.width()) {
            return None;
        }
        let mut this = Secret::new(Self::empty());
        // SAFETY: the width was found available.
        unsafe { dispatch!(keys.width(), expand(keys, this.get_mut())) }
        Some(this)
    }

    /// Encrypts, and returns the tag.
    pub(super) fn seal(
        &self,
        keys: &RoundKeys,
        block: u64,
        aad: &[u8],
        src: &[u8],
        dst: &mut [u8],
    ) -> [u8; 16] {
        assert_eq!(src.len(), dst.len(), "source and destination differ in length");
        let len = src.len();
        let message =
            Message { block, aad, src: src.as_ptr(), len, dst: dst.as_mut_ptr(), from: 0, to: len };
        // SAFETY: there are powers only where the width is available; both slices have `len` bytes.
        unsafe { dispatch!(keys.width(), seal(keys, self, &message)).to_le_bytes() }
    }

    /// Decrypts `dst.len()` bytes from byte `skip` on, and returns the tag of the whole.
    pub(super) fn open(
        &self,
        keys: &RoundKeys,
        block: u64,
        aad: &[u8],
        src: &[u8],
        skip: usize,
        dst: &mut [u8],
    ) -> [u8; 16] {
        let to = skip + dst.len();
        assert!(to <= src.len(), "a range beyond the end of the message");
        let message = Message {
            block,
            aad,
            src: src.as_ptr(),
            len: src.len(),
            dst: dst.as_mut_ptr(),
            from: skip,
            to,
        };
        // SAFETY: as above; `dst` has the bytes of the range.
        unsafe { dispatch!(keys.width(), open(keys, self, &message)).to_le_bytes() }
    }

    /// Decrypts all of a message where it stands, and returns its tag.
    pub(super) fn open_in_place(
        &self,
        keys: &RoundKeys,
        block: u64,
        aad: &[u8],
        buf: &mut [u8],
    ) -> [u8; 16] {
        let (len, dst) = (buf.len(), buf.as_mut_ptr());
        let message = Message { block, aad, src: dst, len, dst, from: 0, to: len };
        // SAFETY: as above; each register is loaded before it is written back to its place.
        unsafe { dispatch!(keys.width(), open(keys, self, &message)).to_le_bytes() }
    }
}

/// See [`super::limit`].
pub(super) fn limit(width: Width, blocks: u64) -> Option<u64> {
    // SAFETY: the width is available.
    is_available(width).then(|| unsafe { dispatch!(width, limit(blocks)) })
}
