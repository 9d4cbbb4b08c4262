//! Names the shared library for the dynamic linker: a program that was linked with one major
//! version of the interface never meets another. Says where the header is.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // For build scripts of what depends on this crate: DEP_ATREST_C_INCLUDE.
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::metadata=include={here}/include");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if os != "macos" && os != "windows" {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libatrest_c.so.1");
    }
}
