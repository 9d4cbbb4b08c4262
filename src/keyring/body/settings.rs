//! A store's settings, and the tagged entries that hold them. `docs/FORMAT.md` section 6.

use std::time::Duration;

use wincode::{SchemaRead, SchemaWrite};

use super::IntegrityPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::suite::Integrity;
use crate::tags::{Refused, Tags, Unknown};

/// Whether files without encryption, from before it was switched on, may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaintextPolicy {
    /// Refuse them: for a store that was encrypted from its first file.
    Require,
    /// Read them as they are. Somebody who can write to the disk can then put plaintext
    /// in the place of an encrypted file.
    Allow,
}

/// What a store does by itself. Stored in its keyring, under its MAC.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Settings {
    /// Age at which the data key is rotated, at least
    /// [`ROTATION_PERIOD_MIN`](Self::ROTATION_PERIOD_MIN). Default: 30 days.
    #[serde(serialize_with = "as_seconds", rename = "rotation_period_s")]
    pub rotation_period: Duration,
    /// Bytes after which the data key is rotated; `None` (the default) for no limit. The
    /// count is kept across restarts to within an eighth of the limit and what one minute
    /// writes.
    pub rotation_bytes: Option<u64>,
    /// Default: [`PlaintextPolicy::Require`].
    pub plaintext: PlaintextPolicy,
    /// What files have to be, for each kind. Default: [`Integrity::Confidential`] for all.
    pub integrity: IntegrityPolicy,
}

impl Settings {
    /// Shortest rotation period: one second. Every key of a store stays in its keyring, so
    /// a period of milliseconds, most often a mistaken unit, would grow it without end.
    pub const ROTATION_PERIOD_MIN: Duration = Duration::from_secs(1);

    /// Refuses what no new or changed store may have.
    pub(in super::super) fn check(&self) -> Result<()> {
        if self.rotation_period >= Self::ROTATION_PERIOD_MIN {
            return Ok(());
        }
        let what = format!(
            "expected a rotation period of at least {:?}, found {:?}",
            Self::ROTATION_PERIOD_MIN,
            self.rotation_period
        );
        Err(Error::new(ErrorKind::InvalidArgument, what))
    }
}

fn as_seconds<S: serde::Serializer>(period: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(period.as_secs())
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rotation_period: Duration::from_secs(30 * 86_400),
            rotation_bytes: None,
            plaintext: PlaintextPolicy::Require,
            integrity: IntegrityPolicy::default(),
        }
    }
}

/// Tag of the rotation period in nanoseconds; without it data keys do not age.
const ROTATION_PERIOD: u16 = 1;
/// Tag of the bytes after which a data key rotates; without it there is no limit.
const ROTATION_BYTES: u16 = 2;
/// Tag that is there if plaintext files are allowed.
const PLAINTEXT: u16 = 3;
/// Tag that is there if files have to be authenticated. Critical: whoever passed over it
/// would read what the store refuses.
const AUTHENTICATED: u16 = 4;
/// Tag of the kinds of files that have to be, where not all do: their numbers, ascending.
const AUTHENTICATED_KINDS: u16 = 5;
const KNOWN: [u16; 5] =
    [ROTATION_PERIOD, ROTATION_BYTES, PLAINTEXT, AUTHENTICATED, AUTHENTICATED_KINDS];

/// The settings as they are stored, those of newer versions of this library too.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct RawSettings(pub(in super::super) Tags);

impl RawSettings {
    pub(super) fn check(&self) -> Result<(), Refused> {
        self.0.check(&KNOWN)?;
        Ok(Settings::try_from(self).map(drop)?)
    }

    /// Replaces the settings that this version knows.
    pub(crate) fn set(&mut self, settings: &Settings) {
        // 584 years at the most: longer periods mean never.
        let period_ns = u64::try_from(settings.rotation_period.as_nanos()).ok();
        let Self(tags) = self;
        tags.set_number(ROTATION_PERIOD, Unknown::Keep, period_ns.map(|ns| ns.max(1)));
        tags.set_number(ROTATION_BYTES, Unknown::Keep, settings.rotation_bytes);
        let allowed = settings.plaintext == PlaintextPolicy::Allow;
        tags.set_flag(PLAINTEXT, Unknown::Keep, allowed);
        let kinds = settings.integrity.to_numbers();
        let all = settings.integrity.is_all(Integrity::Authenticated);
        tags.set_flag(AUTHENTICATED, Unknown::Refuse, all);
        let some = (!all && !kinds.is_empty()).then_some(kinds);
        tags.set_bytes(AUTHENTICATED_KINDS, Unknown::Refuse, some);
    }
}

impl From<&Settings> for RawSettings {
    fn from(settings: &Settings) -> Self {
        let mut raw = Self(Tags::default());
        raw.set(settings);
        raw
    }
}

impl TryFrom<&RawSettings> for Settings {
    type Error = &'static str;

    fn try_from(RawSettings(tags): &RawSettings) -> Result<Self, &'static str> {
        let period_ns = tags.number(ROTATION_PERIOD)?;
        if period_ns == Some(0) {
            return Err("the rotation period is zero");
        }
        let allowed = tags.flag(PLAINTEXT)?;
        Ok(Self {
            rotation_period: period_ns.map_or(Duration::MAX, Duration::from_nanos),
            rotation_bytes: tags.number(ROTATION_BYTES)?.filter(|bytes| *bytes != 0),
            plaintext: if allowed { PlaintextPolicy::Allow } else { PlaintextPolicy::Require },
            integrity: IntegrityPolicy::from_tags(
                tags.flag(AUTHENTICATED)?,
                tags.bytes(AUTHENTICATED_KINDS),
            )?,
        })
    }
}
