//! What an answer of Vault or OpenBao other than 200 means.
//!
//! Transit answers nearly everything with 400, so its words decide, and only there.

use atrest::kms::{KmsError, KmsErrorKind};
use serde::Deserialize;

use crate::rest::Answer;

#[derive(Deserialize, Default)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

pub(super) fn error(answer: &Answer, hidden: &[&str]) -> KmsError {
    let mut said = answer.json::<Errors>().unwrap_or_default().errors.join("; ");
    if said.is_empty() {
        // A proxy's words, or those of a listener that expected TLS.
        said = String::from_utf8_lossy(answer.body()).into_owned();
    }
    answer.fail(kind(answer.status, &said, answer.kind_by_status()), &said, hidden)
}

fn kind(status: u16, said: &str, by_status: KmsErrorKind) -> KmsErrorKind {
    let has = |words: &str| said.contains(words);
    match status {
        400 if has("message authentication failed") || has("invalid ciphertext") => {
            KmsErrorKind::Integrity
        }
        400 if has("disallowed by policy (too old)") => KmsErrorKind::VersionRetired,
        400 if has("encryption key not found") => KmsErrorKind::NotFound,
        400 if has("soft-deleted") => KmsErrorKind::PendingDeletion,
        400 if has("for key derivation")
            || has("non-AEAD")
            || has("not supported for key type")
            || has("HTTP request to an HTTPS server") =>
        {
            KmsErrorKind::Misconfigured
        }
        403 if has("invalid token") || has("missing client token") => KmsErrorKind::Unauthenticated,
        // A standby or a replica that cannot answer yet.
        412 | 472 | 473 => KmsErrorKind::Unreachable,
        _ => by_status,
    }
}
