//! What all parts of a keyring's encoding share: its limits and its errors.

use crate::error::{Error, ErrorKind};

/// Longest keyring, 64 MiB: a quarter of a million data keys.
pub(crate) const KEYRING_LEN_MAX: usize = 64 << 20;
/// Longest name that people give to a part of it, and longest key version, in bytes.
pub(super) const NAME_LEN_MAX: usize = 256;

pub(super) fn encode_error(error: wincode::WriteError) -> Error {
    Error::new(ErrorKind::InvalidArgument, "the keyring cannot be encoded").with_source(error)
}

pub(super) fn decode_error(error: wincode::ReadError) -> Error {
    Error::new(ErrorKind::KeyringCorrupt, "the keyring cannot be decoded").with_source(error)
}
