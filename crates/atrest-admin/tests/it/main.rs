//! Tests through the public API.

// Tests may panic: that is how they fail.
#![allow(clippy::unwrap_used)]

mod api;
mod auth;
mod metrics;
mod probes;
mod regions;
mod schemathesis;
mod support;
#[cfg(target_os = "linux")]
mod threads;
mod tls;
