//! AES-256-GCM for x86-64 in three widths from one source: [`kernels`], over [`HashVector`].
//!
//! GHASH is computed as POLYVAL (RFC 8452, appendix A): the same field with its bits the other
//! way round, which is how the carry-less multiplication has them. Nothing here branches on, or
//! indexes with, a secret: control flow depends on lengths, ranges and message numbers alone.

// Vector instructions that the compiler may not assume, on pointers because the memory that is
// read may be somebody else's too: each byte of it is loaded once.
#![allow(unsafe_code)]

mod hash;
mod kernels;
mod run;
#[cfg(test)]
mod tests;

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;
use std::ptr;

use zeroize::Zeroize;

use crate::cipher::ctr::Width;
use crate::cipher::ctr::x86::kernels::{FLIGHT, Vector, rounds};
use crate::cipher::ctr::x86::{ROUNDS, RoundKeys, part_mask};
use run::{Run, run_batches, run_groups};

/// Blocks in the table of powers: those of a batch of the widest registers, one for the block
/// of lengths, and as many as an unaligned load of the last ones reads beyond them.
const POWERS: usize = 40;

/// The powers of the hash key for one width, highest first.
#[repr(C, align(64))]
pub(super) struct Powers {
    powers: [u128; POWERS],
    /// The XOR of both halves of each, in both halves: Karatsuba's third factor.
    halves: [u128; POWERS],
}

/// A batch that is in flight: `FLIGHT` registers.
type Batch<V> = [V; FLIGHT];

impl Drop for Powers {
    fn drop(&mut self) {
        self.powers.zeroize();
        self.halves.zeroize();
    }
}

/// One message: what is hashed, and the part of it that is encrypted or decrypted.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    /// The low half of the counter block J0.
    pub(super) block: u64,
    pub(super) aad: &'a [u8],
    pub(super) src: *const u8,
    pub(super) len: usize,
    /// Where the bytes `from..to` go.
    pub(super) dst: *mut u8,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// One block.
#[inline(always)]
unsafe fn encrypt_block(keys: &RoundKeys, block: u128) -> __m128i {
    // SAFETY: the caller has the features.
    unsafe {
        let block = __m128i::splat(&block).reverse().xor(__m128i::splat(&keys.keys[0]));
        let mut state = [block];
        rounds::<__m128i, 1, 1>(&mut state, keys);
        state[0].enc_last(__m128i::splat(&keys.keys[ROUNDS]))
    }
}

pub(super) fn is_available(width: Width) -> bool {
    width.is_available()
        && match width {
            Width::Portable => false,
            Width::Aes128 => {
                is_x86_feature_detected!("pclmulqdq") && is_x86_feature_detected!("avx")
            }
            Width::Vaes256 | Width::Vaes512 => {
                is_x86_feature_detected!("pclmulqdq") && is_x86_feature_detected!("vpclmulqdq")
            }
        }
}

macro_rules! dispatch {
    ($keys:expr, $function:ident($($argument:expr),*)) => {
        match $keys.width() {
            Width::Vaes512 => zmm::$function($($argument),*),
            Width::Vaes256 => ymm::$function($($argument),*),
            _ => xmm::$function($($argument),*),
        }
    };
}

impl Powers {
    fn empty() -> Self {
        Self { powers: [0; POWERS], halves: [0; POWERS] }
    }

    /// `None` where the machine cannot multiply in the width of the keys.
    pub(super) fn new(keys: &RoundKeys) -> Option<Box<Self>> {
        if !is_available(keys.width()) {
            return None;
        }
        let mut this = Box::new(Self::empty());
        // SAFETY: the width was found available.
        unsafe { dispatch!(keys, expand(keys, &mut this)) }
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
        unsafe { dispatch!(keys, seal(keys, self, &message)).to_le_bytes() }
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
        unsafe { dispatch!(keys, open(keys, self, &message)).to_le_bytes() }
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
        unsafe { dispatch!(keys, open(keys, self, &message)).to_le_bytes() }
    }
}

/// See [`super::limit`].
pub(super) fn limit(width: Width, blocks: u64) -> Option<u64> {
    if !is_available(width) {
        return None;
    }
    // SAFETY: the width is available.
    unsafe {
        Some(match width {
            Width::Vaes512 => zmm::limit(blocks),
            Width::Vaes256 => ymm::limit(blocks),
            _ => xmm::limit(blocks),
        })
    }
}

