//! The stretch of stack below a frame, on x86-64: how deep a call reached into it, and
//! emptying it that deep.
//!
//! A whole stretch that is long enough for the deepest call, and for a signal that comes in
//! the middle of it, would cost every short call more than its work. So a few lines of the
//! stretch are painted before the call, and the deepest one that is not as it was painted
//! tells how much there is to empty.

// No safe instruction writes below the stack pointer. Nothing may be kept there, so nothing is
// lost: a signal handler may take the same bytes at any time, and only adds to what was touched.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set1_epi64x,
};

/// Most bytes that a call may touch, but one that is scrubbed deeply.
pub(crate) const BYTES_MAX: usize = 16 << 10;
const LINE: usize = 64;
pub(super) const PAINT: u64 = 0x5ca1_ab1e_b01d_face;

/// How far below the frame the painted lines are, in bytes. They are never further apart than
/// a page, so that painting meets a guard page and does not jump over it. The first is below
/// what the counter-mode kernels take but for their longest runs, the third below the table of
/// those.
macro_rules! depths {
    ($macro:ident) => {
        $macro!(512 2048 5120 8192 12288 16320)
    };
}

macro_rules! array {
    ($($depth:literal)*) => { [$($depth),*] };
}

const DEPTHS: [usize; 6] = depths!(array);

const _: () = {
    let (mut i, mut above) = (0, 0);
    while i < DEPTHS.len() {
        assert!(DEPTHS[i].is_multiple_of(LINE) && DEPTHS[i] - above <= 4096);
        above = DEPTHS[i];
        i += 1;
    }
    assert!(above == BYTES_MAX - LINE);
};

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

/// What lies below the frame of the function that made it.
pub(super) struct Stretch {
    /// The end of the stretch, where that frame begins.
    top: *mut u8,
}

impl Stretch {
    /// Paints the lines below the caller, of which this becomes a part.
    #[inline(always)]
    pub(super) fn prepare() -> Self {
        let top: *mut u8;
        // SAFETY: reads a register.
        unsafe { asm!("mov {}, rsp", out(reg) top, options(nomem, preserves_flags)) };
        let stretch = Self { top };
        if is_x86_feature_detected!("avx") {
            stretch.paint_all();
        } else {
            for depth in DEPTHS {
                stretch.paint(depth);
            }
        }
        stretch
    }

    /// [`paint`](Self::paint) for all lines, in half as many stores: the next atomic operation
    /// waits for every one of them.
    #[inline(always)]
    fn paint_all(&self) {
        macro_rules! paint_all {
            ($($depth:literal)*) => {
                // SAFETY: as in `paint`; the caller found AVX.
                unsafe {
                    asm!(
                        "vbroadcastsd ymm0, [{paint}]",
                        $(concat!("vmovaps [{base} - ", $depth, "], ymm0"),
                        concat!("vmovaps [{base} - ", $depth, " + 32], ymm0"),)*
                        "vzeroupper",
                        base = in(reg) self.line(0), paint = in(reg) &PAINT, out("xmm0") _,
                        options(preserves_flags),
                    );
                }
            };
        }
        depths!(paint_all);
    }

    /// Whether all lines are as they were painted.
    #[inline(always)]
    fn all_kept(&self) -> bool {
        let kept: u8;
        macro_rules! all_kept {
            ($($depth:literal)*) => {
                // SAFETY: as in `kept`; the caller found AVX.
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
                        base = in(reg) self.line(0), paint = in(reg) &PAINT,
                        kept = out(reg_byte) kept, out("xmm0") _, out("xmm1") _, out("xmm2") _,
                        out("xmm3") _, out("xmm4") _, options(readonly, nostack),
                    );
                }
            };
        }
        depths!(all_kept);
        kept != 0
    }

    /// The painted line of that depth.
    #[inline(always)]
    fn line(&self, depth: usize) -> *mut u8 {
        let down = self.top.addr() % LINE + depth;
        self.top.wrapping_sub(down)
    }

    #[inline(always)]
    fn paint(&self, depth: usize) {
        // SAFETY: writes below the stack pointer, where nothing is kept; without `nostack`, so
        // that the compiler does not use the red zone.
        unsafe {
            asm!(
                "movaps [{line}], {paint}",
                "movaps [{line} + 16], {paint}",
                "movaps [{line} + 32], {paint}",
                "movaps [{line} + 48], {paint}",
                line = in(reg) self.line(depth),
                paint = in(xmm_reg) paint(),
                options(preserves_flags),
            );
        }
    }

    /// Which of 16 bytes are as they were painted, in all quarters of that line.
    #[inline(always)]
    fn kept(&self, depth: usize) -> __m128i {
        let line: *const __m128i = self.line(depth).cast();
        // SAFETY: the stack is mapped that deep, for `prepare` wrote there. SSE2 is everywhere.
        unsafe {
            let same = |i| _mm_cmpeq_epi8(line.add(i).read_volatile(), paint());
            _mm_and_si128(_mm_and_si128(same(0), same(1)), _mm_and_si128(same(2), same(3)))
        }
    }

    /// Bytes that may hold something: to the second line below the deepest one that was touched,
    /// or below the top. One may be missed: a frame may have a gap as long as a line, and where
    /// the kernel keeps all registers for a signal, there is one.
    #[inline(always)]
    fn reach(&self) -> usize {
        if is_x86_feature_detected!("avx") && self.all_kept() {
            return DEPTHS[1];
        }
        // SAFETY: SSE2 is everywhere.
        let touched = |depth: &usize| unsafe { _mm_movemask_epi8(self.kept(*depth)) } != 0xffff;
        match DEPTHS.iter().rposition(touched) {
            Some(deepest) => DEPTHS.get(deepest + 2).copied().unwrap_or(BYTES_MAX),
            None => DEPTHS[1],
        }
    }

    /// Empties the stretch as deep as it was touched, at least so many bytes, and the general
    /// registers that a call may leave anything in. The vector registers **MUST** be empty
    /// already: a signal would bring what they hold back to the stretch.
    #[inline(always)]
    pub(super) fn overwrite(self, least: usize) {
        let bytes = if least < BYTES_MAX { least.max(self.reach()) } else { BYTES_MAX };
        let end = self.line(bytes);
        if is_x86_feature_detected!("avx") {
            overwrite!(self.top, end, "vpxor xmm0, xmm0, xmm0", "vmovups", "ymm0": 0 32);
        } else {
            overwrite!(self.top, end, "pxor xmm0, xmm0", "movups", "xmm0": 0 16 32 48);
        }
    }
}
