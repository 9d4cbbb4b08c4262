//! Key URIs of the form `scheme://AUTHORITY/PATH?OPTION=VALUE&...`, taken apart.
//!
//! Strict on purpose: URIs are stored, readable, and read back before anything is
//! authenticated. An unknown option, a user name or a fragment is refused, and no error
//! repeats the URI, since whatever does not belong there may be a secret.

use std::collections::BTreeMap;

use atrest::kms::{KeyUri, KmsError};

use crate::fail::misconfigured;

/// A key URI's parts, percent-decoded. Options are taken one by one; [`finish`] refuses
/// what is left.
///
/// [`finish`]: Self::finish
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// All before the first `/`.
    pub authority: String,
    /// The path without its leading `/`; empty if there is none.
    pub path: String,
    options: BTreeMap<String, String>,
}

impl Parts {
    /// Takes `uri` apart; `example` shows the expected form.
    pub(crate) fn parse(uri: &KeyUri, example: &str) -> Result<Self, KmsError> {
        let expected = || misconfigured(format!("malformed key URI: expected {example}"));
        let rest = uri.rest().strip_prefix("//").ok_or_else(expected)?;
        if rest.contains('#') {
            return Err(misconfigured("malformed key URI: found a fragment (#)"));
        }
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        if location.contains('@') {
            return Err(misconfigured("malformed key URI: found a user name or password (@)"));
        }
        let (authority, path) = location.split_once('/').unwrap_or((location, ""));
        Ok(Self {
            authority: decode(authority).filter(|a| !a.is_empty()).ok_or_else(expected)?,
            path: decode(path).ok_or_else(expected)?,
            options: options(query, '&').ok_or_else(|| {
                misconfigured("malformed key URI: expected options as NAME=VALUE, each once")
            })?,
        })
    }

    /// Removes and returns an option.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.options.remove(name)
    }

    /// Refuses options that nobody took. Their values are not shown.
    pub(crate) fn finish(self) -> Result<(), KmsError> {
        refuse_left(&self.options)
    }
}

/// Refuses options that are not known by name. Shows at most one name, which a typing
/// error makes, and never a value.
pub(crate) fn refuse_left(options: &BTreeMap<String, String>) -> Result<(), KmsError> {
    match options.keys().next() {
        Some(name) => {
            let name: String = name.chars().take(24).collect();
            Err(misconfigured(format!("malformed key URI: unknown option {name:?}")))
        }
        None => Ok(()),
    }
}

/// `NAME=VALUE` pairs, percent-decoded; `None` if one is malformed or named twice.
pub(crate) fn options(text: &str, separator: char) -> Option<BTreeMap<String, String>> {
    let mut options = BTreeMap::new();
    for pair in text.split(separator).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        if options.insert(decode(name)?, decode(value)?).is_some() {
            return None;
        }
    }
    Some(options)
}

/// Percent-decodes; `None` for a broken escape, a control character or other than UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    String::from_utf8(decode_bytes(text)?).ok().filter(|text| !text.chars().any(char::is_control))
}

/// Percent-decodes to any bytes; `None` for a broken escape.
pub(crate) fn decode_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

/// Whether this is safe as one segment of a request path: it cannot climb, split or end it.
pub(crate) fn is_segment(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
    !text.is_empty() && text.chars().all(good) && !text.chars().all(|c| c == '.')
}

/// `HOST:PORT`, `HOST`, or the same with an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name or address in lower case, IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

