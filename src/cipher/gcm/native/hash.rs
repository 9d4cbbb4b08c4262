//! GHASH: powers of the hash key, and sums of products with them.

use std::arch::asm;
use std::ptr;

use zeroize::Zeroize;

use super::vector::{Batch, HashVector};
use super::{POWERS, Powers};
use crate::cipher::ctr::native::kernels::{FLIGHT, rounds};
use crate::cipher::ctr::native::vector::{Vector, last_keys, round_key};
use crate::cipher::ctr::native::{BLOCK_BYTES, RoundKeys};

/// Where the first power stands in the table.
const FIRST: usize = 35;

/// x^63 + x^62 + x^57: what reduces the lower 64 bits of a product.
const POLYNOMIAL: u128 = 0xc2 << 56;

/// Products that are not reduced: low halves, cross products with both, high halves.
#[derive(Clone, Copy)]
pub(super) struct Sum<V>([V; 3]);

impl<V: HashVector> Sum<V> {
    #[inline(always)]
    pub(super) unsafe fn zero() -> Self {
        // SAFETY: the caller has the features, here and below.
        Self([unsafe { V::splat(&0) }; 3])
    }

    /// Adds the products with the powers at `power`: three multiplications a block instead of
    /// four (Karatsuba), which is faster although XORs want ports too.
    #[inline(always)]
    pub(super) unsafe fn add(&mut self, data: V, power: *const u128) {
        // SAFETY: as above; the caller's pointer is good for a register, and so is the halves'.
        unsafe {
            let [low, cross, high] = &mut self.0;
            let factor = V::load(power.cast());
            let halves = V::load(power.add(POWERS).cast());
            *low = low.xor(data.multiply::<false>(factor));
            *cross = cross.xor(data.xor(data.swap()).multiply::<false>(halves));
            *high = high.xor(data.multiply::<true>(factor));
        }
    }

    /// The same for two registers, with fewer other instructions; not before whatever the caller
    /// had computed.
    #[inline(always)]
    pub(super) unsafe fn add_two(&mut self, data: [V; 2], powers: [*const u128; 2]) {
        // SAFETY: as above.
        unsafe {
            let [low, cross, high] = &mut self.0;
            let [a, b] = data;
            let [at_a, at_b] = powers;
            let (power_a, power_b) = (V::load(at_a.cast()), V::load(at_b.cast()));
            let halves_a = V::load(at_a.add(POWERS).cast());
            let halves_b = V::load(at_b.add(POWERS).cast());
            let lows = a.multiply::<false>(power_a).xor(b.multiply::<false>(power_b));
            *low = low.xor(lows).computed();
            let halves = a.low_halves(b).xor(a.high_halves(b));
            let crosses = halves.multiply::<false>(halves_a).xor(halves.multiply::<true>(halves_b));
            *cross = cross.xor(crosses).computed();
            let highs = a.multiply::<true>(power_a).xor(b.multiply::<true>(power_b));
            *high = high.xor(highs).computed();
        }
    }

    /// Adds the products of a batch, into whose first block the hash goes.
    #[inline(always)]
    pub(super) unsafe fn add_batch(
        &mut self,
        batch: &Batch<V>,
        hash: V::Single,
        power: *const u128,
    ) {
        macro_rules! pairs {
            ($($i:literal)*) => {$(
                // SAFETY: as above; the powers at `power` are a batch's.
                unsafe {
                    let (one, two) = ($i, ($i + 1) % FLIGHT);
                    let mut last = batch[two].reverse();
                    if two == 0 {
                        last = last.xor(V::first(hash));
                    }
                    let powers = [power.add(one * V::LANES), power.add(two * V::LANES)];
                    self.add_two([batch[one].reverse(), last], powers);
                }
            )*};
        }
        // What waits for the hash comes last.
        pairs!(1 3 5 7);
    }

    /// Reduces by two multiplications (Montgomery), in each lane alone.
    #[inline(always)]
    pub(super) unsafe fn reduce(self) -> V {
        // SAFETY: as above.
        unsafe {
            let [low, cross, high] = self.0;
            let polynomial = V::splat(&POLYNOMIAL);
            let middle = cross.xor(low).xor(high);
            let middle = middle.xor(low.swap()).xor(low.multiply::<false>(polynomial));
            high.xor(middle.swap()).xor(middle.multiply::<false>(polynomial))
        }
    }

