//! A key's name from an RFC 7512 URI.

use atrest::kms::KmsError;

use crate::fail::misconfigured;
use crate::provider::Opening;
use crate::uri::{decode, decode_bytes, options, refuse_left};

/// How a key wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    Gcm,
    KeyWrapPad,
}

/// Which key, where, and where its PIN is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KeyName {
    pub token: Option<String>,
    pub serial: Option<String>,
    pub object: Option<String>,
    pub id: Option<Vec<u8>>,
    pub module_path: Option<String>,
    /// A path.
    pub pin_source: Option<String>,
    pub mechanism: Option<Mechanism>,
}

pub(super) fn parse(opening: &Opening<'_>) -> Result<KeyName, KmsError> {
    let (uri, expected) = (opening.uri, || opening.malformed());
    let (path, query) = uri.rest().split_once('?').unwrap_or((uri.rest(), ""));
    // Before anything that could repeat it.
    if uri.rest().contains("pin-value") {
        return Err(misconfigured(
            "expected no pin-value: key URIs are stored in clear; use pin-source or ATREST_PKCS11_PIN",
        ));
    }
    let mut key = KeyName::default();
    for pair in path.split(';').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(expected)?;
        let text = || decode(value).filter(|text| !text.is_empty()).ok_or_else(expected);
        let first = match name {
            "token" => key.token.replace(text()?).is_none(),
            "serial" => key.serial.replace(text()?).is_none(),
            "object" => key.object.replace(text()?).is_none(),
            "id" => {
                let id = decode_bytes(value).filter(|id| (1..=64).contains(&id.len()));
                key.id.replace(id.ok_or_else(expected)?).is_none()
            }
            "type" if value == "secret-key" => true,
            _ => return Err(expected()),
        };
        if !first {
            return Err(expected());
        }
    }
    if (key.token.is_none() && key.serial.is_none()) || (key.object.is_none() && key.id.is_none()) {
        return Err(expected());
    }
    let mut options = options(query, '&').ok_or_else(expected)?;
    key.module_path = options.remove("module-path");
    key.pin_source = options.remove("pin-source").map(pin_path).transpose()?;
    key.mechanism = match options.remove("mechanism").as_deref() {
        None => None,
        Some("aes-gcm") => Some(Mechanism::Gcm),
        Some("aes-key-wrap-pad") => Some(Mechanism::KeyWrapPad),
        Some(_) => {
            return Err(misconfigured("expected mechanism=aes-gcm or aes-key-wrap-pad"));
        }
    };
    refuse_left(&options)?;
    Ok(key)
}

/// A path, or a `file:` URI. Commands (`|...`), which RFC 7512 permits, are not.
fn pin_path(source: String) -> Result<String, KmsError> {
    let path = match source.strip_prefix("file:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None => &source,
    };
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    Err(misconfigured("expected pin-source=file:/PATH"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(uri: &str) -> Result<KeyName, KmsError> {
        let (uri, environment) = (uri.parse()?, crate::Environment::process());
        parse(&Opening { uri: &uri, environment: &environment, example: "" })
    }

    #[test]
    fn names() {
        let key = parsed(
            "pkcs11:token=my%20token;object=k;id=%00%ff;type=secret-key\
             ?module-path=/m.so&pin-source=file:///run/pin&mechanism=aes-key-wrap-pad",
        )
        .expect("well formed");
        assert_eq!(key.token.as_deref(), Some("my token"));
        assert_eq!(key.id.as_deref(), Some(&[0, 0xff][..]));
        assert_eq!(key.pin_source.as_deref(), Some("/run/pin"));
        assert_eq!(key.mechanism, Some(Mechanism::KeyWrapPad));
    }

    #[test]
    fn what_is_refused() {
        for uri in [
            "pkcs11:",
            "pkcs11:token=t",
            "pkcs11:object=k",
            "pkcs11:token=t;object=k;object=l",
            "pkcs11:token=t;object=k;type=private",
            "pkcs11:token=t;object=k;colour=red",
            "pkcs11:token=t;object=k?pin-value=hunter22",
            "pkcs11:token=t;object=k?pin-source=|cat%20hunter22",
            "pkcs11:token=t;object=k?pin-source=hunter22",
            "pkcs11:token=t;object=k?mechanism=des",
            "pkcs11:token=t;object=k;id=%0",
        ] {
            let error = parsed(uri).expect_err(uri);
            assert!(!format!("{error} {error:?}").contains("hunter22"), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "pkcs11:(token=t;object=k)?[a-z%;=?&0-9-]{0,60}") {
            drop(parsed(&text));
        }
    }
}
