//! Encryption and decryption of file bodies, without I/O.
//!
//! [`Encryptor`] is sequential, not `Clone`, and owns its position, so that no byte of
//! keystream is used twice. [`Decryptor`] reads anywhere, from many threads. Nothing made
//! from a header can encrypt. What the suites do with a key is in [`suite`](crate::suite);
//! the ciphers themselves are in `ctr`, and in `gcm` over it.
//!
//! Both hold their key through a [`KeySlot`], from which the keyring takes it when access
//! to the customer's key is lost, and into which it puts it back.

pub(crate) mod ctr;
mod decryptor;
mod encryptor;
pub(crate) mod gcm;
pub(crate) mod oracle;
mod right;
pub(crate) mod slot;

pub use decryptor::Decryptor;
pub(crate) use encryptor::ByteCount;
pub use encryptor::Encryptor;
pub(crate) use slot::{KeySlot, SlotKey, revoked};
