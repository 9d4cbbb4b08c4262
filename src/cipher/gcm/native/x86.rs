//! The widths of x86-64.

#[cfg(test)]
mod tests;

use std::arch::asm;
use std::arch::x86_64::*;
use std::ptr;

use super::message::{run_parts, run_tail};
use super::run::{run_batches, run_groups, run_last_batch};
use super::vector::{
    HashVector, KEEP, State, keep_mask, load_part_in_memory, store_part_in_memory, width,
};
use super::{Message, Powers, hash, message};
use crate::cipher::ctr::Width;
use crate::cipher::ctr::native::RoundKeys;
use crate::cipher::ctr::native::vector::Vector;
use crate::cipher::ctr::native::x86::part_mask;

pub(super) fn is_available(width: Width) -> bool {
    width.is_available()
        && match width {
            Width::Aes128 => {
                is_x86_feature_detected!("pclmulqdq") && is_x86_feature_detected!("avx")
            }
            Width::Vaes256 | Width::Vaes512 => {
                is_x86_feature_detected!("pclmulqdq") && is_x86_feature_detected!("vpclmulqdq")
            }
            _ => false,
        }
}

const LINE_BYTES: usize = 64;

/// See [`super::super::will_read`].
#[inline]
pub(in crate::cipher::gcm) fn prefetch(start: *const u8, len: usize) {
    for at in (0..len).step_by(LINE_BYTES) {
        // SAFETY: a hint that changes nothing and cannot fail, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast()) };
    }
}

width!(xmm: __m128i in xmm_reg, "aes,avx,pclmulqdq", single: __m128i, low_halves: _mm_unpacklo_epi64, high_halves: _mm_unpackhi_epi64, with_last_two: |_, other| other,
    low: _mm_clmulepi64_si128::<0x00>, high: _mm_clmulepi64_si128::<0x11>,
    swap: _mm_shuffle_epi32::<0x4e>, sum: |blocks| blocks,
    first_block: |block| block, first: |block| block,
    load_part: load_part_in_memory!(),
    keep: |part, len| _mm_and_si128(part, keep_mask!(len)), store_part: store_part_in_memory!());

width!(ymm: __m256i in ymm_reg, "aes,avx2,vaes,pclmulqdq,vpclmulqdq", single: __m128i, low_halves: _mm256_unpacklo_epi64, high_halves: _mm256_unpackhi_epi64,
    with_last_two: |_, other| other,
    low: _mm256_clmulepi64_epi128::<0x00>, high: _mm256_clmulepi64_epi128::<0x11>,
    swap: _mm256_shuffle_epi32::<0x4e>,
    sum: |blocks| _mm_xor_si128(_mm256_castsi256_si128(blocks), _mm256_extracti128_si256::<1>(blocks)),
    first_block: _mm256_castsi256_si128, first: _mm256_zextsi128_si256,
    load_part: load_part_in_memory!(),
    keep: |part, len| _mm256_and_si256(part, keep_mask!(len)), store_part: store_part_in_memory!());

width!(zmm: __m512i in zmm_reg, "aes,avx2,vaes,avx512f,avx512bw,pclmulqdq,vpclmulqdq", single: __m128i,
low_halves: _mm512_unpacklo_epi64, high_halves: _mm512_unpackhi_epi64,
with_last_two: |blocks, other| _mm512_shuffle_i64x2::<0xe4>(blocks, other),
low: _mm512_clmulepi64_epi128::<0x00>, high: _mm512_clmulepi64_epi128::<0x11>,
swap: _mm512_shuffle_epi32::<0x4e>,
sum: |blocks| {
    let half = _mm512_extracti64x4_epi64::<1>(blocks);
    let half = _mm256_xor_si256(_mm512_castsi512_si256(blocks), half);
    _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
},
first_block: _mm512_castsi512_si128, first: _mm512_zextsi128_si512,
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
