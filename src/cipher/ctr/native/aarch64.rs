//! The widths of aarch64: NEON with the AES instructions, and with three-way XORs as well.
//!
//! Both are one source. That of SHA-3, `EOR3`, is what the compiler makes of two XORs where it
//! may: after the last round, and between the products of GHASH.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};
use std::ptr;

use super::bulk::run_bulk;
use super::kernels::{self, GROUP_BLOCKS, Job, run_limit, run_long};
use super::vector::{Vector, width, xor_bytes, xor_part_in_memory};
use super::{ROUNDS, RoundKeys, Width};

/// A register for [`neon`].
#[derive(Clone, Copy)]
pub(in crate::cipher) struct Neon(pub(in crate::cipher) uint8x16_t);

/// A register for [`eor3`].
#[derive(Clone, Copy)]
pub(in crate::cipher) struct NeonEor3(pub(in crate::cipher) uint8x16_t);

/// Numbers are little-endian in the kernels, whose lanes are of one order.
pub(in crate::cipher) fn is_available(width: Width) -> bool {
    cfg!(target_endian = "little")
        && is_aarch64_feature_detected!("aes")
        && match width {
            Width::NeonAes => true,
            Width::NeonAesEor3 => is_aarch64_feature_detected!("sha3"),
            _ => false,
        }
}

/// Calls a function of the module of a width, which is in `arch`.
macro_rules! dispatch {
    ($width:expr, $function:ident($($argument:expr),*)) => {
        match $width {
            Width::NeonAesEor3 => arch::eor3::$function($($argument),*),
            _ => arch::neon::$function($($argument),*),
        }
    };
}
pub(in crate::cipher) use dispatch;

/// FIPS 197, section 5.2. `AESE` with a key of zeros on a word that fills all four columns is
/// SubWord: ShiftRows does not change it.
#[target_feature(enable = "neon,aes")]
pub(super) fn expand(key: &[u8; 32], keys: &mut [u128; ROUNDS + 1]) {
    const KEY_WORDS: usize = 8;
    let words = keys.as_mut_ptr().cast::<u32>();
    // SAFETY: the key is two round keys, and all words are of the 15.
    unsafe {
        ptr::copy_nonoverlapping(key.as_ptr(), words.cast(), key.len());
        for i in KEY_WORDS..4 * (ROUNDS + 1) {
            let mut word = words.add(i - 1).read();
            if i % 4 == 0 {
                let filled = vreinterpretq_u8_u32(vdupq_n_u32(word));
                word = vgetq_lane_u32::<0>(vreinterpretq_u32_u8(vaeseq_u8(filled, vdupq_n_u8(0))));
            }
            if i % KEY_WORDS == 0 {
                word = word.rotate_right(8) ^ 1 << (i / KEY_WORDS - 1);
            }
            words.add(i).write(words.add(i - KEY_WORDS).read() ^ word);
        }
    }
}

macro_rules! neon {
    ($module:ident, $type:ident, $features:literal) => {
        width!($module: 1 x $type.0 in vreg, $features, block: $type, lag: 1, holds_keys: true,
            splat: |block: *const u8| $type(vld1q_u8(block)),
            load: |src: *const u8| $type(vld1q_u8(src)),
            store: |dst: *mut u8, data: Self| vst1q_u8(dst, data.0),
            xor: |a: Self, b: Self| $type(veorq_u8(a.0, b.0)),
            add: |a: Self, b: Self| $type(vreinterpretq_u8_u64(vaddq_u64(
                vreinterpretq_u64_u8(a.0),
                vreinterpretq_u64_u8(b.0),
            ))),
            reverse: |blocks: Self| {
                let halves = vrev64q_u8(blocks.0);
                $type(vextq_u8::<8>(halves, halves))
            },
            enc: |state: Self, key: Self| $type(vaesmcq_u8(vaeseq_u8(state.0, key.0))),
            enc_last: |state: Self, keys: [Self; 2], data: Self| {
                $type(veorq_u8(veorq_u8(vaeseq_u8(state.0, keys[0].0), keys[1].0), data.0))
            },
            xor_part: xor_part_in_memory!());
    };
}

neon!(neon, Neon, "neon,aes");
neon!(eor3, NeonEor3, "neon,aes,sha3");
