//! What is measured, and against what; and how long engines go on. The binary prints the report, the criterion
//! benchmarks look at one thing at a time; both run the same operations.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing to report")]

pub mod adapters;
pub mod ctr;
pub mod engine;
pub mod file;
pub mod gcm;
pub mod measure;
pub mod plot;
pub mod raft;
pub mod scale;
pub mod search;
pub mod soak;
pub mod surreal;

/// One measured pair.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    /// `group/size or operation/peer`, such as `ctr/4096/openssl`, `gcm-open/4096/ring` or
    /// `engine/fill-authenticated/plain`.
    pub name: String,
    /// Unit of the two figures.
    pub unit: &'static str,
    /// Figure of this library.
    pub atrest: f64,
    /// Figure of the peer.
    pub peer: f64,
    /// Median over the interleaved pairs of atrest divided by peer.
    pub ratio: f64,
}
