//! The registers of aarch64.

use std::arch::asm;

/// Empties `v0` to `v31`; where the machine has longer ones (SVE), these are their first 16 bytes,
/// and the write empties the rest.
#[inline]
pub(in crate::secret) fn clear_registers() {
    // SAFETY: the registers are declared as overwritten.
    unsafe {
        asm!(
            "movi v0.2d, #0", "movi v1.2d, #0", "movi v2.2d, #0", "movi v3.2d, #0",
            "movi v4.2d, #0", "movi v5.2d, #0", "movi v6.2d, #0", "movi v7.2d, #0",
            "movi v8.2d, #0", "movi v9.2d, #0", "movi v10.2d, #0", "movi v11.2d, #0",
            "movi v12.2d, #0", "movi v13.2d, #0", "movi v14.2d, #0", "movi v15.2d, #0",
            "movi v16.2d, #0", "movi v17.2d, #0", "movi v18.2d, #0", "movi v19.2d, #0",
            "movi v20.2d, #0", "movi v21.2d, #0", "movi v22.2d, #0", "movi v23.2d, #0",
            "movi v24.2d, #0", "movi v25.2d, #0", "movi v26.2d, #0", "movi v27.2d, #0",
            "movi v28.2d, #0", "movi v29.2d, #0", "movi v30.2d, #0", "movi v31.2d, #0",
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// What `v0` to `v31` hold.
///
/// # Safety
/// None: every aarch64 that Rust knows by default has them.
#[cfg(test)]
#[inline(always)]
pub(crate) unsafe fn contents() -> [[u64; 2]; 32] {
    // Nothing is put there before: that would go through the registers that are looked at.
    let mut contents = std::mem::MaybeUninit::<[[u64; 2]; 32]>::uninit();
    macro_rules! store {
        ($($register:literal)*) => {
            // SAFETY: writes to `contents`; one call for all, so that nothing comes between.
            unsafe {
                asm!(
                    $(concat!("str q", $register, ", [{0}, #16 * ", $register, "]"),)*
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
        macro_rules! fill {
            ($($register:literal)*) => {
                asm!(
                    $(concat!("movi v", $register, ".16b, #255"),)*
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                    out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
                    out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
                    out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
                    options(nomem, nostack, preserves_flags),
                )
            };
        }
        // SAFETY: the registers are declared as overwritten.
        let (filled, left) = unsafe {
            fill!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
            let filled = contents();
            clear_registers();
            (filled, contents())
        };
        assert_ne!(filled[31], [0; 2]);
        assert_eq!(left, [[0; 2]; 32]);
    }
}
