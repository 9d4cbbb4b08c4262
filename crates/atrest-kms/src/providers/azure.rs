//! `azure-kms://VAULT.vault.azure.net/keys/NAME[/VERSION]`: Azure Key Vault and Managed HSM.

use std::sync::{Arc, Mutex, PoisonError};

use atrest::kms::{Credential, Deadline, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use crate::environment::Environment;
use crate::fail::{integrity, misconfigured, protocol};
use crate::kept::Kept;
use crate::provider::{Opening, Provider};
use crate::rest::{Answer, Call, KeyText, Rest, key_from_base64_url, to_json};
use crate::secret::Secret;

mod answer;
mod blob;
mod key_name;
mod proof;
mod token;

use blob::{Algorithm, Blob, Sealed};
use key_name::KeyName;
use proof::PublicKey;

const API_VERSION: &str = "api-version=7.4";

/// A key of Azure Key Vault (RSA) or Managed HSM (AES).
///
/// In a vault the key wraps with RSA-OAEP-256, which can bind no context: anybody with the
/// public key could make such a blob, and only the keyring's HMAC ties what it leads to
/// to its store. With `?proof=PS256` the key signs context and blob, and what is not signed is
/// refused. In a Managed HSM it encrypts with AES-256-GCM and the context as additional
/// data. `?alg=RSA-OAEP-256` or `?alg=A256GCM` chooses.
///
/// Without a version the newest one wraps; a blob names its own, which unwraps. The token
/// comes from `AZURE_ACCESS_TOKEN`, else by `AZURE_TENANT_ID` and `AZURE_CLIENT_ID` with
/// `AZURE_CLIENT_SECRET` or `AZURE_FEDERATED_TOKEN_FILE`, else from the managed identity.
///
/// Needs the permissions `wrapKey` and `unwrapKey` (in an HSM `encrypt` and `decrypt`);
/// with `get`, a soft-deleted key is told apart from a missing one. With a proof whoever opens
/// needs `get`, and whoever wraps `sign`. Azure wraps with a
/// disabled key, so only unwrapping shows that it is disabled.
#[derive(Debug)]
pub(crate) struct AzureKms {
    rest: Rest,
    key: KeyName,
    environment: Environment,
    ca: Option<String>,
    token: Kept<Secret>,
    /// The public half of the version that was looked at last.
    public: Mutex<Option<(String, PublicKey)>>,
}

#[derive(Deserialize)]
struct Bundle {
    key: Jwk,
}

#[derive(Deserialize)]
struct Jwk {
    n: String,
    e: String,
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

/// A deleted key, as far as needed to know it for one.
#[derive(Deserialize)]
struct Deleted {
    #[serde(rename = "recoveryId")]
    _recovery_id: String,
}

impl AzureKms {
    /// Calls an operation; a token that is refused is fetched anew once, since it may
    /// have been revoked before its time.
    fn call(
        &self,
        operation: &Operation<'_>,
        hidden: &str,
        deadline: Deadline,
    ) -> Result<Answer, KmsError> {
        let (answer, token) = match self.send(operation, deadline)? {
            (answer, _) if answer.status == 401 && self.token.forget() => {
                self.send(operation, deadline)?
            }
            answered => answered,
        };
        if answer.status == 200 {
            return Ok(answer);
        }
        let error = answer::error(&answer, operation.opens, &[token.expose(), hidden]);
        if error.kind() == KmsErrorKind::NotFound && self.is_soft_deleted(deadline) {
            let said = "the key is deleted and can be recovered";
            return Err(answer.fail(KmsErrorKind::PendingDeletion, said, &[]));
        }
        Err(error)
    }

    fn send(
        &self,
        operation: &Operation<'_>,
        deadline: Deadline,
    ) -> Result<(Answer, Arc<Secret>), KmsError> {
        let (resource, ca) = (&self.key.resource, self.ca.as_deref());
        let token = self.token.obtain(deadline, |_, deadline| {
            token::fetch(&self.environment, resource, ca, deadline)
        })?;
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
        let found = self.send(&operation, deadline).ok().filter(|(answer, _)| answer.status == 200);
        found.is_some_and(|(answer, _)| answer.json::<Deleted>().is_ok())
    }

    fn path(&self, version: &str, operation: &str) -> String {
        // An empty version is the newest one.
        format!("keys/{}/{version}/{operation}", self.key.name)
    }

    /// The signature of this version of the key.
    fn sign(&self, version: &str, message: &[u8], deadline: Deadline) -> Result<Vec<u8>, KmsError> {
        let value = URL_SAFE_NO_PAD.encode(proof::digest(message));
        let request =
            Request { alg: proof::ALGORITHM, value: &value, aad: None, iv: None, tag: None };
        let path = self.path(version, "sign");
        let operation = Operation { path: &path, request: Some(&request), opens: false };
        let answer = self.call(&operation, "", deadline).map_err(|error| lacks("sign", error))?;
        decoded(&answer.json::<Wrapped>()?.value)
            .ok_or_else(|| protocol("expected a signature in base64"))
    }

    /// Whether this version of the key signed the message; its public half is asked for once.
    fn verify(
        &self,
        version: &str,
        message: &[u8],
        proof: &[u8],
        deadline: Deadline,
    ) -> Result<(), KmsError> {
        let known = self.public.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let key = match known {
            Some((of, key)) if of == version => key,
            _ => {
                let path = format!("keys/{}/{version}", self.key.name);
                let operation = Operation { path: &path, request: None, opens: false };
                let answer =
                    self.call(&operation, "", deadline).map_err(|error| lacks("get", error))?;
                let Jwk { n, e } = answer.json::<Bundle>()?.key;
                let parts = decoded(&n).zip(decoded(&e));
                let (n, e) = parts.ok_or_else(|| protocol("expected an RSA key in base64"))?;
                let key = PublicKey::new(&n, &e);
                let mut known = self.public.lock().unwrap_or_else(PoisonError::into_inner);
                *known = Some((version.to_owned(), key.clone()));
                key
            }
        };
        key.verify(message, proof)
    }

    fn blob(&self, wrapped: &Wrapped) -> Option<Blob> {
        let (_, version) = wrapped.kid.rsplit_once('/')?;
        let value = decoded(&wrapped.value)?;
        let sealed = match self.key.algorithm {
            Algorithm::RsaOaep256 => Sealed::RsaOaep256(value),
            Algorithm::A256Gcm => Sealed::A256Gcm {
                iv: decoded(wrapped.iv.as_deref()?)?.try_into().ok()?,
                tag: decoded(wrapped.tag.as_deref()?)?.try_into().ok()?,
                ciphertext: value.try_into().ok()?,
            },
        };
        Blob::new(version, sealed)
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

/// A refusal of what only proofs need, right after the key itself answered, says nothing of
/// the key.
fn lacks(permission: &str, error: KmsError) -> KmsError {
    if error.kind() != KmsErrorKind::AccessDenied {
        return error;
    }
    let what = format!("proof=PS256 needs the permission {permission}, which the key refuses");
    misconfigured(what).with_source(error)
}

struct Operation<'a> {
    path: &'a str,
    request: Option<&'a Request<'a>>,
    /// Whether it unwraps.
    opens: bool,
}

/// A wrapped key of the right form, for a key of that kind.
#[cfg(feature = "danger-internals")]
pub(super) fn fuzzed_blob(kind: u8) -> Vec<u8> {
    let sealed = match kind {
        b'0' => Sealed::RsaOaep256(vec![4; 256]),
        b'1' => Sealed::A256Gcm { iv: [1; 12], tag: [2; 16], ciphertext: [3; 32] },
        _ => Sealed::Proven { value: vec![4; 256], proof: vec![5; 256] },
    };
    Blob::new("1", sealed).map(|blob| blob.to_bytes("k")).unwrap_or_default()
}

impl Provider for AzureKms {
    fn open(opening: &Opening<'_>) -> Result<Self, KmsError> {
        let (key, ca) = key_name::parse(opening)?;
        let rest = Rest::new(&key.vault, ca.as_deref())?;
        let (environment, token) = (opening.environment.clone(), Kept::default());
        Ok(Self { rest, key, environment, ca, token, public: Mutex::default() })
    }

    fn wrap_once(
        &self,
        key: &SlotKey,
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
        let mut blob = self
            .blob(&wrapped)
            .ok_or_else(|| protocol("expected a wrapped key of the asked algorithm"))?;
        if let (true, Sealed::RsaOaep256(value)) = (self.key.proven, &blob.sealed) {
            let proof = self.sign(&blob.version, &proof::message(context, value), deadline)?;
            let sealed = Sealed::Proven { value: value.clone(), proof };
            blob = Blob::new(&blob.version, sealed)
                .ok_or_else(|| protocol("expected a signature as long as the wrapped key"))?;
        }
        Ok(WrappedKey { blob: blob.to_bytes(&self.key.name), key_version: blob.version })
    }

    fn unwrap_once(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        let blob = Blob::parse(&wrapped.blob, &self.key.name)?;
        if let (true, Sealed::RsaOaep256(_)) = (self.key.proven, &blob.sealed) {
            return Err(integrity("expected a wrapped key with a proof, found one without"));
        }
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (verb, alg, value, gcm) = match &blob.sealed {
            Sealed::RsaOaep256(value) | Sealed::Proven { value, .. } => {
                ("unwrapkey", Algorithm::RsaOaep256, text(value), None)
            }
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
        // After the unwrap, which tells what the key's owner denies; before its key is used.
        if let Sealed::Proven { value, proof } = &blob.sealed {
            self.verify(&blob.version, &proof::message(context, value), proof, deadline)?;
        }
        key_from_base64_url(answer.json::<Unwrapped>()?.value.expose())
    }

    fn outdate_credential(&self) {
        self.token.outdate();
    }

    fn credential(&self) -> Option<Credential> {
        self.token.credential()
    }
}
