//! The encrypting store through its public API.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod authenticated;
mod backup;
mod caches;
mod churn;
mod costs;
mod engine;
mod keyring;
mod liar;
mod lies;
mod meddle;
mod model;
mod multipart;
mod policy;
mod published;
mod reads;
mod spy;
mod steering;
mod support;
mod tamper;