/// A register that multiplies.
///
/// # Safety
///
/// As for [`Vector`].
pub(super) trait HashVector: Vector {
    /// The product of one half of each block with the same half of the other's.
    unsafe fn multiply<const HIGH: bool>(self, other: Self) -> Self;
    /// Exchanges the halves of each block.
    unsafe fn swap(self) -> Self;
    /// The first block in every lane.
    unsafe fn splat_first(self) -> Self;
    /// The last two blocks of the other, or all of it where there are no more.
    unsafe fn with_last_two(self, other: Self) -> Self;
    /// [`run_batches`] and [`run_groups`] as functions of their own, as in [`Vector`].
    unsafe fn batches<const ENCRYPT: bool>(
        keys: &RoundKeys,
        powers: &Powers,
        run: &mut Run<Self>,
        batches: usize,
    );
    unsafe fn groups<const ENCRYPT: bool>(
        keys: &RoundKeys,
        powers: &Powers,
        run: &mut Run<Self>,
        batches: usize,
    );
    /// The XOR of all blocks.
    unsafe fn sum(self) -> __m128i;
    /// A block and zeros behind it.
    unsafe fn first(block: __m128i) -> Self;
    /// Loads a register in a way that the compiler cannot repeat: what is decrypted is what was
    /// hashed, whoever writes to that memory in between.
    unsafe fn load_once(src: *const u8) -> Self;
    /// The first `len` bytes at `src`, below or equal to a register's, and zeros behind them.
    unsafe fn load_part(src: *const u8, len: usize) -> Self;
    /// Its first `len` bytes, and zeros behind them.
    unsafe fn keep(self, len: usize) -> Self;
    /// Writes the bytes `from..to` of the register; `dst` is where byte 0 would be.
    unsafe fn store_part(self, dst: *mut u8, from: usize, to: usize);
    /// Writes the part of a register that is in `range`, which counts from where the register
    /// has its byte `start`.
    #[inline(always)]
    unsafe fn store_range(self, dst: *mut u8, start: usize, range: &Range<usize>) {
        let from = range.start.saturating_sub(start);
        let to = range.end.saturating_sub(start).min(Self::BYTES);
        // SAFETY: the caller has the features, and the range at `dst`.
        unsafe {
            if from == 0 && to == Self::BYTES {
                self.store(dst);
            } else if from < to {
                self.store_part(dst, from, to);
            }
        }
    }
}

