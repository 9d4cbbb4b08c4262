//! The library through its public API.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod access;
mod access_bound;
mod backup;
mod bad_input;
mod churn;
mod counts;
mod crash;
mod direct;
mod files;
mod kms;
mod reader_script;
mod recover;
mod rotation;
mod slots;
mod suites;
mod support;
mod verify;
