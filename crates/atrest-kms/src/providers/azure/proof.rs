//! What ties a key that an RSA key wrapped to its store: the same key's signature.
//!
//! Wrapping by RSA needs no secret, so the blob alone proves nothing. Signing needs the
//! private key, which never leaves the vault, and the right to use it.

use atrest::kms::{KmsError, WrapContext};
use ring::digest;
use ring::signature::{RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents};

use crate::fail::integrity;

/// RSASSA-PSS with SHA-256 and a salt of 32 bytes (RFC 7518 section 3.5).
pub(super) const ALGORITHM: &str = "PS256";
/// Not text, so that no signature of a token or document by the same key is one of these.
const LABEL: &[u8; 16] = b"atrest.azure.1\0\0";

/// What is signed: the label, the context, and the wrapped key, which unwraps to one slot
/// key only.
pub(super) fn message(context: &WrapContext, wrapped: &[u8]) -> Vec<u8> {
    [LABEL, &context.to_bytes()[..], wrapped].concat()
}

/// What the service signs in the place of a message.
pub(super) fn digest(message: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, message).as_ref());
    digest
}

/// The public half of a version of the key, big-endian.
#[derive(Clone, Debug)]
pub(super) struct PublicKey {
    n: Vec<u8>,
    e: Vec<u8>,
}

impl PublicKey {
    pub(super) fn new(n: &[u8], e: &[u8]) -> Self {
        let trimmed = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
        Self { n: trimmed(n), e: trimmed(e) }
    }

    /// # Errors
    /// `Integrity`: somebody without the private key made the blob, or for another store.
    pub(super) fn verify(&self, message: &[u8], proof: &[u8]) -> Result<(), KmsError> {
        let key = RsaPublicKeyComponents { n: &self.n, e: &self.e };
        key.verify(&RSA_PSS_2048_8192_SHA256, message, proof).map_err(|_| {
            integrity("the wrapped key's proof is not this key's, or not for this store")
        })
    }
}
