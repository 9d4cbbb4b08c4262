//! What a refusal of KMIP means (KMIP 1.4, section 9.1.3.2.29).

use atrest::kms::{KmsError, KmsErrorKind};

use super::message::{Refusal, Request, State};
use crate::fail::fail;
use crate::redact::redact;

pub(super) const PERMISSION_DENIED: u32 = 0x0c;

pub(super) fn error(refusal: &Refusal, request: &Request<'_>) -> KmsError {
    let opens = matches!(request, Request::Decrypt { .. });
    let kind = match refusal.reason {
        0x01 => KmsErrorKind::NotFound,
        0x03 => KmsErrorKind::Unauthenticated,
        // Operation, feature or key format not supported.
        0x05 | 0x08 | 0x10 => KmsErrorKind::Misconfigured,
        PERMISSION_DENIED => KmsErrorKind::AccessDenied,
        // The object is archived: its owner can recover it.
        0x0d => KmsErrorKind::KeyDisabled,
        // Cryptographic and general failure: what a wrong tag or AAD gives.
        0x0a | 0x100 if opens => KmsErrorKind::Integrity,
        _ => KmsErrorKind::Protocol,
    };
    fail(kind, said(refusal))
}

/// The error of a denial, given what the server tells of the key's state.
pub(super) fn denied(refusal: &Refusal, state: Result<State, KmsError>) -> KmsError {
    let kind = match state {
        Ok(State::PreActive | State::Deactivated | State::Compromised) => KmsErrorKind::KeyDisabled,
        Ok(State::Destroyed) => KmsErrorKind::Destroyed,
        Err(error) if error.kind() == KmsErrorKind::NotFound => KmsErrorKind::NotFound,
        // Active, or not even the state may be read.
        Ok(State::Active) | Err(_) => KmsErrorKind::AccessDenied,
    };
    fail(kind, said(refusal))
}

fn said(refusal: &Refusal) -> String {
    format!("reason {:#04x}: {}", refusal.reason, redact(&refusal.message, &[]))
}
