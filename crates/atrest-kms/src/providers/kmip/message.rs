//! The three requests and their answers (KMIP 1.4, sections 4.12, 4.29, 4.30 and 6).

use atrest::kms::KmsError;
use zeroize::Zeroizing;

use super::blob::{Blob, IV_LEN, TAG_LEN};
use super::ttlv::{Value, Writer, find, read};
use crate::fail::protocol;

mod tag {
    pub(super) const ATTRIBUTE: u32 = 0x42_0008;
    pub(super) const ATTRIBUTE_NAME: u32 = 0x42_000a;
    pub(super) const ATTRIBUTE_VALUE: u32 = 0x42_000b;
    pub(super) const BATCH_COUNT: u32 = 0x42_000d;
    pub(super) const BATCH_ITEM: u32 = 0x42_000f;
    pub(super) const BLOCK_CIPHER_MODE: u32 = 0x42_0011;
    pub(super) const CRYPTOGRAPHIC_ALGORITHM: u32 = 0x42_0028;
    pub(super) const CRYPTOGRAPHIC_PARAMETERS: u32 = 0x42_002b;
    pub(super) const IV_COUNTER_NONCE: u32 = 0x42_003d;
    pub(super) const OPERATION: u32 = 0x42_005c;
    pub(super) const PROTOCOL_VERSION: u32 = 0x42_0069;
    pub(super) const PROTOCOL_VERSION_MAJOR: u32 = 0x42_006a;
    pub(super) const PROTOCOL_VERSION_MINOR: u32 = 0x42_006b;
    pub(super) const REQUEST_HEADER: u32 = 0x42_0077;
    pub(super) const REQUEST_MESSAGE: u32 = 0x42_0078;
    pub(super) const REQUEST_PAYLOAD: u32 = 0x42_0079;
    pub(super) const RESPONSE_MESSAGE: u32 = 0x42_007b;
    pub(super) const RESPONSE_PAYLOAD: u32 = 0x42_007c;
    pub(super) const RESULT_MESSAGE: u32 = 0x42_007d;
    pub(super) const RESULT_REASON: u32 = 0x42_007e;
    pub(super) const RESULT_STATUS: u32 = 0x42_007f;
    pub(super) const UNIQUE_IDENTIFIER: u32 = 0x42_0094;
    pub(super) const DATA: u32 = 0x42_00c2;
    pub(super) const TAG_LENGTH: u32 = 0x42_00ce;
    pub(super) const AEAD_ADDITIONAL_DATA: u32 = 0x42_00fe;
    pub(super) const AEAD_TAG: u32 = 0x42_00ff;
}

const OPERATION_GET_ATTRIBUTES: u32 = 0x0b;
const OPERATION_ENCRYPT: u32 = 0x1f;
const OPERATION_DECRYPT: u32 = 0x20;
const MODE_GCM: u32 = 0x09;
const ALGORITHM_AES: u32 = 0x03;
const STATUS_SUCCESS: u32 = 0;

/// A request; without `Debug`, since it may hold the key.
pub(super) enum Request<'a> {
    Encrypt { unique_id: &'a str, key: &'a [u8; 32], iv: &'a [u8; IV_LEN], aad: &'a [u8] },
    Decrypt { unique_id: &'a str, blob: &'a Blob, aad: &'a [u8] },
    State { unique_id: &'a str },
}

/// What a server says instead of a payload.
#[derive(Debug)]
pub(super) struct Refusal {
    pub reason: u32,
    pub message: String,
}

/// The states of a key (KMIP 1.4, section 9.1.3.2.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    PreActive,
    Active,
    Deactivated,
    Compromised,
    Destroyed,
}

pub(super) fn encode(request: &Request<'_>) -> Zeroizing<Vec<u8>> {
    let operation = match request {
        Request::Encrypt { .. } => OPERATION_ENCRYPT,
        Request::Decrypt { .. } => OPERATION_DECRYPT,
        Request::State { .. } => OPERATION_GET_ATTRIBUTES,
    };
    let mut writer = Writer::new();
    writer.structure(tag::REQUEST_MESSAGE, |writer| {
        writer.structure(tag::REQUEST_HEADER, |writer| {
            writer.structure(tag::PROTOCOL_VERSION, |writer| {
                writer.integer(tag::PROTOCOL_VERSION_MAJOR, 1);
                writer.integer(tag::PROTOCOL_VERSION_MINOR, 4);
            });
            writer.integer(tag::BATCH_COUNT, 1);
        });
        writer.structure(tag::BATCH_ITEM, |writer| {
            writer.enumeration(tag::OPERATION, operation);
            writer.structure(tag::REQUEST_PAYLOAD, |writer| write_payload(writer, request));
        });
    });
    writer.finish()
}

