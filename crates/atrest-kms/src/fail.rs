//! Short forms of the errors every provider needs.

use atrest::kms::{KmsError, KmsErrorKind};

pub(crate) fn fail(kind: KmsErrorKind, what: impl Into<String>) -> KmsError {
    KmsError::new(kind, what)
}

pub(crate) fn misconfigured(what: impl Into<String>) -> KmsError {
    fail(KmsErrorKind::Misconfigured, what)
}

pub(crate) fn protocol(what: impl Into<String>) -> KmsError {
    fail(KmsErrorKind::Protocol, what)
}

pub(crate) fn integrity(what: impl Into<String>) -> KmsError {
    fail(KmsErrorKind::Integrity, what)
}

/// The unwrapped bytes as a slot key. A success of another length is no proof of access,
/// and no key.
pub(crate) fn slot_key(bytes: &[u8]) -> Result<atrest::kms::SlotKey, KmsError> {
    atrest::kms::SlotKey::from_slice(bytes).ok_or_else(|| {
        integrity(format!("expected 32 bytes under the wrapping, found {}", bytes.len()))
    })
}
