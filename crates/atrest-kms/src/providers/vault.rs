//! `hcvault://HOST:PORT/MOUNT/keys/NAME`: the Transit engine of Vault and OpenBao.

use atrest::kms::{Credential, Deadline, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use crate::fail::{integrity, misconfigured, protocol};
use crate::provider::{Opening, Provider};
use crate::rest::{Answer, KeyText, Rest, key_from_base64};
use crate::secret::Secret;
use crate::uri::{HostPort, Parts, is_segment};

mod answer;
mod client;
mod lease;
mod login;
mod token;

use client::Client;
use login::Login;
use token::Tokens;

/// Longest ciphertext taken, in bytes: real ones have about 100.
const BLOB_LEN_MAX: usize = 1024;
/// A ciphertext that no key made: 33 zero bytes.
const PROBE: &str = "vault:v1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A key in the Transit engine of HashiCorp Vault or OpenBao.
///
/// The key **MUST** be of an AEAD type (`aes256-gcm96`, the default): the context is
/// bound as associated data. The token comes from the file named by `?token_file=`, else
/// from `VAULT_TOKEN`, and is read at each use; or from a log-in by `?auth=`. In the middle
/// of its life it is renewed, after a call that it was good for: one that lives less than
/// two checks of access is not always. Blobs are Transit's own `vault:vN:BASE64`.
///
/// The policy needs `update` on `MOUNT/encrypt/NAME` and `MOUNT/decrypt/NAME`, and should
/// give no `create`: with it Transit makes a new key in the place of a deleted one.
/// Wrapping therefore asks for a decryption first, which makes none.
#[derive(Debug)]
pub(crate) struct Vault {
    client: Client,
    mount: String,
    name: String,
    tokens: Tokens,
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
    /// Calls `operation`; `hidden` is cut from what the service says. Where a token that is no
    /// longer accepted can be replaced, it is, once.
    fn call(
        &self,
        operation: &str,
        request: &impl Serialize,
        hidden: &str,
        deadline: Deadline,
    ) -> Result<Answer, KmsError> {
        match self.call_once(operation, request, hidden, deadline) {
            Err(error)
                if error.kind() == KmsErrorKind::Unauthenticated && self.tokens.log_in_anew() =>
            {
                self.call_once(operation, request, hidden, deadline)
            }
            result => result,
        }
    }

    fn call_once(
        &self,
        operation: &str,
        request: &impl Serialize,
        hidden: &str,
        deadline: Deadline,
    ) -> Result<Answer, KmsError> {
        let token = self.tokens.obtain(&self.client, deadline)?;
        let path = format!("{}/{operation}/{}", self.mount, self.name);
        let (post, shown) = (Method::POST, Some(token.expose()));
        let answer = self.client.send(post, &path, shown, Some(request), deadline)?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let error = answer::error(&answer, &[token.expose(), hidden]);
        match error.kind() {
            KmsErrorKind::AccessDenied => {
                Err(self.tokens.why_denied(error, &token, &self.client, deadline))
            }
            _ => Err(error),
        }
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
        let (file, login) = (parts.take("token_file"), Login::parse(&mut parts)?);
        if file.is_some() && login.is_some() {
            return Err(misconfigured("expected one of auth and token_file, found both"));
        }
        let api = format!("{scheme}://{address}/v1");
        let rest = Rest::new(&api, parts.take("ca").as_deref())?;
        parts.finish()?;
        let client = Client { rest, api, namespace };
        let tokens = Tokens::new(file, login, opening.environment.clone());
        Ok(Self { client, mount, name, tokens })
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
        self.tokens.look_after(&self.client, deadline);
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
        let key = key_from_base64(answer.json::<Data<Decrypted>>()?.data.plaintext.expose())?;
        self.tokens.look_after(&self.client, deadline);
        Ok(key)
    }

    fn outdate_credential(&self) {
        self.tokens.outdate();
    }

    fn credential(&self) -> Option<Credential> {
        self.tokens.credential()
    }
}
