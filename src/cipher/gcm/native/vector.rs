//! A register that multiplies, and how a width makes one.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::{Message, Powers};
use crate::cipher::ctr::native::RoundKeys;
use crate::cipher::ctr::native::kernels::FLIGHT;
use crate::cipher::ctr::native::vector::Vector;

/// A batch that is in flight: `FLIGHT` registers.
pub(super) type Batch<V> = [V; FLIGHT];

/// What goes from one run of batches to the next.
pub(in crate::cipher::gcm) struct State<V: HashVector> {
    /// When encrypting: the last batch, if there was one, which is not hashed yet.
    pub(super) batch: MaybeUninit<Batch<V>>,
    pub(super) hash: V::Single,
}

/// A register that multiplies.
///
/// # Safety
///
/// As for [`Vector`].
pub(super) trait HashVector: Vector {
    /// One lane, as `Block` is, that multiplies.
    type Single: HashVector<Single = Self::Single>;

    /// The product of one half of each block with the same half of the other's.
    unsafe fn multiply<const HIGH: bool>(self, other: Self) -> Self;
    /// Exchanges the halves of each block.
    unsafe fn swap(self) -> Self;
    /// The lower half of each block, and behind it that of the other's.
    unsafe fn low_halves(self, other: Self) -> Self;
    /// The upper halves likewise.
    unsafe fn high_halves(self, other: Self) -> Self;
    /// The last two blocks of the other, or all of it where there are no more.
    unsafe fn with_last_two(self, other: Self) -> Self;
    /// The parts of a message as functions of their own, as in [`Vector`]: none has the registers
    /// and the frame of another.
    unsafe fn batches<const ENCRYPT: bool>(
        keys: &RoundKeys,
        powers: &Powers,
        message: &Message<'_>,
        state: &mut State<Self>,
        at: usize,
        batches: usize,
    );
    unsafe fn groups<const ENCRYPT: bool>(
        keys: &RoundKeys,
        powers: &Powers,
        message: &Message<'_>,
        state: &mut State<Self>,
        at: usize,
        batches: usize,
    );
    unsafe fn parts(
        keys: &RoundKeys,
        powers: &Powers,
        message: &Message<'_>,
        state: &mut State<Self>,
        at: usize,
        batches: usize,
    );
    unsafe fn last_batch<const ENCRYPT: bool>(
        keys: &RoundKeys,
        powers: &Powers,
        message: &Message<'_>,
        state: &State<Self>,
        at: usize,
    ) -> u128;
    unsafe fn tail<const ENCRYPT: bool>(
        keys: &RoundKeys,
        powers: &Powers,
        message: &Message<'_>,
        state: &State<Self>,
        at: usize,
    ) -> u128;
    /// The XOR of all blocks.
    unsafe fn sum(self) -> Self::Single;
    unsafe fn first_block(self) -> Self::Single;
    /// A block and zeros behind it.
    unsafe fn first(block: Self::Single) -> Self;
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
        $module:ident: $type:ident $(. $field:tt)? in $register:ident, $features:literal,
        single: $single:ident,
        low_halves: $low_halves:expr, high_halves: $high_halves:expr,
        with_last_two: $with_last_two:expr,
        low: $low:expr, high: $high:expr, swap: $swap:expr, sum: $sum:expr,
        first_block: $first_block:expr, first: $first:expr,
        load_part: $load_part:expr, keep: $keep:expr, store_part: $store_part:expr $(,)?
    ) => {
        pub(in crate::cipher::gcm) mod $module {
            use super::*;

            impl HashVector for $type {
                type Single = $single;

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
                unsafe fn low_halves(self, other: Self) -> Self {
                    $low_halves(self, other)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn high_halves(self, other: Self) -> Self {
                    $high_halves(self, other)
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
                    message: &Message<'_>,
                    state: &mut State<Self>,
                    at: usize,
                    batches: usize,
                ) {
                    // SAFETY: passed on to the caller.
                    unsafe { run_batches::<Self, ENCRYPT>(keys, powers, message, state, at, batches) }
                }
                // Without features, as in counter mode: the tables stay out of short calls' frames.
                #[inline(never)]
                unsafe fn groups<const ENCRYPT: bool>(
                    keys: &RoundKeys,
                    powers: &Powers,
                    message: &Message<'_>,
                    state: &mut State<Self>,
                    at: usize,
                    batches: usize,
                ) {
                    // SAFETY: passed on to the caller.
                    unsafe { tables::<ENCRYPT>(keys, powers, message, state, at, batches) }
                }
                #[inline(never)]
                #[target_feature(enable = $features)]
                unsafe fn parts(
                    keys: &RoundKeys,
                    powers: &Powers,
                    message: &Message<'_>,
                    state: &mut State<Self>,
                    at: usize,
                    batches: usize,
                ) {
                    // SAFETY: passed on to the caller.
                    unsafe { run_parts::<Self>(keys, powers, message, state, at, batches) }
                }
                #[inline(never)]
                #[target_feature(enable = $features)]
                unsafe fn last_batch<const ENCRYPT: bool>(
                    keys: &RoundKeys,
                    powers: &Powers,
                    message: &Message<'_>,
                    state: &State<Self>,
                    at: usize,
                ) -> u128 {
                    // SAFETY: passed on to the caller.
                    unsafe { run_last_batch::<Self, ENCRYPT>(keys, powers, message, state, at) }
                }
                #[inline(never)]
                #[target_feature(enable = $features)]
                unsafe fn tail<const ENCRYPT: bool>(
                    keys: &RoundKeys,
                    powers: &Powers,
                    message: &Message<'_>,
                    state: &State<Self>,
                    at: usize,
                ) -> u128 {
                    // SAFETY: passed on to the caller.
                    unsafe { run_tail::<Self, ENCRYPT>(keys, powers, message, state, at) }
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn sum(self) -> Self::Single {
                    $sum(self)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn first_block(self) -> Self::Single {
                    $first_block(self)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn first(block: Self::Single) -> Self {
                    $first(block)
                }
                #[inline]
                #[target_feature(enable = $features)]
                #[allow(asm_sub_register)] // OK because it is in a comment.
                unsafe fn load_once(src: *const u8) -> Self {
                    // SAFETY: the caller's pointer; no instruction, the register comes out as it
                    // went in.
                    unsafe {
                        let mut data = Self::load(src);
                        asm!(
                            "/* {0} */",
                            inout($register) data $(. $field)?,
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
            unsafe fn tables<const ENCRYPT: bool>(
                keys: &RoundKeys,
                powers: &Powers,
                message: &Message<'_>,
                state: &mut State<$type>,
                at: usize,
                batches: usize,
            ) {
                // SAFETY: passed on to the caller.
                unsafe { run_groups::<$type, ENCRYPT, { 256 / $type::LANES }>(keys, powers, message, state, at, batches) }
            }

            #[target_feature(enable = $features)]
            pub(in crate::cipher::gcm) unsafe fn expand(keys: &RoundKeys, powers: &mut Powers) {
                // SAFETY: passed on to the caller.
                unsafe {
                    hash::expand::<$type>(keys, powers);
                }
            }

            #[target_feature(enable = $features)]
            pub(in crate::cipher::gcm) unsafe fn limit(blocks: u64) -> u64 {
                // SAFETY: the features are there.
                unsafe { message::limit::<$type>(blocks) }
            }

            #[target_feature(enable = $features)]
            pub(in crate::cipher::gcm) unsafe fn seal(
                keys: &RoundKeys,
                powers: &Powers,
                message: &Message<'_>,
            ) -> u128 {
                // SAFETY: as above.
                unsafe {
                    message::seal::<$type>(keys, powers, message)
                }
            }

            #[target_feature(enable = $features)]
            pub(in crate::cipher::gcm) unsafe fn open(
                keys: &RoundKeys,
                powers: &Powers,
                message: &Message<'_>,
            ) -> u128 {
                // SAFETY: as above.
                unsafe {
                    message::open::<$type>(keys, powers, message)
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
pub(super) static KEEP: [u8; 64] = {
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

pub(super) use {keep_mask, load_part_in_memory, store_part_in_memory, width};
