//! Parquet files under keys of a keyring, written and read by Parquet's own writer and reader.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod keys;
mod retirement;
mod support;