fn write_payload(writer: &mut Writer, request: &Request<'_>) {
    match request {
        Request::Encrypt { unique_id, key, iv, aad } => {
            writer.text(tag::UNIQUE_IDENTIFIER, unique_id);
            write_parameters(writer);
            writer.bytes(tag::DATA, &key[..]);
            writer.bytes(tag::IV_COUNTER_NONCE, &iv[..]);
            writer.bytes(tag::AEAD_ADDITIONAL_DATA, aad);
        }
        Request::Decrypt { unique_id, blob, aad } => {
            writer.text(tag::UNIQUE_IDENTIFIER, unique_id);
            write_parameters(writer);
            writer.bytes(tag::DATA, &blob.ciphertext);
            writer.bytes(tag::IV_COUNTER_NONCE, &blob.iv);
            writer.bytes(tag::AEAD_ADDITIONAL_DATA, aad);
            writer.bytes(tag::AEAD_TAG, &blob.tag);
        }
        Request::State { unique_id } => {
            writer.text(tag::UNIQUE_IDENTIFIER, unique_id);
            writer.text(tag::ATTRIBUTE_NAME, "State");
        }
    }
}

fn write_parameters(writer: &mut Writer) {
    writer.structure(tag::CRYPTOGRAPHIC_PARAMETERS, |writer| {
        writer.enumeration(tag::BLOCK_CIPHER_MODE, MODE_GCM);
        writer.enumeration(tag::CRYPTOGRAPHIC_ALGORITHM, ALGORITHM_AES);
        writer.integer(tag::TAG_LENGTH, 16);
    });
}

/// The content of the answer's payload, or why there is none.
pub(super) fn payload(answer: &[u8]) -> Result<Result<&[u8], Refusal>, KmsError> {
    let malformed = || protocol("the answer is not a KMIP response of one item");
    let Some((tag::RESPONSE_MESSAGE, Value::Structure(content), [])) = read(answer) else {
        return Err(malformed());
    };
    let Some(Value::Structure(item)) = find(content, tag::BATCH_ITEM) else {
        return Err(malformed());
    };
    let Some(Value::Enumeration(status)) = find(item, tag::RESULT_STATUS) else {
        return Err(malformed());
    };
    if status == STATUS_SUCCESS {
        return match find(item, tag::RESPONSE_PAYLOAD) {
            Some(Value::Structure(payload)) => Ok(Ok(payload)),
            _ => Err(malformed()),
        };
    }
    let reason = match find(item, tag::RESULT_REASON) {
        Some(Value::Enumeration(reason)) => reason,
        _ => 0,
    };
    let message = match find(item, tag::RESULT_MESSAGE) {
        Some(Value::Text(message)) => message.to_owned(),
        _ => String::new(),
    };
    Ok(Err(Refusal { reason, message }))
}

/// The blob from an answer to `Encrypt`; the IV is the server's where it chose another.
pub(super) fn encrypted(payload: &[u8], iv: [u8; IV_LEN]) -> Result<Blob, KmsError> {
    let bytes = |tag| match find(payload, tag) {
        Some(Value::Bytes(bytes)) => Some(bytes),
        _ => None,
    };
    let blob = || {
        let iv = match bytes(tag::IV_COUNTER_NONCE) {
            Some(chosen) => chosen.try_into().ok()?,
            None => iv,
        };
        let data = bytes(tag::DATA)?;
        // Some servers append the tag to the data instead.
        let (ciphertext, tag): (&[u8], &[u8]) = match bytes(tag::AEAD_TAG) {
            Some(tag) => (data, tag),
            None => data.split_at_checked(data.len().checked_sub(TAG_LEN)?)?,
        };
        Some(Blob { iv, tag: tag.try_into().ok()?, ciphertext: ciphertext.try_into().ok()? })
    };
    blob().ok_or_else(|| protocol("the answer has no ciphertext of 32 bytes and tag of 16"))
}

/// The key bytes from an answer to `Decrypt`.
pub(super) fn decrypted(payload: &[u8]) -> Result<&[u8], KmsError> {
    match find(payload, tag::DATA) {
        Some(Value::Bytes(bytes)) => Ok(bytes),
        _ => Err(protocol("the answer has no data")),
    }
}

/// The state from an answer to `Get Attributes`.
pub(super) fn state(payload: &[u8]) -> Result<State, KmsError> {
    let value = match find(payload, tag::ATTRIBUTE) {
        Some(Value::Structure(attribute)) => find(attribute, tag::ATTRIBUTE_VALUE),
        _ => None,
    };
    match value {
        Some(Value::Enumeration(1)) => Ok(State::PreActive),
        Some(Value::Enumeration(2)) => Ok(State::Active),
        Some(Value::Enumeration(3)) => Ok(State::Deactivated),
        Some(Value::Enumeration(4)) => Ok(State::Compromised),
        Some(Value::Enumeration(5 | 6)) => Ok(State::Destroyed),
        _ => Err(protocol("the answer has no state")),
    }
}
