//! A register of the processor, as the kernels know it, and how a width makes one.

use super::{BLOCK_BYTES, ROUNDS, RoundKeys};

/// `LANES` AES blocks in one register.
///
/// # Safety
///
/// All methods need the processor features of the implementation; pointers are valid for as many
/// bytes as the name says, without alignment unless said.
pub(in crate::cipher) trait Vector: Copy {
    /// One lane.
    type Block: Vector;
    /// How many keys the rounds are behind: 1 where the instruction adds the key before the rest
    /// of a round, not after it.
    const LAG: usize;
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
    /// The last round with [`last_keys`], and the XOR with the data.
    unsafe fn enc_last(self, keys: [Self; 2], data: Self) -> Self;
    /// Keeps the compiler from moving the computation into a branch that uses it: registers side
    /// by side take the time of one, one after the other they do not.
    unsafe fn computed(self) -> Self;
    /// XORs the bytes `from..to` of the register with those of `src` into `dst`, and touches no
    /// others. `src` and `dst` are where byte 0 would be.
    unsafe fn xor_part(self, src: *const u8, dst: *mut u8, from: usize, to: usize);
    /// `run_long` and `bulk` as functions of their own: inlined, all three would share
    /// one register allocation, and short calls would pay for it. The parts of a `Job` go in
    /// one by one because a struct would be written to memory and read back in larger pieces,
    /// which stalls.
    unsafe fn long(
        keys: &RoundKeys,
        block: u64,
        skip: usize,
        src: *const u8,
        dst: *mut u8,
        len: usize,
    );
    unsafe fn bulk(keys: &RoundKeys, block: u64, src: *const u8, dst: *mut u8, batches: usize);
}

/// What goes into round `round`; round 0 is nothing but its key.
#[inline(always)]
pub(in crate::cipher) unsafe fn round_key<V: Vector>(keys: &RoundKeys, round: usize) -> V {
    // SAFETY: the caller has the features.
    unsafe {
        match round.checked_sub(V::LAG) {
            Some(key) => V::splat(&keys.keys[key]),
            None => V::splat(&0),
        }
    }
}

/// The last two keys, of which a width that is not behind needs one.
#[inline(always)]
pub(in crate::cipher) unsafe fn last_keys<V: Vector>(keys: &RoundKeys) -> [V; 2] {
    // SAFETY: the caller has the features.
    unsafe { [V::splat(&keys.keys[ROUNDS - 1]), V::splat(&keys.keys[ROUNDS])] }
}

/// XORs `len` bytes, below 32, in steps of halving size.
#[inline(always)]
pub(super) unsafe fn xor_bytes(
    mut keystream: *const u8,
    mut src: *const u8,
    mut dst: *mut u8,
    len: usize,
) {
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

/// A width: its register type, and its instances of the code above.
macro_rules! width {
    (
        $module:ident: $lanes:literal x $type:ident $(. $field:tt)? in $register:ident,
        $features:literal, block: $block:ident, lag: $lag:literal, holds_keys: $holds_keys:literal,
        splat: $splat:expr, load: $load:expr, store: $store:expr,
        xor: $xor:expr, add: $add:expr, reverse: $reverse:expr,
        enc: $enc:expr, enc_last: $enc_last:expr, xor_part: $xor_part:expr $(,)?
    ) => {
        pub(in crate::cipher::ctr) mod $module {
            use super::*;

            impl Vector for $type {
                type Block = $block;
                const LAG: usize = $lag;
                const LANES: usize = $lanes;
                const HOLDS_KEYS: bool = $holds_keys;

                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn splat(block: &u128) -> Self {
                    // SAFETY: reads one block.
                    unsafe { $splat(ptr::from_ref(block).cast()) }
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
                    $reverse(self)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn enc(self, key: Self) -> Self {
                    $enc(self, key)
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn enc_last(self, keys: [Self; 2], data: Self) -> Self {
                    $enc_last(self, keys, data)
                }
                #[inline]
                #[target_feature(enable = $features)]
                #[allow(asm_sub_register)] // OK because it is in a comment.
                unsafe fn computed(mut self) -> Self {
                    // SAFETY: no instruction; the register comes out as it went in.
                    unsafe {
                        asm!(
                            "/* {0} */",
                            inout($register) self $(. $field)?,
                            options(nomem, nostack, preserves_flags),
                        );
                    }
                    self
                }
                #[inline]
                #[target_feature(enable = $features)]
                unsafe fn xor_part(self, src: *const u8, dst: *mut u8, from: usize, to: usize) {
                    $xor_part(&self, src, dst, from, to)
                }
                #[inline(never)]
                #[target_feature(enable = $features)]
                unsafe fn long(
                    keys: &RoundKeys,
                    block: u64,
                    skip: usize,
                    src: *const u8,
                    dst: *mut u8,
                    len: usize,
                ) {
                    // SAFETY: passed on to the caller.
                    unsafe {
                        run_long::<Self>(
                            keys,
                            Job::new(block, skip, src, dst, len),
                        )
                    }
                }
                // Without features of its own: rustc 1.95 inlines a function that has some whatever
                // it says, and its tables left a hole in the frame of every short call, below
                // which nothing was overwritten for sure. Into this one nothing is inlined that
                // has any.
                #[inline(never)]
                unsafe fn bulk(
                    keys: &RoundKeys,
                    block: u64,
                    src: *const u8,
                    dst: *mut u8,
                    batches: usize,
                ) {
                    // SAFETY: passed on to the caller.
                    unsafe { tables(keys, Job::new(block, 0, src, dst, 0), batches) }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn tables(keys: &RoundKeys, job: Job, batches: usize) {
                // SAFETY: passed on to the caller.
                unsafe { run_bulk::<$type, { GROUP_BLOCKS / $lanes }>(keys, job, batches) }
            }

            #[target_feature(enable = $features)]
            pub(in crate::cipher::ctr) unsafe fn run(
                keys: &RoundKeys,
                block: u64,
                skip: usize,
                src: *const u8,
                dst: *mut u8,
                len: usize,
            ) {
                // SAFETY: passed on to the caller.
                unsafe {
                    kernels::run::<$type>(
                        keys,
                        Job::new(block, skip, src, dst, len),
                    );
                }
            }

            #[target_feature(enable = $features)]
            pub(in crate::cipher::ctr) unsafe fn limit(blocks: u64) -> u64 {
                // SAFETY: the features are there.
                unsafe { run_limit::<$type>(blocks) }
            }
        }
    };
}

/// `xor_part` by way of memory, where there are no masked moves of bytes.
macro_rules! xor_part_in_memory {
    () => {
        |keystream: &Self, src: *const u8, dst: *mut u8, from: usize, to: usize| {
            let at = ptr::from_ref(keystream);
            let (src, dst) = (src.wrapping_add(from), dst.wrapping_add(from));
            // SAFETY: the caller's pointers, and `from <= to <= BYTES`; `at` is this register.
            unsafe { xor_bytes(at.cast::<u8>().add(from), src, dst, to - from) }
        }
    };
}

pub(super) use {width, xor_part_in_memory};
