//! What the fuzz targets call: each provider against a service that answers with their bytes,
//! and key URIs. The seeds in `fuzz/seeds` are replayed by a unit test.
//!
//! A script is a line, then answers, each from the next by a line `--`. The line has the call
//! (`w` wrap, `u` unwrap, `r` rewrap), a digit for where credentials come from, and one for the
//! kind of key. To unwrap and rewrap, the first part is the wrapped key, or empty for one of the
//! right form. An answer is its status, a space and its `Retry-After` if it has one, a line end,
//! and its body.
//!
//! Each function panics when an invariant is broken and returns normally otherwise.

use std::time::Duration;

use atrest::kms::{Deadline, KeyUri, KmsError, SlotKey, WrapContext, WrappedKey};

use super::{aws, azure, gcp, kmip, vault};
use crate::environment::Environment;
use crate::provider::{Opening, Provider};
use crate::script;

#[cfg(test)]
mod tests;

const BETWEEN: &[u8] = b"\n--\n";
/// Whatever a service answers, a call asks it no more often than that.
const CALLS_MAX: usize = 16;
/// Long enough not to be taken for something else, short enough not to be cut out of a message
/// for its length alone.
const TOKEN: &str = "fuzzed-token-7d1f9c";
const SECRET: &str = "fuzzed-secret-52ab8e";
const KEY: [u8; 32] = [0xa5; 32];
/// [`KEY`] as services write it.
const KEY_TEXT: &str = "paWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaU";

struct Case<'a> {
    call: u8,
    credentials: u8,
    kind: u8,
    parts: Vec<&'a [u8]>,
}

impl<'a> Case<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let (&[call, credentials, kind, b'\n'], rest) = data.split_first_chunk()? else {
            return None;
        };
        let (mut parts, mut rest) = (Vec::new(), rest);
        while let Some(end) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
            parts.push(&rest[..end]);
            rest = &rest[end + BETWEEN.len()..];
        }
        parts.push(rest);
        Some(Self { call, credentials, kind, parts })
    }

    /// The wrapped key, and the answers.
    fn split(&self) -> (&'a [u8], &[&'a [u8]]) {
        match (self.call, self.parts.split_first()) {
            (b'u' | b'r', Some((blob, answers))) => (*blob, answers),
            _ => (&[], &self.parts),
        }
    }

    /// What whoever answered last was told, and could have repeated.
    fn secrets(&self) -> Vec<&'static str> {
        let mut secrets = match self.credentials {
            b'0' => vec![TOKEN],
            // A log-in, which was refused.
            b'2' if script::asked() == 1 => vec![SECRET],
            _ => Vec::new(),
        };
        if self.call == b'w' {
            secrets.push(&KEY_TEXT[..40]);
        }
        secrets
    }
}

/// AWS KMS, STS and the metadata of instances.
pub fn aws(data: &[u8]) {
    let environment: &[(&str, &str)] = match data.get(1) {
        Some(b'0') => &[
            ("AWS_ACCESS_KEY_ID", "AKIDFUZZED"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_SESSION_TOKEN", TOKEN),
        ],
        Some(b'1') => &[],
        _ => &[
            // Any small file.
            (
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                concat!(env!("CARGO_MANIFEST_DIR"), "/src/providers/fuzz/token"),
            ),
            ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/fuzzed"),
        ],
    };
    let uri = |_| "aws-kms://arn:aws:kms:eu-central-1:111122223333:key/ID1";
    rest::<aws::AwsKms>(data, uri, environment, |_| vec![7; 100]);
}

/// Google Cloud KMS and its metadata server.
pub fn gcp(data: &[u8]) {
    let environment: &[(&str, &str)] = match data.get(1) {
        Some(b'0') => &[("GOOGLE_OAUTH_ACCESS_TOKEN", TOKEN)],
        _ => &[],
    };
    let uri = |_| "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k";
    rest::<gcp::GcpKms>(data, uri, environment, |_| vec![7; 100]);
}

/// Azure Key Vault, Managed HSM, Entra ID and managed identities.
pub fn azure(data: &[u8]) {
    let environment: &[(&str, &str)] = match data.get(1) {
        Some(b'0') => &[("AZURE_ACCESS_TOKEN", TOKEN)],
        Some(b'1') => &[],
        _ => &[
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_CLIENT_ID", "client"),
            ("AZURE_CLIENT_SECRET", SECRET),
        ],
    };
    let uri = |kind| match kind {
        b'0' => "azure-kms://a.vault.azure.net/keys/k",
        b'1' => "azure-kms://a.managedhsm.azure.net/keys/k",
        _ => "azure-kms://a.vault.azure.net/keys/k?proof=PS256",
    };
    rest::<azure::AzureKms>(data, uri, environment, azure::fuzzed_blob);
}

/// The Transit engine of Vault and OpenBao, and logging in there.
pub fn vault(data: &[u8]) {
    let environment = [("VAULT_TOKEN", TOKEN), ("VAULT_SECRET_ID", SECRET)];
    let uri = |_| match data.get(1) {
        Some(b'0' | b'1') => "hcvault://vault.example:8200/transit/keys/k",
        _ => "hcvault://vault.example:8200/transit/keys/k?auth=approle&role=r",
    };
    rest::<vault::Vault>(data, uri, &environment, |_| b"vault:v1:AAAA".to_vec());
}

/// A KMIP server, whose answers have no status; and the times of a certificate.
pub fn kmip(data: &[u8]) {
    kmip::fuzz(data);
    let Some(case) = Case::parse(data) else { return };
    let answers: Vec<Vec<u8>> = case.split().1.iter().map(|answer| answer.to_vec()).collect();
    // Nothing in it comes from the server.
    let empty = answers.iter().all(|answer| answer.len() < 8);
    check(&case, &kmip::Kmip::fuzzed(), answers, empty, |_| vec![1; 61]);
}

/// Any text as a key URI, to every provider.
///
/// # Panics
/// When a key has another URI than was asked for, or an endpoint is not its service's.
pub fn key_uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let environment = Environment::fixed([("AWS_REGION", "eu-west-1")]);
    if let Ok(kms) = crate::from_uri_with(text, &environment) {
        assert!(kms.key_uri().as_str().eq_ignore_ascii_case(text));
        assert!(text.len() <= KeyUri::LEN_MAX && !text.chars().any(char::is_control));
    }
    let _ = crate::wraps_for_anybody(text);
    if let Some(address) = crate::uri::HostPort::parse(text, 1) {
        assert_eq!(crate::uri::HostPort::parse(&address.to_string(), 2), Some(address));
    }
    if let Ok(endpoint) = crate::uri::endpoint(text, &["example.com"]) {
        let host = endpoint.split_once("://").expect("a scheme").1;
        let host = host.rsplit_once(':').expect("a port").0.to_ascii_lowercase();
        let ours = host == "example.com" || host.ends_with(".example.com");
        assert!(ours || host == "localhost" || host.starts_with("127.") || host.starts_with('['));
    }
    super::pkcs11::fuzz(data);
}

