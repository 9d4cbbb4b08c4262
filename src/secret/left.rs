//! What a call leaves on the stack and in registers, for tests.

#![allow(unsafe_code)]

use std::arch::asm;

use super::below::PAINT;

/// Bytes that are looked at below a frame.
const BYTES: usize = 64 << 10;
const UNTOUCHED: u8 = 0xc3;
/// The outermost frame of the call, which knows no key: pointers and return addresses.
const OUTERMOST_BYTES: usize = 256;

#[cfg(target_arch = "x86_64")]
macro_rules! fill {
    () => {
        asm!(
            "lea rdi, [rsp - {bytes}]", "rep stosb",
            bytes = const BYTES, inout("rcx") BYTES => _, in("al") UNTOUCHED, out("rdi") _,
        )
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! copy {
    ($to:expr) => {
        asm!(
            "lea rsi, [rsp - {bytes}]", "rep movsb",
            bytes = const BYTES, inout("rcx") BYTES => _, inout("rdi") $to => _, out("rsi") _,
        )
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! fill {
    () => {
        asm!(
            "sub {at}, sp, {left}",
            "2:", "str {fill:q}, [{at}], #16", "subs {left}, {left}, #16", "b.ne 2b",
            at = out(reg) _, left = inout(reg) BYTES => _,
            fill = in(vreg) std::arch::aarch64::vdupq_n_u8(UNTOUCHED),
        )
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! copy {
    ($to:expr) => {
        asm!(
            "sub {at}, sp, {left}",
            "2:", "ldr {word}, [{at}], #8", "str {word}, [{to}], #8", "subs {left}, {left}, #8",
            "b.ne 2b",
            at = out(reg) _, left = inout(reg) BYTES => _, word = out(reg) _,
            to = inout(reg) $to => _,
        )
    };
}

/// The stack below a frame, as a call from there left it.
pub(crate) struct Left(Vec<u8>);

impl Left {
    #[inline(never)]
    pub(crate) fn after(work: impl FnOnce()) -> Self {
        let mut left = vec![0; BYTES];
        // SAFETY: below the stack pointer nothing is kept, and a thread of a test has more stack
        // than that; the second copies as much as `left` has.
        unsafe {
            fill!();
            work();
            copy!(left.as_mut_ptr());
        }
        Self(left)
    }

    /// Bytes from the frame down to the deepest one that was written to; painting, which a call
    /// that wipes its own stack does, is none.
    pub(crate) fn depth(&self) -> usize {
        let (paint, untouched) = (PAINT.to_ne_bytes(), [UNTOUCHED; 8]);
        let mut words = self.0.chunks(8);
        BYTES - 8 * words.position(|word| word != paint && word != untouched).unwrap_or(BYTES / 8)
    }

    /// How deep those bytes are that are neither as they were before, nor overwritten: the first
    /// and the last of them.
    pub(crate) fn residue(&self) -> Option<(usize, usize)> {
        let paint = PAINT.to_ne_bytes();
        let words = self.0[..BYTES - OUTERMOST_BYTES].chunks(8).enumerate();
        let mut depths = words.filter_map(|(i, word)| {
            let other = |byte: &u8| ![0, UNTOUCHED].contains(byte);
            (word != paint && word.iter().any(other)).then(|| BYTES - 8 * i)
        });
        let deepest = depths.next()?;
        Some((depths.next_back().unwrap_or(deepest), deepest))
    }

    pub(crate) fn contains(&self, bytes: &[u8]) -> bool {
        self.0.windows(bytes.len()).any(|window| window == bytes)
    }
}
