//! Runs of whole batches: where the time goes.
//!
//! AES rounds and multiplications want the same ports, so nothing is gained by doing both at a
//! time but that neither waits for its own results: between the rounds of a batch stand the
//! products of the one before. One reduction a batch, whose result the next one needs last.

use std::mem::MaybeUninit;

use super::Powers;
use super::hash::{Sum, powers_in_memory};
use super::message::Message;
use super::vector::{Batch, HashVector, Run};
use crate::cipher::ctr::native::kernels::{FLIGHT, LANES_ADD, in_memory, rounds};
use crate::cipher::ctr::native::vector::{Vector, last_keys, round_key};
use crate::cipher::ctr::native::{BLOCK_BYTES, ROUNDS, RoundKeys};

/// Counter blocks with the first round key.
#[inline(always)]
pub(super) unsafe fn start<V: HashVector, const N: usize>(keys: &RoundKeys, counter: V) -> [V; N] {
    // SAFETY: the caller has the features.
    unsafe {
        let key = round_key(keys, 0);
        let mut states = [key; N];
        for (i, state) in states.iter_mut().enumerate() {
            let lane = V::load(LANES_ADD.0.as_ptr().add(i * V::LANES).cast());
            *state = counter.add(lane).reverse().xor(key);
        }
        states
    }
}

impl<V: HashVector> Run<V> {
    /// From byte `at` of a message on.
    #[inline(always)]
    pub(super) unsafe fn new(
        keys: &RoundKeys,
        message: &Message<'_>,
        at: usize,
        hash: V::Single,
    ) -> Self {
        // SAFETY: the caller has the features.
        unsafe {
            let counter = V::splat(&message.counter(keys, 1 + at / BLOCK_BYTES));
            let (src, dst) = (message.src.wrapping_add(at), message.dst(at));
            Self { counter, batch: [counter; FLIGHT], hash, src, dst }
        }
    }

    /// The states of the next batch before its first round.
    #[inline(always)]
    unsafe fn next_states(&mut self, keys: &RoundKeys) -> Batch<V> {
        // SAFETY: the caller has the features.
        unsafe {
            let states = start(keys, self.counter);
            self.counter = self.counter.add(V::splat(&((FLIGHT * V::LANES) as u128)));
            states
        }
    }

    /// One batch from round `FROM` on, and the hash of the one before.
    #[inline(always)]
    unsafe fn batch<const ENCRYPT: bool, const FROM: usize>(
        &mut self,
        keys: &RoundKeys,
        powers: &Powers,
        mut states: Batch<V>,
    ) {
        let power = powers_in_memory(powers, FLIGHT * V::LANES);
        // SAFETY: the caller has the features, and pointers to a batch of data.
        unsafe {
            let mut sum = Sum::zero();
            // Written out: the compiler does not unroll it, and then indexes arrays in memory.
            macro_rules! rounds {
                ($($round:literal)*) => {$(
                    if FROM + $round < ROUNDS {
                        let key = round_key(keys, FROM + $round);
                        for state in &mut states {
                            *state = state.enc(key);
                        }
                    }
                    // The first register waits for the hash of the batch before: it comes last.
                    if $round < FLIGHT {
                        let i = ($round + 1) % FLIGHT;
                        let mut data = self.batch[i].reverse();
                        if i == 0 {
                            data = data.xor(V::first(self.hash));
                        }
                        sum.add(data, power.add(i * V::LANES));
                    }
                )*};
            }
            rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12);
            self.last_round::<ENCRYPT>(keys, states);
            self.hash = sum.reduce().sum();
        }
    }

    /// The last round, with the data folded into its key.
    #[inline(always)]
    unsafe fn last_round<const ENCRYPT: bool>(&mut self, keys: &RoundKeys, states: Batch<V>) {
        // SAFETY: as above.
        unsafe {
            let last = last_keys(keys);
            for (i, state) in states.into_iter().enumerate() {
                let src = self.src.add(i * V::BYTES);
                let data = if ENCRYPT { V::load(src) } else { V::load_once(src) };
                let output = state.enc_last(last, data);
                output.store(self.dst.add(i * V::BYTES));
                self.batch[i] = if ENCRYPT { output } else { data };
            }
            self.src = self.src.add(FLIGHT * V::BYTES);
            self.dst = self.dst.add(FLIGHT * V::BYTES);
        }
    }
}

/// `batches` from anywhere.
#[inline(always)]
pub(super) unsafe fn run_batches<V: HashVector, const ENCRYPT: bool>(
    keys: &RoundKeys,
    powers: &Powers,
    run: &mut Run<V>,
    batches: usize,
) {
    let mut local = Run { ..*run };
    for _ in 0..batches {
        // SAFETY: the caller has the features, and pointers to as much data.
        unsafe {
            let keys = in_memory(keys);
            let states = local.next_states(keys);
            local.batch::<ENCRYPT, 1>(keys, powers, states);
        }
    }
    *run = local;
}

