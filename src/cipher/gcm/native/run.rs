//! Runs of whole batches: where the time goes.
//!
//! AES rounds and multiplications want the same ports, so nothing is gained by doing both at a
//! time but that neither waits for its own results: between the rounds of a batch stand the
//! products of one that is there already, which is the batch before when encrypting, and the same
//! one when decrypting. One reduction a batch, whose result the next one needs last. All else
//! wants ports as well, so what is left out counts: counters are made by one XOR each.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::Powers;
use super::hash::{Sum, powers_in_memory};
use super::message::Message;
use super::vector::{Batch, HashVector, State};
use crate::cipher::ctr::native::kernels::{FLIGHT, Lanes, in_memory};
use crate::cipher::ctr::native::vector::{Vector, last_keys, round_key};
use crate::cipher::ctr::native::{BLOCK_BYTES, ROUNDS, RoundKeys};

/// The last byte of the first counter of a message: J0 has a 1 there.
const FIRST_COUNTER: usize = 2;

/// The counters of a batch, in the last byte, from those of its beginning rounded down to a
/// multiple of its size. The last ones are of the next batch.
struct Counters<V>(PhantomData<V>);

impl<V: Vector> Counters<V> {
    const IN_BATCH: Lanes = {
        let mut lanes = Lanes::ZERO;
        let mut block = 0;
        while block < FLIGHT * V::LANES {
            let counter = (FIRST_COUNTER + block) % (FLIGHT * V::LANES);
            lanes.0[block] = (counter as u128) << 120;
            block += 1;
        }
        lanes
    };
}

/// The round, counted from the first of a run, behind which the first products stand: a batch's
/// rounds are under way then, and the last products not yet late. Found by measuring.
const HASH_ROUND: usize = 3;

/// Whether register `i` of a batch has one of its last two blocks, whose counters stand with those
/// of the next one.
#[inline(always)]
fn is_edge<V: Vector>(i: usize) -> bool {
    (i + 1) * V::LANES > FLIGHT * V::LANES - FIRST_COUNTER
}

/// A run of batches.
struct Run<V: HashVector> {
    /// The counter that the next batch begins with rounded down, as little-endian numbers.
    counter: V,
    /// The same as a block, with the first round key.
    base: V,
    batch: Batch<V>,
    hash: V::Single,
    src: *const u8,
    dst: *mut u8,
}

impl<V: HashVector> Run<V> {
    /// From byte `at` of a message on, which is a multiple of a batch's.
    #[inline(always)]
    unsafe fn new(keys: &RoundKeys, message: &Message<'_>, at: usize, state: &State<V>) -> Self {
        // SAFETY: the caller has the features.
        unsafe {
            let block = 1 + at / BLOCK_BYTES;
            let counter = message.counter(keys, block).wrapping_sub(FIRST_COUNTER as u128);
            let counter = V::splat(&counter);
            let base = counter.reverse().xor(round_key(keys, 0));
            let (src, dst) = (message.src.wrapping_add(at), message.dst(at));
            Self { counter, base, batch: [counter; FLIGHT], hash: state.hash, src, dst }
        }
    }

    /// For the next run.
    #[inline(always)]
    fn leave<const ENCRYPT: bool>(&self, state: &mut State<V>) {
        state.hash = self.hash;
        if ENCRYPT {
            state.batch.write(self.batch);
        }
    }

    /// The states of the next batch before its first round.
    #[inline(always)]
    unsafe fn next_states(&mut self, keys: &RoundKeys) -> Batch<V> {
        let lanes: &'static Lanes = &Counters::<V>::IN_BATCH;
        let lanes = lanes.0.as_ptr();
        // SAFETY: the caller has the features; there is a lane for each block of a batch.
        unsafe {
            let base = self.base;
            self.counter = self.counter.add(V::splat(&((FLIGHT * V::LANES) as u128)));
            self.base = self.counter.reverse().xor(round_key(keys, 0));
            let edge = base.with_last_two(self.base);
            let mut states = [base; FLIGHT];
            for (i, state) in states.iter_mut().enumerate() {
                let base = if is_edge::<V>(i) { edge } else { base };
                *state = base.xor(V::load(lanes.add(i * V::LANES).cast()));
            }
            states
        }
    }

    /// The states of the next batch after two rounds, kept at `row` too.
    #[inline(always)]
    unsafe fn next_row(&mut self, keys: &RoundKeys, row: *mut V) -> Batch<V> {
        // SAFETY: the caller has the features, and room for a batch.
        unsafe {
            let mut states = self.next_states(keys);
            for (i, state) in states.iter_mut().enumerate() {
                *state = state.enc(round_key(keys, 1)).enc(round_key(keys, 2));
                row.add(i).write(*state);
            }
            states
        }
    }

