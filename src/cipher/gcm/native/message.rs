//! Whole messages: which batches are hashed, which decrypted too, and how they end.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::Powers;
use super::hash::{Sum, encrypt_block, hash_aad, hash_batch, powers_in_memory};
use super::run::run_any;
use super::vector::{HashVector, State};
use crate::cipher::ctr::native::kernels::{FLIGHT, LANES_ADD, in_memory};
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

    /// J0 with the first round key.
    #[inline(always)]
    pub(super) unsafe fn first_state<B: Vector>(&self, keys: &RoundKeys) -> B {
        // SAFETY: the caller has the features.
        unsafe {
            let first = B::splat(&self.counter(keys, 0)).reverse();
            first.xor(round_key(keys, 0))
        }
    }

    /// The block of lengths, in bits.
    #[inline(always)]
    pub(super) unsafe fn lengths<B: Vector>(&self) -> B {
        let lengths = ((self.aad.len() as u128) << 64 | self.len as u128) << 3;
        // SAFETY: the caller has the features.
        unsafe { B::splat(&lengths) }
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
        let mut lengths = message.lengths::<V::Single>();
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
        sum.tag(mask)
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
        let mut states = [counter; N];
        for (i, state) in states.iter_mut().enumerate() {
            let lane = V::load(LANES_ADD.0.as_ptr().add(i * V::LANES).cast());
            *state = state.add(lane).reverse().xor(round_key(keys, 0));
        }
        let mut first = message.first_state::<V::Single>(keys);
        for round in 1..ROUNDS {
            let key = round_key(keys, round);
            for state in &mut states {
                *state = state.enc(key);
            }
            first = first.enc(key.first_block());
        }
        let (last, zero) = (last_keys(keys), V::splat(&0));
        for state in &mut states {
            *state = state.enc_last(last, zero).computed();
        }
        (states, first.enc_last(last_keys(keys), V::Single::splat(&0)).computed())
    }
}

/// The last bytes of a message, a batch at most, and what is behind them: returns the tag.
#[inline(always)]
pub(super) unsafe fn run_tail<V: HashVector, const ENCRYPT: bool>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
    state: &State<V>,
    at: usize,
) -> u128 {
    // SAFETY: as for `run_last`; where bytes were encrypted there was a batch of them.
    unsafe {
        let mut hash = state.hash;
        if ENCRYPT && at > 0 {
            hash = hash_batch(powers, &state.batch.assume_init_read(), hash);
        }
        match (message.len - at).div_ceil(V::BYTES) {
            0 | 1 => run_last::<V, 1, ENCRYPT>(keys, powers, message, at, hash),
            2 => run_last::<V, 2, ENCRYPT>(keys, powers, message, at, hash),
            3 | 4 => run_last::<V, 4, ENCRYPT>(keys, powers, message, at, hash),
            _ => run_last::<V, FLIGHT, ENCRYPT>(keys, powers, message, at, hash),
        }
    }
}

/// Bytes of the batches before the last one, which may be less than a whole.
#[inline(always)]
fn bytes_before_last<V: HashVector>(bytes: usize) -> usize {
    let batch_bytes = FLIGHT * V::BYTES;
    bytes.saturating_sub(1) / batch_bytes * batch_bytes
}

#[inline(always)]
unsafe fn finish<V: HashVector, const ENCRYPT: bool>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
    state: &State<V>,
    at: usize,
) -> u128 {
    let is_whole = message.len - at == FLIGHT * V::BYTES;
    let is_wanted = message.from <= at && message.to == message.len;
    // SAFETY: the caller has the features and the pointers.
    unsafe {
        if at > 0 && is_whole && is_wanted {
            V::last_batch::<ENCRYPT>(keys, powers, message, state, at)
        } else {
            V::tail::<ENCRYPT>(keys, powers, message, state, at)
        }
    }
}

#[inline(always)]
pub(super) unsafe fn seal<V: HashVector>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
) -> u128 {
    let last = bytes_before_last::<V>(message.len);
    // SAFETY: the caller has the features and the pointers.
    unsafe {
        let hash = hash_aad::<V::Single>(powers, message.aad);
        let mut state = State { batch: MaybeUninit::uninit(), hash };
        run_any::<V, true>(keys, powers, message, &mut state, 0, last / (FLIGHT * V::BYTES));
        finish::<V, true>(keys, powers, message, &state, last)
    }
}

/// Batches of which a part is wanted, or nothing.
#[inline(always)]
pub(super) unsafe fn run_parts<V: HashVector>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
    state: &mut State<V>,
    at: usize,
    batches: usize,
) {
    let batch_bytes = FLIGHT * V::BYTES;
    let mut hash = state.hash;
    for at in (at..).step_by(batch_bytes).take(batches) {
        let range = message.range(at, batch_bytes);
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
            hash = hash_batch(powers, &batch, hash);
        }
    }
    state.hash = hash;
}

#[inline(always)]
pub(super) unsafe fn open<V: HashVector>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
) -> u128 {
    let batch_bytes = FLIGHT * V::BYTES;
    let last = bytes_before_last::<V>(message.len);
    // SAFETY: the caller has the features and the pointers.
    unsafe {
        let hash = hash_aad::<V::Single>(powers, message.aad);
        let mut state = State { batch: MaybeUninit::uninit(), hash };
        let mut at = 0;
        while at < last {
            let rest = (last - at) / batch_bytes;
            let wanted = message.to.saturating_sub(at) / batch_bytes;
            let batches = if message.from > at {
                let batches = (message.from - at).div_ceil(batch_bytes).min(rest);
                V::parts(keys, powers, message, &mut state, at, batches);
                batches
            } else if wanted == 0 {
                V::parts(keys, powers, message, &mut state, at, rest);
                rest
            } else {
                let batches = wanted.min(rest);
                run_any::<V, false>(keys, powers, message, &mut state, at, batches);
                batches
            };
            at += batches * batch_bytes;
        }
        finish::<V, false>(keys, powers, message, &state, last)
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
