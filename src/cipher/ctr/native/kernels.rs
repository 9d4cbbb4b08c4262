//! The kernels, once for all widths.
//!
//! Three things make them fast:
//!
//! - Eight registers are in flight, which covers the latency of a round.
//! - The counters of a batch that starts at a multiple of its own size differ from the first one
//!   only by an XOR of the last byte, so one XOR a register makes the counter block and adds
//!   round key 0.
//! - Long runs leave two rounds of fourteen out: see [`super::bulk`].

use std::arch::asm;
use std::hint::black_box;
use std::ptr;

use super::vector::{Vector, last_keys, round_key};
use super::{BLOCK_BYTES, ROUNDS, RoundKeys};

/// Registers in flight.
pub(in crate::cipher) const FLIGHT: usize = 8;
/// Registers in flight in a short call, and in a tail together with the batch before it.
const FLIGHT_SHORT: usize = 10;
/// Blocks whose counters differ in the last byte only.
pub(super) const GROUP_BLOCKS: usize = 256;
/// Below this, filling the table of [`super::bulk`] and wiping it costs more than it saves.
const BULK_BYTES_MIN: usize = 12 << 10;

/// Lane numbers as 64-bit little-endian integers, to add, and as the last byte of a counter
/// block, to XOR.
#[repr(align(64))]
pub(in crate::cipher) struct Lanes(pub(in crate::cipher) [u128; FLIGHT_SHORT * 4]);

impl Lanes {
    pub(in crate::cipher) const ZERO: Self = Self([0; FLIGHT_SHORT * 4]);
}

pub(in crate::cipher) static LANES_ADD: Lanes = Lanes(lanes(0));
pub(super) static LANES_XOR: Lanes = Lanes(lanes(120));

const fn lanes(shift: u32) -> [u128; FLIGHT_SHORT * 4] {
    let mut lanes = [0; FLIGHT_SHORT * 4];
    let mut lane = 0;
    while lane < lanes.len() {
        lanes[lane] = (lane as u128) << shift;
        lane += 1;
    }
    lanes
}

/// One call: `len` bytes, of which the first stands `skip` bytes (below 16) into `block`.
#[derive(Clone, Copy)]
pub(super) struct Job {
    block: u64,
    skip: usize,
    pub(super) src: *const u8,
    pub(super) dst: *mut u8,
    len: usize,
}

impl Job {
    #[inline(always)]
    pub(super) fn new(block: u64, skip: usize, src: *const u8, dst: *mut u8, len: usize) -> Self {
        Self { block, skip, src, dst, len }
    }

    /// The counter block of the first block, as a little-endian number.
    #[inline(always)]
    pub(super) fn counter(&self, keys: &RoundKeys) -> u128 {
        u128::from(keys.nonce) << 64 | u128::from(self.block)
    }

    /// Where the first byte of the block would be.
    #[inline(always)]
    fn block_start(&self) -> (*const u8, *mut u8) {
        (self.src.wrapping_sub(self.skip), self.dst.wrapping_sub(self.skip))
    }

    /// Goes on after `bytes`, which count from the start of the block.
    #[inline(always)]
    fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min(self.skip + self.len);
        self.block = self.block.wrapping_add((bytes / BLOCK_BYTES) as u64);
        self.src = self.src.wrapping_add(bytes - self.skip);
        self.dst = self.dst.wrapping_add(bytes - self.skip);
        self.len -= bytes - self.skip;
        self.skip = 0;
    }
}

/// Keeps the compiler from loading round keys earlier than after this call: where there are more
/// of them than registers it would spill them, only to load them again from there.
#[inline(always)]
pub(in crate::cipher) fn in_memory(keys: &RoundKeys) -> &RoundKeys {
    let mut keys = ptr::from_ref(keys);
    // SAFETY: no instruction; the pointer comes out as it went in.
    unsafe {
        asm!("/* {0} */", inout(reg) keys, options(readonly, nostack, preserves_flags));
        &*keys
    }
}

/// Rounds `FROM` to 13: what is left is the last one.
#[inline(always)]
pub(in crate::cipher) unsafe fn rounds<V: Vector, const N: usize, const FROM: usize>(
    states: &mut [V; N],
    keys: &RoundKeys,
) {
    for key in &keys.keys[FROM - V::LAG..ROUNDS - V::LAG] {
        // SAFETY: the caller has the features.
        unsafe {
            let key = V::splat(key);
            for state in states.iter_mut() {
                *state = state.enc(key);
            }
        }
    }
}