    /// Register `i` of what is hashed: of the batch before, or when decrypting of this one, which
    /// is loaded here.
    #[inline(always)]
    unsafe fn hashed_register<const ENCRYPT: bool>(&mut self, i: usize) -> V {
        // SAFETY: the caller has the features, and pointers to a batch of data.
        unsafe {
            if !ENCRYPT {
                self.batch[i] = V::load_once(self.src.add(i * V::BYTES));
            }
            let data = self.batch[i].reverse();
            if i == 0 { data.xor(V::first(self.hash)) } else { data }
        }
    }

    /// One batch from round `FROM` on. `HASH`: and the products of the one before with the powers
    /// at `power`, or when decrypting of the same one, onto `sum`. `also` goes through the same
    /// rounds but the last, if there is one.
    #[inline(always)]
    unsafe fn batch<const ENCRYPT: bool, const HASH: bool, const FROM: usize>(
        &mut self,
        keys: &RoundKeys,
        power: *const u128,
        mut states: Batch<V>,
        sum: &mut Sum<V>,
        mut also: Option<&mut V::Single>,
    ) {
        // SAFETY: the caller has the features, and pointers to a batch of data.
        unsafe {
            // Written out, because the compiler does not unroll it and then indexes arrays in memory;
            // and held in this order, because it puts the rounds of one register behind another's.
            macro_rules! rounds {
                ($($round:literal)*) => {$(
                    if FROM + $round < ROUNDS {
                        let key = round_key(keys, FROM + $round);
                        for state in &mut states {
                            *state = state.enc(key).computed();
                        }
                        if let Some(also) = &mut also {
                            **also = also.enc(key.first_block());
                        }
                    }
                    // The first register waits for the hash of the batch before: it comes last.
                    if HASH && $round % 2 == 1 && (HASH_ROUND..HASH_ROUND + FLIGHT).contains(&$round) {
                        let one = ($round + FLIGHT + 1 - HASH_ROUND) % FLIGHT;
                        let two = (one + 1) % FLIGHT;
                        let data = [self.hashed_register::<ENCRYPT>(one), self.hashed_register::<ENCRYPT>(two)];
                        sum.add_two(data, [power.add(one * V::LANES), power.add(two * V::LANES)]);
                    }
                )*};
            }
            rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12);
            let last = last_keys(keys);
            for (i, state) in states.into_iter().enumerate() {
                let data =
                    if ENCRYPT { V::load(self.src.add(i * V::BYTES)) } else { self.batch[i] };
                let output = state.enc_last(last, data);
                output.store(self.dst.add(i * V::BYTES));
                if ENCRYPT {
                    self.batch[i] = output;
                }
            }
            self.src = self.src.add(FLIGHT * V::BYTES);
            self.dst = self.dst.add(FLIGHT * V::BYTES);
        }
    }

    /// [`batch`](Self::batch), and the hash after it.
    #[inline(always)]
    unsafe fn hashed_batch<const ENCRYPT: bool, const FROM: usize>(
        &mut self,
        keys: &RoundKeys,
        powers: &Powers,
        states: Batch<V>,
    ) {
        let power = powers_in_memory(powers, FLIGHT * V::LANES);
        // SAFETY: as for `batch`.
        unsafe {
            let mut sum = Sum::zero();
            self.batch::<ENCRYPT, true, FROM>(keys, power, states, &mut sum, None);
            self.hash = sum.reduce().sum();
        }
    }
}

/// `batches` from anywhere; encryption begins at the beginning of the message.
#[inline(always)]
pub(super) unsafe fn run_batches<V: HashVector, const ENCRYPT: bool>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
    state: &mut State<V>,
    at: usize,
    batches: usize,
) {
    // SAFETY: the caller has the features, and pointers to as much data.
    unsafe {
        let mut run = Run::new(in_memory(keys), message, at, state);
        let mut done = 0;
        if ENCRYPT && batches > 0 {
            let keys = in_memory(keys);
            let states = run.next_states(keys);
            run.batch::<true, false, 1>(keys, std::ptr::null(), states, &mut Sum::zero(), None);
            done = 1;
        }
        for _ in done..batches {
            let keys = in_memory(keys);
            let states = run.next_states(keys);
            run.hashed_batch::<ENCRYPT, 1>(keys, powers, states);
        }
        run.leave::<ENCRYPT>(state);
    }
}

