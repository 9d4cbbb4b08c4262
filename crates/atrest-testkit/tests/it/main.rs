//! The suites over every implementation that the core has, and over ones that lie.
#![allow(clippy::unwrap_used, missing_docs)]

mod conformance;
mod crashes;
mod lies;
