//! The proxy of the environment: for key services, and never for metadata.

use std::process::Command;
use std::time::Duration;

use atrest::kms::{Deadline, KmsErrorKind};
use atrest_kms::{Environment, from_uri_with};

use crate::conformance::{context, key};
use crate::servers::proxy::{Mode, Proxy};

/// Says to the child which of its calls to make.
const PART: &str = "ATREST_TEST_PROXIES";

/// Asks for a key by what the environment gives, as far as that goes.
fn ask(uri: &str, variables: &[(&str, &str)]) {
    let kms = from_uri_with(uri, &Environment::fixed(variables.iter().copied())).expect(uri);
    let deadline = Deadline::after(Duration::from_secs(3));
    let error = kms.wrap(&key(1), &context(1), deadline).expect_err("nobody answers");
    assert_eq!(error.kind(), KmsErrorKind::Unreachable, "{uri}: {error}");
}

/// Run by [`metadata_is_never_asked_through_a_proxy`] with a proxy in the environment.
#[test]
fn child() {
    let gcp = "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k";
    // For documentation (RFC 5737): nobody answers there, and a proxy would be asked.
    let (nobody, elsewhere) = ("http://192.0.2.1", "http://169.254.170.23/v1/credentials");
    match std::env::var(PART).as_deref() {
        Ok("metadata") => {
            for (uri, name, value) in [
                ("aws-kms://alias/k?region=r", "AWS_EC2_METADATA_SERVICE_ENDPOINT", nobody),
                ("aws-kms://alias/k?region=r", "AWS_CONTAINER_CREDENTIALS_FULL_URI", elsewhere),
                ("aws-kms://alias/k?region=r", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x"),
                (
                    "aws-kms://alias/k?region=r",
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                    "https://192.0.2.1/credentials",
                ),
                (gcp, "GCE_METADATA_HOST", "192.0.2.1"),
                (
                    "azure-kms://a.vault.azure.net/keys/k",
                    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
                    nobody,
                ),
                // And what has no TLS, to whom a proxy would show the token.
                ("hcvault://192.0.2.1/t/keys/k?tls=danger-off", "VAULT_TOKEN", "t"),
            ] {
                ask(uri, &[(name, value)]);
            }
        }
        Ok("services") => {
            ask("hcvault://vault.example.invalid/t/keys/k", &[("VAULT_TOKEN", "t")]);
            ask(gcp, &[("GOOGLE_OAUTH_ACCESS_TOKEN", "t")]);
        }
        _ => {}
    }
}

#[test]
fn metadata_is_never_asked_through_a_proxy() {
    for (part, is_asked) in [("metadata", false), ("services", true)] {
        let proxy = Proxy::new(0, Mode::Cut);
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "proxies::child", "--nocapture"]).env(PART, part);
        let address = format!("http://127.0.0.1:{}", proxy.port);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            child.env(name, &address).env(name.to_lowercase(), &address);
        }
        child.env_remove("NO_PROXY").env_remove("no_proxy");
        assert!(child.status().unwrap().success(), "{part}");
        assert_eq!(proxy.connections() > 0, is_asked, "{part}");
    }
}
