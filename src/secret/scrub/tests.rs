//! What the tests of the cipher do not show: signals and panics while a key is in use.

#![allow(unsafe_code)]

use std::arch::asm;
use std::hint::black_box;

use super::*;
use crate::secret::Left;

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
}

extern "C" fn handle(_: i32) {}

const SIGUSR1: i32 = 10;

/// Has a signal delivered while a register holds something, below a frame of that many bytes.
#[inline(never)]
fn interrupted<const BYTES: usize>() {
    let mut frame = [0x11_u8; BYTES];
    black_box(&mut frame);
    // SAFETY: getpid, gettid and tgkill take no memory; the handler does nothing.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!(
            "mov eax, 39", "syscall", "mov edi, eax",
            "mov eax, 186", "syscall", "mov esi, eax",
            "mov eax, 234", "syscall",
            in("xmm7") std::arch::x86_64::_mm_set1_epi8(0x77), in("edx") SIGUSR1,
            out("rax") _, out("rcx") _, out("r11") _, out("rdi") _, out("rsi") _,
        );
        #[cfg(target_arch = "aarch64")]
        asm!(
            "mov x8, #172", "svc #0", "mov x9, x0",
            "mov x8, #178", "svc #0", "mov x1, x0",
            "mov x8, #131", "mov x0, x9", "svc #0",
            in("v7") std::arch::aarch64::vdupq_n_u8(0x77), in("x2") SIGUSR1,
            out("x0") _, out("x1") _, out("x8") _, out("x9") _,
        );
    }
    black_box(&mut frame);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "code that is not optimised needs more stack")]
fn a_signal_leaves_no_register_below_a_call() {
    // SAFETY: the handler touches nothing.
    unsafe { signal(SIGUSR1, handle) };
    let depths = [
        interrupted::<1>,
        interrupted::<300>,
        interrupted::<700>,
        interrupted::<1100>,
        interrupted::<1500>,
        interrupted::<2500>,
        interrupted::<4000>,
    ];
    for (i, work) in depths.into_iter().enumerate() {
        let bare = Left::after(|| black_box(work)());
        assert!(bare.depth() > 1000 && bare.residue().is_some(), "no signal came");
        let left = Left::after(|| scrubbed_lightly(black_box(work)));
        assert_eq!(left.residue(), None, "depth {i}, {} bytes bare", bare.depth());
        let left = Left::after(|| scrubbed_shortly(black_box(work)));
        assert_eq!(left.residue(), None, "depth {i}, {} bytes bare", bare.depth());
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "code that is not optimised needs more stack")]
fn a_panic_goes_on_above_an_empty_stack() {
    let fail = || {
        let mut key = [0x77_u8; 100];
        black_box(&mut key);
        resume_unwind(Box::new(7));
    };
    let left = Left::after(|| {
        let caught = catch_unwind(|| scrubbed_lightly(fail));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&7));
    });
    assert!(!left.contains(&[0x77; 16]));
}

/// What a signal writes below the red zone of the frame that it interrupts, as where it begins and
/// how long it is, from the top, for a handler that is told nothing but the signal: processors
/// without AVX-512; with it; those whose keys of protection stand where AVX-512 would have
/// pushed them; with both; with AVX-512 and AMX; with all three.
#[cfg(target_arch = "x86_64")]
const SIGNALS: [&[(usize, usize)]; 6] = [
    &[(0, 836), (1024, 360)],
    &[(0, 1604), (1860, 832), (2880, 360)],
    &[(0, 12), (1868, 832), (2888, 360)],
    &[(0, 1612), (1868, 832), (2888, 360)],
    &[(0, 68), (132, 1600), (1988, 832), (3008, 360)],
    &[(0, 68), (124, 1608), (1988, 832), (3008, 360)],
];

/// Leaves what a frame of `depth` bytes would, and a signal below it.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn interrupted_at(depth: usize, signal: &[(usize, usize)]) {
    let parts = signal.iter().map(|(start, len)| (depth + 128 + start, *len));
    for (start, len) in std::iter::once((0, depth)).chain(parts) {
        // SAFETY: below the stack pointer nothing is kept, and there is enough stack.
        unsafe {
            asm!(
                "mov rdi, rsp", "sub rdi, {end}", "rep stosb",
                end = in(reg) start + len, inout("rcx") len => _, in("al") 0x77_u8, out("rdi") _,
                options(nostack),
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
#[cfg_attr(debug_assertions, ignore = "code that is not optimised needs more stack")]
fn no_gap_in_the_frame_of_a_signal_hides_its_registers() {
    for signal in SIGNALS {
        for depth in (0..5600).step_by(32) {
            let left = Left::after(|| scrubbed_lightly(|| interrupted_at(depth, signal)));
            assert_eq!(left.residue(), None, "{depth} bytes deep, {signal:?}");
        }
        // The deepest call that is scrubbed so, as far as tests see.
        for depth in (0..4096).step_by(32) {
            let left = Left::after(|| scrubbed_shortly(|| interrupted_at(depth, signal)));
            assert_eq!(left.residue(), None, "{depth} bytes deep, {signal:?}");
        }
    }
}
