//! Only a service's own words deny: an ingress without a backend, a firewall's page and an
//! instance without a role say nothing about the key, whatever their status.

use std::sync::Arc;

use atrest::kms::{Kms, KmsErrorKind as K, WrappedKey};
use atrest_kms::{Environment, from_uri_with};

use crate::conformance::{context, kind, soon};
use crate::outage::http_answer;
use crate::servers::proxy::{Mode, Proxy};

/// Providers whose service, behind `port`, needs no TLS on this machine.
fn providers(port: u16) -> Vec<(&'static str, Arc<dyn Kms>, WrappedKey)> {
    let environment = Environment::fixed([
        ("VAULT_TOKEN", "t"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("GOOGLE_OAUTH_ACCESS_TOKEN", "token"),
    ]);
    let host = format!("127.0.0.1:{port}");
    [
        ("vault", format!("hcvault://{host}/transit/keys/k?tls=false"), "vault:v1:AAAA"),
        ("aws", format!("aws-kms://alias/k?region=eu-west-1&endpoint=http://{host}"), "blob"),
        (
            "gcp",
            format!(
                "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k?endpoint=http://{host}"
            ),
            "blob",
        ),
    ]
    .into_iter()
    .map(|(name, uri, blob)| {
        let kms = from_uri_with(&uri, &environment).expect(name);
        (name, kms, WrappedKey { key_version: String::new(), blob: blob.into() })
    })
    .collect()
}

#[test]
fn a_page_of_something_in_between_denies_nothing() {
    let proxy = Proxy::new(0, Mode::Cut);
    let providers = providers(proxy.port);
    for status in ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found"] {
        for body in [
            "default backend - 404",
            "",
            "<html><body>404 page not found: permission denied</body></html>",
            "{}",
            "{\"message\":\"Forbidden\"}",
            "{\"error\":\"not found\",\"errors\":\"permission denied\"}",
            "{\"kind\":\"Status\",\"status\":\"Failure\",\"reason\":\"Forbidden\",\"code\":403}",
        ] {
            proxy.set(http_answer(status, "retry-after: 0\r\n", body));
            for (name, kms, wrapped) in &providers {
                let found = kind(kms.unwrap(wrapped, &context(1), soon())).expect("refused");
                let what = format!("{name}: {status} {body:?}: {found}");
                assert!(!found.denies_access(), "{what}");
                assert!(status.starts_with("400") || found == K::Unreachable, "{what}");
            }
        }
    }
}

#[test]
fn the_services_own_words_deny() {
    let proxy = Proxy::new(0, Mode::Cut);
    let providers = providers(proxy.port);
    let google = |status: &str, reason: &str| {
        format!(
            "{{\"error\":{{\"code\":403,\"status\":\"{status}\",\"message\":\"no\",\"details\":\
             [{{\"@type\":\"type.googleapis.com/google.rpc.Help\",\"links\":[]}},\
             {{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"reason\":\"{reason}\"}}]}}}}"
        )
    };
    let amazon =
        |code: &str, message: &str| format!("{{\"__type\":\"{code}\",\"message\":\"{message}\"}}");
    let skew = "Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z";
    let proxy_denied = "The external key store proxy denied access to the operation.";
    for (service, status, body, expected) in [
        // So of everything, also when the token is asked about itself.
        ("vault", "403 No", "{\"errors\":[\"permission denied\"]}".to_owned(), K::Unauthenticated),
        ("vault", "404 No", "{\"errors\":[]}".to_owned(), K::NotFound),
        ("aws", "400 No", amazon("AccessDeniedException", "no"), K::AccessDenied),
        ("aws", "400 No", amazon("NotFoundException", "no"), K::NotFound),
        ("aws", "403 No", amazon("InvalidSignatureException", skew), K::Misconfigured),
        ("aws", "400 No", amazon("KMSInvalidStateException", proxy_denied), K::AccessDenied),
        ("aws", "403 No", amazon("BrandNewException", "no"), K::Unreachable),
        ("gcp", "403 No", google("PERMISSION_DENIED", "IAM_PERMISSION_DENIED"), K::AccessDenied),
        ("gcp", "403 No", google("PERMISSION_DENIED", "SERVICE_DISABLED"), K::Misconfigured),
        ("gcp", "404 No", google("NOT_FOUND", ""), K::NotFound),
    ] {
        proxy.set(http_answer(status, "", &body));
        let (_, kms, wrapped) =
            providers.iter().find(|(name, _, _)| *name == service).expect("a provider");
        let error = kms.unwrap(wrapped, &context(1), soon()).err().expect("refused");
        assert_eq!(error.kind(), expected, "{service}: {status} {body}: {error}");
    }
}