/// A provider that speaks HTTP.
fn rest<P: Provider>(
    data: &[u8],
    uri: impl Fn(u8) -> &'static str,
    environment: &[(&str, &str)],
    blob: impl Fn(u8) -> Vec<u8>,
) {
    let Some(case) = Case::parse(data) else { return };
    let environment = Environment::fixed(environment.iter().copied());
    let uri: KeyUri = uri(case.kind).parse().expect("a good URI");
    let opening = Opening { uri: &uri, environment: &environment, example: "" };
    let provider = P::open(&opening).expect("a good URI");
    let answers: Vec<Vec<u8>> = case.split().1.iter().map(|answer| answer.to_vec()).collect();
    let foreign = !answers.iter().any(|answer| is_in_own_words(answer));
    check(&case, &provider, answers, foreign, blob);
}

/// Whether an answer may be a service's own: JSON, or the XML of STS.
fn is_in_own_words(answer: &[u8]) -> bool {
    let body = answer.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    text.contains("<ErrorResponse") || text.trim_start().starts_with(['{', '['])
}

/// Makes the call. `foreign` says that no answer is the service's.
fn check<P: Provider>(
    case: &Case<'_>,
    provider: &P,
    answers: Vec<Vec<u8>>,
    foreign: bool,
    blob: impl Fn(u8) -> Vec<u8>,
) {
    let context = WrapContext {
        store_id: atrest::StoreId::from_bytes([1; 16]),
        slot_key_id: atrest::SlotKeyId::from_bytes([2; 16]),
        version: WrapContext::VERSION,
    };
    let deadline = Deadline::after(Duration::from_secs(3600));
    let key = SlotKey::from_slice(&KEY).expect("32 bytes");
    let given = match case.split().0 {
        b"" => blob(case.kind),
        given => given.to_vec(),
    };
    let given = WrappedKey { key_version: String::new(), blob: given };
    script::start(answers);
    let result = match case.call {
        b'w' => provider.wrap_once(&key, &context, deadline).map(Some),
        b'r' => provider.rewrap_once(&given, &context, deadline),
        _ => provider.unwrap_once(&given, &context, deadline).map(|_| None),
    };
    let _ = provider.credential();
    match result {
        Ok(Some(wrapped)) => {
            assert!(wrapped.blob.len() <= 16 * 1024 && wrapped.key_version.len() <= 64);
            assert!(wrapped.key_version.bytes().all(|byte| byte.is_ascii_graphic()));
            // What was taken in is sent back to the service, not refused here.
            let before = script::asked();
            let again = provider.unwrap_once(&wrapped, &context, deadline);
            assert!(script::asked() > before, "not even sent: {:?}", again.err());
        }
        Ok(None) => {}
        Err(error) => {
            assert!(!foreign || !error.kind().denies_access(), "{error:?}");
            check_shown(&error, &case.secrets());
        }
    }
    let asked = script::stop();
    assert!(asked <= CALLS_MAX, "{asked} calls");
}

/// No error, nor what caused it, shows a credential or the key.
fn check_shown(error: &KmsError, secrets: &[&str]) {
    let mut shown = format!("{error} {error:?}");
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        shown += &format!(" {error} {error:?}");
        cause = error.source();
    }
    assert!(!secrets.iter().any(|secret| shown.contains(secret)), "{shown}");
}
