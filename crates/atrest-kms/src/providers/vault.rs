//! `hcvault://HOST:PORT/MOUNT/keys/NAME`: the Transit engine of Vault and OpenBao.

use atrest::kms::{Deadline, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use crate::environment::{Environment, read_secret_file};
use crate::fail::{fail, integrity, misconfigured, protocol};
use crate::provider::{Opening, Provider};
use crate::rest::{Answer, Call, KeyText, Rest, key_from_base64, to_json};
use crate::secret::Secret;
use crate::uri::{HostPort, Parts, is_segment};

mod answer;

/// Longest ciphertext taken, in bytes: real ones have about 100.
const BLOB_LEN_MAX: usize = 1024;
/// A ciphertext that no key made: 33 zero bytes.
const PROBE: &str = "vault:v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A key in the Transit engine of HashiCorp Vault or OpenBao.
///
/// The key **MUST** be of an AEAD type (`aes256-gcm96`, the default): the context is
/// bound as associated data. The token comes from the file named by `?token_file=`, else
/// from `VAULT_TOKEN`, and is read at each use. Blobs are Transit's own
/// `vault:vN:BASE64`.
///
/// The policy needs `update` on `MOUNT/encrypt/NAME` and `MOUNT/decrypt/NAME`, and should
/// give no `create`: with it Transit makes a new key in the place of a deleted one.
/// Wrapping therefore asks for a decryption first, which makes none.
#[derive(Debug)]
pub(crate) struct Vault {
    rest: Rest,
    /// `https://HOST:PORT/v1/MOUNT`.
    engine: String,
    name: String,
    namespace: Option<String>,
    token_file: Option<String>,
    environment: Environment,
}

#[derive(Serialize)]
struct EncryptRequest<'a> {
    plaintext: &'a str,
    associated_data: &'a str,
}

#[derive(Serialize)]
struct DecryptRequest<'a> {
    ciphertext: &'a str,
    associated_data: &'a str,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: Secret,
}

impl Vault {
    fn token(&self) -> Result<Secret, KmsError> {
        match &self.token_file {
            Some(path) => read_secret_file(path, "token file"),
            None => self.environment.var("VAULT_TOKEN").ok_or_else(|| {
                fail(KmsErrorKind::Unauthenticated, "expected a token in VAULT_TOKEN, found none")
            }),
        }
    }

    /// Calls `operation`; `hidden` is cut from what the service says.
    fn call(
        &self,
        operation: &str,
        request: &impl Serialize,
        hidden: &str,
        deadline: Deadline,
    ) -> Result<Answer, KmsError> {
        let token = self.token()?;
        let mut headers = vec![
            ("content-type", "application/json"),
            ("x-vault-request", "true"),
            ("x-vault-token", token.expose()),
        ];
        if let Some(namespace) = &self.namespace {
            headers.push(("x-vault-namespace", namespace));
        }
        let url = format!("{}/{operation}/{}", self.engine, self.name);
        let body = to_json(request)?;
        let call = Call { method: Method::POST, url: &url, headers: &headers, body: &body };
        let answer = self.rest.send(&call, deadline)?;
        if answer.status == 200 {
            return Ok(answer);
        }
        Err(answer::error(&answer, &[token.expose(), hidden]))
    }

    /// Fails unless the key exists. A decryption is asked for, since it is granted anyway
    /// and never makes a key; that it cannot succeed is the good answer.
    fn check_exists(&self, deadline: Deadline) -> Result<(), KmsError> {
        // The associated data makes a key that cannot bind it refuse.
        let request = DecryptRequest { ciphertext: PROBE, associated_data: "AAAA" };
        match self.call("decrypt", &request, "", deadline) {
            // An old version may be retired; the newest one wraps.
            Err(error)
                if matches!(
                    error.kind(),
                    KmsErrorKind::Integrity | KmsErrorKind::VersionRetired
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
            Ok(_) => Err(protocol("the service decrypted what no key encrypted")),
        }
    }
}

/// Token and key cross the network, so only this machine may be reached without TLS,
/// unless the URI says the danger.
fn scheme(tls: Option<&str>, address: &HostPort) -> Result<&'static str, KmsError> {
    match tls {
        None | Some("true") => Ok("https"),
        Some("false") if address.is_loopback() => Ok("http"),
        Some("false") => Err(misconfigured(
            "expected tls=false for this machine only: to any other host it sends token and key \
             in clear, which tls=danger-off permits",
        )),
        Some("danger-off") => Ok("http"),
        Some(_) => Err(misconfigured("expected tls=true or tls=false")),
    }
}

/// The version in `vault:vN:BASE64`.
fn version(ciphertext: &str) -> Option<&str> {
    let (version, body) = ciphertext.strip_prefix("vault:v")?.split_once(':')?;
    let digits = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    (digits && version.len() <= 10 && !body.is_empty()).then_some(version)
}

impl Provider for Vault {
    fn open(opening: &Opening<'_>) -> Result<Self, KmsError> {
        let mut parts = Parts::parse(opening.uri, opening.example)?;
        let expected = || opening.malformed();
        let address = HostPort::parse(&parts.authority, 8200).ok_or_else(expected)?;
        let (mount, name) = parts.path.rsplit_once("/keys/").ok_or_else(expected)?;
        if !mount.split('/').all(is_segment) || !is_segment(name) {
            return Err(expected());
        }
        let (mount, name) = (mount.to_owned(), name.to_owned());
        let scheme = scheme(parts.take("tls").as_deref(), &address)?;
        let namespace = parts.take("namespace");
        let token_file = parts.take("token_file");
        let engine = format!("{scheme}://{address}/v1/{mount}");
        let rest = Rest::new(&engine, parts.take("ca").as_deref())?;
        parts.finish()?;
        Ok(Self {
            rest,
            engine,
            name,
            namespace,
            token_file,
            environment: opening.environment.clone(),
        })
    }

    fn wrap_once(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.check_exists(deadline)?;
        let plaintext = KeyText::standard(key);
        let request = EncryptRequest {
            plaintext: plaintext.as_str(),
            associated_data: &STANDARD.encode(context.to_bytes()),
        };
        let answer = self.call("encrypt", &request, plaintext.as_str(), deadline)?;
        let ciphertext = answer.json::<Data<Encrypted>>()?.data.ciphertext;
        let version = version(&ciphertext)
            .filter(|_| ciphertext.len() <= BLOB_LEN_MAX)
            .ok_or_else(|| protocol("expected a ciphertext vault:vN:BASE64"))?
            .to_owned();
        Ok(WrappedKey { key_version: version, blob: ciphertext.into_bytes() })
    }

    fn unwrap_once(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        let ciphertext = std::str::from_utf8(&wrapped.blob)
            .ok()
            .filter(|text| text.len() <= BLOB_LEN_MAX && version(text).is_some())
            .ok_or_else(|| integrity("expected a wrapped key vault:vN:BASE64"))?;
        let request =
            DecryptRequest { ciphertext, associated_data: &STANDARD.encode(context.to_bytes()) };
        let answer = self.call("decrypt", &request, "", deadline)?;
        key_from_base64(answer.json::<Data<Decrypted>>()?.data.plaintext.expose())
    }
}
