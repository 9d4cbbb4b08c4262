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
        "hcvault://host/transit/keys/name?tls=false",
        "hcvault://10.0.0.1/transit/keys/name?tls=false",
        "hcvault://localhost.example/transit/keys/name?tls=false",
        "hcvault://host/transit/keys/name?token=hunter22",
        "hcvault://root:hunter22@host/transit/keys/name",
        "hcvault://host/transit/keys/name#hunter22",
        "aws-kms://",
        "aws-kms://alias/name?region=eu-west-1&aws_secret_access_key=hunter22",
        "aws-kms://AKIA:hunter22@alias/name?region=eu-west-1",
        "aws-kms://arn:aws:kms:eu-west-1:1:key/x?region=us-east-1",
        "aws-kms://alias/name?region=eu-west-1&endpoint=https://hunter22.example",
        "gcp-kms://projects/p/locations/l/keyRings/r",
        "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
        "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k?token=hunter22",
        "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k?endpoint=http://10.0.0.1",
        "azure-kms://vault.example.com/keys/k",
        "azure-kms://a.vault.azure.net/secrets/k",
        "azure-kms://a.vault.azure.net/keys/k?client_secret=hunter22",
        "pkcs11:",
        "pkcs11:token=t;object=k",
        "pkcs11:token=t;object=k?module-path=/m.so&pin-value=hunter22",
        "pkcs11:token=t;object=k?module-path=/m.so&pin-source=|hunter22",
        "kmip://host/id",
        "kmip://host/id?ca=/a&cert=/b",
        "kmip://host/?ca=/a&cert=/b&key=/c",
        "kmip://user:hunter22@host/id?ca=/a&cert=/b&key=/c",
        "kmip://host/id?ca=/a&cert=/b&key=/c&password=hunter22",
    ] {
        let error = from_uri_with(uri, &Environment::process()).expect_err(uri);
        assert_eq!(error.kind(), KmsErrorKind::Misconfigured, "{uri}: {error:?}");
        assert_hides(&error, &["hunter22".to_owned()]);
    }
}

#[test]
fn without_tls_only_this_machine_unless_the_danger_is_said() {
    for uri in [
        "hcvault://127.0.0.1/transit/keys/k?tls=false",
        "hcvault://[::1]:8200/transit/keys/k?tls=false",
        "hcvault://localhost/transit/keys/k?tls=false",
        "hcvault://10.0.0.1/transit/keys/k?tls=danger-off",
    ] {
        from_uri_with(uri, &Environment::process()).expect(uri);
    }
    let error = from_uri_with("hcvault://h/t/keys/k?tls=false", &Environment::process());
    let error = error.expect_err("a key in clear").to_string();
    assert!(error.contains("tls=danger-off"), "{error}");
}

proptest::proptest! {
    #[test]
    fn any_uri_is_opened_or_refused(
        scheme in proptest::sample::select(atrest_kms::schemes()),
        rest in "(//)?[a-z0-9:/?&=;%@.\\[\\]-]{0,80}",
    ) {
        let none: [(&str, &str); 0] = [];
        if let Err(error) = from_uri_with(&format!("{}:{rest}", scheme.name()), &Environment::fixed(none)) {
            proptest::prop_assert_eq!(error.kind(), KmsErrorKind::Misconfigured);
        }
    }
}
