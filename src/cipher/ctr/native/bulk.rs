//! The kernel for long runs: two rounds of fourteen are shared between blocks.

use std::mem::MaybeUninit;

use super::RoundKeys;
use super::kernels::{FLIGHT, GROUP_BLOCKS, Job, LANES_XOR, finish, in_memory, rounds};
use super::vector::{Vector, round_key};

/// Like `run_batches` for long runs: the first block is a multiple of 256, and no bit above the
/// 40th of the block number changes within.
///
/// Round 1 maps each diagonal of the state to a column. The counter's bytes 15, 14, 13 and 12 lie
/// on four different diagonals (11 with 12, and 10 with 15), so after round 1 the first column
/// depends on byte 15 alone (byte 10 being constant), and no other column depends on it. Round 2
/// substitutes bytes one by one and is linear after that. So after round 2 the state is `f(byte
/// 15) ^ g(the bytes before)`: two rounds of 256 blocks, made once, serve every other 256 blocks
/// after one XOR with `g(this) ^ g(first)`. The technique is known as counter-mode caching (Park
/// and Lee, "FACE", TCHES 2018). The table is read in order, never by a secret index.
#[inline(always)]
pub(super) unsafe fn run_bulk<V: Vector, const TABLE: usize>(
    keys: &RoundKeys,
    job: Job,
    batches: usize,
) {
    const { assert!(TABLE * V::LANES == GROUP_BLOCKS) };
    let mut table = MaybeUninit::<[V; TABLE]>::uninit();
    // SAFETY: the caller has the features, and pointers to as much data; the first loop fills all
    // of the table, because `batches` is at least a group.
    unsafe {
        let cached = table.as_mut_ptr().cast::<V>();
        let group_batches = TABLE / FLIGHT;
        let mut counter = V::splat(&job.counter(keys));
        let step = V::splat(&((FLIGHT * V::LANES) as u128));
        for batch in 0..group_batches {
            let keys = if V::HOLDS_KEYS { keys } else { in_memory(keys) };
            let first = counter.reverse().xor(round_key(keys, 0));
            counter = counter.add(step);
            let mut states = [first; FLIGHT];
            for (i, state) in states.iter_mut().enumerate() {
                let lane = V::load(LANES_XOR.0.as_ptr().add(i * V::LANES).cast());
                *state = state.xor(lane).enc(round_key(keys, 1)).enc(round_key(keys, 2));
                cached.add(batch * FLIGHT + i).write(*state);
            }
            rounds::<V, FLIGHT, 3>(&mut states, keys);
            let at = batch * FLIGHT * V::BYTES;
            finish(states, keys, job.src.add(at), job.dst.add(at));
        }
        let origin = V::splat(&*cached.cast::<u128>());
        let step = V::splat(&(GROUP_BLOCKS as u128));
        let mut batch = group_batches;
        while batch < batches {
            // Read anew for each group: held through the rows, these three would be spilled.
            let first = in_memory(keys);
            let group = counter.reverse().xor(round_key(first, 0));
            let group = group.enc(round_key(first, 1)).enc(round_key(first, 2));
            let group = group.xor(origin);
            counter = counter.add(step);
            for row in 0..group_batches.min(batches - batch) {
                let keys = if V::HOLDS_KEYS { keys } else { in_memory(keys) };
                let mut states = [group; FLIGHT];
                for (i, state) in states.iter_mut().enumerate() {
                    *state = state.xor(cached.add(row * FLIGHT + i).read());
                }
                rounds::<V, FLIGHT, 3>(&mut states, keys);
                let at = (batch + row) * FLIGHT * V::BYTES;
                finish(states, keys, job.src.add(at), job.dst.add(at));
            }
            batch += group_batches;
        }
    }
}
