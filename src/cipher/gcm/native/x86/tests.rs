//! The 512-bit instance of the generic code on machines without AVX-512.

use super::*;
use crate::cipher::ctr::native::x86::tests::Emulated;
use crate::cipher::ctr::tests::Random;
use crate::secret::Secret;

impl HashVector for Emulated {
    type Single = __m128i;

    unsafe fn multiply<const HIGH: bool>(self, other: Self) -> Self {
        // SAFETY: the caller has the features, here and below.
        unsafe { self.zip(other, __m128i::multiply::<HIGH>) }
    }
    unsafe fn swap(self) -> Self {
        // SAFETY: as above.
        Self(self.0.map(|part| unsafe { part.swap() }))
    }
    unsafe fn sum(self) -> __m128i {
        let [a, b, c, d] = self.0;
        // SAFETY: as above.
        unsafe { a.xor(b).xor(c.xor(d)) }
    }
    unsafe fn first_block(self) -> __m128i {
        self.0[0]
    }
    unsafe fn first(block: __m128i) -> Self {
        // SAFETY: as above.
        let zero = unsafe { __m128i::splat(&0) };
        Self([block, zero, zero, zero])
    }
    unsafe fn low_halves(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { self.zip(other, __m128i::low_halves) }
    }
    unsafe fn high_halves(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { self.zip(other, __m128i::high_halves) }
    }
    unsafe fn with_last_two(self, other: Self) -> Self {
        Self([self.0[0], self.0[1], other.0[2], other.0[3]])
    }
    unsafe fn load_once(src: *const u8) -> Self {
        // SAFETY: 64 bytes are readable.
        unsafe { Self::load(src) }
    }
    unsafe fn load_part(src: *const u8, len: usize) -> Self {
        let mut bytes = [0; 64];
        // SAFETY: `len` bytes are readable.
        unsafe {
            ptr::copy_nonoverlapping(src, bytes.as_mut_ptr(), len);
            Self::load(bytes.as_ptr())
        }
    }
    unsafe fn keep(self, len: usize) -> Self {
        let mut bytes = [0; 64];
        // SAFETY: a register is 64 bytes.
        unsafe {
            self.store(bytes.as_mut_ptr());
            Self::load_part(bytes.as_ptr(), len)
        }
    }
    unsafe fn store_part(self, dst: *mut u8, from: usize, to: usize) {
        let mut bytes = [0; 64];
        // SAFETY: only the bytes of the part are written.
        unsafe {
            self.store(bytes.as_mut_ptr());
            let part = &bytes[from..to];
            ptr::copy_nonoverlapping(part.as_ptr(), dst.wrapping_add(from), part.len());
        }
    }
    unsafe fn batches<const ENCRYPT: bool>(
        keys: &RoundKeys,
        powers: &Powers,
        message: &Message<'_>,
        state: &mut State<Self>,
        at: usize,
        batches: usize,
    ) {
        // SAFETY: passed on to the caller.
        unsafe { run_batches::<Self, ENCRYPT>(keys, powers, message, state, at, batches) }
    }
    unsafe fn groups<const ENCRYPT: bool>(
        keys: &RoundKeys,
        powers: &Powers,
        message: &Message<'_>,
        state: &mut State<Self>,
        at: usize,
        batches: usize,
    ) {
        // SAFETY: passed on to the caller.
        unsafe { run_groups::<Self, ENCRYPT, 64>(keys, powers, message, state, at, batches) }
    }
    unsafe fn parts(
        keys: &RoundKeys,
        powers: &Powers,
        message: &Message<'_>,
        state: &mut State<Self>,
        at: usize,
        batches: usize,
    ) {
        // SAFETY: passed on to the caller.
        unsafe { run_parts::<Self>(keys, powers, message, state, at, batches) }
    }
    unsafe fn last_batch<const ENCRYPT: bool>(
        keys: &RoundKeys,
        powers: &Powers,
        message: &Message<'_>,
        state: &State<Self>,
        at: usize,
    ) -> u128 {
        // SAFETY: passed on to the caller.
        unsafe { run_last_batch::<Self, ENCRYPT>(keys, powers, message, state, at) }
    }
    unsafe fn tail<const ENCRYPT: bool>(
        keys: &RoundKeys,
        powers: &Powers,
        message: &Message<'_>,
        state: &State<Self>,
        at: usize,
    ) -> u128 {
        // SAFETY: passed on to the caller.
        unsafe { run_tail::<Self, ENCRYPT>(keys, powers, message, state, at) }
    }
}

fn narrow() -> Option<(RoundKeys, Secret<Powers>)> {
    let keys = RoundKeys::new(b"an AES-256 key of 32 bytes, here", 7, Width::Aes128)?;
    let powers = Powers::new(&keys)?;
    Some((keys, powers))
}

#[test]
fn four_lanes_match_one() {
    let Some((keys, one)) = narrow() else {
        return atrest_testkit::left_out("this machine has no PCLMULQDQ");
    };
    let mut four = Box::new(Powers::empty());
    // SAFETY: AES-NI and PCLMULQDQ were found.
    unsafe { hash::expand::<Emulated>(&keys, &mut four) };
    let mut random = Random(78);
    let mut src = vec![0; 40_000];
    random.fill(&mut src);
    for case in 0..1000 {
        let len_max = if case % 20 == 0 { src.len() as u64 } else { 2500 };
        let len = random.below(len_max) as usize;
        let aad = &src[..random.below(40) as usize];
        let from = random.below(len as u64 + 1) as usize;
        let to = from + random.below((len - from) as u64 + 1) as usize;
        let mut sealed = vec![0; len];
        let tag = one.seal(&keys, 1, aad, &src[..len], &mut sealed);
        let mut found = vec![0xee; len + 1];
        let message = Message {
            block: 1,
            aad,
            src: src.as_ptr(),
            len,
            dst: found.as_mut_ptr(),
            from: 0,
            to: len,
        };
        // SAFETY: as above; the pointers are good for `len` bytes.
        let found_tag = unsafe { message::seal::<Emulated>(&keys, &four, &message) };
        assert_eq!(found_tag.to_le_bytes(), tag, "{len} bytes");
        assert!(found[..len] == sealed, "{len} bytes");
        assert_eq!(found[len], 0xee);
        found.fill(0xee);
        let dst = found.as_mut_ptr();
        let message = Message { src: sealed.as_ptr(), dst, from, to, ..message };
        // SAFETY: as above.
        let found_tag = unsafe { message::open::<Emulated>(&keys, &four, &message) };
        assert_eq!(found_tag.to_le_bytes(), tag, "{len} bytes");
        assert!(found[..to - from] == src[from..to], "{from}..{to} of {len} bytes");
        assert_eq!(found[to - from], 0xee);
    }
}
