//! Encryption at rest for storage engines.

mod cipher;
mod clock;
mod derive;
pub mod error;
pub mod fs;
mod header;
mod hex;
mod ids;
pub mod keyring;
pub mod kms;
mod random;
mod secret;
pub mod vfs;

pub use cipher::{BODY_LEN_MAX, Decryptor, Encryptor, FRAME_LEN_MAX};
pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use fs::{EncryptedFs, Reader, Writer};
pub use header::{FORMAT_VERSION, FileKind, HEADER_LEN, Header, Suite};
pub use ids::{DataKeyId, FileId, StoreId, StoreKeyId};
pub use keyring::{Expect, FileSpec, Keyring, Options, PlaintextPolicy, Settings};
pub use secret::{DataKey, KEY_LEN, StoreKey};

/// Raw kernels, for benchmarks, fuzzing and test vectors only.
#[cfg(feature = "danger-internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::cipher::ctr::{CtrKey, Width, limit};
}
