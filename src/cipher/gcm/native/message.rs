//! Whole messages: which batches are hashed, which decrypted too, and how they end.

use std::ops::Range;

use super::Powers;
use super::hash::{Sum, encrypt_block, hash_aad, hash_batch, powers_in_memory};
use super::run::{run_any, run_first, start};
use super::vector::HashVector;
use crate::cipher::ctr::native::kernels::{FLIGHT, in_memory};
use crate::cipher::ctr::native::vector::{Vector, last_keys, round_key};
use crate::cipher::ctr::native::{BLOCK_BYTES, ROUNDS, RoundKeys};

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

impl Message<'_> {
    /// The counter block `block` blocks after J0.
    #[inline(always)]
    pub(super) fn counter(&self, keys: &RoundKeys, block: usize) -> u128 {
        u128::from(keys.nonce) << 64 | u128::from(self.block + block as u64)
    }

    /// Where byte `at` of the message goes; dangling outside of the range.
    #[inline(always)]
    pub(super) fn dst(&self, at: usize) -> *mut u8 {
        self.dst.wrapping_add(at).wrapping_sub(self.from)
    }

    /// The part of `at..at + len` that is wanted, from `at` on.
    #[inline(always)]
    fn range(&self, at: usize, len: usize) -> Range<usize> {
        self.from.saturating_sub(at)..self.to.saturating_sub(at).min(len)
    }
}

/// The last registers, at most `N` of them and the last one maybe not full, with the block of
/// lengths and the encryption of J0: returns the tag.
#[inline(always)]
unsafe fn run_last<V: HashVector, const N: usize, const ENCRYPT: bool>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
    at: usize,
    hash: V::Single,
) -> u128 {
    let keys = in_memory(keys);
    let bytes = message.len - at;
    let blocks = bytes.div_ceil(BLOCK_BYTES);
    let power = powers_in_memory(powers, blocks + 1);
    let range = message.range(at, bytes);
    // SAFETY: the caller has the features; no byte outside of the message and its range is
    // touched.
    unsafe {
        let (states, mask) = if ENCRYPT || !range.is_empty() {
            keystream::<V, N>(keys, message, at)
        } else {
            ([V::splat(&0); N], encrypt_block(keys, message.counter(keys, 0)))
        };
        let lengths = ((message.aad.len() as u128) << 64 | message.len as u128) << 3;
        let mut lengths = V::Single::splat(&lengths);
        if blocks == 0 {
            lengths = lengths.xor(hash);
        }
        let mut sum = Sum::zero();
        sum.add(V::first(lengths), powers_in_memory(powers, 1));
        for (i, state) in states.into_iter().enumerate() {
            let start = i * V::BYTES;
            if start >= bytes {
                break;
            }
            let len = bytes - start;
            let src = message.src.wrapping_add(at + start);
            let data = if len >= V::BYTES { V::load_once(src) } else { V::load_part(src, len) };
            let data = data.computed();
            let output = state.xor(data);
            output.store_range(message.dst(at + start), start, &range);
            let mut data = if !ENCRYPT {
                data
            } else if len >= V::BYTES {
                output
            } else {
                output.keep(len)
            };
            data = data.reverse();
            if i == 0 {
                data = data.xor(V::first(hash));
            }
            sum.add(data, power.add(i * V::LANES));
        }
        let tag = sum.reduce().sum().reverse().xor(mask);
        let mut bits = 0_u128;
        tag.store((&raw mut bits).cast());
        bits
    }
}

/// Keystream from byte `at` on, and the encryption of J0.
#[inline(always)]
unsafe fn keystream<V: HashVector, const N: usize>(
    keys: &RoundKeys,
    message: &Message<'_>,
    at: usize,
) -> ([V; N], V::Single) {
    // SAFETY: the caller has the features.
    unsafe {
        let counter = V::splat(&message.counter(keys, 1 + at / BLOCK_BYTES));
        let mut states: [V; N] = start(keys, counter);
        let first = V::Single::splat(&message.counter(keys, 0)).reverse();
        let mut first = first.xor(round_key(keys, 0));
        for round in 1..ROUNDS {
            let key = round_key(keys, round);
            for state in &mut states {
                *state = state.enc(key);
            }
            first = first.enc(round_key(keys, round));
        }
        let (last, zero) = (last_keys(keys), V::splat(&0));
        for state in &mut states {
            *state = state.enc_last(last, zero).computed();
        }
        (states, first.enc_last(last_keys(keys), V::Single::splat(&0)).computed())
    }
}

