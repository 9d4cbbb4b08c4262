//! OAuth access tokens, kept until shortly before they expire.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use atrest::kms::{KmsError, KmsErrorKind};
use serde::Deserialize;

use super::Answer;
use crate::secret::Secret;

/// Tokens are fetched anew this long before they expire. Google's metadata server gives
/// new ones only in the last five minutes.
const EXPIRY_MARGIN: Duration = Duration::from_secs(200);

/// A token, and until when it is good; `None` if whoever gave it knows.
pub(crate) struct Token {
    pub text: Secret,
    pub good_until: Option<Instant>,
}

/// The last token. Its `Debug` shows nothing of it.
#[derive(Default)]
pub(crate) struct TokenCache(Mutex<Option<(Secret, Instant)>>);

impl std::fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenCache(..)")
    }
}

impl TokenCache {
    /// The kept token, or a new one from `fetch`.
    pub(crate) fn obtain(
        &self,
        fetch: impl FnOnce() -> Result<Token, KmsError>,
    ) -> Result<Secret, KmsError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, good_until)) = &*kept
            && Instant::now() < *good_until
        {
            return Ok(token.clone());
        }
        let token = fetch()?;
        *kept = token.good_until.map(|good_until| (token.text.clone(), good_until));
        Ok(token.text)
    }

    /// Drops the kept token; whether there was one.
    pub(crate) fn forget(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

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
        Self { text, good_until: None }
    }

    /// The token in an answer of a token endpoint (RFC 6749, section 5).
    pub(crate) fn from_answer(
        answer: &Answer,
        whose: &str,
        secrets: &[&str],
    ) -> Result<Self, KmsError> {
        if answer.status != 200 {
            let refused: Refused = answer.json().unwrap_or_default();
            // `invalid_grant` and `invalid_client` come with 400.
            let kind = match answer.status {
                400 | 401 | 403 => KmsErrorKind::Unauthenticated,
                404 => KmsErrorKind::Misconfigured,
                _ => answer.kind_by_status(),
            };
            let error = refused.error.as_str().unwrap_or_default();
            let said = format!("{whose} gives no token: {error} {}", refused.error_description);
            return Err(answer.fail(kind, &said, secrets));
        }
        let granted: Granted = answer.json()?;
        let secs = match &granted.expires_in {
            serde_json::Value::String(text) => text.parse().unwrap_or(0),
            number => number.as_u64().unwrap_or(0),
        };
        // Nothing lasts longer than a day: believing more would keep a token too long.
        let lasts = Duration::from_secs(secs.min(86_400)).saturating_sub(EXPIRY_MARGIN);
        Ok(Self { text: granted.access_token, good_until: Instant::now().checked_add(lasts) })
    }
}
