//! OAuth access tokens, kept until shortly before they expire.

use std::time::Duration;

use atrest::kms::{KmsError, KmsErrorKind};
use serde::Deserialize;

use super::Answer;
use crate::kept::{Fresh, Lasts};
use crate::secret::Secret;

/// Tokens are fetched anew this long before they expire. Google's metadata server gives
/// new ones only in the last five minutes.
const EXPIRY_MARGIN: Duration = Duration::from_secs(200);

/// An access token.
pub(crate) type Token = Fresh<Secret>;

#[derive(Deserialize)]
struct Granted {
    access_token: Secret,
    /// Seconds, which Azure's metadata service writes as text.
    expires_in: serde_json::Value,
}

#[derive(Deserialize, Default)]
struct Refused {
    #[serde(default)]
    error: serde_json::Value,
    #[serde(default)]
    error_description: String,
}

impl Token {
    /// A token that is not kept.
    pub(crate) fn given(text: Secret) -> Self {
        Self { value: text, lasts: None }
    }

    /// The token in an answer of a token endpoint (RFC 6749, section 5).
    pub(crate) fn from_answer(
        answer: &Answer,
        whose: &str,
        secrets: &[&str],
    ) -> Result<Self, KmsError> {
        if answer.status != 200 {
            let refused: Refused = answer.json().unwrap_or_default();
            let (error, described) = (refused.error.as_str(), &refused.error_description);
            let error = error.unwrap_or_default();
            let kind = kind(error, described).unwrap_or_else(|| answer.kind_by_status());
            let said = format!("{whose} gives no token: {error} {described}");
            return Err(answer.fail(kind, &said, secrets));
        }
        Self::granted(answer)
    }

    /// The token in an answer of a machine's metadata service. Without one, nobody has
    /// denied anything: a role is attached, or the service starts, a little later.
    pub(crate) fn from_metadata(answer: &Answer, whose: &str) -> Result<Self, KmsError> {
        if answer.status != 200 {
            let said = format!("found no credentials, and {whose} gives no token");
            return Err(answer.fail(answer.kind_of_metadata(), &said, &[]));
        }
        Self::granted(answer)
    }

    fn granted(answer: &Answer) -> Result<Self, KmsError> {
        let granted: Granted = answer.json()?;
        let secs = match &granted.expires_in {
            serde_json::Value::String(text) => text.parse().unwrap_or(0),
            number => number.as_u64().unwrap_or(0),
        };
        // Nothing lasts longer than a day: believing more would keep a token too long.
        let lifetime = Duration::from_secs(secs.min(86_400));
        let renew_before = Some(EXPIRY_MARGIN);
        let lasts = Some(Lasts { good_for: lifetime, lifetime, renew_before });
        Ok(Self { value: granted.access_token, lasts })
    }
}

/// What an error code means (RFC 6749, sections 4.1.2.1 and 5.2); `None` for another.
fn kind(error: &str, described: &str) -> Option<KmsErrorKind> {
    // Google on a signed assertion of the future or the past: this machine's clock.
    let clock = described.contains("reasonable timeframe");
    let kind = match error {
        "invalid_grant" if clock => KmsErrorKind::Misconfigured,
        "invalid_grant" | "invalid_client" | "unauthorized_client" | "access_denied" => {
            KmsErrorKind::Unauthenticated
        }
        "invalid_request" | "invalid_scope" | "unsupported_grant_type" | "invalid_resource" => {
            KmsErrorKind::Misconfigured
        }
        "temporarily_unavailable" | "server_error" => KmsErrorKind::Unreachable,
        _ => return None,
    };
    Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_of_oauth_deny() {
        for (error, described, expected) in [
            ("invalid_client", "AADSTS7000215", Some(KmsErrorKind::Unauthenticated)),
            ("invalid_grant", "Token has been revoked.", Some(KmsErrorKind::Unauthenticated)),
            (
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable \
                 timeframe. Check your iat and exp values in the JWT claim.",
                Some(KmsErrorKind::Misconfigured),
            ),
            ("server_error", "", Some(KmsErrorKind::Unreachable)),
            ("not found", "", None),
            ("", "", None),
        ] {
            assert_eq!(kind(error, described), expected, "{error}: {described}");
        }
    }
}
