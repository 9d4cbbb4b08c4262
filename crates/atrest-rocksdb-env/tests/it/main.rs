//! RocksDB, through the `rocksdb` crate, on encrypted files.
#![allow(clippy::unwrap_used, missing_docs)]

mod life;
mod support;
mod uses;
