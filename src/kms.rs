//! Key services: the trait they implement, their errors, and the local providers.
//!
//! A [`Kms`] holds the customer's key (CMEK) and does two things with it: wrap and unwrap
//! the 32-byte key of its slot. It is called when a store is opened, when keys rotate, and by
//! one background checker; never on the path of a file.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::error::KmsErrorKind;
use crate::error::{Error, ErrorKind, Result, Source};
use crate::ids::{SlotKeyId, StoreId};
pub use crate::secret::SlotKey;

mod env;
mod key_file;
mod local;
#[cfg(feature = "passphrase")]
mod passphrase;
mod secret_file;

pub use env::EnvKey;
pub use key_file::{KeyFile, generate_key_file};
#[cfg(feature = "passphrase")]
pub use passphrase::Passphrase;
pub use secret_file::SecretFile;

/// The key service that holds the customer's key (CMEK).
///
/// Implementations are blocking and keep to the deadline they are given; embedders with
/// an async runtime call from a blocking thread. A keyring makes each call from a thread of
/// its own, and waits no longer than that. They **MUST NOT** put key material,
/// credentials or tokens into errors, logs or `Debug`.
pub trait Kms: Send + Sync + fmt::Debug {
    /// Names the key, without secrets. It is stored, readable, in the keyring.
    fn key_uri(&self) -> &KeyUri;

    /// Wraps `key`, binding `context` wherever the service can bind one.
    ///
    /// # Errors
    /// See [`KmsErrorKind`]. A success here says nothing about access: some services
    /// wrap with a disabled key.
    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError>;

    /// Unwraps what [`wrap`](Self::wrap) returned for the same context. This is the only
    /// access check: the caller verifies the key against the keyring, so an answer of
    /// garbage with success is caught.
    ///
    /// # Errors
    /// See [`KmsErrorKind`].
    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError>;

    /// Wraps the same slot key again, under the newest version of this key. Services
    /// that can do so without showing the key override this.
    ///
    /// # Errors
    /// See [`KmsErrorKind`].
    fn rewrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.wrap(&self.unwrap(wrapped, context, deadline)?, context, deadline)
    }

    /// The credential that the last call was made with, if it ends and its end is known. Calls
    /// nothing.
    fn credential(&self) -> Option<Credential> {
        None
    }
}

/// What it means that a key service does not accept this process's credentials
/// ([`Unauthenticated`](KmsErrorKind::Unauthenticated)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LapsedCredential {
    /// No answer about the key: a token that nobody renewed is an outage, which is borne
    /// for the grace.
    #[default]
    NoAnswer,
    /// A denial, as if the key itself were refused: for customers who take access away by
    /// taking the credentials away.
    Denial,
}

impl LapsedCredential {
    /// Whether an answer of this kind says that access to the key is gone.
    pub fn denies(self, kind: KmsErrorKind) -> bool {
        kind.denies_access() || (self == Self::Denial && kind == KmsErrorKind::Unauthenticated)
    }
}

/// A credential that a key service is asked with, and that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Until it is no longer accepted.
    pub expires_in: Duration,
    /// How long it lasted when it was given out.
    pub lifetime: Duration,
    /// Whether it is renewed without anybody acting, and the last try to do so did not fail.
    pub renews: bool,
}

impl Credential {
    /// Whether somebody has to act soon: less than a third of its time is left, and nothing
    /// renews it.
    pub fn is_ending(&self) -> bool {
        !self.renews && self.expires_in < self.lifetime / 3
    }
}

/// A slot key as its key service wrapped it, with what is needed to unwrap it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrappedKey {
    /// The version of the customer's key that wrapped it, where the service tells;
    /// otherwise empty.
    pub key_version: String,
    /// The wrapped key, at most 16 KiB, in the service's own format.
    pub blob: Vec<u8>,
}

/// What a wrapped slot key belongs to. Bound as AAD or encryption context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrapContext {
    /// The store.
    pub store_id: StoreId,
    /// The wrapped slot key.
    pub slot_key_id: SlotKeyId,
    /// The version of the context itself, which its slot remembers: the keyring's format
    /// may change, and what was wrapped must go on to unwrap.
    pub version: u16,
}

impl WrapContext {
    /// The version that new slots are bound with.
    pub const VERSION: u16 = 2;

    /// Store id, slot key id and version (little-endian): 34 bytes of AAD.
    pub fn to_bytes(&self) -> [u8; 34] {
        let mut bytes = [0; 34];
        bytes[..16].copy_from_slice(self.store_id.as_bytes());
        bytes[16..32].copy_from_slice(self.slot_key_id.as_bytes());
        bytes[32..].copy_from_slice(&self.version.to_le_bytes());
        bytes
    }
}