/// Blocks in which the last byte of the counter takes each value once.
const GROUP_BLOCKS: usize = 256;

/// `batches` of which the first stands at a multiple of 256 blocks, and that are more: two rounds
/// of fourteen are shared between blocks, as the bulk kernel of counter mode does and explains.
///
/// The last two blocks of a group have the upper bytes of the next one's counters. In the table
/// they stand as if they had those of the first group.
#[inline(always)]
pub(super) unsafe fn run_groups<V: HashVector, const ENCRYPT: bool, const TABLE: usize>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
    state: &mut State<V>,
    at: usize,
    batches: usize,
) {
    const { assert!(TABLE * V::LANES == GROUP_BLOCKS) };
    let group_batches = TABLE / FLIGHT;
    let mut table = MaybeUninit::<[V; TABLE]>::uninit();
    // SAFETY: the caller has the features, and pointers to as much data; the first rows fill all
    // of the table.
    unsafe {
        let cached = table.as_mut_ptr().cast::<V>();
        let mut run = Run::new(in_memory(keys), message, at, state);
        let mut group_counter = run.counter;
        let mut made = 0;
        if ENCRYPT {
            let keys = in_memory(keys);
            let states = run.next_row(keys, cached);
            run.batch::<true, false, 3>(keys, std::ptr::null(), states, &mut Sum::zero(), None);
            made = 1;
        }
        for row in made..group_batches {
            let keys = in_memory(keys);
            let states = run.next_row(keys, cached.add(row * FLIGHT));
            run.hashed_batch::<ENCRYPT, 3>(keys, powers, states);
        }
        let two_rounds = |counter: V| {
            let keys = in_memory(keys);
            let state = counter.reverse().xor(round_key(keys, 0));
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
                run.hashed_batch::<ENCRYPT, 3>(keys, powers, states);
            }
            batch += group_batches;
        }
        run.leave::<ENCRYPT>(state);
    }
}

/// `batches` in the way that suits their number and place.
#[inline(always)]
pub(super) unsafe fn run_any<V: HashVector, const ENCRYPT: bool>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
    state: &mut State<V>,
    at: usize,
    batches: usize,
) {
    let batch_bytes = FLIGHT * V::BYTES;
    let group_batches = GROUP_BLOCKS * BLOCK_BYTES / batch_bytes;
    let phase = at / batch_bytes % group_batches;
    let lead = (group_batches - phase) % group_batches;
    // SAFETY: passed on to the caller.
    unsafe {
        if batches >= lead + 2 * group_batches {
            if lead > 0 {
                V::batches::<ENCRYPT>(keys, powers, message, state, at, lead);
            }
            let at = at + lead * batch_bytes;
            V::groups::<ENCRYPT>(keys, powers, message, state, at, batches - lead);
        } else if batches > 0 {
            V::batches::<ENCRYPT>(keys, powers, message, state, at, batches);
        }
    }
}

/// The last batch of a message, where that is a whole one and not the first, with the block of
/// lengths and the encryption of J0: returns the tag.
#[inline(always)]
pub(super) unsafe fn run_last_batch<V: HashVector, const ENCRYPT: bool>(
    keys: &RoundKeys,
    powers: &Powers,
    message: &Message<'_>,
    state: &State<V>,
    at: usize,
) -> u128 {
    let keys = in_memory(keys);
    let blocks = FLIGHT * V::LANES;
    // SAFETY: the caller has the features, and pointers to a batch of data; there was one before.
    unsafe {
        let mut run = Run::new(keys, message, at, state);
        if ENCRYPT {
            run.batch = state.batch.assume_init();
        }
        let states = run.next_states(keys);
        let mut mask = message.first_state(keys);
        let mut sum = Sum::zero();
        // Behind this batch comes one more block.
        let power = powers_in_memory(powers, blocks + 1);
        if ENCRYPT {
            let before = powers_in_memory(powers, blocks);
            run.batch::<true, true, 1>(keys, before, states, &mut sum, Some(&mut mask));
            let hash = sum.reduce().sum();
            sum = Sum::zero();
            sum.add_batch(&run.batch, hash, power);
        } else {
            run.batch::<false, true, 1>(keys, power, states, &mut sum, Some(&mut mask));
        }
        sum.add(V::first(message.lengths()), powers_in_memory(powers, 1));
        let mask = mask.enc_last(last_keys(keys), V::Single::splat(&0));
        sum.tag(mask)
    }
}