macro_rules! width {
    (
        $module:ident: $type:ident in $register:ident, $features:literal,
        splat_first: $splat_first:expr, with_last_two: $with_last_two:expr,
        low: $low:expr, high: $high:expr, swap: $swap:expr, sum: $sum:expr, first: $first:expr,
        load_part: $load_part:expr, keep: $keep:expr, store_part: $store_part:expr $(,)?
    ) => {
        mod $module {
            use super::*;

            impl HashVector for $type {
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn multiply<const HIGH: bool>(self, other: Self) -> Self {
                    if HIGH { $high(self, other) } else { $low(self, other) }
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn swap(self) -> Self {
                    $swap(self)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn splat_first(self) -> Self {
                    $splat_first(self)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn with_last_two(self, other: Self) -> Self {
                    $with_last_two(self, other)
                }
                #[inline(never)]
                #[target_feature(enable = $features)]
                unsafe fn batches<const ENCRYPT: bool>(
                    keys: &RoundKeys,
                    powers: &Powers,
                    run: &mut Run<Self>,
                    batches: usize,
                ) {
                    // SAFETY: passed on to the caller.
                    unsafe { run_batches::<Self, ENCRYPT>(keys, powers, run, batches) }
                }
                #[inline(never)]
                #[target_feature(enable = $features)]
                unsafe fn groups<const ENCRYPT: bool>(
                    keys: &RoundKeys,
                    powers: &Powers,
                    run: &mut Run<Self>,
                    batches: usize,
                ) {
                    // SAFETY: passed on to the caller.
                    unsafe {
                        run_groups::<Self, ENCRYPT, { 256 / Self::LANES }>(
                            keys, powers, run, batches,
                        )
                    }
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn sum(self) -> __m128i {
                    $sum(self)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn first(block: __m128i) -> Self {
                    $first(block)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn load_once(src: *const u8) -> Self {
                    // SAFETY: the caller's pointer; no instruction, the register comes out as it
                    // went in.
                    unsafe {
                        let mut data = Self::load(src);
                        asm!(
                            "/* {0} */",
                            inout($register) data,
                            options(pure, nomem, nostack, preserves_flags),
                        );
                        data
                    }
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn load_part(src: *const u8, len: usize) -> Self {
                    $load_part(src, len)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn keep(self, len: usize) -> Self {
                    $keep(self, len)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn store_part(self, dst: *mut u8, from: usize, to: usize) {
                    $store_part(self, dst, from, to)
                }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn expand(keys: &RoundKeys, powers: &mut Powers) {
                // SAFETY: passed on to the caller.
                unsafe {
                    hash::expand::<$type>(keys, powers);
                }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn limit(blocks: u64) -> u64 {
                // SAFETY: the features are there.
                unsafe { kernels::limit::<$type>(blocks) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn seal(
                keys: &RoundKeys,
                powers: &Powers,
                message: &Message<'_>,
            ) -> u128 {
                // SAFETY: as above.
                unsafe {
                    kernels::seal::<$type>(keys, powers, message)
                }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn open(
                keys: &RoundKeys,
                powers: &Powers,
                message: &Message<'_>,
            ) -> u128 {
                // SAFETY: as above.
                unsafe {
                    kernels::open::<$type>(keys, powers, message)
                }
            }
        }
    };
}

/// Parts of registers by way of memory, where there are no masked moves of bytes.
macro_rules! load_part_in_memory {
    () => {
        |src: *const u8, len: usize| {
            let mut bytes = [0_u8; 32];
            // SAFETY: the caller's pointer; `len` is at most a register's.
            unsafe {
                ptr::copy_nonoverlapping(src, bytes.as_mut_ptr(), len.min(32));
                Self::load(bytes.as_ptr())
            }
        }
    };
}

/// From this many bytes before the middle on, so many ones and then zeros.
static KEEP: [u8; 64] = {
    let mut keep = [0; 64];
    let mut i = 0;
    while i < 32 {
        keep[i] = 0xff;
        i += 1;
    }
    keep
};

macro_rules! keep_mask {
    ($len:expr) => {
        // SAFETY: at most 32 bytes before the middle, and a register is no longer.
        unsafe { Self::load(KEEP.as_ptr().add(32 - $len)) }
    };
}

macro_rules! store_part_in_memory {
    () => {
        |part: Self, dst: *mut u8, from: usize, to: usize| {
            let mut bytes = [0_u8; 32];
            // SAFETY: the caller's pointer; `to` is at most a register's.
            unsafe {
                part.store(bytes.as_mut_ptr());
                let from_at = bytes.as_ptr().add(from);
                ptr::copy_nonoverlapping(from_at, dst.wrapping_add(from), to - from);
            }
        }
    };
}

width!(xmm: __m128i in xmm_reg, "aes,avx,pclmulqdq", splat_first: |blocks| blocks, with_last_two: |_, other| other,
    low: _mm_clmulepi64_si128::<0x00>, high: _mm_clmulepi64_si128::<0x11>,
    swap: _mm_shuffle_epi32::<0x4e>, sum: |blocks| blocks, first: |block| block,
    load_part: load_part_in_memory!(),
    keep: |part, len| _mm_and_si128(part, keep_mask!(len)), store_part: store_part_in_memory!());

width!(ymm: __m256i in ymm_reg, "aes,avx2,vaes,pclmulqdq,vpclmulqdq", splat_first: |blocks| _mm256_permute2x128_si256::<0>(blocks, blocks),
    with_last_two: |_, other| other,
    low: _mm256_clmulepi64_epi128::<0x00>, high: _mm256_clmulepi64_epi128::<0x11>,
    swap: _mm256_shuffle_epi32::<0x4e>,
    sum: |blocks| _mm_xor_si128(_mm256_castsi256_si128(blocks), _mm256_extracti128_si256::<1>(blocks)),
    first: _mm256_zextsi128_si256,
    load_part: load_part_in_memory!(),
    keep: |part, len| _mm256_and_si256(part, keep_mask!(len)), store_part: store_part_in_memory!());

width!(zmm: __m512i in zmm_reg, "aes,avx2,vaes,avx512f,avx512bw,pclmulqdq,vpclmulqdq",
splat_first: |blocks| _mm512_shuffle_i64x2::<0>(blocks, blocks),
with_last_two: |blocks, other| _mm512_shuffle_i64x2::<0xe4>(blocks, other),
low: _mm512_clmulepi64_epi128::<0x00>, high: _mm512_clmulepi64_epi128::<0x11>,
swap: _mm512_shuffle_epi32::<0x4e>,
sum: |blocks| {
    let half = _mm512_extracti64x4_epi64::<1>(blocks);
    let half = _mm256_xor_si256(_mm512_castsi512_si256(blocks), half);
    _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
},
first: _mm512_zextsi128_si512,
load_part: |src: *const u8, len: usize| {
    let mask = if len == 0 { 0 } else { part_mask(0, len) };
    // SAFETY: the caller's pointer; bytes outside of the mask are not touched.
    unsafe { _mm512_maskz_loadu_epi8(mask, src.cast()) }
},
keep: |part, len| _mm512_maskz_mov_epi8(part_mask(0, len), part),
store_part: |part: Self, dst: *mut u8, from: usize, to: usize| {
    // SAFETY: as above.
    unsafe { _mm512_mask_storeu_epi8(dst.cast(), part_mask(from, to), part) }
});