/// The last round, with the data folded into its key: one XOR that waits for nothing.
#[inline(always)]
pub(super) unsafe fn finish<V: Vector>(
    mut states: [V; FLIGHT],
    keys: &RoundKeys,
    src: *const u8,
    dst: *mut u8,
) {
    // SAFETY: the caller has the features, and pointers to FLIGHT registers of data.
    unsafe {
        let last = last_keys(keys);
        for (i, state) in states.iter_mut().enumerate() {
            *state = state.enc_last(last, V::load(src.add(i * V::BYTES)));
        }
        for (i, state) in states.iter().enumerate() {
            state.store(dst.add(i * V::BYTES));
        }
    }
}

/// Keystream of the two ends of a short call, which are XORed after everything else: a call in
/// between would push all other registers to the stack.
struct Ends<V> {
    head: V,
    tail: V,
    tail_start: usize,
}

/// Up to `N` registers from any block and byte, without the ends.
#[inline(always)]
unsafe fn run_short<V: Vector, const N: usize>(
    keys: &RoundKeys,
    job: &Job,
    bytes: usize,
) -> Ends<V> {
    // SAFETY: the caller has the features, and pointers to `bytes - skip` bytes; only those are
    // touched.
    unsafe {
        let keys = in_memory(keys);
        let counter = V::splat(&job.counter(keys));
        let key: V = round_key(keys, 0);
        let mut states = [key; N];
        for (i, state) in states.iter_mut().enumerate() {
            let lane = V::load(LANES_ADD.0.as_ptr().add(i * V::LANES).cast());
            *state = counter.add(lane).reverse().xor(key);
        }
        rounds::<V, N, 1>(&mut states, keys);
        let (last, zero) = (last_keys(keys), V::splat(&0));
        for state in &mut states {
            *state = state.enc_last(last, zero).computed();
        }
        let (src, dst) = job.block_start();
        let head = if job.skip > 0 { states[0] } else { zero };
        let mut ends = Ends { head, tail: zero, tail_start: bytes };
        for (i, state) in states.into_iter().enumerate() {
            let start = i * V::BYTES;
            if i == 0 && job.skip > 0 {
                continue;
            }
            if bytes < start + V::BYTES {
                (ends.tail, ends.tail_start) = (state, start);
                break;
            }
            let (src, dst) = (src.wrapping_add(start), dst.wrapping_add(start));
            state.xor(V::load(src)).store(dst);
        }
        ends
    }
}

#[inline(always)]
unsafe fn run_ends<V: Vector>(ends: Ends<V>, job: &Job, bytes: usize) {
    let (src, dst) = job.block_start();
    // SAFETY: as for `run_short`.
    unsafe {
        if job.skip > 0 {
            ends.head.xor_part(src, dst, job.skip, V::BYTES.min(bytes));
        }
        if ends.tail_start < bytes {
            let start = ends.tail_start;
            let (src, dst) = (src.wrapping_add(start), dst.wrapping_add(start));
            ends.tail.xor_part(src, dst, 0, bytes - start);
        }
    }
}

/// A head, a tail or a short call, with as few registers as do.
#[inline(always)]
unsafe fn run_short_any<V: Vector>(keys: &RoundKeys, job: &Job, bytes: usize) {
    // SAFETY: as for `run_short`; narrower registers need fewer features.
    unsafe {
        if bytes <= BLOCK_BYTES {
            return run_ends(run_short::<V::Block, 1>(keys, job, bytes), job, bytes);
        }
        let ends = match bytes.div_ceil(V::BYTES) {
            1 => run_short::<V, 1>(keys, job, bytes),
            2 => run_short::<V, 2>(keys, job, bytes),
            3 => run_short::<V, 3>(keys, job, bytes),
            4 => run_short::<V, 4>(keys, job, bytes),
            5..=8 => run_short::<V, FLIGHT>(keys, job, bytes),
            _ => run_short::<V, FLIGHT_SHORT>(keys, job, bytes),
        };
        run_ends(ends, job, bytes);
    }
}