/// What a credential may do can be fixed when it is made: rights that were given since show
/// with another one alone.
#[test]
fn a_credential_that_was_denied_is_replaced() {
    let (service, metadata) = (Proxy::new(0, Mode::Cut), Proxy::new(0, Mode::Cut));
    let credentials = "{\"access_token\":\"t\",\"expires_in\":3600,\"AccessKeyId\":\"id\",\
         \"SecretAccessKey\":\"secret\",\"Expiration\":\"2999-01-01T00:00:00Z\"}";
    let host = format!("127.0.0.1:{}", metadata.port);
    let environment = Environment::fixed([
        ("GCE_METADATA_HOST", host.clone()),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{host}/")),
    ]);
    let endpoint = format!("endpoint=http://127.0.0.1:{}", service.port);
    let wrapped = WrappedKey { key_version: String::new(), blob: b"blob".to_vec() };
    for (uri, denial) in [
        (
            format!("aws-kms://alias/k?region=eu-west-1&{endpoint}"),
            "{\"__type\":\"AccessDeniedException\",\"message\":\"no\"}",
        ),
        (
            format!("gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k?{endpoint}"),
            "{\"error\":{\"status\":\"PERMISSION_DENIED\",\"message\":\"no\"}}",
        ),
    ] {
        metadata.set(http_answer("200 OK", "", credentials));
        service.set(http_answer("403 No", "", denial));
        let kms = from_uri_with(&uri, &environment).expect("a provider");
        let before = metadata.connections();
        let asked = || {
            assert_eq!(kind(kms.unwrap(&wrapped, &context(1), soon())), Some(K::AccessDenied));
            metadata.connections() - before
        };
        assert_eq!(asked(), 1, "{uri}");
        // While there is no other one, the service still says what it thinks of this one, and
        // nobody asks for another at each denial.
        metadata.set(Mode::Cut);
        assert_eq!([asked(), asked()], [2, 2], "{uri}");
    }
}

#[test]
fn an_external_key_store_that_is_slow_is_asked_again() {
    let proxy = Proxy::new(0, Mode::Cut);
    let providers = providers(proxy.port);
    let (_, kms, wrapped) = providers.iter().find(|(name, _, _)| *name == "aws").expect("AWS");
    let body = "{\"__type\":\"KMSInvalidStateException\",\"message\":\"AWS KMS rejected the \
         request because the external key store proxy did not respond in time.\"}";
    proxy.set(http_answer("400 No", "", body));
    assert_eq!(kind(kms.unwrap(wrapped, &context(1), soon())), Some(K::Unreachable));
    assert_eq!(proxy.connections(), 3);
}

#[test]
fn a_metadata_service_without_a_role_denies_nothing() {
    let proxy = Proxy::new(0, Mode::Cut);
    let endpoint = format!("http://127.0.0.1:{}", proxy.port);
    let host = format!("127.0.0.1:{}", proxy.port);
    let container = format!("{endpoint}/container");
    let gcp = "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k";
    let providers = [
        ("aws-kms://alias/k?region=r", ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)),
        ("aws-kms://alias/k?region=r", ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container)),
        (gcp, ("GCE_METADATA_HOST", &host)),
        ("azure-kms://a.vault.azure.net/keys/k", ("AZURE_POD_IDENTITY_AUTHORITY_HOST", &endpoint)),
    ]
    .map(|(uri, variable)| {
        let environment = Environment::fixed([variable]);
        (variable.0, from_uri_with(uri, &environment).expect(uri))
    });
    let refused = "{\"error\":\"invalid_client\",\"error_description\":\"Identity not found\"}";
    for status in ["400 No", "401 No", "403 No", "404 No"] {
        for body in ["", refused] {
            proxy.set(http_answer(status, "retry-after: 0\r\n", body));
            for (name, kms) in &providers {
                let found = kms.wrap(&crate::conformance::key(1), &context(1), soon());
                assert_eq!(kind(found), Some(K::Unreachable), "{name}: {status} {body}");
            }
        }
    }
}
