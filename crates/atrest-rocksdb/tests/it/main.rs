//! RocksDB as Debian ships it, unmodified, on encrypted files.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod backups;
mod crash;
mod damage;
mod keystream;
mod life;
mod support;
mod tools;
