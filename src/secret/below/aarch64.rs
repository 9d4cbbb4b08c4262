//! The stretch of stack below a frame on aarch64.

use std::arch::aarch64::vdupq_n_u64;
use std::arch::asm;

use super::{DEPTHS, LINE, PAINT};

/// The frame in which the kernel keeps the registers for a signal is 4.6 KiB long, and those are
/// in its deepest quarter, so that they may stand between two lines, with nothing else to see.
pub(super) const UNSEEN_BYTES: usize = 5 << 10;

#[inline(always)]
pub(super) fn stack_pointer() -> *mut u8 {
    let top: *mut u8;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, sp", out(reg) top, options(nomem, preserves_flags)) };
    top
}

/// Paints the lines at all depths below `base`.
#[inline(always)]
pub(super) fn paint_all(base: *mut u8) {
    for depth in DEPTHS {
        // SAFETY: writes below the stack pointer, where nothing is kept; without `nostack`, so
        // that the compiler does not use a red zone. NEON is everywhere.
        unsafe {
            asm!(
                "stp {paint:q}, {paint:q}, [{line}]",
                "stp {paint:q}, {paint:q}, [{line}, #32]",
                line = in(reg) base.wrapping_sub(depth),
                paint = in(vreg) vdupq_n_u64(PAINT),
                options(preserves_flags),
            );
        }
    }
}

/// Nothing tells faster than one line after the other.
#[inline(always)]
pub(super) fn all_kept(_base: *mut u8) -> bool {
    false
}

/// Whether a line is as it was painted.
#[inline(always)]
pub(super) fn is_kept(line: *mut u8) -> bool {
    let line: *const u64 = line.cast();
    // SAFETY: the stack is mapped that deep, for `paint_all` wrote there.
    let other = |i| unsafe { line.add(i).read_volatile() } ^ PAINT;
    (0..LINE / 8).fold(0, |others, i| others | other(i)) == 0
}

/// Zeros from `top` down to `end`, and in the general registers that a call may leave anything in.
/// From the top on, because the system may still have to add the pages one by one.
#[inline(always)]
pub(super) fn overwrite(top: *mut u8, end: *mut u8) {
    // SAFETY: writes below the stack pointer, where nothing is kept, down to a line that was
    // painted; without `nostack`, so that the compiler does not use a red zone.
    unsafe {
        asm!(
            "movi v0.2d, #0",
            // Lines from here on, and before them the piece of one at the top.
            "stp q0, q0, [x0, #-32]",
            "stp q0, q0, [x0, #-64]",
            "and x0, x0, #-64",
            "2:",
            "stp q0, q0, [x0, #-32]",
            "stp q0, q0, [x0, #-64]!",
            "cmp x0, x1",
            "b.hi 2b",
            "mov x0, xzr", "mov x1, xzr", "mov x2, xzr", "mov x3, xzr", "mov x4, xzr", "mov x5, xzr", "mov x6, xzr", "mov x7, xzr", "mov x8, xzr", "mov x9, xzr", "mov x10, xzr", "mov x11, xzr", "mov x12, xzr", "mov x13, xzr", "mov x14, xzr", "mov x15, xzr", "mov x16, xzr", "mov x17, xzr",
            inout("x0") top => _, inout("x1") end => _,
            out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
            out("v0") _,
        );
    }
}
