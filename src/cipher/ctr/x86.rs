//! AES-256-CTR for x86-64 in three widths from one source.
//!
//! [`run`] and [`run_bulk`] are written once, over [`Vector`]; `width!` instantiates them for
//! AES-NI, VAES on 256 bits and VAES on 512 bits. Nothing here branches on, or indexes with, a
//! secret: control flow depends on lengths, offsets and block numbers alone.
//!
//! Three things make it fast:
//!
//! - Eight registers are in flight, which covers the latency of `aesenc`.
//! - The counters of a batch that starts at a multiple of its own size differ from the first one
//!   only by an XOR of the last byte, so one XOR a register makes the counter block and adds
//!   round key 0. Adding and shuffling would compete with `aesenc` for execution ports.
//! - Long runs leave two rounds of fourteen out: see [`run_bulk`].

// The only unsafe code of the core: vector instructions that the compiler may not assume, on
// pointers because reading and writing in place is the same code as source to destination.
#![allow(unsafe_code)]

#[cfg(test)]
mod tests;

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ptr;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Width;

const ROUNDS: usize = 14;
const BLOCK_BYTES: usize = 16;
/// Registers in flight.
const FLIGHT: usize = 8;
/// Blocks whose counters differ in the last byte only.
const GROUP_BLOCKS: usize = 256;
/// Below this, filling and wiping the table of [`run_bulk`] costs more than it saves.
const BULK_BYTES_MIN: usize = 12 << 10;

/// Lane numbers as 64-bit little-endian integers, to add, and as the last byte of a counter
/// block, to XOR.
#[repr(align(64))]
struct Lanes([u128; FLIGHT * 4]);

static LANES_ADD: Lanes = Lanes(lanes(0));
static LANES_XOR: Lanes = Lanes(lanes(120));

const fn lanes(shift: u32) -> [u128; FLIGHT * 4] {
    let mut lanes = [0; FLIGHT * 4];
    let mut lane = 0;
    while lane < lanes.len() {
        lanes[lane] = (lane as u128) << shift;
        lane += 1;
    }
    lanes
}

pub(super) fn is_available(width: Width) -> bool {
    match width {
        Width::Portable => false,
        Width::Aes128 => is_x86_feature_detected!("aes") && is_x86_feature_detected!("ssse3"),
        Width::Vaes256 => is_x86_feature_detected!("vaes") && is_x86_feature_detected!("avx2"),
        Width::Vaes512 => {
            is_x86_feature_detected!("vaes")
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
        }
    }
}

/// The 15 round keys, with a width that was found available: no other value can be made, which
/// is what the `unsafe` calls below rest on.
pub(super) struct RoundKeys {
    keys: [u128; ROUNDS + 1],
    width: Width,
}

impl Drop for RoundKeys {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

impl ZeroizeOnDrop for RoundKeys {}

impl RoundKeys {
    #[inline]
    pub(super) fn new(key: &[u8; 32], width: Width) -> Option<Self> {
        if !is_available(width) {
            return None;
        }
        // Expanded in its final place, so that no second copy of the keys is left on the stack.
        let mut this = Self { keys: [0; ROUNDS + 1], width };
        // SAFETY: every available width implies AES-NI and SSSE3.
        unsafe { expand(key, &mut this.keys) };
        Some(this)
    }

    #[inline]
    pub(super) fn apply_in_place(&self, nonce: u64, block: u64, skip: usize, buf: &mut [u8]) {
        let dst = buf.as_mut_ptr();
        // SAFETY: `buf` is valid for reads and writes of its length.
        unsafe { self.run(Job { nonce, block, skip, src: dst, dst, len: buf.len() }) }
    }

