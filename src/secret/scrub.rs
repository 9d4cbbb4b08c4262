//! Overwriting what work with keys leaves on the stack and in registers: the states of
//! hashes and ciphers are wiped where they end, and not where they were moved from.

use super::registers::clear_registers;

/// Does work of this library with keys, then overwrites the stack that it used in an
/// optimised build.
#[inline(always)]
pub(crate) fn scrubbed<T>(work: impl FnOnce() -> T) -> T {
    let result = in_frame_of_its_own(work);
    overwrite::<{ 8 << 10 }>();
    result
}

/// The same for a call of a key service's client, which may speak TLS.
#[inline(always)]
pub(crate) fn scrubbed_deeply<T>(work: impl FnOnce() -> T) -> T {
    let result = in_frame_of_its_own(work);
    overwrite::<{ 128 << 10 }>();
    result
}

// Both are called from one frame, so that the second lies where the first lay.
#[inline(never)]
fn in_frame_of_its_own<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn overwrite<const BYTES: usize>() {
    let mut stack = [0_u8; BYTES];
    // Otherwise an array that nobody reads would not be written either.
    std::hint::black_box(&mut stack);
    clear_registers();
}
