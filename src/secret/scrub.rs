//! The one way in which code of this library touches a key: in a frame of its own, below
//! which nothing is left when the call ends.
//!
//! A compiler may spill a value that depends on a key anywhere in the frames of the code
//! that computes it, and a hash's or a cipher's state stays where it was moved from. No
//! callee can clean that up after itself; its caller can, because all of it lies below the
//! caller's own frame. So every use of a key, from the outermost call of a key slot, a
//! derivation, a MAC or a key service, goes through [`scrubbed`] or one of its kind,
//! and nothing that runs inside needs to wipe its own stack or registers.
//!
//! **What a thread must have:** 16 KiB of stack left below the call, which are
//! touched page by page from the top, so that a guard page is met and not jumped over. The
//! deepest call of this library that the tests see takes 11 KiB.
//!
//! **Signals:** the kernel saves all registers below the frame that a signal interrupts, so
//! inside of what is overwritten.
//!
//! **What is left out:** code without optimisation, whose frames may be deeper; a signal
//! handler with a stack of its own (`SA_ONSTACK`), where the kernel saves the registers then;
//! on other processors than x86-64 and aarch64, registers, and what lies deeper than 8 KiB.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::below::{BYTES_MAX, Stretch};
use super::registers::clear_registers;

/// What is overwritten below a call whose frames have holes, as buffers are that only some calls
/// write to, so that how deep a short one went is not to be found out: the tests see none go
/// deeper. Runs with tables do, and are found out, as signals are.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) const FRAMES_BYTES: usize = 4 << 10;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const FRAMES_BYTES: usize = 0;

/// How much of the stack below is overwritten.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// As much as was touched, at least so many bytes.
    Touched(usize),
    Whole,
    Deep,
}

/// Does work of this library with keys, then overwrites the stack that it used, in an
/// optimised build, and empties the registers; also when it panics.
#[inline(always)]
pub(crate) fn scrubbed<T>(work: impl FnOnce() -> T) -> T {
    scrub(work, Depth::Whole)
}

/// The same for work that is short: it finds out how deep the work went, beyond
/// [`FRAMES_BYTES`].
#[inline(always)]
pub(crate) fn scrubbed_shortly<T>(work: impl FnOnce() -> T) -> T {
    scrub(work, Depth::Touched(FRAMES_BYTES))
}

/// The same for work whose frames have no large holes.
///
/// Cost about 35 ns on a Zen 4, where 4 KiB are decrypted in 255 ns without it, with six painted
/// lines and two kilobytes of zeros; it is thirteen lines and 1.5 KiB now. `cargo bench --bench suites -- --short` measures it as a
/// part of the calls.
#[inline(always)]
pub(crate) fn scrubbed_lightly<T>(work: impl FnOnce() -> T) -> T {
    scrub(work, Depth::Touched(0))
}

/// The same for a call of a key service's client, which may speak TLS.
#[inline(always)]
pub(crate) fn scrubbed_deeply<T>(work: impl FnOnce() -> T) -> T {
    scrub(work, Depth::Deep)
}

#[inline(always)]
fn scrub<T>(work: impl FnOnce() -> T, depth: Depth) -> T {
    let (mut work, mut result) = (Some(work), None);
    above(&mut || result = work.take().map(|work| work()), depth);
    result.expect("the work was done") // OK because `above` calls it once, or unwinds.
}

/// The frame below which everything is overwritten. The work is behind a pointer: if the
/// compiler knew it, it could load bytes of a key before the call.
#[inline(never)]
fn above(work: &mut dyn FnMut(), depth: Depth) {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    let stretch = Stretch::prepare();
    let outcome = catch_unwind(AssertUnwindSafe(work));
    clear_registers();
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    stretch.overwrite(match depth {
        Depth::Touched(least) => least,
        Depth::Whole | Depth::Deep => BYTES_MAX,
    });
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    overwrite::<{ 8 << 10 }>();
    if depth == Depth::Deep {
        overwrite::<{ 128 << 10 }>();
    }
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

#[inline(never)]
fn overwrite<const BYTES: usize>() {
    let mut stack = [0_u8; BYTES];
    // Otherwise an array that nobody reads would not be written either.
    std::hint::black_box(&mut stack);
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux"))]
mod tests;