    #[inline]
    pub(super) fn apply(&self, nonce: u64, block: u64, skip: usize, src: &[u8], dst: &mut [u8]) {
        assert_eq!(src.len(), dst.len());
        let (src, dst, len) = (src.as_ptr(), dst.as_mut_ptr(), dst.len());
        // SAFETY: both slices are valid for `len` bytes, and `dst` is borrowed exclusively, so
        // that they do not overlap.
        unsafe { self.run(Job { nonce, block, skip, src, dst, len }) }
    }

    /// # Safety
    ///
    /// `job.src` is valid for reads, and `job.dst` for writes, of `job.len` bytes; they are equal
    /// or do not overlap.
    #[inline]
    unsafe fn run(&self, job: Job) {
        debug_assert!(job.skip < BLOCK_BYTES);
        // SAFETY: the width was found available in `new`; the pointers are the caller's duty.
        unsafe {
            match self.width {
                Width::Vaes512 => zmm::run(&self.keys, job),
                Width::Vaes256 => ymm::run(&self.keys, job),
                _ => xmm::run(&self.keys, job),
            }
        }
    }
}

/// See [`super::limit`].
pub(super) fn limit(width: Width, blocks: u64) -> Option<u64> {
    if !is_available(width) {
        return None;
    }
    // SAFETY: the width is available.
    unsafe {
        Some(match width {
            Width::Vaes512 => zmm::limit(blocks),
            Width::Vaes256 => ymm::limit(blocks),
            _ => xmm::limit(blocks),
        })
    }
}

/// FIPS 197, section 5.2. `aesenclast` on a word that fills all four columns is SubWord and XOR:
/// ShiftRows does not change it. Shorter latency than `aeskeygenassist` on most processors.
#[target_feature(enable = "aes,ssse3")]
fn expand(key: &[u8; 32], keys: &mut [u128; ROUNDS + 1]) {
    /// `word` is the last word of the previous key, transformed.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn next(mut key: __m128i, word: __m128i) -> __m128i {
        key = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
        key = _mm_xor_si128(key, _mm_slli_si128::<8>(key));
        _mm_xor_si128(key, word)
    }
    let rotated_last_word = _mm_set1_epi32(0x0c0f_0e0d);
    let last_word = _mm_set1_epi32(0x0f0e_0d0c);
    // SAFETY: reads the 32 bytes of `key`.
    let (mut even, mut odd) = unsafe {
        let key = key.as_ptr().cast::<__m128i>();
        (_mm_loadu_si128(key), _mm_loadu_si128(key.add(1)))
    };
    let out = keys.as_mut_ptr().cast::<__m128i>();
    for i in 0..=ROUNDS / 2 {
        // SAFETY: 2 * i <= 14, and the odd key is written only below 14; aligned as `u128` is.
        unsafe {
            _mm_store_si128(out.add(2 * i), even);
            if i == ROUNDS / 2 {
                break;
            }
            _mm_store_si128(out.add(2 * i + 1), odd);
        }
        let word = _mm_shuffle_epi8(odd, rotated_last_word);
        even = next(even, _mm_aesenclast_si128(word, _mm_set1_epi32(1 << i)));
        let word = _mm_shuffle_epi8(even, last_word);
        odd = next(odd, _mm_aesenclast_si128(word, _mm_setzero_si128()));
    }
}

/// One call: `len` bytes, of which the first stands `skip` bytes (below 16) into `block`.
#[derive(Clone, Copy)]
struct Job {
    nonce: u64,
    block: u64,
    skip: usize,
    src: *const u8,
    dst: *mut u8,
    len: usize,
}