/// The moment by which a call has to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline `after` from now.
    pub fn after(after: Duration) -> Self {
        let now = Instant::now();
        // A year is as good as never, and cannot overflow.
        Self(now.checked_add(after).unwrap_or(now + Duration::from_secs(365 * 86_400)))
    }

    /// The time left, zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// A key's name: `file:///etc/app/cmek.key`, `passphrase:`, `env:NAME`,
/// `hcvault://host:8200/transit/keys/name`, and so on. It holds no secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyUri(String);

impl KeyUri {
    /// Longest accepted URI, in bytes: service names and paths are far below it, and the
    /// keyring stores it where nothing is authenticated yet.
    pub const LEN_MAX: usize = 2048;

    /// The part before the first `:`, in lower case.
    pub fn scheme(&self) -> &str {
        self.0.split_once(':').map_or("", |(scheme, _)| scheme)
    }

    /// All after the first `:`.
    pub fn rest(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, rest)| rest)
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyUri {
    type Err = KmsError;

    fn from_str(text: &str) -> Result<Self, KmsError> {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        let scheme = scheme.filter(|scheme| is_scheme(scheme));
        let malformed = |why: &str| {
            // Not the rest: who gets this wrong may have given a passphrase, or the key itself.
            let short = scheme.as_ref().filter(|name| name.len() <= 32);
            let found = short.map_or("no scheme".into(), |name| format!("{name}:…"));
            let len = text.len();
            KmsError::new(
                KmsErrorKind::Misconfigured,
                format!(
                    "malformed key URI: expected SCHEME:REST, {why}, found {found}, {len} bytes"
                ),
            )
        };
        if text.len() > Self::LEN_MAX {
            return Err(malformed("at most 2048 bytes"));
        }
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(malformed("without spaces and control characters"));
        }
        let Some(scheme) = &scheme else {
            return Err(malformed("with a scheme such as file: or env:"));
        };
        Ok(Self(format!("{scheme}{}", &text[scheme.len()..])))
    }
}

/// RFC 3986 section 3.1, in lower case.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyUri({})", self.0)
    }
}

/// A key service's error: its [kind](KmsErrorKind), the key's URI, and the service's own
/// words without secrets.
#[derive(Debug)]
pub struct KmsError {
    kind: KmsErrorKind,
    what: String,
    key_uri: Option<KeyUri>,
    retry_after: Option<Duration>,
    source: Option<Source>,
}

impl KmsError {
    /// A new error; `what` is lower case without a full stop and holds no secret.
    pub fn new(kind: KmsErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), key_uri: None, retry_after: None, source: None }
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Attaches the key's URI.
    #[must_use]
    pub fn with_key_uri(mut self, key_uri: &KeyUri) -> Self {
        self.key_uri.get_or_insert_with(|| key_uri.clone());
        self
    }

    /// Attaches how long the service asks to wait before the next call.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// The kind.
    pub fn kind(&self) -> KmsErrorKind {
        self.kind
    }

    /// How long the service asks to wait before the next call, where it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for KmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key_uri) = &self.key_uri {
            write!(f, "{key_uri}: ")?;
        }
        write!(f, "{}: {}", self.kind, self.what)
    }
}

impl std::error::Error for KmsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<KmsError> for Error {
    fn from(error: KmsError) -> Self {
        Self::new(ErrorKind::Kms(error.kind), "the customer's key is not usable").with_source(error)
    }
}

/// Opens the provider of a local key URI: `file:`, `env:`, and with the feature of that
/// name `passphrase:` (whose words come from the variable `ATREST_PASSPHRASE`).
///
/// # Errors
/// [`KmsErrorKind::Misconfigured`] for a malformed URI or another scheme. The key itself
/// is read at each use, so that taking it away is noticed.
pub fn from_uri(uri: &str) -> Result<Arc<dyn Kms>, KmsError> {
    let uri: KeyUri = uri.parse()?;
    match uri.scheme() {
        "file" => Ok(Arc::new(KeyFile::from_uri(uri)?)),
        "env" => Ok(Arc::new(EnvKey::from_uri(uri)?)),
        #[cfg(feature = "passphrase")]
        "passphrase" => Ok(Arc::new(Passphrase::from_uri(uri)?)),
        scheme => Err(KmsError::new(
            KmsErrorKind::Misconfigured,
            format!("expected the scheme file, env or passphrase, found {scheme:?}"),
        )),
    }
}
