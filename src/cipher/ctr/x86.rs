//! AES-256-CTR for x86-64 in three widths from one source.
//!
//! [`kernels`] is written once, over [`Vector`]; `width!` instantiates it for AES-NI, VAES on 256
//! bits and VAES on 512 bits. Nothing here branches on, or indexes with, a secret: control flow
//! depends on lengths, offsets and block numbers alone.

// The only unsafe code of the core, with the modules below: vector instructions that the compiler may not assume, on
// pointers because reading and writing in place is the same code as source to destination.
#![allow(unsafe_code)]

mod bulk;
pub(in crate::cipher) mod kernels;
#[cfg(test)]
pub(in crate::cipher) mod tests;

use std::arch::asm;
use std::arch::x86_64::*;
use std::ptr;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Width;
use bulk::run_bulk;
use kernels::{GROUP_BLOCKS, Job, Vector, run_limit, run_long};

pub(in crate::cipher) const ROUNDS: usize = 14;
pub(in crate::cipher) const BLOCK_BYTES: usize = 16;

pub(super) fn is_available(width: Width) -> bool {
    match width {
        Width::Portable => false,
        Width::Aes128 => is_x86_feature_detected!("aes") && is_x86_feature_detected!("ssse3"),
        Width::Vaes256 => is_x86_feature_detected!("vaes") && is_x86_feature_detected!("avx2"),
        Width::Vaes512 => {
            is_x86_feature_detected!("vaes")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
        }
    }
}

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
        // SAFETY: every available width implies AES-NI and SSSE3.
        unsafe { expand(key, &mut this.keys) };
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
        unsafe {
            match self.width {
                Width::Vaes512 => zmm::run(self, block, skip, src, dst, len),
                Width::Vaes256 => ymm::run(self, block, skip, src, dst, len),
                _ => xmm::run(self, block, skip, src, dst, len),
            }
        }
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

/// FIPS 197, section 5.2. `aesenclast` on a word that fills all four columns is SubWord and XOR:
/// ShiftRows does not change it. Shorter latency than `aeskeygenassist` on most processors.
#[target_feature(enable = "aes,ssse3")]
fn expand(key: &[u8; 32], keys: &mut [u128; ROUNDS + 1]) {
    /// `word` is the last word of the previous key, transformed.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn next(mut key: __m128i, word: __m128i) -> __m128i {
        key = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
        key = _mm_xor_si128(key, _mm_slli_si128::<8>(key));
        _mm_xor_si128(key, word)
    }
    let rotated_last_word = _mm_set1_epi32(0x0c0f_0e0d);
    let last_word = _mm_set1_epi32(0x0f0e_0d0c);
    // SAFETY: reads the 32 bytes of `key`.
    let (mut even, mut odd) = unsafe {
        let key = key.as_ptr().cast::<__m128i>();
        (_mm_loadu_si128(key), _mm_loadu_si128(key.add(1)))
    };
    let out = keys.as_mut_ptr().cast::<__m128i>();
    for i in 0..=ROUNDS / 2 {
        // SAFETY: 2 * i <= 14, and the odd key is written only below 14; aligned as `u128` is.
        unsafe {
            _mm_store_si128(out.add(2 * i), even);
            if i == ROUNDS / 2 {
                break;
            }
            _mm_store_si128(out.add(2 * i + 1), odd);
        }
        let word = _mm_shuffle_epi8(odd, rotated_last_word);
        even = next(even, _mm_aesenclast_si128(word, _mm_set1_epi32(1 << i)));
        let word = _mm_shuffle_epi8(even, last_word);
        odd = next(odd, _mm_aesenclast_si128(word, _mm_setzero_si128()));
    }
}

/// XORs `len` bytes, below 32, in steps of halving size.
#[inline(always)]
unsafe fn xor_bytes(mut keystream: *const u8, mut src: *const u8, mut dst: *mut u8, len: usize) {
    macro_rules! step {
        ($word:ty) => {
            if len & size_of::<$word>() != 0 {
                // SAFETY: the steps add up to `len`, which the caller vouches for.
                unsafe {
                    let word = keystream.cast::<$word>().read_unaligned();
                    let word = word ^ src.cast::<$word>().read_unaligned();
                    dst.cast::<$word>().write_unaligned(word);
                    keystream = keystream.add(size_of::<$word>());
                    src = src.add(size_of::<$word>());
                    dst = dst.add(size_of::<$word>());
                }
            }
        };
    }
    debug_assert!(len < 32);
    step!(u128);
    step!(u64);
    step!(u32);
    step!(u16);
    step!(u8);
    let _ = (keystream, src, dst);
}

/// One bit for each of the bytes `from..to`; `from < to <= 64`.
#[inline(always)]
pub(in crate::cipher) fn part_mask(from: usize, to: usize) -> u64 {
    u64::MAX << from & u64::MAX >> (64 - to)
}

