//! Limits that all suites share, and what breaking one is called.

use crate::error::{Error, ErrorKind, Result};

/// Longest body in bytes, in every suite: the blocks of a file then number at most 2^40.
pub const BODY_LEN_MAX: u64 = 1 << 44;

/// A body that is not what its writer wrote.
pub(crate) fn authentication(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Authentication, what)
}

pub(super) fn too_large(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::FileTooLarge, what)
}

/// The number of a message under one key: 32 bits, so that no nonce comes twice.
pub(crate) fn message_index(index: u64) -> Result<u32> {
    u32::try_from(index).map_err(|_| {
        too_large(format!("expected fewer than 2^32 chunks or frames in a file, found {index}"))
    })
}

/// A call for ciphertext as long as its plaintext, to a file of a suite with tags.
pub(crate) fn changes_lengths() -> Error {
    let what = "expected a suite that keeps lengths, found one that changes them";
    Error::new(ErrorKind::UnsupportedFeature, what)
}

/// A call for authenticated bytes, to a file of a suite without tags.
pub(crate) fn lacks_authentication() -> Error {
    let what = "expected a suite with authentication, found one without";
    Error::new(ErrorKind::UnsupportedFeature, what)
}
