//! `aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID`: AWS Key Management Service.

use std::collections::BTreeMap;
use std::time::SystemTime;

use atrest::kms::{Credential, Deadline, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use ureq::http::Method;

use crate::fail::{integrity, protocol};
use crate::provider::{Opening, Provider};
use crate::rest::{Answer, Call, KeyText, Rest, key_from_base64, to_json};
use crate::secret::Secret;

mod answer;
mod credentials;
mod key_name;
mod sigv4;

use credentials::Chain;
use key_name::KeyName;

/// Longest ciphertext that KMS takes, in bytes (API reference, Decrypt).
const BLOB_LEN_MAX: usize = 6144;

/// A symmetric key of AWS KMS.
///
/// `?region=` is needed where the name holds none, `?endpoint=` names a VPC endpoint,
/// `?profile=` takes the credentials from that section of the shared file only, and `?ca=`
/// trusts another CA. Without a profile the credentials come from `AWS_ACCESS_KEY_ID` and
/// its companions, the shared file, a web identity (STS), the container endpoint, or
/// instance metadata (IMDSv2 only), and are kept until shortly before they expire.
///
/// The context is bound as encryption context, so key policies can name it. Every call
/// names the key, unwrapping too: a blob of another key is refused. Prefer an
/// ARN to an alias, which can be pointed at another key. Needs `kms:Encrypt` and
/// `kms:Decrypt`; with `kms:ReEncrypt*` a rewrap does not show the key.
#[derive(Debug)]
pub(crate) struct AwsKms {
    rest: Rest,
    key: KeyName,
    endpoint: String,
    credentials: Chain,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptRequest<'a> {
    key_id: &'a str,
    plaintext: &'a str,
    encryption_context: &'a BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DecryptRequest<'a> {
    key_id: &'a str,
    ciphertext_blob: &'a str,
    encryption_context: &'a BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReEncryptRequest<'a> {
    ciphertext_blob: &'a str,
    source_key_id: &'a str,
    source_encryption_context: &'a BTreeMap<&'static str, String>,
    destination_key_id: &'a str,
    destination_encryption_context: &'a BTreeMap<&'static str, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypted {
    ciphertext_blob: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted {
    plaintext: Secret,
}

impl AwsKms {
    /// Calls an operation; credentials that are refused are fetched anew once, since they
    /// may have been replaced before their time.
    fn call(
        &self,
        operation: &str,
        request: &impl Serialize,
        hidden: &str,
        deadline: Deadline,
    ) -> Result<Answer, KmsError> {
        let body = to_json(request)?;
        match self.call_once(operation, &body, hidden, deadline) {
            Err(error)
                if error.kind() == KmsErrorKind::Unauthenticated && self.credentials.forget() =>
            {
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
        let credentials = self.credentials.obtain(deadline)?;
        let target = format!("TrentService.{operation}");
        let host = self.endpoint.split_once("://").map_or("", |(_, host)| host);
        // The default port is not part of the Host header that the client sends.
        let host = host.strip_suffix(":443").unwrap_or(host);
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("host", host),
            ("x-amz-target", &target),
        ];
        let scope = sigv4::Scope { service: "kms", region: &self.key.region };
        let signed = sigv4::sign(&headers, body, &scope, &credentials, SystemTime::now());
        let mut headers: Vec<(&str, &str)> =
            headers.into_iter().filter(|(name, _)| *name != "host").collect();
        headers.push(("x-amz-date", &signed.date));
        headers.push(("authorization", signed.authorization.expose()));
        let mut secrets = vec![hidden, credentials.secret_key.expose()];
        if let Some(token) = &credentials.session_token {
            headers.push(("x-amz-security-token", token.expose()));
            secrets.push(token.expose());
        }
        let url = format!("{}/", self.endpoint);
        let call = Call { method: Method::POST, url: &url, headers: &headers, body };
        let answer = self.rest.send(&call, deadline)?;
        if answer.status == 200 {
            return Ok(answer);
        }
        Err(answer::error(&answer, &secrets))
    }

    fn wrapped(answer: &Answer) -> Result<WrappedKey, KmsError> {
        let blob = STANDARD
            .decode(answer.json::<Encrypted>()?.ciphertext_blob)
            .ok()
            .filter(|blob| (1..=BLOB_LEN_MAX).contains(&blob.len()))
            .ok_or_else(|| protocol("expected a ciphertext of at most 6144 bytes in base64"))?;
        // KMS keeps the version in the ciphertext and does not tell it.
        Ok(WrappedKey { key_version: String::new(), blob })
    }

    /// The blob in base64, refused here if the service would call it invalid input.
    fn blob_text(wrapped: &WrappedKey) -> Result<String, KmsError> {
        if wrapped.blob.is_empty() || wrapped.blob.len() > BLOB_LEN_MAX {
            let found = wrapped.blob.len();
            let what = format!("expected a wrapped key of 1 to 6144 bytes, found {found}");
            return Err(integrity(what));
        }
        Ok(STANDARD.encode(&wrapped.blob))
    }
}

/// The context as names and values that a key policy can match.
fn encryption_context(context: &WrapContext) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("atrest:store", context.store_id.to_string()),
        ("atrest:slot-key", context.slot_key_id.to_string()),
        ("atrest:format", context.version.to_string()),
    ])
}

impl Provider for AwsKms {
    fn open(opening: &Opening<'_>) -> Result<Self, KmsError> {
        let options = key_name::parse(opening)?;
        let rest = Rest::new(&options.endpoint, options.ca.as_deref())?;
        let environment = opening.environment.clone();
        let sts = options.key.sts_endpoint(&environment);
        let credentials = Chain::new(environment, options.profile, sts);
        Ok(Self { rest, endpoint: options.endpoint, key: options.key, credentials })
    }

    fn wrap_once(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        let plaintext = KeyText::standard(key);
        let request = EncryptRequest {
            key_id: &self.key.id,
            plaintext: plaintext.as_str(),
            encryption_context: &encryption_context(context),
        };
        Self::wrapped(&self.call("Encrypt", &request, plaintext.as_str(), deadline)?)
    }

    fn unwrap_once(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        let request = DecryptRequest {
            key_id: &self.key.id,
            ciphertext_blob: &Self::blob_text(wrapped)?,
            encryption_context: &encryption_context(context),
        };
        let answer = self.call("Decrypt", &request, "", deadline)?;
        key_from_base64(answer.json::<Decrypted>()?.plaintext.expose())
    }

    fn rewrap_once(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<Option<WrappedKey>, KmsError> {
        let context = encryption_context(context);
        let request = ReEncryptRequest {
            ciphertext_blob: &Self::blob_text(wrapped)?,
            source_key_id: &self.key.id,
            source_encryption_context: &context,
            destination_key_id: &self.key.id,
            destination_encryption_context: &context,
        };
        match self.call("ReEncrypt", &request, "", deadline) {
            Ok(answer) => Self::wrapped(&answer).map(Some),
            // ReEncrypt is a permission of its own, and not every endpoint has it.
            Err(error)
                if matches!(error.kind(), KmsErrorKind::AccessDenied | KmsErrorKind::Protocol) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn outdate_credential(&self) {
        self.credentials.outdate();
    }

    fn credential(&self) -> Option<Credential> {
        self.credentials.credential()
    }
}