    /// The tag of a message whose products these are; `mask` is the encryption of J0.
    #[inline(always)]
    pub(super) unsafe fn tag(self, mask: V::Single) -> u128 {
        let mut bits = 0_u128;
        // SAFETY: the caller has the features.
        unsafe {
            let tag = self.reduce().sum().reverse().xor(mask);
            tag.store((&raw mut bits).cast());
        }
        bits
    }
}

/// One block.
#[inline(always)]
pub(super) unsafe fn encrypt_block<B: Vector>(keys: &RoundKeys, block: u128) -> B {
    // SAFETY: the caller has the features.
    unsafe {
        let mut state = [B::splat(&block).reverse().xor(round_key(keys, 0))];
        rounds::<B, 1, 1>(&mut state, keys);
        state[0].enc_last(last_keys(keys), B::splat(&0))
    }
}

/// The product of two registers, lane by lane.
#[inline(always)]
unsafe fn product<V: HashVector>(a: V, b: V) -> V {
    // SAFETY: the caller has the features.
    unsafe {
        let low = a.multiply::<false>(b);
        let high = a.multiply::<true>(b);
        let cross = a.xor(a.swap()).multiply::<false>(b.xor(b.swap()));
        Sum([low, cross, high]).reduce()
    }
}

/// Fills the table.
#[inline(always)]
pub(super) unsafe fn expand<V: HashVector>(keys: &RoundKeys, powers: &mut Powers) {
    // SAFETY: the caller has the features; all indices are within the table.
    unsafe {
        let hash_key = encrypt_block::<V::Single>(keys, 0).reverse();
        let mut bits = 0_u128;
        hash_key.store((&raw mut bits).cast());
        // As a key of POLYVAL: times x, reduced.
        let carry = 0_u128.wrapping_sub(bits >> 127);
        bits = bits << 1 ^ carry & (POLYNOMIAL << 64 | 1);
        let first = V::Single::splat(&bits);
        bits.zeroize();
        let table = ptr::from_mut(powers).cast::<u128>();
        let mut last = first;
        put(table, 1, first);
        for power in 2..=V::LANES {
            last = product(last, first);
            put(table, power, last);
        }
        // Registers of powers: each from one that is as far back as a power of two.
        let at = |power: usize| table.add(FIRST + 1 - power);
        for register in 1..=FLIGHT {
            let back = 1 << register.ilog2();
            let from = V::load(at((register - back + 1) * V::LANES).cast());
            let factor = V::splat(&*at(back * V::LANES));
            put(table, (register + 1) * V::LANES, product(from, factor));
        }
    }
}

/// Writes powers, from `power` downwards, and the XOR of their halves.
#[inline(always)]
unsafe fn put<V: HashVector>(table: *mut u128, power: usize, powers: V) {
    // SAFETY: the caller has the features, and powers that have their place in the table; the
    // table of halves stands behind it.
    unsafe {
        let at = table.add(FIRST + 1 - power);
        powers.store(at.cast());
        powers.xor(powers.swap()).store(at.add(POWERS).cast());
    }
}

/// As `in_memory`, for the powers.
#[inline(always)]
pub(super) fn powers_in_memory(powers: &Powers, blocks: usize) -> *const u128 {
    let mut at = ptr::from_ref(powers).cast::<u128>().wrapping_add(FIRST + 1 - blocks);
    // SAFETY: no instruction; the pointer comes out as it went in.
    unsafe {
        asm!("/* {0} */", inout(reg) at, options(readonly, nostack, preserves_flags));
    }
    at
}

/// The hash after one more batch.
#[inline(always)]
pub(super) unsafe fn hash_batch<V: HashVector>(
    powers: &Powers,
    batch: &Batch<V>,
    hash: V::Single,
) -> V::Single {
    let power = powers_in_memory(powers, FLIGHT * V::LANES);
    // SAFETY: the caller has the features.
    unsafe {
        let mut sum = Sum::zero();
        sum.add_batch(batch, hash, power);
        sum.reduce().sum()
    }
}

/// The hash of the additional data.
#[inline(always)]
pub(super) unsafe fn hash_aad<B: HashVector>(powers: &Powers, aad: &[u8]) -> B {
    // SAFETY: the caller has the features.
    unsafe {
        let first = B::splat(&powers.powers[FIRST]);
        let mut hash = B::splat(&0);
        for block in aad.chunks(BLOCK_BYTES) {
            let mut padded = 0_u128.to_le_bytes();
            padded[..block.len()].copy_from_slice(block);
            let block = B::load(padded.as_ptr()).reverse();
            hash = product(hash.xor(block), first);
        }
        hash
    }
}
