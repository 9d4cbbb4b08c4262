//! One HTTP call: a deadline, a size limit, TLS, and errors without secrets.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atrest::kms::{Deadline, KmsError, KmsErrorKind, SecretFile};
use ureq::Agent;
use ureq::http::{Method, Request};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use zeroize::Zeroizing;

use crate::fail::{fail, misconfigured, protocol};
use crate::redact::redact;
use crate::uri::HostPort;

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
mod form;
mod key_text;
#[cfg(any(feature = "azure", feature = "gcp"))]
mod token;

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
pub(crate) use form::{FORM, form};
pub(crate) use key_text::KeyText;
#[cfg(any(feature = "aws", feature = "gcp", feature = "vault"))]
pub(crate) use key_text::key_from_base64;
#[cfg(feature = "azure")]
pub(crate) use key_text::key_from_base64_url;
#[cfg(any(feature = "azure", feature = "gcp"))]
pub(crate) use token::Token;

/// Longest accepted answer, in bytes: real ones are below 20 KiB.
const ANSWER_LEN_MAX: usize = 64 * 1024;
/// Most seconds of a `Retry-After` that are believed.
const RETRY_AFTER_SECS_MAX: u64 = 3600;
/// Longest CA file, in bytes: a whole system bundle is about 220 KiB.
const CA_LEN_MAX: usize = 1024 * 1024;

/// An HTTP client for one service. No redirect is followed, since a redirected request
/// would take its token along, and no connection is kept, since calls are minutes apart
/// and an idle one would keep the last answer in its buffer.
pub(crate) struct Rest {
    remote: bool,
    /// A path.
    ca: Option<String>,
    /// The client, and what was in the CA file that it trusts.
    made: Mutex<(Agent, Vec<u8>)>,
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rest(..)")
    }
}

/// What to send. Headers and body may hold secrets, so there is no `Debug`.
pub(crate) struct Call<'a> {
    pub method: Method,
    pub url: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// What came back, whatever its status. The body may hold the key, so there is no `Debug`.
pub(crate) struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    body: Zeroizing<Vec<u8>>,
    body_len: usize,
}

impl Rest {
    /// A client for the service at `url`, which trusts the certificates in `ca` as they are at
    /// each call, or the web's without one. The environment's proxy is used for `https` to
    /// other machines.
    ///
    /// # Errors
    /// `Misconfigured` if the file holds no certificate.
    pub(crate) fn new(url: &str, ca: Option<&str>) -> Result<Self, KmsError> {
        let remote = url.starts_with("https://") && !is_loopback(url);
        let made = match ca {
            Some(path) => trusting(&read_ca(path)?, path, remote)?,
            None => (agent(RootCerts::WebPki, remote), Vec::new()),
        };
        Ok(Self { remote, ca: ca.map(str::to_owned), made: Mutex::new(made) })
    }

    /// A client for the token endpoint at `url`, which a long-lived credential is sent to.
    /// The CA of a key URI is believed for the key service alone, since who edits a
    /// keyring edits its URIs; on this machine there is no network to be read.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(any(feature = "azure", feature = "gcp"))]
    pub(crate) fn for_tokens(url: &str, ca: Option<&str>) -> Result<Self, KmsError> {
        Self::new(url, token_ca(url, ca))
    }

    /// A client for metadata services, which a proxy would not reach.
    #[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
    pub(crate) fn metadata() -> Self {
        let made = (agent(RootCerts::WebPki, false), Vec::new());
        Self { remote: false, ca: None, made: Mutex::new(made) }
    }

    /// The client that trusts what is in the CA file now; while that is being replaced, and so
    /// away or empty, what was in it before.
    fn agent(&self) -> Agent {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &self.ca
            && let Ok(pem) = read_ca(path)
            && pem.bytes() != made.1
            && let Ok(anew) = trusting(&pem, path, self.remote)
        {
            *made = anew;
        }
        made.0.clone()
    }

