//! The widths of x86-64: AES-NI, VAES on 256 bits, VAES on 512 bits.

#[cfg(test)]
pub(in crate::cipher) mod tests;

use std::arch::asm;
use std::arch::x86_64::*;
use std::ptr;

use super::bulk::run_bulk;
use super::kernels::{self, GROUP_BLOCKS, Job, run_limit, run_long};
use super::vector::{Vector, width, xor_bytes, xor_part_in_memory};
use super::{ROUNDS, RoundKeys, Width};

/// Whether the processor has all that a width is compiled for. Each feature is asked for by itself:
/// where an emulator or a hypervisor hides one, those built on it may still be told.
pub(in crate::cipher) fn is_available(width: Width) -> bool {
    let aes = is_x86_feature_detected!("aes") && is_x86_feature_detected!("ssse3");
    let vaes = aes && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("vaes");
    match width {
        Width::Aes128 => aes,
        Width::Vaes256 => vaes,
        Width::Vaes512 => {
            vaes && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
        }
        _ => false,
    }
}

/// Calls a function of the module of a width, which is in `arch`.
macro_rules! dispatch {
    ($width:expr, $function:ident($($argument:expr),*)) => {
        match $width {
            Width::Vaes512 => arch::zmm::$function($($argument),*),
            Width::Vaes256 => arch::ymm::$function($($argument),*),
            _ => arch::xmm::$function($($argument),*),
        }
    };
}
pub(in crate::cipher) use dispatch;

/// FIPS 197, section 5.2. `aesenclast` on a word that fills all four columns is SubWord and XOR:
/// ShiftRows does not change it. Shorter latency than `aeskeygenassist` on most processors.
#[target_feature(enable = "aes,ssse3")]
pub(super) fn expand(key: &[u8; 32], keys: &mut [u128; ROUNDS + 1]) {
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

/// One bit for each of the bytes `from..to`; `from < to <= 64`.
#[inline(always)]
pub(in crate::cipher) fn part_mask(from: usize, to: usize) -> u64 {
    u64::MAX << from & u64::MAX >> (64 - to)
}

/// Bytes in the order that reverses a block.
#[inline]
#[target_feature(enable = "sse2")]
fn order() -> __m128i {
    _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f)
}

width!(xmm: 1 x __m128i in xmm_reg, "aes,ssse3", block: __m128i, lag: 0, holds_keys: false,
    splat: |block| _mm_load_si128(block), load: _mm_loadu_si128, store: _mm_storeu_si128,
    xor: _mm_xor_si128, add: _mm_add_epi64, reverse: |blocks| _mm_shuffle_epi8(blocks, order()),
    enc: _mm_aesenc_si128,
    enc_last: |state, keys: [Self; 2], data| _mm_aesenclast_si128(state, _mm_xor_si128(keys[1], data)),
    xor_part: xor_part_in_memory!());

width!(ymm: 2 x __m256i in ymm_reg, "aes,avx2,vaes", block: __m128i, lag: 0, holds_keys: false,
    splat: |block| _mm256_broadcastsi128_si256(_mm_load_si128(block)),
    load: _mm256_loadu_si256, store: _mm256_storeu_si256,
    xor: _mm256_xor_si256, add: _mm256_add_epi64,
    reverse: |blocks| _mm256_shuffle_epi8(blocks, _mm256_broadcastsi128_si256(order())),
    enc: _mm256_aesenc_epi128,
    enc_last: |state, keys: [Self; 2], data| {
        _mm256_aesenclast_epi128(state, _mm256_xor_si256(keys[1], data))
    },
    xor_part: xor_part_in_memory!());

width!(zmm: 4 x __m512i in zmm_reg, "aes,avx2,vaes,avx512f,avx512bw", block: __m128i, lag: 0, holds_keys: true,
splat: |block| _mm512_broadcast_i32x4(_mm_load_si128(block)),
load: _mm512_loadu_si512, store: _mm512_storeu_si512,
xor: _mm512_xor_si512, add: _mm512_add_epi64,
reverse: |blocks| _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(order())),
enc: _mm512_aesenc_epi128,
enc_last: |state, keys: [Self; 2], data| {
    _mm512_aesenclast_epi128(state, _mm512_xor_si512(keys[1], data))
},
xor_part: |keystream: &Self, src: *const u8, dst: *mut u8, from: usize, to: usize| {
    let mask = part_mask(from, to);
    // SAFETY: the caller's pointers; bytes outside of the mask are not touched.
    unsafe {
        let data = _mm512_maskz_loadu_epi8(mask, src.cast());
        _mm512_mask_storeu_epi8(dst.cast(), mask, _mm512_xor_si512(*keystream, data));
    }
});
