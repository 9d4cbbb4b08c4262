//! A service account's signed assertion for a token (RFC 7523, RS256).

use std::time::SystemTime;

use atrest::kms::{Deadline, KmsError, KmsErrorKind};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroize;

use super::{DOMAINS, post};
use crate::fail::{fail, misconfigured};
use crate::rest::Token;
use crate::secret::Secret;
use crate::uri::endpoint;

const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The fields of the account's key file that are needed.
#[derive(Deserialize)]
pub(super) struct Account {
    client_email: String,
    private_key: Secret,
    #[serde(default)]
    private_key_id: String,
    token_uri: String,
}

/// Exchanges an assertion signed by the account's key for a token.
pub(super) fn exchange(
    account: &Account,
    ca: Option<&str>,
    deadline: Deadline,
) -> Result<Token, KmsError> {
    let (scheme, location) = account.token_uri.split_once("://").unwrap_or_default();
    let (host, path) = location.split_once('/').unwrap_or((location, ""));
    let url = format!("{}/{path}", endpoint(&format!("{scheme}://{host}"), &DOMAINS)?);
    let assertion = assertion(account, SystemTime::now())?;
    let fields = [("grant_type", GRANT), ("assertion", assertion.expose())];
    post(&url, &fields, &[assertion.expose()], ca, deadline)
}

fn assertion(account: &Account, now: SystemTime) -> Result<Secret, KmsError> {
    let malformed = || misconfigured("expected an RSA key in PKCS #8 in the credentials file");
    let mut der = PrivatePkcs8KeyDer::from_pem_slice(account.private_key.expose().as_bytes())
        .map_err(|_| malformed())?;
    let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| malformed());
    // The decoded copy; ring keeps its own for this call.
    der.zeroize();
    let key = key?;
    let issued = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": account.private_key_id});
    let claims = json!({
        "iss": account.client_email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": issued,
        "exp": issued + 3600,
    });
    let encode = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
    let signed = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| fail(KmsErrorKind::Misconfigured, "the service account's key cannot sign"))?;
    Ok(Secret::new(format!("{signed}.{}", encode(&signature))))
}