    /// Sends one request and reads its whole answer before the deadline.
    ///
    /// # Errors
    /// `Unreachable` without an answer, `Protocol` for one that is too long or not HTTP.
    pub(crate) fn send(&self, call: &Call<'_>, deadline: Deadline) -> Result<Answer, KmsError> {
        #[cfg(feature = "danger-internals")]
        if let Some(answer) = crate::script::next() {
            return Answer::scripted(answer);
        }
        refuse_log_of_bytes()?;
        let left = deadline.remaining();
        if left.is_zero() {
            return Err(fail(KmsErrorKind::Unreachable, "the deadline passed before an answer"));
        }
        let mut request = Request::builder().method(&call.method).uri(call.url);
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(call.body)
            .map_err(|_| misconfigured("a token or name has characters that HTTP forbids"))?;
        let agent = self.agent();
        let request = agent.configure_request(request).timeout_global(Some(left)).build();
        let response = agent.run(request).map_err(no_answer)?;
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok())
            .map(|secs| Duration::from_secs(secs.min(RETRY_AFTER_SECS_MAX)));
        // One allocation, so that growing leaves no copy of a key behind.
        let mut body = Zeroizing::new(vec![0_u8; ANSWER_LEN_MAX + 1]);
        let mut reader = response.into_body().into_reader();
        let mut body_len = 0;
        while body_len < body.len() {
            match reader.read(&mut body[body_len..]) {
                Ok(0) => break,
                Ok(read) => body_len += read,
                Err(source) => {
                    return Err(
                        fail(KmsErrorKind::Unreachable, "the answer broke off").with_source(source)
                    );
                }
            }
        }
        if body_len > ANSWER_LEN_MAX {
            return Err(protocol(format!(
                "expected an answer of at most {ANSWER_LEN_MAX} bytes, found more"
            )));
        }
        Ok(Answer { status, retry_after, body, body_len })
    }
}

impl Answer {
    /// An answer of a script, or none after the last one.
    #[cfg(feature = "danger-internals")]
    fn scripted(text: Option<Vec<u8>>) -> Result<Self, KmsError> {
        let text = text.ok_or_else(|| fail(KmsErrorKind::Unreachable, "no more answers"))?;
        let mut parts = text.splitn(2, |byte| *byte == b'\n');
        let (head, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let head = String::from_utf8_lossy(head);
        let mut head = head.split(' ');
        let status = head.next().and_then(|text| text.parse().ok()).unwrap_or(200);
        let retry_after = head.next().and_then(|text| text.parse().ok());
        let retry_after =
            retry_after.map(|secs: u64| Duration::from_secs(secs.min(RETRY_AFTER_SECS_MAX)));
        let body_len = body.len().min(ANSWER_LEN_MAX);
        Ok(Self { status, retry_after, body: Zeroizing::new(body.to_vec()), body_len })
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body[..self.body_len]
    }

    /// The body as JSON of a known shape. The error does not repeat it.
    pub(crate) fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, KmsError> {
        serde_json::from_slice(self.body()).map_err(|_| {
            protocol(format!(
                "status {}: {} bytes that are not the expected JSON",
                self.status, self.body_len
            ))
        })
    }

    /// An error with this answer's status and delay, and `said` without `secrets`.
    pub(crate) fn fail(&self, kind: KmsErrorKind, said: &str, secrets: &[&str]) -> KmsError {
        let error = fail(kind, format!("status {}: {}", self.status, redact(said, secrets)));
        match self.retry_after {
            Some(after) => error.with_retry_after(after),
            None => error,
        }
    }

    /// What an answer says that is not in the service's own words: never that access is
    /// denied, since a gateway in between, or another service behind the same address,
    /// answers 401, 403 and 404 as well.
    pub(crate) fn kind_by_status(&self) -> KmsErrorKind {
        match self.status {
            429 => KmsErrorKind::Throttled,
            401 | 403 | 404 | 408 | 500..=599 => KmsErrorKind::Unreachable,
            _ => KmsErrorKind::Protocol,
        }
    }

    /// What a failure of a machine's metadata service says: whatever its status, nothing
    /// about the key.
    #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
    pub(crate) fn kind_of_metadata(&self) -> KmsErrorKind {
        match self.status {
            429 => KmsErrorKind::Throttled,
            _ => KmsErrorKind::Unreachable,
        }
    }
}

/// JSON to send, in one allocation that is zeroized.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    // Twice the longest blob (16 KiB) in base64, and names.
    let mut body = Zeroizing::new(Vec::with_capacity(48 * 1024));
    serde_json::to_writer(&mut *body, value)
        .map_err(|_| protocol("the request does not serialize"))?;
    Ok(body)
}