/// Blocks in which the last byte of the counter takes each value once.
const GROUP_BLOCKS: usize = 256;

/// `batches` of which the first stands at a multiple of 256 blocks, and that are at least as
/// many: two rounds of fourteen are shared between blocks, as the bulk kernel of counter mode
/// does and explains.
///
/// The first counter of a message is 2, so the last two blocks of a group have the upper bytes
/// of the next one. In the table they stand as if they had those of the first group.
#[inline(always)]
pub(super) unsafe fn run_groups<V: HashVector, const ENCRYPT: bool, const TABLE: usize>(
    keys: &RoundKeys,
    powers: &Powers,
    run: &mut Run<V>,
    batches: usize,
) {
    const { assert!(TABLE * V::LANES == GROUP_BLOCKS) };
    let group_batches = TABLE / FLIGHT;
    let mut table = MaybeUninit::<[V; TABLE]>::uninit();
    // SAFETY: the caller has the features, and pointers to as much data; the first loop fills all
    // of the table.
    unsafe {
        let cached = table.as_mut_ptr().cast::<V>();
        let mut local = Run { ..*run };
        // Counters of the groups, whose first block has a 2 in the last byte.
        let mut group_counter = local.counter;
        for row in 0..group_batches {
            let keys = in_memory(keys);
            let mut states = local.next_states(keys);
            for (i, state) in states.iter_mut().enumerate() {
                *state = state.enc(round_key(keys, 1)).enc(round_key(keys, 2));
                cached.add(row * FLIGHT + i).write(*state);
            }
            local.batch::<ENCRYPT, 3>(keys, powers, states);
        }
        let two_rounds = |counter: V| {
            let keys = in_memory(keys);
            let state = V::splat_first(counter).reverse().xor(round_key(keys, 0));
            state.enc(round_key(keys, 1)).enc(round_key(keys, 2))
        };
        let zero = V::splat(&0);
        let step = V::splat(&(GROUP_BLOCKS as u128));
        let origin = two_rounds(group_counter);
        group_counter = group_counter.add(step);
        let mut next = two_rounds(group_counter).xor(origin);
        for i in (0..FLIGHT).filter(|i| is_edge::<V>(*i)) {
            let last = cached.add(TABLE - FLIGHT + i);
            last.write(last.read().xor(zero.with_last_two(next)));
        }
        let mut batch = group_batches;
        while batch < batches {
            let group = next;
            group_counter = group_counter.add(step);
            next = two_rounds(group_counter).xor(origin);
            for row in 0..group_batches.min(batches - batch) {
                let keys = in_memory(keys);
                let edge = if row + 1 == group_batches { group.with_last_two(next) } else { group };
                let mut states = [group; FLIGHT];
                for (i, state) in states.iter_mut().enumerate() {
                    let group = if is_edge::<V>(i) { edge } else { group };
                    *state = group.xor(cached.add(row * FLIGHT + i).read());
                }
                local.batch::<ENCRYPT, 3>(keys, powers, states);
            }
            batch += group_batches;
        }
        local.counter =
            local.counter.add(V::splat(&(((batches - group_batches) * FLIGHT * V::LANES) as u128)));
        *run = local;
    }
}

/// Whether register `i` of a batch has one of its last two blocks.
#[inline(always)]
fn is_edge<V: Vector>(i: usize) -> bool {
    (i + 1) * V::LANES > FLIGHT * V::LANES - 2
}

/// `batches` in the way that suits their number and place; `block` is the number of the first.
#[inline(always)]
pub(super) unsafe fn run_any<V: HashVector, const ENCRYPT: bool>(
    keys: &RoundKeys,
    powers: &Powers,
    run: &mut Run<V>,
    block: usize,
    batches: usize,
) {
    let group_batches = GROUP_BLOCKS / (FLIGHT * V::LANES);
    let phase = block % GROUP_BLOCKS / (FLIGHT * V::LANES);
    let lead = (group_batches - phase) % group_batches;
    // SAFETY: passed on to the caller.
    unsafe {
        if batches >= lead + 2 * group_batches {
            if lead > 0 {
                V::batches::<ENCRYPT>(keys, powers, run, lead);
            }
            V::groups::<ENCRYPT>(keys, powers, run, batches - lead);
        } else if batches > 0 {
            V::batches::<ENCRYPT>(keys, powers, run, batches);
        }
    }
}

/// The first batch, before there is anything to hash.
#[inline(always)]
pub(super) unsafe fn run_first<V: HashVector, const ENCRYPT: bool>(
    keys: &RoundKeys,
    message: &Message<'_>,
    at: usize,
    hash: V::Single,
) -> Run<V> {
    let keys = in_memory(keys);
    // SAFETY: the caller has the features, and pointers to a batch.
    unsafe {
        let mut run = Run::new(keys, message, at, hash);
        let mut states = run.next_states(keys);
        rounds::<V, FLIGHT, 1>(&mut states, keys);
        run.last_round::<ENCRYPT>(keys, states);
        run
    }
}
