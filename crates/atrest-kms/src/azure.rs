//! `azure-kms://VAULT.vault.azure.net/keys/NAME[/VERSION]`: Azure Key Vault and Managed HSM.

use atrest::StoreKey;
use atrest::kms::{Deadline, KeyUri, Kms, KmsError, KmsErrorKind, WrapContext, WrappedKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use crate::environment::Environment;
use crate::fail::protocol;
use crate::rest::{Answer, Call, KeyText, Rest, TokenCache, key_from_base64_url, to_json};
use crate::retry::retry;
use crate::secret::Secret;

mod answer;
mod blob;
mod key_name;
mod token;

use blob::{Algorithm, Blob, Sealed};
use key_name::KeyName;

const API_VERSION: &str = "api-version=7.4";

/// A key of Azure Key Vault (RSA) or Managed HSM (AES).
///
/// In a vault the key wraps with RSA-OAEP-256, which can bind no context: anybody with the
/// public key could make such a blob, and only the keyring's HMAC ties the store key to
/// its store. In a Managed HSM it encrypts with AES-256-GCM and the context as additional
/// data. `?alg=RSA-OAEP-256` or `?alg=A256GCM` chooses.
///
/// Without a version the newest one wraps; a blob names its own, which unwraps. The token
/// comes from `AZURE_ACCESS_TOKEN`, else by `AZURE_TENANT_ID` and `AZURE_CLIENT_ID` with
/// `AZURE_CLIENT_SECRET` or `AZURE_FEDERATED_TOKEN_FILE`, else from the managed identity.
///
/// Needs the permissions `wrapKey` and `unwrapKey` (in an HSM `encrypt` and `decrypt`);
/// with `get`, a soft-deleted key is told apart from a missing one. Azure wraps with a
/// disabled key, so only [`unwrap`](Kms::unwrap) shows that it is disabled.
#[derive(Debug)]
pub struct AzureKms {
    uri: KeyUri,
    rest: Rest,
    key: KeyName,
    environment: Environment,
    token: TokenCache,
}

#[derive(Serialize)]
struct Request<'a> {
    alg: &'a str,
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aad: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iv: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
}

#[derive(Deserialize)]
struct Wrapped {
    kid: String,
    value: String,
    iv: Option<String>,
    tag: Option<String>,
}

#[derive(Deserialize)]
struct Unwrapped {
    value: Secret,
}

impl AzureKms {
    /// The key at `uri`, with the credentials of `environment`.
    ///
    /// # Errors
    /// [`KmsErrorKind::Misconfigured`] for a malformed URI or a host that is neither
    /// Azure's nor this machine.
    pub fn from_uri(uri: KeyUri, environment: &Environment) -> Result<Self, KmsError> {
        let (key, ca) = key_name::parse(&uri)?;
        let rest = Rest::new(&key.vault, ca.as_deref())?;
        let (environment, token) = (environment.clone(), TokenCache::default());
        Ok(Self { uri, rest, key, environment, token })
    }

    /// Calls an operation; a token that is refused is fetched anew once, since it may
    /// have been revoked before its time.
    fn call(
        &self,
        operation: &Operation<'_>,
        hidden: &str,
        deadline: Deadline,
    ) -> Result<Answer, KmsError> {
        let answered = match self.send(operation, deadline)? {
            (answer, _) if answer.status == 401 && self.token.forget() => {
                self.send(operation, deadline)?
            }
            answered => answered,
        };
        let (answer, token) = answered;
        match answer.status {
            200 => Ok(answer),
            404 if self.is_soft_deleted(deadline) => {
                let said = "the key is deleted and can be recovered";
                Err(answer.fail(KmsErrorKind::PendingDeletion, said, &[]))
            }
            _ => Err(answer::error(&answer, operation.opens, &[token.expose(), hidden])),
        }
    }

    fn send(
        &self,
        operation: &Operation<'_>,
        deadline: Deadline,
    ) -> Result<(Answer, Secret), KmsError> {
        let token = self
            .token
            .obtain(|| token::fetch(&self.environment, &self.key.resource, &self.rest, deadline))?;
        let bearer = Secret::new(format!("Bearer {}", token.expose()));
        let headers = [("content-type", "application/json"), ("authorization", bearer.expose())];
        let body = match operation.request {
            Some(request) => to_json(request)?,
            None => Default::default(),
        };
        let method = if operation.request.is_some() { Method::POST } else { Method::GET };
        let url = format!("{}/{}?{API_VERSION}", self.key.vault, operation.path);
        let call = Call { method, url: &url, headers: &headers, body: &body };
        Ok((self.rest.send(&call, deadline)?, token))
    }

