#![doc = include_str!("../README.md")]

mod backup_target;
mod body;
mod bridge;
mod chunked;
mod ciphertext;
#[cfg(feature = "slatedb-compaction")]
mod compaction;
mod error;
#[cfg(feature = "danger-internals")]
mod fuzz;
mod headers;
mod keyring_storage;
mod kinds;
mod open;
mod opening;
mod policy;
mod read;
mod reserved;
mod store;
mod tags;
mod upload;
mod usage;

pub use backup_target::ObjectStoreTarget;
#[cfg(feature = "slatedb-compaction")]
pub use compaction::SteeredCompaction;
pub use error::find_error;
pub use keyring_storage::ObjectStoreKeyringStorage;
pub use kinds::slatedb_file_kind;
pub use reserved::KEYRING_PREFIX;
pub use store::EncryptedStore;
pub use usage::{ObjectCount, ObjectUsage, starts};

/// What the fuzz target calls.
#[cfg(feature = "danger-internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::fuzz::answers;
}