#[inline(always)]
unsafe fn run_last_any<V: HashVector, const ENCRYPT: bool>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
    at: usize,
    hash: V::Single,
) -> u128 {
    // SAFETY: as for `run_last`.
    unsafe {
        match (message.len - at).div_ceil(V::BYTES) {
            0 | 1 => run_last::<V, 1, ENCRYPT>(keys, powers, message, at, hash),
            2 => run_last::<V, 2, ENCRYPT>(keys, powers, message, at, hash),
            3 | 4 => run_last::<V, 4, ENCRYPT>(keys, powers, message, at, hash),
            _ => run_last::<V, FLIGHT, ENCRYPT>(keys, powers, message, at, hash),
        }
    }
}

/// Batches before the last registers, of which at least one is left if there is any.
#[inline(always)]
fn batches<V: HashVector>(bytes: usize) -> usize {
    bytes.saturating_sub(1) / (FLIGHT * V::BYTES)
}

#[inline(always)]
pub(super) unsafe fn seal<V: HashVector>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
) -> u128 {
    let batches = batches::<V>(message.len);
    let batch_bytes = FLIGHT * V::BYTES;
    // SAFETY: the caller has the features and the pointers.
    unsafe {
        let mut hash = hash_aad::<V::Single>(powers, message.aad);
        if batches > 0 {
            let mut run = run_first::<V, true>(keys, message, 0, hash);
            // The first batch is of the first group, and went without it.
            run_any::<V, true>(keys, powers, &mut run, FLIGHT * V::LANES, batches - 1);
            hash = hash_batch(powers, &run.batch, run.hash);
        }
        run_last_any::<V, true>(keys, powers, message, batches * batch_bytes, hash)
    }
}

/// A batch of which a part is wanted, or nothing.
#[inline(always)]
unsafe fn open_batch_part<V: HashVector>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
    at: usize,
    hash: V::Single,
) -> V::Single {
    let range = message.range(at, FLIGHT * V::BYTES);
    // SAFETY: the caller has the features; no byte outside of the range is written.
    unsafe {
        let src = message.src.add(at);
        let mut batch = [V::splat(&0); FLIGHT];
        for (i, data) in batch.iter_mut().enumerate() {
            *data = V::load_once(src.add(i * V::BYTES));
        }
        if !range.is_empty() {
            let keys = in_memory(keys);
            let (states, _) = keystream::<V, FLIGHT>(keys, message, at);
            for (i, state) in states.into_iter().enumerate() {
                let start = i * V::BYTES;
                state.xor(batch[i]).store_range(message.dst(at + start), start, &range);
            }
        }
        hash_batch(powers, &batch, hash)
    }
}

#[inline(always)]
pub(super) unsafe fn open<V: HashVector>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
) -> u128 {
    let batches = batches::<V>(message.len);
    let batch_bytes = FLIGHT * V::BYTES;
    // SAFETY: the caller has the features and the pointers.
    unsafe {
        let mut hash = hash_aad::<V::Single>(powers, message.aad);
        let mut i = 0;
        while i < batches {
            let at = i * batch_bytes;
            if message.from <= at && at + batch_bytes <= message.to {
                let end = (message.to / batch_bytes).min(batches);
                let mut run = run_first::<V, false>(keys, message, at, hash);
                let next = at / BLOCK_BYTES + FLIGHT * V::LANES;
                run_any::<V, false>(keys, powers, &mut run, next, end - i - 1);
                hash = hash_batch(powers, &run.batch, run.hash);
                i = end;
            } else {
                hash = open_batch_part::<V>(keys, powers, message, at, hash);
                i += 1;
            }
        }
        run_last_any::<V, false>(keys, powers, message, batches * batch_bytes, hash)
    }
}

/// The rounds and the three products of each block, on registers alone: what wants the ports
/// that nothing else can take the place of.
#[inline(always)]
pub(super) unsafe fn limit<V: HashVector>(blocks: u64) -> u64 {
    // SAFETY: the caller has the features; `out` has room for a register.
    unsafe {
        let key = V::splat(&0x0123_4567_89ab_cdef);
        let mut states = [key; FLIGHT];
        for (i, state) in states.iter_mut().enumerate() {
            *state = V::splat(&(i as u128));
        }
        let mut products = [key; 3];
        for _ in 0..blocks.div_ceil((FLIGHT * V::LANES) as u64) {
            for round in 0..ROUNDS {
                for state in &mut states {
                    *state = state.enc(key);
                }
                if round < FLIGHT {
                    for product in &mut products {
                        *product = product.multiply::<false>(key).computed();
                    }
                }
            }
        }
        let mut out = [0_u64; 8];
        let all = states.iter().chain(&products).fold(key, |all, state| all.xor(*state));
        all.store(out.as_mut_ptr().cast());
        out[0]
    }
}
