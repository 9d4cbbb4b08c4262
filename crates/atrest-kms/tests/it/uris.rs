//! Malformed URIs and unknown schemes, for every provider.

use atrest::kms::KmsErrorKind;
use atrest_kms::{Environment, from_uri_with};

use crate::conformance::assert_hides;

#[test]
fn malformed_uris_are_refused_without_showing_them() {
    for uri in [
        "",
        "hcvault",
        "s3://bucket/key",
        "hcvault:",
        "hcvault://",
        "hcvault://host",
        "hcvault://host/transit/NAME",
        "hcvault://host/keys/name",
        "hcvault://host/transit/keys/",
        "hcvault://host/transit/keys/a/b",
        "hcvault://host/transit/keys/..",
        "hcvault://host/../keys/name",
        "hcvault://host/tran sit/keys/name",
        "hcvault://host/transit/keys/na%2fme",
        "hcvault://host:port/transit/keys/name",
        "hcvault://host/transit/keys/name?tls=no",
        "hcvault://host/transit/keys/name?token=hunter22",
        "hcvault://root:hunter22@host/transit/keys/name",
        "hcvault://host/transit/keys/name#hunter22",
    ] {
        let error = from_uri_with(uri, &Environment::process()).expect_err(uri);
        assert_eq!(error.kind(), KmsErrorKind::Misconfigured, "{uri}: {error:?}");
        assert_hides(&error, &["hunter22".to_owned()]);
    }
}
