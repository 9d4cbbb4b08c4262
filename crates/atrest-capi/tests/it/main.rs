//! The interface as C and Python meet it: compiled, run, run under valgrind and the address
//! sanitizer.
#![allow(clippy::unwrap_used, missing_docs)]

mod c;
mod header;
mod python;
mod support;
