//! The stretch of stack below a frame: how deep a call reached into it, and
//! emptying it that deep.
//!
//! A whole stretch that is long enough for the deepest call, and for a signal that comes in
//! the middle of it, would cost every short call more than its work. So a few lines of the
//! stretch are painted before the call, and the deepest one that is not as it was painted
//! tells how much there is to empty.

// No safe instruction writes below the stack pointer. Nothing may be kept there, so nothing is
// lost: a signal handler may take the same bytes at any time, and only adds to what was touched.
#![allow(unsafe_code)]

/// Most bytes that a call may touch, but one that is scrubbed deeply.
pub(crate) const BYTES_MAX: usize = 16 << 10;
const LINE: usize = 64;
pub(super) const PAINT: u64 = 0x5ca1_ab1e_b01d_face;

/// How far below the frame the painted lines are, in bytes. They are never further apart than
/// a page, so that painting meets a guard page and does not jump over it. The first is below
/// what the counter-mode kernels take but for their longest runs.
///
/// As deep as short calls go and a signal below them, no line is further below the one before than
/// the kernel writes without a gap for a signal on x86-64: 832 bytes of registers. In front of
/// them, behind them and between others are gaps, of up to 1856 bytes, in which a line may stand
/// and tell nothing: where `CPUID` leaf 0xd has no registers, and what only some handlers
/// are told.
macro_rules! depths {
    ($macro:ident) => {
        $macro!(1024 1536 2368 3200 4032 4864 5696 6528 7360 8192 9024 12288 16320)
    };
}

macro_rules! array {
    ($($depth:literal)*) => { [$($depth),*] };
}

const DEPTHS: [usize; 13] = depths!(array);

const _: () = {
    let (mut i, mut above) = (0, 0);
    while i < DEPTHS.len() {
        assert!(DEPTHS[i].is_multiple_of(LINE) && DEPTHS[i] - above <= 4096);
        above = DEPTHS[i];
        i += 1;
    }
    assert!(above == BYTES_MAX - LINE);
};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use x86 as arch;

/// What lies below the frame of the function that made it.
pub(super) struct Stretch {
    /// The end of the stretch, where that frame begins.
    top: *mut u8,
}

impl Stretch {
    /// Paints the lines below the caller, of which this becomes a part.
    #[inline(always)]
    pub(super) fn prepare() -> Self {
        let stretch = Self { top: arch::stack_pointer() };
        arch::paint_all(stretch.line(0));
        stretch
    }

    /// The painted line of that depth.
    #[inline(always)]
    fn line(&self, depth: usize) -> *mut u8 {
        let down = self.top.addr() % LINE + depth;
        self.top.wrapping_sub(down)
    }

    /// Bytes that may hold something: to the second line below the deepest one that was touched,
    /// or below the top: behind the 832 bytes that touch a line are some 600 more of a signal's.
    #[inline(always)]
    fn reach(&self) -> usize {
        if arch::all_kept(self.line(0)) {
            return DEPTHS[1] + arch::UNSEEN_BYTES;
        }
        let touched = |depth: &usize| !arch::is_kept(self.line(*depth));
        let seen = match DEPTHS.iter().rposition(touched) {
            Some(deepest) => DEPTHS.get(deepest + 2).copied().unwrap_or(BYTES_MAX),
            None => DEPTHS[1],
        };
        BYTES_MAX.min(seen + arch::UNSEEN_BYTES)
    }

    /// Empties the stretch as deep as it was touched, at least so many bytes, and the general
    /// registers that a call may leave anything in. The vector registers **MUST** be empty
    /// already: a signal would bring what they hold back to the stretch.
    #[inline(always)]
    pub(super) fn overwrite(self, least: usize) {
        let bytes = if least < BYTES_MAX { least.max(self.reach()) } else { BYTES_MAX };
        arch::overwrite(self.top, self.line(bytes));
    }
}
