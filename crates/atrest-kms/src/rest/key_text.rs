//! A slot key as base64, in memory that is zeroized.

use atrest::kms::KmsError;
use atrest::kms::SlotKey;
use base64::Engine;
#[cfg(any(feature = "aws", feature = "gcp", feature = "vault"))]
use base64::engine::general_purpose::STANDARD;
#[cfg(feature = "azure")]
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::fail::{integrity, slot_key};

/// 32 bytes as base64 with padding.
const TEXT_LEN: usize = 44;

/// A slot key in base64, on the stack, zeroized on drop.
pub(crate) struct KeyText(Zeroizing<[u8; TEXT_LEN]>, usize);

impl KeyText {
    /// The standard alphabet.
    #[cfg(any(feature = "aws", feature = "gcp", feature = "vault"))]
    pub(crate) fn standard(key: &SlotKey) -> Self {
        Self::encode(key, &STANDARD)
    }

    /// The URL-safe alphabet without padding.
    #[cfg(feature = "azure")]
    pub(crate) fn url_safe(key: &SlotKey) -> Self {
        Self::encode(key, &URL_SAFE_NO_PAD)
    }

    fn encode(key: &SlotKey, engine: &impl Engine) -> Self {
        let mut text = Zeroizing::new([0; TEXT_LEN]);
        // OK because 32 bytes need at most 44 characters in either alphabet.
        #[allow(clippy::expect_used)]
        let len = engine.encode_slice(key.expose(), &mut text[..]).expect("44 characters");
        Self(text, len)
    }

    pub(crate) fn as_str(&self) -> &str {
        // OK because base64 is ASCII.
        std::str::from_utf8(&self.0[..self.1]).unwrap_or_default()
    }
}

/// The slot key in `text`, as services with the standard alphabet answer.
#[cfg(any(feature = "aws", feature = "gcp", feature = "vault"))]
pub(crate) fn key_from_base64(text: &str) -> Result<SlotKey, KmsError> {
    decode(text, &STANDARD)
}

/// The slot key in `text`, as services with the URL-safe alphabet answer.
#[cfg(feature = "azure")]
pub(crate) fn key_from_base64_url(text: &str) -> Result<SlotKey, KmsError> {
    decode(text.trim_end_matches('='), &URL_SAFE_NO_PAD)
}

fn decode(text: &str, engine: &impl Engine) -> Result<SlotKey, KmsError> {
    // Larger than any 32-byte key, so that a wrong length is told as such.
    let mut bytes = Zeroizing::new([0_u8; 96]);
    let len = engine
        .decode_slice(text, &mut bytes[..])
        .map_err(|_| integrity("expected 32 bytes in base64 under the wrapping"))?;
    slot_key(&bytes[..len])
}
