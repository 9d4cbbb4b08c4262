//! AWS Signature Version 4 of a `POST /` without query (AWS General Reference).

use std::fmt::Write;
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::credentials::Credentials;
use crate::secret::Secret;
use crate::time;

/// What a signature is for.
pub(super) struct Scope<'a> {
    pub service: &'a str,
    pub region: &'a str,
}

/// The headers to add.
pub(super) struct Signed {
    /// `authorization`.
    pub authorization: Secret,
    /// `x-amz-date`.
    pub date: String,
}

/// Signs a request of these headers, in lower case and sorted. The date and, where there
/// is one, the session token are signed too.
pub(super) fn sign(
    headers: &[(&str, &str)],
    body: &[u8],
    scope: &Scope<'_>,
    credentials: &Credentials,
    now: SystemTime,
) -> Signed {
    let date = time::format(now);
    let day = &date[..8];
    let mut headers = headers.to_vec();
    headers.push(("x-amz-date", &date));
    if let Some(token) = &credentials.session_token {
        headers.push(("x-amz-security-token", token.expose()));
    }
    headers.sort_unstable();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");

    // Each header line ends in a newline, and an empty line follows them. Hashed piece by
    // piece, so that no copy of the session token is made.
    let mut canonical = Sha256::new();
    canonical.update(b"POST\n/\n\n");
    for (name, value) in &headers {
        for piece in [name, ":", value.trim(), "\n"] {
            canonical.update(piece);
        }
    }
    for piece in ["\n", &names, "\n", &hex(&Sha256::digest(body))] {
        canonical.update(piece);
    }

    let terms = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let hash = hex(&canonical.finalize());
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{terms}\n{hash}");
    let first = Zeroizing::new(format!("AWS4{}", credentials.secret_key.expose()));
    let mut key = Zeroizing::new(hmac(first.as_bytes(), day.as_bytes()));
    for part in [scope.region, scope.service, "aws4_request"] {
        key = Zeroizing::new(hmac(&key[..], part.as_bytes()));
    }
    let signature = hex(&hmac(&key[..], text.as_bytes()));
    let id = &credentials.key_id;
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={id}/{terms}, SignedHeaders={names}, Signature={signature}"
    );
    Signed { authorization: Secret::new(authorization), date }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // OK because HMAC takes keys of any length.
    #[allow(clippy::expect_used)]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // OK because writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// `post-vanilla` of the AWS Signature Version 4 test suite.
    #[test]
    fn test_suite_post_vanilla() {
        let credentials = Credentials {
            key_id: "AKIDEXAMPLE".to_owned(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            session_token: None,
            expires: None,
        };
        let scope = Scope { service: "service", region: "us-east-1" };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let headers = [("host", "example.amazonaws.com")];
        let signed = sign(&headers, b"", &scope, &credentials, now);
        assert_eq!(signed.date, "20150830T123600Z");
        assert_eq!(
            signed.authorization.expose(),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
    }
}
