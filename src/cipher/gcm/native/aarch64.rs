//! The widths of aarch64.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};
use std::ptr;

use super::message::{run_parts, run_tail};
use super::run::{run_batches, run_groups, run_last_batch};
use super::vector::{
    HashVector, KEEP, State, keep_mask, load_part_in_memory, store_part_in_memory, width,
};
use super::{Message, Powers, hash, message};
use crate::cipher::ctr::Width;
use crate::cipher::ctr::native::RoundKeys;
use crate::cipher::ctr::native::aarch64::{Neon, NeonEor3};
use crate::cipher::ctr::native::vector::Vector;

pub(super) fn is_available(width: Width) -> bool {
    width != Width::Portable && width.is_available() && is_aarch64_feature_detected!("pmull")
}

macro_rules! half {
    ($which:ident, $a:ident, $b:ident) => {
        vreinterpretq_u8_u64($which(vreinterpretq_u64_u8($a.0), vreinterpretq_u64_u8($b.0)))
    };
}

macro_rules! neon {
    ($module:ident, $type:ident, $features:literal) => {
        width!($module: $type.0 in vreg, $features, single: $type,
            low_halves: |a: Self, b: Self| $type(half!(vtrn1q_u64, a, b)),
            high_halves: |a: Self, b: Self| $type(half!(vtrn2q_u64, a, b)), with_last_two: |_, other| other,
            low: |a: Self, b: Self| {
                let (a, b) = (vreinterpretq_u64_u8(a.0), vreinterpretq_u64_u8(b.0));
                let product = vmull_p64(vgetq_lane_u64::<0>(a), vgetq_lane_u64::<0>(b));
                $type(vreinterpretq_u8_p128(product))
            },
            high: |a: Self, b: Self| {
                let (a, b) = (vreinterpretq_p64_u8(a.0), vreinterpretq_p64_u8(b.0));
                $type(vreinterpretq_u8_p128(vmull_high_p64(a, b)))
            },
            swap: |blocks: Self| $type(vextq_u8::<8>(blocks.0, blocks.0)),
            sum: |block| block, first_block: |block| block, first: |block| block,
            load_part: load_part_in_memory!(),
            keep: |part: Self, len| $type(vandq_u8(part.0, keep_mask!(len).0)),
            store_part: store_part_in_memory!());
    };
}

neon!(neon, Neon, "neon,aes");
neon!(eor3, NeonEor3, "neon,aes,sha3");
