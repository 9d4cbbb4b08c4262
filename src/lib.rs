//! Encryption at rest for storage engines.

mod derive;
pub mod error;
mod hex;
mod ids;
pub mod kms;
mod random;
mod secret;

pub use error::{Error, ErrorKind, Result};
pub use ids::{DataKeyId, FileId, StoreId, StoreKeyId};
pub use secret::{KEY_LEN, StoreKey};