/// A width: its register type, and its instances of the code above.
macro_rules! width {
    (
        $module:ident: $lanes:literal x $type:ident in $register:ident, $features:literal,
        holds_keys: $holds_keys:literal, splat: $splat:expr, load: $load:ident, store: $store:ident,
        xor: $xor:ident, add: $add:ident, reverse: $reverse:expr,
        enc: $enc:ident, enc_last: $enc_last:ident, xor_part: $xor_part:expr $(,)?
    ) => {
        mod $module {
            use super::*;

            impl Vector for $type {
                type Block = __m128i;
                const LANES: usize = $lanes;
                const HOLDS_KEYS: bool = $holds_keys;

                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn splat(block: &u128) -> Self {
                    // SAFETY: reads one block, aligned as `u128` is.
                    $splat(unsafe { _mm_load_si128(ptr::from_ref(block).cast()) })
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn load(src: *const u8) -> Self {
                    // SAFETY: the caller's pointer.
                    unsafe { $load(src.cast()) }
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn store(self, dst: *mut u8) {
                    // SAFETY: the caller's pointer.
                    unsafe { $store(dst.cast(), self) }
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn xor(self, other: Self) -> Self {
                    $xor(self, other)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn add(self, other: Self) -> Self {
                    $add(self, other)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn reverse(self) -> Self {
                    let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
                    $reverse(self, $splat(order))
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn enc(self, key: Self) -> Self {
                    $enc(self, key)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn enc_last(self, key: Self) -> Self {
                    $enc_last(self, key)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn computed(mut self) -> Self {
                    // SAFETY: no instruction; the register comes out as it went in.
                    unsafe {
                        asm!(
                            "/* {0} */",
                            inout($register) self,
                            options(nomem, nostack, preserves_flags),
                        );
                    }
                    self
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn xor_part(self, src: *const u8, dst: *mut u8, from: usize, to: usize) {
                    $xor_part(&self, src, dst, from, to)
                }
                #[inline(never)]
                #[target_feature(enable = $features)]
                unsafe fn long(
                    keys: &RoundKeys,
                    block: u64,
                    skip: usize,
                    src: *const u8,
                    dst: *mut u8,
                    len: usize,
                ) {
                    // SAFETY: passed on to the caller.
                    unsafe {
                        run_long::<Self>(
                            keys,
                            Job::new(block, skip, src, dst, len),
                        )
                    }
                }
                #[inline(never)]
                #[target_feature(enable = $features)]
                unsafe fn bulk(
                    keys: &RoundKeys,
                    block: u64,
                    src: *const u8,
                    dst: *mut u8,
                    batches: usize,
                ) {
                    let job = Job::new(block, 0, src, dst, 0);
                    // SAFETY: passed on to the caller.
                    unsafe { run_bulk::<Self, { GROUP_BLOCKS / $lanes }>(keys, job, batches) }
                }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn run(
                keys: &RoundKeys,
                block: u64,
                skip: usize,
                src: *const u8,
                dst: *mut u8,
                len: usize,
            ) {
                // SAFETY: passed on to the caller.
                unsafe {
                    kernels::run::<$type>(
                        keys,
                        Job::new(block, skip, src, dst, len),
                    );
                }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn limit(blocks: u64) -> u64 {
                // SAFETY: the features are there.
                unsafe { run_limit::<$type>(blocks) }
            }
        }
    };
}

/// `xor_part` by way of memory, where there are no masked moves of bytes.
macro_rules! xor_part_in_memory {
    () => {
        |keystream: &Self, src: *const u8, dst: *mut u8, from: usize, to: usize| {
            let at = ptr::from_ref(keystream);
            let (src, dst) = (src.wrapping_add(from), dst.wrapping_add(from));
            // SAFETY: the caller's pointers, and `from <= to <= BYTES`; `at` is this register.
            unsafe { xor_bytes(at.cast::<u8>().add(from), src, dst, to - from) }
        }
    };
}

width!(xmm: 1 x __m128i in xmm_reg, "aes,ssse3",
    holds_keys: false, splat: |block| block, load: _mm_loadu_si128, store: _mm_storeu_si128,
    xor: _mm_xor_si128, add: _mm_add_epi64, reverse: |a, b| _mm_shuffle_epi8(a, b),
    enc: _mm_aesenc_si128, enc_last: _mm_aesenclast_si128, xor_part: xor_part_in_memory!());

width!(ymm: 2 x __m256i in ymm_reg, "aes,avx2,vaes",
    holds_keys: false, splat: |block| _mm256_broadcastsi128_si256(block),
    load: _mm256_loadu_si256, store: _mm256_storeu_si256,
    xor: _mm256_xor_si256, add: _mm256_add_epi64, reverse: |a, b| _mm256_shuffle_epi8(a, b),
    enc: _mm256_aesenc_epi128, enc_last: _mm256_aesenclast_epi128, xor_part: xor_part_in_memory!());

width!(zmm: 4 x __m512i in zmm_reg, "aes,avx2,vaes,avx512f,avx512bw",
holds_keys: true, splat: |block| _mm512_broadcast_i32x4(block),
load: _mm512_loadu_si512, store: _mm512_storeu_si512,
xor: _mm512_xor_si512, add: _mm512_add_epi64, reverse: |a, b| _mm512_shuffle_epi8(a, b),
enc: _mm512_aesenc_epi128, enc_last: _mm512_aesenclast_epi128,
xor_part: |keystream: &Self, src: *const u8, dst: *mut u8, from: usize, to: usize| {
    let mask = part_mask(from, to);
    // SAFETY: the caller's pointers; bytes outside of the mask are not touched.
    unsafe {
        let data = _mm512_maskz_loadu_epi8(mask, src.cast());
        _mm512_mask_storeu_epi8(dst.cast(), mask, _mm512_xor_si512(*keystream, data));
    }
});
