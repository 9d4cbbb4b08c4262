//! `gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K`: Google Cloud KMS.

use atrest::kms::{Credential, Deadline, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc32c::crc32c;
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use crate::environment::Environment;
use crate::fail::{integrity, protocol};
use crate::kept::Kept;
use crate::provider::{Opening, Provider};
use crate::rest::{Answer, Call, KeyText, Rest, key_from_base64, to_json};
use crate::secret::Secret;
use crate::uri::{Parts, endpoint, is_segment};

mod answer;
mod token;

const ENDPOINT: &str = "https://cloudkms.googleapis.com";
/// Where tokens may be sent.
const DOMAINS: [&str; 1] = ["googleapis.com"];
/// Longest ciphertext taken, in bytes: that of 32 bytes has about 120.
const BLOB_LEN_MAX: usize = 8 * 1024;

/// A symmetric key (`ENCRYPT_DECRYPT`) of Google Cloud KMS.
///
/// The token comes from `GOOGLE_OAUTH_ACCESS_TOKEN`, else is made from the service account
/// in the file that `GOOGLE_APPLICATION_CREDENTIALS` names, else from the metadata server.
/// `?endpoint=` names another address under `googleapis.com`, `?ca=` another CA.
///
/// The context is bound as additional authenticated data, and all four fields carry a
/// CRC32C, as Google advises. Needs `cloudkms.cryptoKeyVersions.useToEncrypt` and
/// `useToDecrypt`, as in the role `roles/cloudkms.cryptoKeyEncrypterDecrypter`.
#[derive(Debug)]
pub(crate) struct GcpKms {
    rest: Rest,
    /// `ENDPOINT/v1/projects/...`.
    key_url: String,
    environment: Environment,
    ca: Option<String>,
    token: Kept<Secret>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EncryptRequest<'a> {
    plaintext: &'a str,
    plaintext_crc32c: String,
    additional_authenticated_data: &'a str,
    additional_authenticated_data_crc32c: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encrypted {
    name: String,
    ciphertext: String,
    ciphertext_crc32c: String,
    #[serde(default)]
    verified_plaintext_crc32c: bool,
    #[serde(default)]
    verified_additional_authenticated_data_crc32c: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DecryptRequest<'a> {
    ciphertext: &'a str,
    ciphertext_crc32c: String,
    additional_authenticated_data: &'a str,
    additional_authenticated_data_crc32c: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decrypted {
    plaintext: Secret,
    plaintext_crc32c: String,
}

impl GcpKms {
    /// Calls an operation; a token that is refused is fetched anew once, since it may
    /// have been revoked before its time.
    fn call(
        &self,
        operation: &str,
        request: &impl Serialize,
        hidden: &str,
        deadline: Deadline,
    ) -> Result<Answer, KmsError> {
        let body = to_json(request)?;
        match self.call_once(operation, &body, hidden, deadline) {
            Err(error) if error.kind() == KmsErrorKind::Unauthenticated && self.token.forget() => {
                self.call_once(operation, &body, hidden, deadline)
            }
            result => result,
        }
    }

    fn call_once(
        &self,
        operation: &str,
        body: &[u8],
        hidden: &str,
        deadline: Deadline,
    ) -> Result<Answer, KmsError> {
        let token = self.token.obtain(deadline, |_, deadline| {
            token::fetch(&self.environment, self.ca.as_deref(), deadline)
        })?;
        let bearer = Secret::new(format!("Bearer {}", token.expose()));
        let headers = [("content-type", "application/json"), ("authorization", bearer.expose())];
        let url = format!("{}:{operation}", self.key_url);
        let call = Call { method: Method::POST, url: &url, headers: &headers, body };
        let answer = self.rest.send(&call, deadline)?;
        if answer.status == 200 {
            return Ok(answer);
        }
        Err(answer::error(&answer, operation == "decrypt", &[token.expose(), hidden]))
    }
}

/// Compares with a checksum as Google writes it: an int64 in text.
fn check_crc(bytes: &[u8], expected: &str) -> Result<(), KmsError> {
    if expected.parse() == Ok(i64::from(crc32c(bytes))) {
        return Ok(());
    }
    Err(integrity("the answer does not have the checksum it names"))
}

impl Provider for GcpKms {
    fn open(opening: &Opening<'_>) -> Result<Self, KmsError> {
        let expected = || opening.malformed();
        let mut parts = Parts::parse(opening.uri, opening.example)?;
        let name = format!("{}/{}", parts.authority, parts.path);
        // Projects of domains have a colon, as in `example.com:project`.
        let sound = |part: &str| part.split(':').all(is_segment);
        match name.split('/').collect::<Vec<_>>()[..] {
            ["projects", project, "locations", location, "keyRings", ring, "cryptoKeys", key]
                if sound(project) && [location, ring, key].into_iter().all(is_segment) => {}
            _ => return Err(expected()),
        }
        let endpoint = match parts.take("endpoint") {
            Some(text) => endpoint(&text, &DOMAINS)?,
            None => ENDPOINT.to_owned(),
        };
        let ca = parts.take("ca");
        let rest = Rest::new(&endpoint, ca.as_deref())?;
        parts.finish()?;
        Ok(Self {
            rest,
            key_url: format!("{endpoint}/v1/{name}"),
            environment: opening.environment.clone(),
            ca,
            token: Kept::default(),
        })
    }

    fn wrap_once(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        let context = context.to_bytes();
        let plaintext = KeyText::standard(key);
        let request = EncryptRequest {
            plaintext: plaintext.as_str(),
            plaintext_crc32c: crc32c(key.expose()).to_string(),
            additional_authenticated_data: &STANDARD.encode(context),
            additional_authenticated_data_crc32c: crc32c(&context).to_string(),
        };
        let answer = self.call("encrypt", &request, plaintext.as_str(), deadline)?;
        let encrypted: Encrypted = answer.json()?;
        if !encrypted.verified_plaintext_crc32c
            || !encrypted.verified_additional_authenticated_data_crc32c
        {
            return Err(integrity("the service did not confirm the checksums it was sent"));
        }
        let blob = STANDARD
            .decode(&encrypted.ciphertext)
            .ok()
            .filter(|blob| (1..=BLOB_LEN_MAX).contains(&blob.len()))
            .ok_or_else(|| protocol("expected a ciphertext of at most 8 KiB in base64"))?;
        check_crc(&blob, &encrypted.ciphertext_crc32c)?;
        let version = encrypted.name.rsplit_once("/cryptoKeyVersions/").map(|(_, version)| version);
        let key_version = version
            .filter(|version| is_segment(version) && version.len() <= 20)
            .ok_or_else(|| protocol("expected the name of a key version"))?
            .to_owned();
        Ok(WrappedKey { key_version, blob })
    }

    fn unwrap_once(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        let blob = &wrapped.blob[..];
        if blob.is_empty() || blob.len() > BLOB_LEN_MAX {
            return Err(integrity(format!("expected a wrapped key of 1 to {BLOB_LEN_MAX} bytes")));
        }
        let context = context.to_bytes();
        let request = DecryptRequest {
            ciphertext: &STANDARD.encode(blob),
            ciphertext_crc32c: crc32c(blob).to_string(),
            additional_authenticated_data: &STANDARD.encode(context),
            additional_authenticated_data_crc32c: crc32c(&context).to_string(),
        };
        let answer = self.call("decrypt", &request, "", deadline)?;
        let decrypted: Decrypted = answer.json()?;
        let key = key_from_base64(decrypted.plaintext.expose())?;
        check_crc(key.expose(), &decrypted.plaintext_crc32c)?;
        Ok(key)
    }

    fn outdate_credential(&self) {
        self.token.outdate();
    }

    fn credential(&self) -> Option<Credential> {
        self.token.credential()
    }
}
