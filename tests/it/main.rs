//! The library through its public API.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod direct;
mod files;
mod suites;
mod support;