/// At this level the client writes all that it sends and hears to the log, as it is without TLS.
fn refuse_log_of_bytes() -> Result<(), KmsError> {
    if log::log_enabled!(target: "ureq_proto::util", log::Level::Trace) {
        let what = "the log takes every byte of requests and answers, with tokens and keys: \
                    filter `ureq_proto` out of the log";
        return Err(misconfigured(what));
    }
    Ok(())
}

fn no_answer(error: ureq::Error) -> KmsError {
    use ureq::Error as E;
    let (kind, what) = match &error {
        E::Timeout(_) => (KmsErrorKind::Unreachable, "no answer in time"),
        E::HostNotFound => (KmsErrorKind::Unreachable, "the host's name has no address"),
        E::Rustls(_) | E::Tls(_) => (KmsErrorKind::Unreachable, "the TLS handshake failed"),
        E::BadUri(_) | E::Http(_) | E::InvalidProxyUrl | E::Pem(_) => {
            (KmsErrorKind::Misconfigured, "the service cannot be addressed")
        }
        // How rustls refuses a certificate through an `io::Error`.
        E::Io(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            (KmsErrorKind::Unreachable, "the TLS handshake failed")
        }
        E::Io(_) | E::ConnectionFailed => (KmsErrorKind::Unreachable, "the connection failed"),
        E::Protocol(_) => (KmsErrorKind::Unreachable, "the answer is not HTTP"),
        _ => (KmsErrorKind::Unreachable, "no answer"),
    };
    fail(kind, what).with_source(error)
}

/// Whether the URL's host can only be this machine.
fn is_loopback(url: &str) -> bool {
    let host = url.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    let address = host.and_then(|host| HostPort::parse(host, 443));
    address.is_some_and(|address| address.is_loopback())
}

#[cfg(any(feature = "azure", feature = "gcp"))]
fn token_ca<'a>(url: &str, ca: Option<&'a str>) -> Option<&'a str> {
    ca.filter(|_| is_loopback(url))
}

/// A client that trusts `roots`; a `remote` one goes through the environment's proxy, which
/// without TLS would read the token.
fn agent(roots: RootCerts, remote: bool) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .user_agent(concat!("atrest/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots).build());
    let config = if remote { config } else { config.proxy(None) };
    config.build().new_agent()
}

fn read_ca(path: &str) -> Result<SecretFile, KmsError> {
    SecretFile::read(path, CA_LEN_MAX).map_err(|source| {
        misconfigured(format!("the CA file {path} cannot be read")).with_source(source)
    })
}

/// A client that trusts the certificates in the CA file, and what is in that.
fn trusting(pem: &SecretFile, path: &str, remote: bool) -> Result<(Agent, Vec<u8>), KmsError> {
    let certificates: Vec<Certificate<'static>> = ureq::tls::parse_pem(pem.bytes())
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(misconfigured(format!("expected certificates in {path}, found none")));
    }
    let roots = RootCerts::Specific(Arc::new(certificates));
    Ok((agent(roots, remote), pem.bytes().to_vec()))
}

#[cfg(all(test, feature = "all"))]
mod tests {
    use super::*;

    #[test]
    fn the_ca_of_a_key_uri_is_not_believed_for_token_endpoints() {
        for url in [
            "https://oauth2.googleapis.com/token",
            "https://login.microsoftonline.com:443/tenant/oauth2/v2.0/token",
            "https://127.0.0.1.example/token",
        ] {
            assert_eq!(token_ca(url, Some("/evil.pem")), None, "{url}");
        }
        assert_eq!(token_ca("https://127.0.0.1:1/token", Some("/ca.pem")), Some("/ca.pem"));
        // Not even looked at: such a file would be refused.
        Rest::for_tokens("https://oauth2.googleapis.com/token", Some("/nonexistent.pem"))
            .expect("the web's roots");
    }

    #[test]
    fn a_status_alone_never_denies() {
        for status in 100..1000 {
            let answer = Answer {
                status,
                retry_after: None,
                body: Zeroizing::new(b"default backend - 404".to_vec()),
                body_len: 21,
            };
            assert!(!answer.kind_by_status().denies_access(), "{status}");
        }
    }
}
