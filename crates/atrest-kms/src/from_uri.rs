//! From a key URI to its provider, by the registry.

use std::sync::Arc;

use atrest::kms::{KeyUri, Kms, KmsError};

use crate::environment::Environment;
use crate::fail::misconfigured;
use crate::provider::Opening;
use crate::providers::{SCHEMES, Scheme};

/// Every kind of key that [`from_uri`] knows, those that this build lacks included.
pub fn schemes() -> &'static [Scheme] {
    SCHEMES
}

/// Opens the provider of a key URI, local or remote, with the process's environment.
///
/// Nothing is called yet: whether the key is usable shows at the first use.
///
/// # Errors
/// [`Misconfigured`](atrest::kms::KmsErrorKind::Misconfigured) for a malformed URI, an
/// unknown scheme, or one whose feature this build lacks.
pub fn from_uri(uri: &str) -> Result<Arc<dyn Kms>, KmsError> {
    from_uri_with(uri, &Environment::process())
}

/// Like [`from_uri`], with the credentials of `environment`. The local providers keep to
/// the process's environment.
///
/// # Errors
/// As [`from_uri`].
pub fn from_uri_with(uri: &str, environment: &Environment) -> Result<Arc<dyn Kms>, KmsError> {
    open(SCHEMES, &uri.parse()?, environment)
}

fn open(
    schemes: &[Scheme],
    uri: &KeyUri,
    environment: &Environment,
) -> Result<Arc<dyn Kms>, KmsError> {
    let found = schemes.iter().find(|scheme| scheme.name == uri.scheme());
    let scheme = found.ok_or_else(|| unknown(schemes, uri.scheme()))?;
    let Some(open) = scheme.open else {
        let feature = scheme.feature.unwrap_or_default();
        let name = scheme.name;
        let what = format!("this build has no support for {name}: (the feature {feature:?})");
        return Err(misconfigured(what));
    };
    open(&Opening { uri, environment, example: scheme.example })
}

fn unknown(schemes: &[Scheme], found: &str) -> KmsError {
    // What stands before a colon may be the beginning of something else altogether.
    let shown: String = found.chars().take(16).collect();
    let what = match nearest(schemes, found) {
        Some(scheme) => format!("unknown scheme {shown:?}: did you mean {}:?", scheme.name),
        None => {
            let names: Vec<_> = schemes.iter().map(|scheme| scheme.name).collect();
            format!("unknown scheme {shown:?}: expected one of {}", names.join(", "))
        }
    };
    misconfigured(what)
}

/// The scheme that was meant: the one of that feature, or with at most two typing errors.
fn nearest<'a>(schemes: &'a [Scheme], found: &str) -> Option<&'a Scheme> {
    let by_feature = schemes.iter().find(|scheme| scheme.feature == Some(found));
    let distances = schemes.iter().map(|scheme| (edits(scheme.name, found), scheme));
    // Two errors in three letters make any word.
    let near = distances.filter(|(edits, scheme)| *edits <= 2 && scheme.name.len() >= 2 * edits);
    by_feature.or_else(|| near.min_by_key(|(edits, _)| *edits).map(|(_, scheme)| scheme))
}

/// Letters to put in, take out or change to make `one` into `other` (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, left) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, right) in other.iter().enumerate() {
            let changed = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(schemes: &[Scheme], uri: &str) -> String {
        let uri = uri.parse().expect("a URI");
        open(schemes, &uri, &Environment::process()).expect_err("refused").to_string()
    }

    #[test]
    fn an_unknown_scheme_is_answered_with_the_nearest() {
        for (uri, meant) in [
            ("hcvalt://h/t/keys/k", "hcvault:"),
            ("vault://h/t/keys/k", "hcvault:"),
            ("aws://alias/x", "aws-kms:"),
            ("gcp-kmz://x", "gcp-kms:"),
            ("pkcs12:token=t", "pkcs11:"),
            ("fiel:///x", "file:"),
            ("envs:X", "env:"),
        ] {
            let said = said(SCHEMES, uri);
            assert!(said.contains(&format!("did you mean {meant}?")), "{uri}: {said}");
        }
        for uri in ["s3://bucket/key", "https://x", "x:y"] {
            let said = said(SCHEMES, uri);
            assert!(SCHEMES.iter().all(|scheme| said.contains(scheme.name)), "{uri}: {said}");
        }
    }

    #[test]
    fn a_scheme_that_was_left_out_is_told_from_an_unknown_one() {
        let left_out = [Scheme {
            name: "new",
            feature: Some("shiny"),
            about: "",
            example: "new://X",
            open: None,
        }];
        let said = said(&left_out, "new://secret");
        assert!(said.contains("new:") && said.contains("\"shiny\""), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}
