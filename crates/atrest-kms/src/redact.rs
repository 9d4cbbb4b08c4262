//! What a service said, made safe to show: short, printable, without credentials.

/// Longest text kept of a service's answer, in characters.
const LEN_MAX: usize = 240;
/// A run of this many characters of base64 or hexadecimal may be a token or key; names,
/// UUIDs (36) and request ids are shorter.
const RUN_MAX: usize = 40;

/// `text` without the given secrets, long opaque runs and control characters.
pub(crate) fn redact(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() >= 4) {
        text = text.replace(secret, "(redacted)");
    }
    let opaque = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '=' | '_' | '-' | '.');
    let mut shown = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let run = rest.find(|c| !opaque(c)).unwrap_or(rest.len());
        if run >= RUN_MAX {
            shown.push_str("(redacted)");
        } else {
            shown.push_str(&rest[..run]);
        }
        rest = &rest[run..];
        let between = rest.find(opaque).unwrap_or(rest.len());
        shown.extend(rest[..between].chars().map(|c| if c.is_control() { ' ' } else { c }));
        rest = &rest[between..];
    }
    match shown.char_indices().nth(LEN_MAX) {
        Some((at, _)) => format!("{}...", &shown[..at]),
        None => shown.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_names_and_drops_tokens() {
        let said = "key 1234abcd-12ab-34cd-56ef-1234567890ab is disabled";
        assert_eq!(redact(said, &[]), said);
        let said = "no session for hvs.secret of user";
        assert_eq!(redact(said, &["hvs.secret"]), "no session for (redacted) of user");
        let key = "A".repeat(43) + "=";
        assert_eq!(redact(&format!("found {key}!\n"), &[]), "found (redacted)!");
    }

    proptest! {
        #[test]
        fn never_shows_a_secret(before in ".{0,300}", secret in "[a-zA-Z0-9/+]{8,80}", after in ".{0,300}") {
            let shown = redact(&format!("{before}{secret}{after}"), &[&secret]);
            prop_assert!(!shown.contains(&secret) || "(redacted)".contains(&secret));
            prop_assert!(shown.chars().count() <= LEN_MAX + 3);
            prop_assert!(!shown.contains(char::is_control));
        }
    }
}
