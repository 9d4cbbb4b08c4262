//! Emptying the vector registers, which a thread that waits keeps, and a core dump shows.

// No safe instruction names a register.
#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "x86_64")]
use x86 as arch;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use arch::clear_registers;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use arch::contents;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn clear_registers() {}
