//! How a process opens a keyring: with which keys, how patiently, and no older than what.

use std::sync::Arc;
use std::time::Duration;

use super::access::AccessPolicy;
use super::body::{PlaintextPolicy, Settings};
use super::format::Image;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::StoreId;
use crate::kms::Kms;

/// How a process uses a keyring. What the store itself does is in [`Settings`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Settings of a new store; an existing one keeps its own.
    pub settings: Settings,
    /// Longest time for all calls to the key service in one operation. A client that takes
    /// longer is left to itself, and the operation ends with
    /// [`Unreachable`](crate::error::KmsErrorKind::Unreachable). Default: 15 s.
    pub kms_deadline: Duration,
    /// Longest time for which opening asks again and again while key services give no answer
    /// about the key: a process that starts beside its key service, or before its own
    /// credentials, then waits instead of ending. Its waits are random, so that many processes do
    /// not ask together when an outage ends, and grow to half a minute at most. The keyring is
    /// read anew before each try and after the answer: what others did meanwhile counts. Default:
    /// zero.
    pub kms_wait: Duration,
    /// When access to the customer's key is checked.
    pub access: AccessPolicy,
    /// Name of the CMEK slot to ask first, such as the region the process runs in.
    /// Default: none; the slots are asked in the order of the keys given.
    pub slot: Option<String>,
    /// Check access, follow the storage and rotate data keys in background threads when it
    /// is due. Default: true. Without them the caller **MUST** call [`Keyring::maintain`](super::Keyring::maintain) every few
    /// minutes, or a lost customer's key is never noticed, and
    /// [`Access::watch`](super::Access::watch) where the storage may hang.
    pub background: bool,
    /// Refuse another store than this one, before any key service is asked. Default: none:
    /// whoever can write to the directory and wrap a key by the customer's key, which with
    /// a public key is everybody, can put a store of his own there, and new files are his to
    /// read.
    pub store_id: Option<StoreId>,
    /// Refuse a keyring older than this, and another store. Default: none.
    pub anchor: Option<Anchor>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

impl Options {
    /// For a store in use that is encrypted from now on: the plaintext files that are
    /// there can be read until they are re-encrypted.
    #[must_use]
    pub fn allowing_plaintext(mut self) -> Self {
        self.settings.plaintext = PlaintextPolicy::Allow;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            kms_deadline: Duration::from_secs(15),
            kms_wait: Duration::ZERO,
            access: AccessPolicy::default(),
            slot: None,
            background: true,
            store_id: None,
            anchor: None,
            clock: Arc::new(SystemClock),
        }
    }
}

/// Names one state of a keyring. Kept outside of the store, it shows when somebody put
/// the whole store back to an older state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Anchor {
    /// The store.
    pub store_id: StoreId,
    /// The generation: the number of commits.
    pub generation: u64,
    /// The MAC of that generation.
    pub mac: [u8; 32],
}

impl std::fmt::Display for Anchor {
    /// As one word, to be noted outside of the store and parsed again.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.store_id, self.generation, crate::hex::encode(&self.mac))
    }
}

impl std::str::FromStr for Anchor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = || {
            let mut parts = text.split(':');
            let store_id = parts.next()?.parse().ok()?;
            let generation = parts.next()?.parse().ok()?;
            let mac = crate::hex::decode_array(parts.next()?)?;
            parts.next().is_none().then_some(Self { store_id, generation, mac })
        };
        parsed().ok_or_else(|| {
            let what =
                "expected an anchor: a store's id, a generation and a MAC with colons between";
            Error::new(ErrorKind::InvalidArgument, what)
        })
    }
}

/// The customer's keys to try when a store is opened: one, or several.
#[derive(Clone, Debug)]
pub struct KmsSet(pub(crate) Vec<Arc<dyn Kms>>);

impl From<Arc<dyn Kms>> for KmsSet {
    fn from(kms: Arc<dyn Kms>) -> Self {
        Self(vec![kms])
    }
}

impl From<Vec<Arc<dyn Kms>>> for KmsSet {
    fn from(kms: Vec<Arc<dyn Kms>>) -> Self {
        Self(kms)
    }
}

impl<T: Kms + 'static> From<Arc<T>> for KmsSet {
    fn from(kms: Arc<T>) -> Self {
        Self(vec![kms])
    }
}

/// Refuses another store than the one that was asked for.
pub(super) fn check_store(image: &Image, options: &Options) -> Result<()> {
    let expected = options.store_id.or(options.anchor.map(|anchor| anchor.store_id));
    match expected {
        Some(expected) if expected != image.fixed.store_id => {
            let what = format!("expected store {expected}, found {}", image.fixed.store_id);
            Err(Error::new(ErrorKind::IdentityMismatch, what))
        }
        _ => Ok(()),
    }
}

/// Refuses an image that is not `anchor`'s or one that follows it.
pub(super) fn check_anchor(image: &Image, anchor: &Anchor) -> Result<()> {
    let fixed = &image.fixed;
    if fixed.store_id != anchor.store_id {
        let what = format!("expected store {}, found {}", anchor.store_id, fixed.store_id);
        return Err(Error::new(ErrorKind::IdentityMismatch, what));
    }
    // The chain of MACs reaches one generation back.
    let forked = (fixed.generation == anchor.generation && *image.mac() != anchor.mac)
        || (fixed.generation == anchor.generation.saturating_add(1)
            && fixed.previous_mac != anchor.mac);
    if fixed.generation < anchor.generation || forked {
        return Err(Error::new(
            ErrorKind::KeyringRolledBack,
            format!(
                "expected keyring generation {} or one that follows it, found {}",
                anchor.generation, fixed.generation
            ),
        ));
    }
    Ok(())
}
