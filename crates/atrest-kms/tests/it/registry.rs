//! The registry of key schemes against the providers and the README.

use atrest::kms::KmsErrorKind;
use atrest_kms::{Environment, from_uri, from_uri_with, schemes};

#[test]
fn every_scheme_opens_its_example_and_refuses_a_malformed_one() {
    let none: [(&str, &str); 0] = [];
    let environment = Environment::fixed(none);
    for scheme in schemes() {
        let (name, example) = (scheme.name(), scheme.example());
        assert!(scheme.is_built(), "{name}: the tests have every feature");
        assert!(example.starts_with(&format!("{name}:")), "{name}: {example}");
        // Well formed, whether or not the files that it names are there.
        if let Err(error) = from_uri_with(example, &environment) {
            assert!(!error.to_string().contains("malformed"), "{example}: {error}");
        }
        let malformed = format!("{name}://user:hunter22@");
        let error = from_uri_with(&malformed, &environment).expect_err(&malformed);
        assert_eq!(error.kind(), KmsErrorKind::Misconfigured, "{error}");
    }
}

#[test]
fn every_scheme_has_its_row_in_the_readme() {
    let readme = include_str!("../../README.md");
    for scheme in schemes() {
        let begin = match scheme.feature() {
            Some(feature) => format!("| `{feature}` | `{}", scheme.example()),
            None => format!("| | `{}", scheme.example()),
        };
        let rows = readme.lines().filter(|line| line.starts_with(&begin)).count();
        assert_eq!(rows, 1, "{begin}");
    }
    let rows = readme.lines().skip_while(|line| !line.starts_with("| feature |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|')).count();
    assert_eq!(rows, schemes().len(), "a row without a scheme");
}

#[test]
fn an_unknown_scheme_is_told_with_what_was_meant() {
    for (uri, meant) in [("hcvalt://h/t/keys/k", "hcvault:"), ("aws://x", "aws-kms:")] {
        let error = from_uri(uri).expect_err(uri);
        assert_eq!(error.kind(), KmsErrorKind::Misconfigured);
        assert!(error.to_string().contains(meant), "{error}");
    }
    let error = from_uri("s3://bucket/key").expect_err("unknown").to_string();
    assert!(schemes().iter().all(|scheme| error.contains(scheme.name())), "{error}");
}
