//! `application/x-www-form-urlencoded`.

use crate::secret::Secret;

/// The content type of [`form`].
pub(crate) const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Names and values, encoded. May hold credentials.
pub(crate) fn form(fields: &[(&str, &str)]) -> Secret {
    let pairs: Vec<_> =
        fields.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
    Secret::new(pairs.join("&"))
}

/// Percent-encodes all but what RFC 3986 leaves alone.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