/// `batches` times `FLIGHT` registers. `ALIGNED`: the first block is a multiple of that.
#[inline(always)]
unsafe fn run_batches<V: Vector, const ALIGNED: bool>(keys: &RoundKeys, job: &Job, batches: usize) {
    let keys = in_memory(keys);
    let (by_xor, by_add) = (LANES_XOR.0.as_ptr(), LANES_ADD.0.as_ptr());
    // SAFETY: the caller has the features, and pointers to as much data.
    unsafe {
        let mut counter = V::splat(&job.counter(keys));
        let step = V::splat(&((FLIGHT * V::LANES) as u128));
        for batch in 0..batches {
            let keys = if V::HOLDS_KEYS { keys } else { in_memory(keys) };
            let key = round_key(keys, 0);
            let first = counter.reverse().xor(key);
            let mut states = [first; FLIGHT];
            for (i, state) in states.iter_mut().enumerate() {
                *state = if ALIGNED {
                    first.xor(V::load(by_xor.add(i * V::LANES).cast()))
                } else {
                    counter.add(V::load(by_add.add(i * V::LANES).cast())).reverse().xor(key)
                };
            }
            counter = counter.add(step);
            rounds::<V, FLIGHT, 1>(&mut states, keys);
            let at = batch * FLIGHT * V::BYTES;
            finish(states, keys, job.src.add(at), job.dst.add(at));
        }
    }
}

#[inline(always)]
pub(super) unsafe fn run<V: Vector>(keys: &RoundKeys, job: Job) {
    let bytes = job.skip + job.len;
    // SAFETY: the caller has the features and the pointers.
    unsafe {
        if job.len == 0 {
            // `skip` alone would make a register of keystream for nothing.
        } else if bytes <= FLIGHT_SHORT * V::BYTES {
            run_short_any::<V>(keys, &job, bytes);
        } else {
            V::long(keys, job.block, job.skip, job.src, job.dst, job.len);
        }
    }
}

/// More than a short call: a head, batches, a tail.
#[inline(always)]
pub(super) unsafe fn run_long<V: Vector>(keys: &RoundKeys, mut job: Job) {
    let batch_blocks = FLIGHT * V::LANES;
    let batch_bytes = FLIGHT * V::BYTES;
    let short_bytes_max = FLIGHT_SHORT * V::BYTES;
    loop {
        let bytes = job.skip + job.len;
        // OK because the remainders are below 32 and 256.
        let phase = (job.block % batch_blocks as u64) as usize;
        let group_phase = (job.block % GROUP_BLOCKS as u64) as usize;
        let to_group = (GROUP_BLOCKS - group_phase) % GROUP_BLOCKS;
        let is_bulk = bytes >= BULK_BYTES_MIN + to_group * BLOCK_BYTES;
        // SAFETY: the caller has the features and the pointers; nothing takes more than `bytes`.
        unsafe {
            if bytes <= short_bytes_max {
                if bytes > 0 {
                    run_short_any::<V>(keys, &job, bytes);
                }
                return;
            }
            if job.skip > 0 || phase > 0 && is_bulk {
                let head = if is_bulk { (batch_blocks - phase) * BLOCK_BYTES } else { batch_bytes };
                run_ends(run_short::<V, FLIGHT>(keys, &job, head), &job, head);
                job.advance(head);
                continue;
            }
            let mut batches = bytes / batch_bytes;
            let tail = bytes % batch_bytes;
            if tail > 0 && tail + batch_bytes <= short_bytes_max {
                // A short tail costs least together with the batch before it.
                batches -= 1;
            }
            if phase > 0 {
                run_batches::<V, false>(keys, &job, batches);
            } else if !is_bulk {
                run_batches::<V, true>(keys, &job, batches);
            } else if to_group > 0 {
                batches = to_group / batch_blocks;
                run_batches::<V, true>(keys, &job, batches);
            } else {
                let same = ((1 << 40) - job.block % (1 << 40)) / batch_blocks as u64;
                batches = batches.min(usize::try_from(same).unwrap_or(usize::MAX));
                // Unknown to the compiler, which would inline it after all: a long stretch of
                // the frame that only some calls write to could hide from the wipe what is
                // below it.
                let bulk = black_box(V::bulk as unsafe fn(_, _, _, _, _));
                bulk(keys, job.block, job.src, job.dst, batches);
            }
            job.advance(batches * batch_bytes);
        }
    }
}

#[inline(always)]
pub(super) unsafe fn run_limit<V: Vector>(blocks: u64) -> u64 {
    // SAFETY: the caller has the features; `sum` has room for a register.
    unsafe {
        let key = V::splat(&0x0123_4567_89ab_cdef);
        let mut states = [key; FLIGHT];
        for (i, state) in states.iter_mut().enumerate() {
            *state = V::splat(&(i as u128));
        }
        for _ in 0..blocks.div_ceil((FLIGHT * V::LANES) as u64) {
            for _ in 0..ROUNDS {
                for state in &mut states {
                    *state = state.enc(key);
                }
            }
        }
        let mut sum = [0_u64; 8];
        let all = states.iter().fold(key, |all, state| all.xor(*state));
        all.store(sum.as_mut_ptr().cast());
        sum[0]
    }
}
