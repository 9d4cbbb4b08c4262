//! The 512-bit instance of the generic code on machines without AVX-512.

use super::*;
use crate::cipher::ctr::tests::Random;

/// Four lanes in four registers, masks as bytes: [`run`] takes the same path as for `__m512i`.
#[derive(Clone, Copy)]
pub(in crate::cipher) struct Emulated(pub(in crate::cipher) [__m128i; 4]);

impl Emulated {
    pub(in crate::cipher) unsafe fn zip(
        self,
        other: Self,
        f: unsafe fn(__m128i, __m128i) -> __m128i,
    ) -> Self {
        // SAFETY: the caller has AES-NI.
        Self(std::array::from_fn(|i| unsafe { f(self.0[i], other.0[i]) }))
    }
}

impl Vector for Emulated {
    type Block = __m128i;
    const LAG: usize = 0;
    const LANES: usize = 4;
    const HOLDS_KEYS: bool = true;

    unsafe fn splat(block: &u128) -> Self {
        // SAFETY: the caller has AES-NI.
        Self([unsafe { __m128i::splat(block) }; 4])
    }
    unsafe fn load(src: *const u8) -> Self {
        // SAFETY: 64 bytes are readable.
        Self(std::array::from_fn(|i| unsafe { __m128i::load(src.add(16 * i)) }))
    }
    unsafe fn store(self, dst: *mut u8) {
        for (i, part) in self.0.into_iter().enumerate() {
            // SAFETY: 64 bytes are writable.
            unsafe { part.store(dst.add(16 * i)) }
        }
    }
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller has AES-NI, here and below.
        unsafe { self.zip(other, __m128i::xor) }
    }
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { self.zip(other, __m128i::add) }
    }
    unsafe fn reverse(self) -> Self {
        // SAFETY: as above.
        Self(self.0.map(|part| unsafe { part.reverse() }))
    }
    unsafe fn enc(self, key: Self) -> Self {
        // SAFETY: as above.
        unsafe { self.zip(key, __m128i::enc) }
    }
    unsafe fn enc_last(self, keys: [Self; 2], data: Self) -> Self {
        let keys = |i| keys.map(|key| key.0[i]);
        // SAFETY: as above.
        Self(std::array::from_fn(|i| unsafe { self.0[i].enc_last(keys(i), data.0[i]) }))
    }
    unsafe fn computed(self) -> Self {
        self
    }
    unsafe fn xor_part(self, src: *const u8, dst: *mut u8, from: usize, to: usize) {
        let mask = part_mask(from, to);
        let mut keystream = [0; 64];
        // SAFETY: only bytes in the mask are touched.
        unsafe {
            self.store(keystream.as_mut_ptr());
            for (i, byte) in keystream.into_iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1) {
                *dst.wrapping_add(i) = byte ^ *src.wrapping_add(i);
            }
        }
    }
    unsafe fn long(
        keys: &RoundKeys,
        block: u64,
        skip: usize,
        src: *const u8,
        dst: *mut u8,
        len: usize,
    ) {
        // SAFETY: passed on to the caller.
        unsafe { run_long::<Self>(keys, Job::new(block, skip, src, dst, len)) }
    }
    unsafe fn bulk(keys: &RoundKeys, block: u64, src: *const u8, dst: *mut u8, batches: usize) {
        let job = Job::new(block, 0, src, dst, 0);
        // SAFETY: passed on to the caller.
        unsafe { run_bulk::<Self, 64>(keys, job, batches) }
    }
}

#[test]
fn four_lanes_match_one() {
    let Some(keys) = RoundKeys::new(b"an AES-256 key of 32 bytes, here", 7, Width::Aes128) else {
        return atrest_testkit::left_out("this machine has no AES-NI");
    };
    let mut random = Random(77);
    let mut src = vec![0; 70_000];
    random.fill(&mut src);
    for case in 0..4000 {
        let len_max = if case % 20 == 0 { src.len() as u64 } else { 2000 };
        let len = random.below(len_max) as usize;
        let skip = random.below(16) as usize;
        let block = [0, 32, 1 << 40, 0_u64][case % 4].wrapping_sub(random.below(2000));
        let mut expected = src[..len].to_vec();
        keys.apply_in_place(block, skip, &mut expected);
        let mut found = vec![0xee; len + 1];
        let job = Job::new(block, skip, src.as_ptr(), found.as_mut_ptr(), len);
        // SAFETY: AES-NI was found; the pointers are good for `len` bytes.
        unsafe { kernels::run::<Emulated>(&keys, job) };
        assert!(found[..len] == expected, "{len} bytes at block {block:#x} + {skip}");
        assert_eq!(found[len], 0xee);
    }
}

#[test]
fn masks_of_parts() {
    for from in 0..64 {
        for to in from + 1..=64 {
            let expected = (from..to).fold(0, |mask, bit| mask | 1_u64 << bit);
            assert_eq!(part_mask(from, to), expected);
        }
    }
}
