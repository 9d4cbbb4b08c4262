//! What an answer of Vault or OpenBao other than 200 means.
//!
//! Their errors are JSON with a list `errors`: what has no such list is somebody else's.
//! Transit answers nearly everything with 400, so its words decide, and only there.

use atrest::kms::{KmsError, KmsErrorKind};
use serde::Deserialize;

use crate::rest::Answer;

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

pub(super) fn error(answer: &Answer, hidden: &[&str]) -> KmsError {
    let errors = answer.json::<Errors>().ok().map(|answer| answer.errors.join("; "));
    let own = errors.as_ref().and_then(|said| kind(answer.status, said));
    // Without a list, a proxy's words, or those of a listener that expected TLS.
    let said = errors.unwrap_or_else(|| String::from_utf8_lossy(answer.body()).into_owned());
    let kind = match own {
        Some(kind) => kind,
        None if said.contains("HTTP request to an HTTPS server") => KmsErrorKind::Misconfigured,
        None => answer.kind_by_status(),
    };
    answer.fail(kind, &said, hidden)
}

/// What a refused log-in means: nothing about the key.
pub(super) fn login_error(answer: &Answer, hidden: &[&str]) -> KmsError {
    let Ok(Errors { errors }) = answer.json() else {
        return answer.fail(answer.kind_by_status(), "the log-in failed", hidden);
    };
    let kind = match answer.status {
        400 | 403 => KmsErrorKind::Unauthenticated,
        // There is no such way to log in.
        404 => KmsErrorKind::Misconfigured,
        _ => answer.kind_by_status(),
    };
    answer.fail(kind, &format!("the log-in failed: {}", errors.join("; ")), hidden)
}

/// Whether the server itself denies.
pub(super) fn is_denial(answer: &Answer) -> bool {
    answer.status == 403 && answer.json::<Errors>().is_ok()
}

/// The kind of what Vault or OpenBao said, `None` if it is unknown.
fn kind(status: u16, said: &str) -> Option<KmsErrorKind> {
    let has = |words: &str| said.contains(words);
    let kind = match status {
        400 if has("message authentication failed") || has("invalid ciphertext") => {
            KmsErrorKind::Integrity
        }
        400 if has("disallowed by policy (too old)") => KmsErrorKind::VersionRetired,
        400 if has("encryption key not found") => KmsErrorKind::NotFound,
        400 if has("soft-deleted") => KmsErrorKind::PendingDeletion,
        400 if has("for key derivation")
            || has("non-AEAD")
            || has("not supported for key type") =>
        {
            KmsErrorKind::Misconfigured
        }
        403 if has("invalid token") || has("missing client token") => KmsErrorKind::Unauthenticated,
        403 if has("permission denied") => KmsErrorKind::AccessDenied,
        // "no handler for route": the mount is gone. Some versions say nothing.
        404 if said.is_empty() || has("no handler for route") || has("route entry not found") => {
            KmsErrorKind::NotFound
        }
        // A standby or a replica that cannot answer yet.
        412 | 472 | 473 => KmsErrorKind::Unreachable,
        _ => return None,
    };
    Some(kind)
}
