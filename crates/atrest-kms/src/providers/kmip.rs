//! `kmip://HOST:PORT/UNIQUE_ID?ca=&cert=&key=`: a KMIP 1.4 server over mutual TLS.

use atrest::kms::{Credential, Deadline, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::fail::{fail, slot_key};
use crate::provider::{Opening, Provider};
use crate::uri::{HostPort, Parts, is_segment};

mod answer;
mod blob;
mod certificate;
mod connection;
mod message;
mod ttlv;

use blob::{Blob, IV_LEN};
use connection::{Connector, Files};
use message::State;

/// An AES key on a KMIP server, by its unique identifier.
///
/// Client and server show certificates: `cert` and `key` name this side's (PEM), `ca` what
/// signed the server's. The files are read at each use. The key encrypts in the server
/// with AES-256-GCM and the context as additional data; it **MUST** be Active and allow
/// Encrypt and Decrypt.
///
/// KMIP tells a missing right and a key that is not Active alike (Permission Denied), so
/// the state is asked for to tell them apart, where Get Attributes is allowed.
#[derive(Debug)]
pub(crate) struct Kmip {
    connector: Connector,
    unique_id: String,
}

impl Kmip {
    /// Sends a request and gives its answer's payload, the state of the key considered.
    fn call(
        &self,
        request: &message::Request<'_>,
        deadline: Deadline,
    ) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let answer = self.connector.exchange(&message::encode(request), deadline)?;
        match message::payload(&answer)? {
            Ok(payload) => Ok(Zeroizing::new(payload.to_vec())),
            Err(refusal) if refusal.reason == answer::PERMISSION_DENIED => {
                Err(answer::denied(&refusal, self.state(deadline)))
            }
            Err(refusal) => Err(answer::error(&refusal, request)),
        }
    }

    /// The key's state, as far as the server tells it.
    fn state(&self, deadline: Deadline) -> Result<State, KmsError> {
        let request = message::Request::State { unique_id: &self.unique_id };
        let answer = self.connector.exchange(&message::encode(&request), deadline)?;
        match message::payload(&answer)? {
            Ok(payload) => message::state(payload),
            Err(refusal) => Err(answer::error(&refusal, &request)),
        }
    }
}

#[cfg(feature = "danger-internals")]
impl Kmip {
    /// For a script, which needs no certificates.
    pub(super) fn fuzzed() -> Self {
        let file = || "/nonexistent".to_owned();
        let files = Files { ca: file(), cert: file(), key: file() };
        let address = HostPort { host: "kmip.example".into(), port: 1 };
        Self { connector: Connector::new(address, files), unique_id: "1".into() }
    }
}

/// Bytes as what a server and a certificate authority give: an answer's payload, a blob, a
/// certificate.
#[cfg(feature = "danger-internals")]
pub(super) fn fuzz(data: &[u8]) {
    if let Ok(blob) = Blob::parse(data) {
        assert_eq!(blob.to_bytes(), data);
    }
    let _ = certificate::validity(data);
    let _ = message::state(data);
    let _ = message::encrypted(data, [0; IV_LEN]);
}

impl Provider for Kmip {
    fn open(opening: &Opening<'_>) -> Result<Self, KmsError> {
        let expected = || opening.malformed();
        let mut parts = Parts::parse(opening.uri, opening.example)?;
        let address = HostPort::parse(&parts.authority, 5696).ok_or_else(expected)?;
        let unique_id = parts.path.clone();
        if !is_segment(&unique_id) || unique_id.len() > 128 {
            return Err(expected());
        }
        let mut file = |name| parts.take(name).ok_or_else(expected);
        let files = Files { ca: file("ca")?, cert: file("cert")?, key: file("key")? };
        parts.finish()?;
        let connector = Connector::new(address, files);
        // Unusable files are told now rather than at the first use.
        connector.tls()?;
        Ok(Self { connector, unique_id })
    }

    fn wrap_once(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        let mut iv = [0; IV_LEN];
        SystemRandom::new()
            .fill(&mut iv)
            .map_err(|_| fail(KmsErrorKind::Misconfigured, "no randomness"))?;
        let aad = blob::aad(context);
        let request = message::Request::Encrypt {
            unique_id: &self.unique_id,
            key: key.expose(),
            iv: &iv,
            aad: &aad,
        };
        let payload = self.call(&request, deadline)?;
        let blob = message::encrypted(&payload, iv)?;
        Ok(WrappedKey { key_version: String::new(), blob: blob.to_bytes() })
    }

    fn unwrap_once(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        let blob = &Blob::parse(&wrapped.blob)?;
        let aad = blob::aad(context);
        let request = message::Request::Decrypt { unique_id: &self.unique_id, blob, aad: &aad };
        let payload = self.call(&request, deadline)?;
        slot_key(message::decrypted(&payload)?)
    }

    fn credential(&self) -> Option<Credential> {
        self.connector.credential()
    }
}
