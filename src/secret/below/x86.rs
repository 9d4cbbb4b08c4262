//! The stretch of stack below a frame on x86-64.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set1_epi64x,
};

use super::{DEPTHS, PAINT};

/// What a signal may leave below the lines that tell of it: nothing, its frame has no such hole.
pub(super) const UNSEEN_BYTES: usize = 0;

#[inline(always)]
fn paint() -> __m128i {
    // SAFETY: SSE2 is everywhere.
    unsafe { _mm_set1_epi64x(PAINT.cast_signed()) }
}

/// From the top on, because the system may still have to add the pages one by one.
macro_rules! overwrite {
    ($top:expr, $end:expr, $zero:literal, $store:literal, $register:literal: $($at:literal)*) => {
        // SAFETY: writes below the stack pointer, where nothing is kept, down to a line that was
        // painted; without `nostack`, so that the compiler does not use the red zone.
        unsafe {
            asm!(
                $zero,
                // Lines from here on, and before them the piece of one at the top.
                $(concat!($store, " [rdi + ", $at, " - 64], ", $register),)*
                "and rdi, -64",
                "2:",
                "sub rdi, 64",
                $(concat!($store, " [rdi + ", $at, "], ", $register),)*
                "cmp rdi, rsi",
                "ja 2b",
                "xor eax, eax", "xor ecx, ecx", "xor edx, edx", "xor esi, esi", "xor edi, edi",
                "xor r8d, r8d", "xor r9d, r9d", "xor r10d, r10d", "xor r11d, r11d",
                inout("rdi") $top => _, inout("rsi") $end => _,
                out("rax") _, out("rcx") _, out("rdx") _,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("xmm0") _,
            );
        }
    };
}

#[inline(always)]
pub(super) fn stack_pointer() -> *mut u8 {
    let top: *mut u8;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) top, options(nomem, preserves_flags)) };
    top
}

/// Paints the lines at all depths below `base`. With AVX in half as many stores: the next atomic
/// operation waits for every one of them.
#[inline(always)]
pub(super) fn paint_all(base: *mut u8) {
    if !is_x86_feature_detected!("avx") {
        return DEPTHS.iter().for_each(|depth| paint_line(base.wrapping_sub(*depth)));
    }
    macro_rules! paint_all {
        ($($depth:literal)*) => {
            // SAFETY: as in `paint_line`; AVX was found.
            unsafe {
                asm!(
                    "vbroadcastsd ymm0, [{paint}]",
                    $(concat!("vmovaps [{base} - ", $depth, "], ymm0"),
                    concat!("vmovaps [{base} - ", $depth, " + 32], ymm0"),)*
                    "vzeroupper",
                    base = in(reg) base, paint = in(reg) &PAINT, out("xmm0") _,
                    options(preserves_flags),
                );
            }
        };
    }
    depths!(paint_all);
}

#[inline(always)]
fn paint_line(line: *mut u8) {
    // SAFETY: writes below the stack pointer, where nothing is kept; without `nostack`, so
    // that the compiler does not use the red zone.
    unsafe {
        asm!(
            "movaps [{line}], {paint}",
            "movaps [{line} + 16], {paint}",
            "movaps [{line} + 32], {paint}",
            "movaps [{line} + 48], {paint}",
            line = in(reg) line,
            paint = in(xmm_reg) paint(),
            options(preserves_flags),
        );
    }
}

/// Whether all lines are as they were painted, where AVX can tell.
#[inline(always)]
pub(super) fn all_kept(base: *mut u8) -> bool {
    if !is_x86_feature_detected!("avx") {
        return false;
    }
    let kept: u8;
    macro_rules! all_kept {
        ($($depth:literal)*) => {
            // SAFETY: as in `is_kept`; AVX was found.
            unsafe {
                asm!(
                    "vbroadcastsd ymm0, [{paint}]",
                    "vxorps xmm1, xmm1, xmm1", "vxorps xmm2, xmm2, xmm2",
                    $(concat!("vxorps ymm3, ymm0, [{base} - ", $depth, "]"),
                    "vorps ymm1, ymm1, ymm3",
                    concat!("vxorps ymm4, ymm0, [{base} - ", $depth, " + 32]"),
                    "vorps ymm2, ymm2, ymm4",)*
                    "vorps ymm1, ymm1, ymm2", "vptest ymm1, ymm1", "setz {kept}",
                    "vzeroupper",
                    base = in(reg) base, paint = in(reg) &PAINT,
                    kept = out(reg_byte) kept, out("xmm0") _, out("xmm1") _, out("xmm2") _,
                    out("xmm3") _, out("xmm4") _, options(readonly, nostack),
                );
            }
        };
    }
    depths!(all_kept);
    kept != 0
}

/// Whether a line is as it was painted.
#[inline(always)]
pub(super) fn is_kept(line: *mut u8) -> bool {
    let line: *const __m128i = line.cast();
    // SAFETY: the stack is mapped that deep, for `paint_all` wrote there. SSE2 is everywhere.
    unsafe {
        let same = |i| _mm_cmpeq_epi8(line.add(i).read_volatile(), paint());
        let all = _mm_and_si128(_mm_and_si128(same(0), same(1)), _mm_and_si128(same(2), same(3)));
        _mm_movemask_epi8(all) == 0xffff
    }
}

/// Zeros from `top` down to `end`, and in the general registers that a call may leave anything in.
#[inline(always)]
pub(super) fn overwrite(top: *mut u8, end: *mut u8) {
    if is_x86_feature_detected!("avx") {
        overwrite!(top, end, "vpxor xmm0, xmm0, xmm0", "vmovups", "ymm0": 0 32);
    } else {
        overwrite!(top, end, "pxor xmm0, xmm0", "movups", "xmm0": 0 16 32 48);
    }
}
