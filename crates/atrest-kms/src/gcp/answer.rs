//! What an error of Google Cloud KMS means (`google.rpc.Status`).

use atrest::kms::{KmsError, KmsErrorKind};
use serde::Deserialize;

use crate::rest::Answer;

#[derive(Deserialize, Default)]
struct Failure {
    #[serde(default)]
    error: Status,
}

#[derive(Deserialize, Default)]
struct Status {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
}

pub(super) fn error(answer: &Answer, opens: bool, secrets: &[&str]) -> KmsError {
    let Status { status, message } = answer.json::<Failure>().unwrap_or_default().error;
    let kind = kind(&status, &message, opens).unwrap_or_else(|| answer.kind_by_status());
    answer.fail(kind, &format!("{status}: {message}"), secrets)
}

/// The kind of a status, `None` if it is unknown. `opens` tells a decryption.
fn kind(status: &str, message: &str, opens: bool) -> Option<KmsErrorKind> {
    let kind = match status {
        "UNAUTHENTICATED" => KmsErrorKind::Unauthenticated,
        "PERMISSION_DENIED" => KmsErrorKind::AccessDenied,
        "NOT_FOUND" => KmsErrorKind::NotFound,
        // "... is not enabled, current state is: DESTROYED."
        "FAILED_PRECONDITION" if message.contains("DESTROY_SCHEDULED") => {
            KmsErrorKind::PendingDeletion
        }
        "FAILED_PRECONDITION" if message.contains("DESTROYED") => KmsErrorKind::Destroyed,
        "FAILED_PRECONDITION"
            if message.contains("DISABLED") || message.contains("is not enabled") =>
        {
            KmsErrorKind::KeyDisabled
        }
        "INVALID_ARGUMENT" if opens => KmsErrorKind::Integrity,
        "INVALID_ARGUMENT" => KmsErrorKind::Misconfigured,
        "RESOURCE_EXHAUSTED" => KmsErrorKind::Throttled,
        "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "INTERNAL" | "ABORTED" | "CANCELLED" => {
            KmsErrorKind::Unreachable
        }
        _ => return None,
    };
    Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Statuses that neither drongo nor the fake gives, from Google's error model.
    #[test]
    fn statuses_of_the_error_model() {
        for (status, expected) in [
            ("RESOURCE_EXHAUSTED", KmsErrorKind::Throttled),
            ("UNAVAILABLE", KmsErrorKind::Unreachable),
            ("DEADLINE_EXCEEDED", KmsErrorKind::Unreachable),
            ("INTERNAL", KmsErrorKind::Unreachable),
            ("UNAUTHENTICATED", KmsErrorKind::Unauthenticated),
        ] {
            assert_eq!(kind(status, "", true), Some(expected), "{status}");
        }
        assert_eq!(kind("INVALID_ARGUMENT", "", false), Some(KmsErrorKind::Misconfigured));
        assert_eq!(kind("FAILED_PRECONDITION", "something new", true), None);
    }
}
