//! Names the shared library for the dynamic linker: a program that was linked with one major
//! version of the interface never meets another.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if os != "macos" && os != "windows" {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libatrest_c.so.1");
    }
}
