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
        // Imported material that its owner took out; importing it again brings it back.
        "KMSInvalidState" if message.contains("import") => KmsErrorKind::KeyDisabled,
        "KMSInvalidState" if message.contains("disabled") => KmsErrorKind::KeyDisabled,
        // An external key store has no code but this one; its owner denies in these words.
        "KMSInvalidState" if message.contains("proxy denied access") => KmsErrorKind::AccessDenied,
        "KMSInvalidState"
            if message.contains("the external key is not enabled")
                || message.contains("the external key does not support") =>
        {
            KmsErrorKind::KeyDisabled
        }
        "KMSInvalidState" if message.contains("could not find the external key") => {
            KmsErrorKind::NotFound
        }
        "KMSInvalidState" if message.contains("is corrupted") => KmsErrorKind::Integrity,
        // A custom key store that is disconnected, slow or broken; a key that is being made.
        "KMSInvalidState" => KmsErrorKind::Unreachable,
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
            ("KMSInvalidStateException", "x is unavailable.", KmsErrorKind::Unreachable),
            ("KMSInvalidStateException", "x is creating.", KmsErrorKind::Unreachable),
            (
                "KMSInvalidStateException",
                "KMS cannot communicate with your CloudHSM cluster",
                KmsErrorKind::Unreachable,
            ),
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

    /// The words of the Developer Guide, "Troubleshooting external key stores".
    #[test]
    fn an_external_key_store_denies_in_words_alone() {
        let rejected = "The external key store proxy rejected the request because ";
        for (words, expected) in [
            (
                "The external key store proxy denied access to the operation. Verify that the user \
                 and the external key are both authorized for this operation, and try the request \
                 again.",
                KmsErrorKind::AccessDenied,
            ),
            (
                "the external key is not enabled in the external key manager.",
                KmsErrorKind::KeyDisabled,
            ),
            (
                "the external key does not support the requested operation.",
                KmsErrorKind::KeyDisabled,
            ),
            ("it could not find the external key.", KmsErrorKind::NotFound),
            (
                "the specified ciphertext or additional authenticated data is corrupted, missing, \
                 or otherwise invalid.",
                KmsErrorKind::Integrity,
            ),
            (
                "The ciphertext that the external key store proxy submitted for decryption, or the \
                 encryption context, is corrupted, missing, or otherwise invalid.",
                KmsErrorKind::Integrity,
            ),
            (
                "it could not authenticate AWS KMS. Verify the credentials for your external key \
                 store and update if necessary.",
                KmsErrorKind::Unreachable,
            ),
            (
                "it does not support the requested cryptographic operation.",
                KmsErrorKind::Unreachable,
            ),
            (
                "AWS KMS rejected the request because the external key store proxy did not respond \
                 in time. Retry the request. If you see this error repeatedly, report it to your \
                 external key store proxy administrator.",
                KmsErrorKind::Unreachable,
            ),
            (
                "AWS KMS cannot communicate with the external key store proxy. This might be a \
                 transient network issue.",
                KmsErrorKind::Unreachable,
            ),
            ("The external key store proxy is in an unhealthy state.", KmsErrorKind::Unreachable),
            (
                "AWS KMS cannot interpret the response from the external key store proxy.",
                KmsErrorKind::Unreachable,
            ),
        ] {
            let begins =
                if words.starts_with("it ") || words.starts_with("the ") { rejected } else { "" };
            let said = format!("{begins}{words}");
            assert_eq!(kind("KMSInvalidStateException", &said), Some(expected), "{said}");
        }
    }
}
