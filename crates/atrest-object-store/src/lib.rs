#![doc = include_str!("../README.md")]
#![allow(clippy::duplicate_mod, reason = "one source serves two versions of `object_store`")]

mod bridge;
mod chunked;
#[cfg(feature = "slatedb-compaction")]
mod compaction;
mod find_error;
#[cfg(feature = "danger-internals")]
mod fuzz;
mod policy;
mod tags;
#[cfg(feature = "object_store_0_13")]
pub mod v0_13;
#[cfg(feature = "object_store_0_14")]
pub mod v0_14;

#[cfg(feature = "slatedb-compaction")]
pub use compaction::SteeredCompaction;
pub use find_error::find_error;
#[cfg(feature = "object_store_0_14")]
pub use v0_14::{
    EncryptedStore, KEYRING_PREFIX, ObjectCount, ObjectStoreKeyringStorage, ObjectStoreTarget,
    ObjectUsage, slatedb_file_kind, starts,
};

/// What the fuzz target calls.
#[cfg(feature = "danger-internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::fuzz::answers;
}

#[cfg(not(any(feature = "object_store_0_13", feature = "object_store_0_14")))]
compile_error!("turn on `object_store_0_14`, `object_store_0_13` or both");
