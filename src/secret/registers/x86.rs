//! The registers of x86-64, of which machines have three sets.

use std::arch::asm;

/// Empties the vector registers and the masks that this machine has.
#[inline]
pub(in crate::secret) fn clear_registers() {
    // SAFETY: each is called where its instructions exist.
    unsafe {
        if is_x86_feature_detected!("avx512f") {
            clear_512();
        } else if is_x86_feature_detected!("avx") {
            clear_256();
        } else {
            clear_128();
        }
    }
}

/// Empties `xmm0` to `xmm15`.
///
/// # Safety
/// None: every x86-64 has SSE2.
#[inline]
unsafe fn clear_128() {
    // SAFETY: the registers are declared as overwritten.
    unsafe {
        asm!(
            "pxor xmm0, xmm0", "pxor xmm1, xmm1", "pxor xmm2, xmm2", "pxor xmm3, xmm3",
            "pxor xmm4, xmm4", "pxor xmm5, xmm5", "pxor xmm6, xmm6", "pxor xmm7, xmm7",
            "pxor xmm8, xmm8", "pxor xmm9, xmm9", "pxor xmm10, xmm10", "pxor xmm11, xmm11",
            "pxor xmm12, xmm12", "pxor xmm13, xmm13", "pxor xmm14, xmm14", "pxor xmm15, xmm15",
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Empties `ymm0` to `ymm15`.
///
/// # Safety
/// The machine has AVX.
#[inline]
#[target_feature(enable = "avx")]
unsafe fn clear_256() {
    // SAFETY: the registers are declared as overwritten.
    unsafe {
        asm!(
            "vzeroall",
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Empties `zmm0` to `zmm31` and `k0` to `k7`.
///
/// # Safety
/// The machine has AVX-512F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn clear_512() {
    // SAFETY: the registers are declared as overwritten; `vzeroall` empties the lower half
    // of the file in its whole width.
    unsafe {
        asm!(
            "vpxord zmm16, zmm16, zmm16", "vpxord zmm17, zmm17, zmm17",
            "vpxord zmm18, zmm18, zmm18", "vpxord zmm19, zmm19, zmm19",
            "vpxord zmm20, zmm20, zmm20", "vpxord zmm21, zmm21, zmm21",
            "vpxord zmm22, zmm22, zmm22", "vpxord zmm23, zmm23, zmm23",
            "vpxord zmm24, zmm24, zmm24", "vpxord zmm25, zmm25, zmm25",
            "vpxord zmm26, zmm26, zmm26", "vpxord zmm27, zmm27, zmm27",
            "vpxord zmm28, zmm28, zmm28", "vpxord zmm29, zmm29, zmm29",
            "vpxord zmm30, zmm30, zmm30", "vpxord zmm31, zmm31, zmm31",
            "kxorw k0, k0, k0", "kxorw k1, k1, k1", "kxorw k2, k2, k2", "kxorw k3, k3, k3",
            "kxorw k4, k4, k4", "kxorw k5, k5, k5", "kxorw k6, k6, k6", "kxorw k7, k7, k7",
            "vzeroall",
            out("k0") _, out("k1") _, out("k2") _, out("k3") _,
            out("k4") _, out("k5") _, out("k6") _, out("k7") _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
            out("zmm4") _, out("zmm5") _, out("zmm6") _, out("zmm7") _,
            out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
            out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
            out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
            out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
            out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// What `zmm0` to `zmm31` hold.
///
/// # Safety
/// The machine has AVX-512F.
#[cfg(test)]
#[inline(always)]
pub(crate) unsafe fn contents() -> [[u64; 8]; 32] {
    // Nothing is put there before: that would go through the registers that are looked at.
    let mut contents = std::mem::MaybeUninit::<[[u64; 8]; 32]>::uninit();
    macro_rules! store {
        ($($register:literal)*) => {
            // SAFETY: writes to `contents`; one call for all, so that nothing comes between.
            unsafe {
                asm!(
                    $(concat!("vmovdqu64 [{0} + 64 * ", $register, "], zmm", $register),)*
                    in(reg) contents.as_mut_ptr(),
                    options(nostack, preserves_flags),
                );
            }
        };
    }
    store!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    // SAFETY: all 32 registers were stored.
    unsafe { contents.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registers_are_empty_afterwards() {
        let mut left = [u128::MAX; 2];
        // SAFETY: the registers are declared as overwritten, and `left` is written to.
        unsafe {
            asm!("pcmpeqb xmm3, xmm3", "pcmpeqb xmm15, xmm15", out("xmm3") _, out("xmm15") _);
        }
        clear_registers();
        // SAFETY: as above.
        unsafe {
            asm!(
                "movdqu [{0}], xmm3",
                "movdqu [{0} + 16], xmm15",
                in(reg) left.as_mut_ptr(),
                options(nostack, preserves_flags),
            );
        }
        assert_eq!(left, [0; 2]);
    }

    #[test]
    fn all_512_bits_of_32_registers_are_empty_afterwards() {
        #[target_feature(enable = "avx512f")]
        unsafe fn left() -> [[u64; 8]; 32] {
            macro_rules! fill {
                ($($register:literal)*) => {
                    asm!(
                        $(concat!(
                            "vpternlogd zmm", $register, ", zmm", $register, ", zmm", $register,
                            ", 0xff"
                        ),)*
                        out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
                        out("zmm4") _, out("zmm5") _, out("zmm6") _, out("zmm7") _,
                        out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                        out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _,
                        out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
                        out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                        out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
                        out("zmm28") _, out("zmm29") _, out("zmm30") _, out("zmm31") _,
                        options(nomem, nostack, preserves_flags),
                    )
                };
            }
            // SAFETY: the registers are declared as overwritten.
            unsafe {
                fill!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
                assert_ne!(contents()[31], [0; 8]);
                clear_512();
                contents()
            }
        }
        if !is_x86_feature_detected!("avx512f") {
            return atrest_testkit::left_out("this machine has no AVX-512");
        }
        // SAFETY: the feature was found.
        assert_eq!(unsafe { left() }, [[0; 8]; 32]);
    }
}
