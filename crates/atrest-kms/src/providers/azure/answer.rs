//! What an error of Azure Key Vault means.

use atrest::kms::{KmsError, KmsErrorKind};
use serde::Deserialize;

use crate::rest::Answer;

#[derive(Deserialize, Default)]
struct Failure {
    #[serde(default)]
    error: Code,
}

#[derive(Deserialize, Default)]
struct Code {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    innererror: Option<Box<Code>>,
}

pub(super) fn error(answer: &Answer, opens: bool, secrets: &[&str]) -> KmsError {
    let failure = answer.json::<Failure>().unwrap_or_default().error;
    let inner = failure.innererror.map(|inner| inner.code).unwrap_or_default();
    let kind = kind(answer.status, &failure.code, &inner, opens);
    let kind = kind.unwrap_or_else(|| answer.kind_by_status());
    answer.fail(kind, &format!("{} {inner}: {}", failure.code, failure.message), secrets)
}

/// The kind of a code, `None` if it is unknown. `opens` tells an unwrap.
fn kind(status: u16, code: &str, inner: &str, opens: bool) -> Option<KmsErrorKind> {
    match (status, code, inner) {
        (401, "Unauthorized", _) => Some(KmsErrorKind::Unauthenticated),
        (403, "Forbidden", "KeyDisabled" | "KeyExpired" | "KeyNotYetValid") => {
            Some(KmsErrorKind::KeyDisabled)
        }
        // Where this machine stands in the network, not what it may do.
        (403, "Forbidden", "ForbiddenByFirewall" | "ForbiddenByConnection") => {
            Some(KmsErrorKind::Unreachable)
        }
        (403, "Forbidden", _) => Some(KmsErrorKind::AccessDenied),
        (404, "KeyNotFound", _) => Some(KmsErrorKind::NotFound),
        (409, _, "ObjectIsDeletedButRecoverable" | "ObjectIsBeingDeleted") => {
            Some(KmsErrorKind::PendingDeletion)
        }
        (400, "BadParameter", _) if opens => Some(KmsErrorKind::Integrity),
        // A key of another type or without the operation.
        (400, code, _) if !code.is_empty() => Some(KmsErrorKind::Misconfigured),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers that the fake does not give, from the documentation.
    #[test]
    fn codes_of_the_documentation() {
        let expired = kind(403, "Forbidden", "KeyExpired", true);
        assert_eq!(expired, Some(KmsErrorKind::KeyDisabled));
        let deleted = kind(409, "Conflict", "ObjectIsBeingDeleted", true);
        assert_eq!(deleted, Some(KmsErrorKind::PendingDeletion));
        let denied = kind(403, "Forbidden", "ForbiddenByPolicy", true);
        assert_eq!(denied, Some(KmsErrorKind::AccessDenied));
        let firewall = kind(403, "Forbidden", "ForbiddenByFirewall", true);
        assert_eq!(firewall, Some(KmsErrorKind::Unreachable));
        for status in [400, 401, 403, 404] {
            assert_eq!(kind(status, "", "", true), None, "{status}");
        }
        assert_eq!(kind(429, "Throttled", "", true), None);
    }
}