impl HostPort {
    pub(crate) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, after.strip_prefix(':').or_else(|| after.is_empty().then_some(""))?)
            }
            None => {
                let (host, port) = match text.split_once(':') {
                    Some((host, port)) if !port.is_empty() => (host, port),
                    Some(_) => return None,
                    None => (text, ""),
                };
                (is_segment(host) && !host.starts_with('.')).then_some((host, port))?
            }
        };
        let port = if port.is_empty() { default_port } else { port.parse().ok()? };
        (port != 0).then(|| Self { host: host.to_ascii_lowercase(), port })
    }

    /// Whether it can only be this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.host.parse::<std::net::IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost",
        }
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A service's address given as an option: `https://` and a host under one of `domains`,
/// or anything on this machine. Credentials are sent there, so an edited keyring
/// **MUST NOT** name another host.
pub(crate) fn endpoint(text: &str, domains: &[&str]) -> Result<String, KmsError> {
    let refuse = || {
        misconfigured(format!(
            "expected an endpoint https://HOST under {} or on this machine",
            domains.join(", ")
        ))
    };
    let (scheme, rest) = text.trim_end_matches('/').split_once("://").ok_or_else(refuse)?;
    let default_port = if scheme == "https" { 443 } else { 80 };
    let address = HostPort::parse(rest, default_port).ok_or_else(refuse)?;
    let host = &address.host;
    let under = |domain: &&str| host == *domain || host.ends_with(&format!(".{domain}"));
    let allowed = match scheme {
        "https" => address.is_loopback() || domains.iter().any(under),
        "http" => address.is_loopback(),
        _ => false,
    };
    if allowed { Ok(format!("{scheme}://{address}")) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Parts, KmsError> {
        Parts::parse(&text.parse()?, "x://HOST/PATH")
    }

    #[test]
    fn takes_a_uri_apart() {
        let mut parts = parse("x://host:1/a/b%20c?ca=%2Fca.pem&tls=false").expect("well formed");
        assert_eq!((parts.authority.as_str(), parts.path.as_str()), ("host:1", "a/b c"));
        assert_eq!(parts.take("ca").as_deref(), Some("/ca.pem"));
        assert!(parts.finish().expect_err("tls is left").to_string().contains("\"tls\""));
    }

    #[test]
    fn refuses_what_may_be_a_secret_without_showing_it() {
        for text in [
            "x://user:hunter22@host/key",
            "x://host/key?password=hunter22",
            "x://host/key?ca=a&ca=hunter22",
            "x://host/key#hunter22",
            "x://host/key?hunter22",
            "x://host/%zz",
            "x:host",
            "x:///path",
        ] {
            let error = parse(text).and_then(Parts::finish).expect_err(text);
            assert!(!format!("{error} {error:?}").contains("hunter22"), "{error:?}");
        }
    }

    #[test]
    fn addresses() {
        let good = |text, shown: &str| {
            assert_eq!(HostPort::parse(text, 8200).expect(text).to_string(), shown);
        };
        good("vault.example.com", "vault.example.com:8200");
        good("127.0.0.1:1", "127.0.0.1:1");
        good("[::1]", "[::1]:8200");
        good("Vault.EXAMPLE.com", "vault.example.com:8200");
        good("[::1]:443", "[::1]:443");
        for bad in
            ["", ":1", "a:", "a:0", "a:99999", "a:1:2", "[::1", "[x]", "::1", "a b", "..", "a/b"]
        {
            assert_eq!(HostPort::parse(bad, 1), None, "{bad}");
        }
    }

    #[test]
    fn endpoints_stay_with_the_service() {
        let domains = ["amazonaws.com"];
        for good in
            ["https://kms.eu-west-1.amazonaws.com", "http://127.0.0.1:80", "https://[::1]:1/"]
        {
            endpoint(good, &domains).expect(good);
        }
        for bad in [
            "https://amazonaws.com.evil.example",
            "https://evilamazonaws.com",
            "http://kms.eu-west-1.amazonaws.com",
            "https://kms.amazonaws.com/path",
            "https://user@kms.amazonaws.com",
            "http://10.0.0.1",
            "127.0.0.1:80",
        ] {
            endpoint(bad, &domains).expect_err(bad);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "x://.{0,100}", address in ".{0,40}") {
            if let Ok(parts) = parse(&text) {
                prop_assert!(!parts.authority.is_empty());
                drop(parts.finish());
            }
            if let Some(address) = HostPort::parse(&address, 1) {
                prop_assert_eq!(HostPort::parse(&address.to_string(), 2), Some(address));
            }
            drop(endpoint(&address, &["example.com"]));
        }
    }
}
