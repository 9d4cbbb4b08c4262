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
    #[serde(default)]
    details: Vec<Detail>,
}

/// `google.rpc.ErrorInfo`, the one of the details that has a reason.
#[derive(Deserialize, Default)]
struct Detail {
    #[serde(default)]
    reason: String,
}

pub(super) fn error(answer: &Answer, opens: bool, secrets: &[&str]) -> KmsError {
    let failure = answer.json::<Failure>().unwrap_or_default().error;
    let reasons = failure.details.iter().map(|detail| detail.reason.as_str());
    let reason = reasons.into_iter().find(|reason| !reason.is_empty()).unwrap_or_default();
    let kind = kind(&failure.status, reason, &failure.message, opens);
    let kind = kind.unwrap_or_else(|| answer.kind_by_status());
    let said = format!("{} {reason}: {}", failure.status, failure.message);
    answer.fail(kind, &said, secrets)
}

/// The kind of a status, `None` if it is unknown. `opens` tells a decryption.
fn kind(status: &str, reason: &str, message: &str, opens: bool) -> Option<KmsErrorKind> {
    let kind = match status {
        "UNAUTHENTICATED" => KmsErrorKind::Unauthenticated,
        // Without a reason, or with one about rights on the key. The other reasons are about
        // the project and where this machine stands: SERVICE_DISABLED, BILLING_DISABLED,
        // CONSUMER_INVALID, ACCESS_TOKEN_SCOPE_INSUFFICIENT, and SECURITY_POLICY_VIOLATED,
        // which is VPC Service Controls.
        "PERMISSION_DENIED" => match reason {
            "" | "IAM_PERMISSION_DENIED" => KmsErrorKind::AccessDenied,
            _ => KmsErrorKind::Misconfigured,
        },
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
            assert_eq!(kind(status, "", "", true), Some(expected), "{status}");
        }
        assert_eq!(kind("INVALID_ARGUMENT", "", "", false), Some(KmsErrorKind::Misconfigured));
        assert_eq!(kind("FAILED_PRECONDITION", "", "something new", true), None);
    }

    #[test]
    fn a_denial_is_about_rights_and_not_about_the_project() {
        let of = |reason| kind("PERMISSION_DENIED", reason, "denied", true);
        for reason in ["", "IAM_PERMISSION_DENIED"] {
            assert_eq!(of(reason), Some(KmsErrorKind::AccessDenied), "{reason}");
        }
        let perimeter = "SECURITY_POLICY_VIOLATED";
        for reason in ["SERVICE_DISABLED", "BILLING_DISABLED", "CONSUMER_INVALID", perimeter] {
            assert_eq!(of(reason), Some(KmsErrorKind::Misconfigured), "{reason}");
        }
    }
}