impl Job {
    /// The counter block of the first block, as a little-endian number.
    #[inline(always)]
    fn counter(&self) -> u128 {
        u128::from(self.nonce) << 64 | u128::from(self.block)
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

/// `LANES` AES blocks in one register.
///
/// # Safety
///
/// All methods need the processor features of the implementation; pointers are valid for as many
/// bytes as the name says, without alignment unless said.
trait Vector: Copy {
    /// Blocks in a register.
    const LANES: usize;
    const BYTES: usize = Self::LANES * BLOCK_BYTES;
    /// Whether all round keys and the states in flight fit in the register file.
    const HOLDS_KEYS: bool;

    /// One block in every lane.
    unsafe fn splat(block: &u128) -> Self;
    unsafe fn load(src: *const u8) -> Self;
    unsafe fn store(self, dst: *mut u8);
    unsafe fn xor(self, other: Self) -> Self;
    /// Adds 64-bit integers: no carry from the counter to the nonce.
    unsafe fn add(self, other: Self) -> Self;
    /// Reverses the bytes of each block.
    unsafe fn reverse(self) -> Self;
    unsafe fn enc(self, key: Self) -> Self;
    unsafe fn enc_last(self, key: Self) -> Self;
    /// XORs the bytes `from..to` of the register with those of `src` into `dst`, and touches no
    /// others. `src` and `dst` are where byte 0 would be.
    unsafe fn xor_part(self, src: *const u8, dst: *mut u8, from: usize, to: usize);
    /// [`run_bulk`], compiled for this width, outside of the code for short calls.
    unsafe fn bulk(keys: &[u128; ROUNDS + 1], job: Job, batches: usize);
}

/// Keeps the compiler from loading all round keys before a loop, where there are more of them
/// than registers: it would spill them to the stack, where nobody wipes them.
#[inline(always)]
fn in_memory<V: Vector>(keys: &[u128; ROUNDS + 1]) -> &[u128; ROUNDS + 1] {
    if V::HOLDS_KEYS {
        return keys;
    }
    let mut keys = ptr::from_ref(keys);
    // SAFETY: no instruction; the pointer comes out as it went in.
    unsafe {
        asm!("/* {0} */", inout(reg) keys, options(readonly, nostack, preserves_flags));
        &*keys
    }
}

/// Rounds `FROM` to 13: what is left is the last one.
#[inline(always)]
unsafe fn rounds<V: Vector, const N: usize, const FROM: usize>(
    states: &mut [V; N],
    keys: &[u128; ROUNDS + 1],
) {
    for key in &keys[FROM..ROUNDS] {
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
unsafe fn finish<V: Vector>(
    mut states: [V; FLIGHT],
    keys: &[u128; ROUNDS + 1],
    src: *const u8,
    dst: *mut u8,
) {
    // SAFETY: the caller has the features, and pointers to FLIGHT registers of data.
    unsafe {
        let last = V::splat(&keys[ROUNDS]);
        for (i, state) in states.iter_mut().enumerate() {
            *state = state.enc_last(last.xor(V::load(src.add(i * V::BYTES))));
        }
        for (i, state) in states.iter().enumerate() {
            state.store(dst.add(i * V::BYTES));
        }
    }
}

/// Up to `N` registers from any block and byte: heads, tails and short calls.
#[inline(always)]
unsafe fn run_short<V: Vector, const N: usize>(keys: &[u128; ROUNDS + 1], job: &Job, bytes: usize) {
    // SAFETY: the caller has the features, and pointers to `bytes - skip` bytes; only those are
    // touched.
    unsafe {
        let keys = in_memory::<V>(keys);
        let counter = V::splat(&job.counter());
        let key = V::splat(&keys[0]);
        let mut states = [key; N];
        for (i, state) in states.iter_mut().enumerate() {
            let lane = V::load(LANES_ADD.0.as_ptr().add(i * V::LANES).cast());
            *state = counter.add(lane).reverse().xor(key);
        }
        rounds::<V, N, 1>(&mut states, keys);
        let last = V::splat(&keys[ROUNDS]);
        let (src, dst) = (job.src.wrapping_sub(job.skip), job.dst.wrapping_sub(job.skip));
        for (i, state) in states.iter().enumerate() {
            let start = i * V::BYTES;
            if start >= bytes {
                break;
            }
            let from = if i == 0 { job.skip } else { 0 };
            let to = V::BYTES.min(bytes - start);
            let (src, dst) = (src.wrapping_add(start), dst.wrapping_add(start));
            if from == 0 && to == V::BYTES {
                state.enc_last(last.xor(V::load(src))).store(dst);
            } else {
                state.enc_last(last).xor_part(src, dst, from, to);
            }
        }
    }
}

/// `batches` times `FLIGHT` registers; the first block is a multiple of that.
#[inline(always)]
unsafe fn run_batches<V: Vector>(keys: &[u128; ROUNDS + 1], job: &Job, batches: usize) {
    // SAFETY: the caller has the features, and pointers to as much data.
    unsafe {
        let mut counter = V::splat(&job.counter());
        let step = V::splat(&((FLIGHT * V::LANES) as u128));
        for batch in 0..batches {
            let keys = in_memory::<V>(keys);
            let first = counter.reverse().xor(V::splat(&keys[0]));
            counter = counter.add(step);
            let mut states = [first; FLIGHT];
            for (i, state) in states.iter_mut().enumerate() {
                let lane = V::load(LANES_XOR.0.as_ptr().add(i * V::LANES).cast());
                *state = state.xor(lane);
            }
            rounds::<V, FLIGHT, 1>(&mut states, keys);
            let at = batch * FLIGHT * V::BYTES;
            finish(states, keys, job.src.add(at), job.dst.add(at));
        }
    }
}

/// Like [`run_batches`] for long runs: the first block is a multiple of 256, and no bit above the
/// 40th of the block number changes within.
///
/// Round 1 maps each diagonal of the state to a column. The counter's bytes 15, 14, 13 and 12 lie
/// on four different diagonals (11 with 12, and 10 with 15), so after round 1 the first column
/// depends on byte 15 alone (byte 10 being constant), and no other column depends on it. Round 2
/// substitutes bytes one by one and is linear after that. So after round 2 the state is `f(byte
/// 15) ^ g(the bytes before)`: two rounds of 256 blocks, made once, serve every other 256 blocks
/// after one XOR with `g(this) ^ g(first)`. The technique is known as counter-mode caching (Park
/// and Lee, "FACE", CHES 2018). The table is read in order, never by a secret index.
#[inline(always)]
unsafe fn run_bulk<V: Vector, const TABLE: usize>(
    keys: &[u128; ROUNDS + 1],
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
        let mut counter = V::splat(&job.counter());
        let step = V::splat(&((FLIGHT * V::LANES) as u128));
        for batch in 0..group_batches {
            let keys = in_memory::<V>(keys);
            let first = counter.reverse().xor(V::splat(&keys[0]));
            counter = counter.add(step);
            let mut states = [first; FLIGHT];
            for (i, state) in states.iter_mut().enumerate() {
                let lane = V::load(LANES_XOR.0.as_ptr().add(i * V::LANES).cast());
                *state = state.xor(lane).enc(V::splat(&keys[1])).enc(V::splat(&keys[2]));
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
            let group = counter.reverse().xor(V::splat(&keys[0]));
            let group = group.enc(V::splat(&keys[1])).enc(V::splat(&keys[2])).xor(origin);
            counter = counter.add(step);
            for row in 0..group_batches.min(batches - batch) {
                let keys = in_memory::<V>(keys);
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
        // What is left of the table would give round keys away.
        let zero = V::splat(&0);
        for i in 0..TABLE {
            cached.add(i).write_volatile(zero);
        }
    }
}

#[inline(always)]
unsafe fn run<V: Vector>(keys: &[u128; ROUNDS + 1], mut job: Job) {
    let batch_blocks = FLIGHT * V::LANES;
    let batch_bytes = FLIGHT * V::BYTES;
    while job.len > 0 {
        let bytes = job.skip + job.len;
        // OK because the remainders are below 32 and 256.
        let phase = (job.block % batch_blocks as u64) as usize;
        let group_phase = (job.block % GROUP_BLOCKS as u64) as usize;
        // SAFETY: the caller has the features and the pointers; no branch takes more than `bytes`.
        unsafe {
            if job.skip == 0 && phase == 0 && bytes >= batch_bytes {
                let mut batches = bytes / batch_bytes;
                let to_group = (GROUP_BLOCKS - group_phase) % GROUP_BLOCKS;
                if bytes < BULK_BYTES_MIN + to_group * BLOCK_BYTES {
                    run_batches::<V>(keys, &job, batches);
                } else if to_group > 0 {
                    batches = to_group / batch_blocks;
                    run_batches::<V>(keys, &job, batches);
                } else {
                    let same = ((1 << 40) - job.block % (1 << 40)) / batch_blocks as u64;
                    batches = batches.min(usize::try_from(same).unwrap_or(usize::MAX));
                    V::bulk(keys, job, batches);
                }
                job.advance(batches * batch_bytes);
                continue;
            }
            // Reaching a multiple of the batch pays only when enough batches follow.
            let aligned = (batch_blocks - phase) * BLOCK_BYTES;
            let take = if bytes < 3 * batch_bytes { batch_bytes } else { aligned };
            let take = take.min(bytes);
            match take.div_ceil(V::BYTES) {
                1 => run_short::<V, 1>(keys, &job, take),
                2 => run_short::<V, 2>(keys, &job, take),
                3 | 4 => run_short::<V, 4>(keys, &job, take),
                _ => run_short::<V, FLIGHT>(keys, &job, take),
            }
            job.advance(take);
        }
    }
}

#[inline(always)]
unsafe fn run_limit<V: Vector>(blocks: u64) -> u64 {
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

/// XORs `len` bytes, below 32, in steps of halving size.
#[inline(always)]
unsafe fn xor_bytes(mut keystream: *const u8, mut src: *const u8, mut dst: *mut u8, len: usize) {
    macro_rules! step {
        ($word:ty) => {
            if len & size_of::<$word>() != 0 {
                // SAFETY: the steps add up to `len`, which the caller vouches for.
                unsafe {
                    let word = keystream.cast::<$word>().read_unaligned();
                    let word = word ^ src.cast::<$word>().read_unaligned();
                    dst.cast::<$word>().write_unaligned(word);
                    keystream = keystream.add(size_of::<$word>());
                    src = src.add(size_of::<$word>());
                    dst = dst.add(size_of::<$word>());
                }
            }
        };
    }
    debug_assert!(len < 32);
    step!(u128);
    step!(u64);
    step!(u32);
    step!(u16);
    step!(u8);
    let _ = (keystream, src, dst);
}

/// One bit for each of the bytes `from..to`; `from < to <= 64`.
#[inline(always)]
fn part_mask(from: usize, to: usize) -> u64 {
    u64::MAX << from & u64::MAX >> (64 - to)
}

/// A width: its register type, and its instances of the code above.
macro_rules! width {
    (
        $module:ident: $lanes:literal x $type:ident, $features:literal,
        holds_keys: $holds_keys:literal, splat: $splat:expr, load: $load:ident, store: $store:ident,
        xor: $xor:ident, add: $add:ident, reverse: $reverse:expr,
        enc: $enc:ident, enc_last: $enc_last:ident, xor_part: $xor_part:expr $(,)?
    ) => {
        mod $module {
            use super::*;

            impl Vector for $type {
                const LANES: usize = $lanes;
                const HOLDS_KEYS: bool = $holds_keys;

                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn splat(block: &u128) -> Self {
                    // SAFETY: reads one block, aligned as `u128` is.
                    $splat(unsafe { _mm_load_si128(ptr::from_ref(block).cast()) })
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn load(src: *const u8) -> Self {
                    // SAFETY: the caller's pointer.
                    unsafe { $load(src.cast()) }
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn store(self, dst: *mut u8) {
                    // SAFETY: the caller's pointer.
                    unsafe { $store(dst.cast(), self) }
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn xor(self, other: Self) -> Self {
                    $xor(self, other)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn add(self, other: Self) -> Self {
                    $add(self, other)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn reverse(self) -> Self {
                    let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
                    $reverse(self, $splat(order))
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn enc(self, key: Self) -> Self {
                    $enc(self, key)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn enc_last(self, key: Self) -> Self {
                    $enc_last(self, key)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn xor_part(self, src: *const u8, dst: *mut u8, from: usize, to: usize) {
                    $xor_part(self, src, dst, from, to)
                }
                #[inline(never)]
                #[target_feature(enable = $features)]
                unsafe fn bulk(keys: &[u128; ROUNDS + 1], job: Job, batches: usize) {
                    // SAFETY: passed on to the caller.
                    unsafe { run_bulk::<Self, { GROUP_BLOCKS / $lanes }>(keys, job, batches) }
                }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn run(keys: &[u128; ROUNDS + 1], job: Job) {
                // SAFETY: passed on to the caller.
                unsafe { super::run::<$type>(keys, job) }
            }

            #[target_feature(enable = $features)]
            pub(super) unsafe fn limit(blocks: u64) -> u64 {
                // SAFETY: the features are there.
                unsafe { run_limit::<$type>(blocks) }
            }
        }
    };
}

/// `xor_part` by way of the stack, where there are no masked moves of bytes.
macro_rules! xor_part_by_stack {
    () => {
        |keystream: Self, src: *const u8, dst: *mut u8, from: usize, to: usize| {
            let mut copy = MaybeUninit::new(keystream);
            let at = copy.as_mut_ptr();
            let (src, dst) = (src.wrapping_add(from), dst.wrapping_add(from));
            // SAFETY: the caller's pointers, and `from < to <= BYTES`; `at` is this register.
            // Keystream is as secret as the plaintext, so it does not stay on the stack.
            unsafe {
                xor_bytes(at.cast::<u8>().add(from), src, dst, to - from);
                at.write_volatile(Self::splat(&0));
            }
        }
    };
}

width!(xmm: 1 x __m128i, "aes,ssse3",
    holds_keys: false, splat: |block| block, load: _mm_loadu_si128, store: _mm_storeu_si128,
    xor: _mm_xor_si128, add: _mm_add_epi64, reverse: |a, b| _mm_shuffle_epi8(a, b),
    enc: _mm_aesenc_si128, enc_last: _mm_aesenclast_si128, xor_part: xor_part_by_stack!());

width!(ymm: 2 x __m256i, "aes,avx2,vaes",
    holds_keys: false, splat: |block| _mm256_broadcastsi128_si256(block),
    load: _mm256_loadu_si256, store: _mm256_storeu_si256,
    xor: _mm256_xor_si256, add: _mm256_add_epi64, reverse: |a, b| _mm256_shuffle_epi8(a, b),
    enc: _mm256_aesenc_epi128, enc_last: _mm256_aesenclast_epi128, xor_part: xor_part_by_stack!());

width!(zmm: 4 x __m512i, "aes,avx2,vaes,avx512f,avx512bw",
holds_keys: true, splat: |block| _mm512_broadcast_i32x4(block),
load: _mm512_loadu_si512, store: _mm512_storeu_si512,
xor: _mm512_xor_si512, add: _mm512_add_epi64, reverse: |a, b| _mm512_shuffle_epi8(a, b),
enc: _mm512_aesenc_epi128, enc_last: _mm512_aesenclast_epi128,
xor_part: |keystream, src: *const u8, dst: *mut u8, from: usize, to: usize| {
    let mask = part_mask(from, to);
    // SAFETY: the caller's pointers; bytes outside of the mask are not touched.
    unsafe {
        let data = _mm512_maskz_loadu_epi8(mask, src.cast());
        _mm512_mask_storeu_epi8(dst.cast(), mask, _mm512_xor_si512(keystream, data));
    }
});