    /// Whether the key lies among the deleted ones; not, as far as this may be asked.
    fn is_soft_deleted(&self, deadline: Deadline) -> bool {
        let path = format!("deletedkeys/{}", self.key.name);
        let operation = Operation { path: &path, request: None, opens: false };
        self.send(&operation, deadline).is_ok_and(|(answer, _)| answer.status == 200)
    }

    fn path(&self, version: &str, operation: &str) -> String {
        // An empty version is the newest one.
        format!("keys/{}/{version}/{operation}", self.key.name)
    }

    fn wrap_once(
        &self,
        key: &StoreKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        let value = KeyText::url_safe(key);
        let aad = URL_SAFE_NO_PAD.encode(blob::aad(context));
        let algorithm = self.key.algorithm;
        let (verb, aad) = match algorithm {
            Algorithm::RsaOaep256 => ("wrapkey", None),
            Algorithm::A256Gcm => ("encrypt", Some(aad.as_str())),
        };
        let request =
            Request { alg: algorithm.as_str(), value: value.as_str(), aad, iv: None, tag: None };
        let path = self.path(self.key.version.as_deref().unwrap_or_default(), verb);
        let operation = Operation { path: &path, request: Some(&request), opens: false };
        let answer = self.call(&operation, value.as_str(), deadline)?;
        let wrapped: Wrapped = answer.json()?;
        let blob = self
            .blob(&wrapped)
            .ok_or_else(|| protocol("expected a wrapped key of the asked algorithm"))?;
        Ok(WrappedKey { blob: blob.to_bytes(&self.key.name), key_version: blob.version })
    }

    fn blob(&self, wrapped: &Wrapped) -> Option<Blob> {
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let (_, version) = wrapped.kid.rsplit_once('/')?;
        let value = bytes(&wrapped.value)?;
        let sealed = match self.key.algorithm {
            Algorithm::RsaOaep256 => Sealed::RsaOaep256(value),
            Algorithm::A256Gcm => Sealed::A256Gcm {
                iv: bytes(wrapped.iv.as_deref()?)?.try_into().ok()?,
                tag: bytes(wrapped.tag.as_deref()?)?.try_into().ok()?,
                ciphertext: value.try_into().ok()?,
            },
        };
        Blob::new(version, sealed)
    }

    fn unwrap_once(
        &self,
        blob: &Blob,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<StoreKey, KmsError> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (verb, alg, value, gcm) = match &blob.sealed {
            Sealed::RsaOaep256(value) => ("unwrapkey", Algorithm::RsaOaep256, text(value), None),
            Sealed::A256Gcm { iv, tag, ciphertext } => {
                let gcm = (text(&blob::aad(context)), text(iv), text(tag));
                ("decrypt", Algorithm::A256Gcm, text(ciphertext), Some(gcm))
            }
        };
        let request = Request {
            alg: alg.as_str(),
            value: &value,
            aad: gcm.as_ref().map(|(aad, _, _)| aad.as_str()),
            iv: gcm.as_ref().map(|(_, iv, _)| iv.as_str()),
            tag: gcm.as_ref().map(|(_, _, tag)| tag.as_str()),
        };
        let path = self.path(&blob.version, verb);
        let operation = Operation { path: &path, request: Some(&request), opens: true };
        let answer = self.call(&operation, "", deadline)?;
        key_from_base64_url(answer.json::<Unwrapped>()?.value.expose())
    }
}

struct Operation<'a> {
    path: &'a str,
    request: Option<&'a Request<'a>>,
    /// Whether it unwraps.
    opens: bool,
}

impl Kms for AzureKms {
    fn key_uri(&self) -> &KeyUri {
        &self.uri
    }

    fn wrap(
        &self,
        key: &StoreKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        retry(deadline, |deadline| self.wrap_once(key, context, deadline))
            .map_err(|e| e.with_key_uri(&self.uri))
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<StoreKey, KmsError> {
        Blob::parse(&wrapped.blob, &self.key.name)
            .and_then(|blob| retry(deadline, |deadline| self.unwrap_once(&blob, context, deadline)))
            .map_err(|e| e.with_key_uri(&self.uri))
    }
}
