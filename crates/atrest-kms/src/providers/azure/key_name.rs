//! The vault, key and version of an `azure-kms:` URI.

use atrest::kms::KmsError;

use super::blob::Algorithm;
use super::proof;
use crate::fail::misconfigured;
use crate::provider::Opening;
use crate::uri::{HostPort, Parts, is_segment};

/// Where tokens may be sent, and the resource they are for: vaults, then HSMs.
const VAULTS: [&str; 3] = ["vault.azure.net", "vault.azure.cn", "vault.usgovcloudapi.net"];
const HSMS: [&str; 3] =
    ["managedhsm.azure.net", "managedhsm.azure.cn", "managedhsm.usgovcloudapi.net"];

#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyName {
    /// `https://HOST:PORT`.
    pub vault: String,
    pub name: String,
    /// The one to wrap with, if not the newest.
    pub version: Option<String>,
    pub algorithm: Algorithm,
    /// Whether a wrapped key is signed, and one that is not is refused.
    pub proven: bool,
    /// What a token must be for.
    pub resource: String,
}

/// The key, and the CA file where one is named.
pub(super) fn parse(opening: &Opening<'_>) -> Result<(KeyName, Option<String>), KmsError> {
    let expected = || opening.malformed();
    let mut parts = Parts::parse(opening.uri, opening.example)?;
    let address = HostPort::parse(&parts.authority, 443).ok_or_else(expected)?;
    let under = |domain: &&&str| {
        address.host.strip_suffix(**domain).is_some_and(|left| left.ends_with('.'))
    };
    let (domain, is_hsm) = match (VAULTS.iter().find(under), HSMS.iter().find(under)) {
        (Some(domain), _) => (*domain, false),
        (None, Some(domain)) => (*domain, true),
        (None, None) if address.is_loopback() => (VAULTS[0], false),
        (None, None) => {
            return Err(misconfigured(format!(
                "expected a host under {} or {}",
                VAULTS.join(", "),
                HSMS.join(", ")
            )));
        }
    };
    let (name, version) = match parts.path.split('/').collect::<Vec<_>>()[..] {
        ["keys", name] => (name, None),
        ["keys", name, version] => (name, Some(version)),
        _ => return Err(expected()),
    };
    if !is_segment(name) || !version.is_none_or(is_segment) {
        return Err(expected());
    }
    let (name, version) = (name.to_owned(), version.map(str::to_owned));
    let algorithm = match parts.take("alg").as_deref() {
        Some("RSA-OAEP-256") => Algorithm::RsaOaep256,
        Some("A256GCM") => Algorithm::A256Gcm,
        Some(_) => return Err(misconfigured("expected alg=RSA-OAEP-256 or alg=A256GCM")),
        None if is_hsm => Algorithm::A256Gcm,
        None => Algorithm::RsaOaep256,
    };
    let proven = match (parts.take("proof").as_deref(), algorithm) {
        (None, _) => false,
        (Some(proof::ALGORITHM), Algorithm::RsaOaep256) => true,
        _ => return Err(misconfigured("expected proof=PS256, of an RSA key")),
    };
    let ca = parts.take("ca");
    parts.finish()?;
    let (vault, resource) = (format!("https://{address}"), format!("https://{domain}"));
    Ok((KeyName { vault, name, version, algorithm, proven, resource }, ca))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    fn parsed(uri: &str) -> Result<(KeyName, Option<String>), KmsError> {
        let (uri, environment) = (uri.parse()?, Environment::process());
        parse(&Opening { uri: &uri, environment: &environment, example: "" })
    }

    #[test]
    fn vaults_and_hsms() {
        let parsed = |uri: &str| parsed(uri).expect("well formed").0;
        let key = parsed("azure-kms://corp.vault.azure.net/keys/k");
        assert_eq!((key.vault.as_str(), key.version), ("https://corp.vault.azure.net:443", None));
        assert_eq!(
            (key.algorithm, key.resource.as_str()),
            (Algorithm::RsaOaep256, "https://vault.azure.net")
        );
        let key = parsed("azure-kms://corp.managedhsm.azure.net/keys/k/0123");
        assert_eq!((key.algorithm, key.version.as_deref()), (Algorithm::A256Gcm, Some("0123")));
        assert_eq!(key.resource, "https://managedhsm.azure.net");
        assert_eq!(
            parsed("azure-kms://127.0.0.1:1/keys/k?alg=A256GCM").algorithm,
            Algorithm::A256Gcm
        );
    }

    #[test]
    fn what_is_refused() {
        for uri in [
            "azure-kms://evil.example/keys/k",
            "azure-kms://vault.azure.net/keys/k",
            "azure-kms://evilvault.azure.net/keys/k",
            "azure-kms://a.vault.azure.net.evil.example/keys/k",
            "azure-kms://a.vault.azure.net/k",
            "azure-kms://a.vault.azure.net/keys/",
            "azure-kms://a.vault.azure.net/keys/k/v/x",
            "azure-kms://a.vault.azure.net/keys/k/..",
            "azure-kms://a.vault.azure.net/keys/k?alg=RSA1_5",
            "azure-kms://a.vault.azure.net/keys/k?proof=RS256",
            "azure-kms://a.vault.azure.net/keys/k?alg=A256GCM&proof=PS256",
            "azure-kms://a.managedhsm.azure.net/keys/k?proof=PS256",
            "azure-kms://a.vault.azure.net/keys/k?sig=hunter22",
        ] {
            assert!(parsed(uri).is_err(), "{uri}");
        }
    }
}
