//! The known answers of `tests/vectors/format-v1.json`, which an independent reference
//! printed.

#![allow(clippy::unwrap_used)]

use serde_json::Value;

pub(crate) fn vectors() -> Value {
    serde_json::from_str(include_str!("../tests/vectors/format-v1.json")).unwrap()
}

/// The bytes of a hexadecimal string at this pointer, as in `/ctr/key`.
pub(crate) fn bytes(pointer: &str) -> Vec<u8> {
    let vectors = vectors();
    let text = vectors.pointer(pointer).unwrap().as_str().unwrap();
    let mut bytes = vec![0; text.len() / 2];
    assert!(crate::hex::decode(text, &mut bytes));
    bytes
}

pub(crate) fn array<const N: usize>(pointer: &str) -> [u8; N] {
    bytes(pointer).try_into().unwrap()
}
