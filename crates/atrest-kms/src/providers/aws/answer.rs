//! What an error of AWS KMS means (API reference, Common Errors and the operations').

use atrest::kms::{KmsError, KmsErrorKind};
use serde::Deserialize;

use crate::rest::Answer;

#[derive(Deserialize, Default)]
struct Failure {
    #[serde(rename = "__type", default)]
    code: String,
    #[serde(alias = "Message", default)]
    message: String,
}

pub(super) fn error(answer: &Answer, secrets: &[&str]) -> KmsError {
    let failure = answer.json::<Failure>().unwrap_or_default();
    // `com.amazonaws.kms#NotFoundException` or the name alone.
    let code = failure.code.rsplit('#').next().unwrap_or_default();
    let kind = kind(code, &failure.message).unwrap_or_else(|| answer.kind_by_status());
    answer.fail(kind, &format!("{code} {}", failure.message), secrets)
}

/// The kind of a code, `None` if it is unknown.
pub(super) fn kind(code: &str, message: &str) -> Option<KmsErrorKind> {
    let message = message.to_ascii_lowercase();
    let kind = match code.strip_suffix("Exception").unwrap_or(code) {
        // This machine's clock: "Signature expired: ... is now earlier than ...", "Signature
        // not yet current".
        "RequestExpired" | "RequestTimeTooSkewed" => KmsErrorKind::Misconfigured,
        "InvalidSignature" | "SignatureDoesNotMatch"
            if message.contains("signature expired") || message.contains("not yet current") =>
        {
            KmsErrorKind::Misconfigured
        }
        // The account lacks the service, or something stripped what was signed.
        "OptInRequired" | "IncompleteSignature" | "MissingAuthenticationToken" => {
            KmsErrorKind::Misconfigured
        }
        "NotFound" => KmsErrorKind::NotFound,
        "Disabled" => KmsErrorKind::KeyDisabled,
        "KMSInvalidState" if message.contains("deletion") => KmsErrorKind::PendingDeletion,
        // A custom key store that is disconnected.
        "KMSInvalidState" if message.contains("unavailable") => KmsErrorKind::Unreachable,
        // Imported material that its owner took out; importing it again brings it back.
        "KMSInvalidState" if message.contains("import") => KmsErrorKind::KeyDisabled,
        "KMSInvalidState" if message.contains("disabled") => KmsErrorKind::KeyDisabled,
        "InvalidCiphertext" | "IncorrectKey" => KmsErrorKind::Integrity,
        // The network that this machine calls from, and not what it may do with the key.
        "AccessDenied" if message.contains("vpc endpoint policy") => KmsErrorKind::Misconfigured,
        "AccessDenied" | "NotAuthorized" => KmsErrorKind::AccessDenied,
        "UnrecognizedClient"
        | "InvalidSignature"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidClientTokenId"
        | "IDPRejectedClaim"
        | "InvalidIdentityToken" => KmsErrorKind::Unauthenticated,
        "Throttling"
        | "ThrottledException"
        | "LimitExceeded"
        | "TooManyRequests"
        | "RequestLimitExceeded" => KmsErrorKind::Throttled,
        "KMSInternal"
        | "DependencyTimeout"
        | "KeyUnavailable"
        | "InternalFailure"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "IDPCommunicationError"
        | "CloudHsmClusterNotActive"
        | "XksProxyUriUnreachable" => KmsErrorKind::Unreachable,
        "InvalidKeyUsage" | "InvalidArn" | "Validation" | "ValidationError" => {
            KmsErrorKind::Misconfigured
        }
        _ => return None,
    };
    Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes that no emulator gives, from the API reference.
    #[test]
    fn codes_of_the_reference() {
        for (code, message, expected) in [
            ("IncorrectKeyException", "", KmsErrorKind::Integrity),
            ("ThrottlingException", "Rate exceeded", KmsErrorKind::Throttled),
            ("ExpiredTokenException", "", KmsErrorKind::Unauthenticated),
            ("KMSInternalException", "", KmsErrorKind::Unreachable),
            ("DependencyTimeoutException", "", KmsErrorKind::Unreachable),
            ("KeyUnavailableException", "", KmsErrorKind::Unreachable),
            ("KMSInvalidStateException", "x is pending import.", KmsErrorKind::KeyDisabled),
            ("KMSInvalidStateException", "x is pending deletion.", KmsErrorKind::PendingDeletion),
            ("InvalidKeyUsageException", "", KmsErrorKind::Misconfigured),
            (
                "InvalidSignatureException",
                "Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z \
                 (20260101T002000Z - 5 min.)",
                KmsErrorKind::Misconfigured,
            ),
            (
                "SignatureDoesNotMatch",
                "Signature not yet current: 20260101T010000Z is still later than \
                 20260101T000500Z (20260101T000000Z + 5 min.)",
                KmsErrorKind::Misconfigured,
            ),
            ("RequestExpired", "", KmsErrorKind::Misconfigured),
            ("OptInRequired", "", KmsErrorKind::Misconfigured),
            ("InvalidSignatureException", "does not match", KmsErrorKind::Unauthenticated),
            ("AccessDeniedException", "", KmsErrorKind::AccessDenied),
            (
                "AccessDeniedException",
                "User: arn is not authorized to perform: kms:Decrypt with an explicit deny in a \
                 VPC endpoint policy",
                KmsErrorKind::Misconfigured,
            ),
        ] {
            assert_eq!(kind(code, message), Some(expected), "{code}");
        }
        assert_eq!(kind("BrandNewException", ""), None);
    }
}
