//! Encryption at rest for storage engines: an engine hands its files to this library, and
//! every byte on disk is encrypted under keys that rotate by themselves and that the
//! customer can take away.
//!
//! The customer's key (CMEK) stays in a key service and wraps the key of its slot, which
//! wraps the store key (KEK); the store key wraps data keys (DEK), which rotate every 30 days; each file's own key is
//! derived from the data key that was active when the file was created.
//!
//! **Not protected:** [`Suite::Aes256Ctr`], the default, does not notice a changed body;
//! the authenticated suites do. File sizes, access patterns and the memory of the running
//! process are out of scope. `docs/FORMAT.md` section 11 has the threats in full.
//!
//! # Which type for which job
//!
//! | job | type |
//! |---|---|
//! | open or create a store, rotate its keys, withdraw access | [`Store`] |
//! | write and read files | [`EncryptedFs`], [`Writer`], [`Reader`] |
//! | keys alone, without files | [`Keyring`] |
//! | encrypt what an engine writes by itself | [`Encryptor`], [`Decryptor`], [`Header`] |
//! | copy a store while it is in use, and bring it back | [`backup::Chain`] |
//! | wrap a slot key in a key service | [`kms::Kms`] |
//! | keep a keyring elsewhere | [`keyring::KeyringStorage`] |
//!
//! # Example
//!
//! The README's, which is tested with this crate: a key file, a store, one table.
//!
//! # Features
//!
//! - `passphrase` (default): the Argon2id provider; 4 crates.
//! - `danger-internals`: raw kernels, for benchmarks and fuzzing only.
//! - `danger-simulation`: randomness from a seed, and in debug builds a panic at a second use of
//!   keystream. For tests only; `atrest-testkit` turns it on.

pub mod backup;
mod cipher;
pub mod classify;
mod clock;
mod decoding;
mod derive;
mod descriptors;
pub mod error;
pub mod fs;
#[cfg(any(test, feature = "danger-internals"))]
mod fuzz;
mod header;
mod hex;
mod ids;
pub mod keyring;
pub mod kms;
pub mod names;
mod parallel;
mod process;
pub mod progress;
mod random;
mod scan;
mod secret;
mod shown;
#[cfg(feature = "danger-simulation")]
#[doc(hidden)]
pub mod simulation;
pub mod store;
mod suite;
mod sync;
mod tags;
#[cfg(test)]
mod vectors;
pub mod verify;
pub mod vfs;
pub mod walk;

pub use cipher::{Decryptor, Encryptor};
pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use fs::{EncryptedFs, Reader, Writer};
pub use header::{FORMAT_VERSION, FileKind, HEADER_LEN, Header};
pub use ids::{DataKeyId, FileId, SlotKeyId, StoreId, StoreKeyId};
pub use keyring::{
    Expect, FileSpec, IntegrityPolicy, Keyring, KeyspaceId, Options, PlaintextPolicy, Settings,
};
pub use secret::{DataKey, KEY_LEN, KeyMemory, WipingAllocator};
pub use store::Store;
pub use suite::chunks::{ChunkMap, ChunkRun};
pub use suite::limits::BODY_LEN_MAX;
pub use suite::log::FRAME_LEN_MAX;
pub use suite::{Integrity, Suite};

/// Forgets which keystream was used: for a simulation that begins again from its seed.
#[cfg(feature = "danger-simulation")]
#[doc(hidden)]
pub fn forget_keystream() {
    #[cfg(debug_assertions)]
    cipher::oracle::forget();
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/ENGINES.md")]
struct Engines;

/// Raw kernels, for benchmarks, fuzzing and test vectors only.
#[cfg(feature = "danger-internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::cipher::ctr::{CtrKey, Width, limit};
    pub use crate::cipher::gcm::{GcmKey, limit as gcm_limit};
    pub use crate::keyring::fuzz::many_keys;

    /// What the fuzz targets call.
    pub mod fuzz {
        pub use crate::fuzz::{
            audit, ctr, file, header, keyring_changed, keyring_image, keyring_slots, manifest,
            ranges,
        };
        pub use crate::keyring::fuzz::Bare;
    }
}
