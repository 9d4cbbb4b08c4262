//! The settings of a backed-up store, as a manifest holds them. Its own entries, not the
//! keyring's: a manifest is read for as long as there are backups, whatever becomes of
//! keyrings. `docs/FORMAT.md` section 13.

use std::time::Duration;

use wincode::{SchemaRead, SchemaWrite};

use crate::keyring::{IntegrityPolicy, PlaintextPolicy, Settings};
use crate::suite::Integrity;
use crate::tags::{Refused, Tags, Unknown};

const ROTATION_PERIOD: u16 = 1;
const ROTATION_BYTES: u16 = 2;
const PLAINTEXT: u16 = 3;
const AUTHENTICATED: u16 = 4;
const AUTHENTICATED_KINDS: u16 = 5;
const KNOWN: [u16; 5] =
    [ROTATION_PERIOD, ROTATION_BYTES, PLAINTEXT, AUTHENTICATED, AUTHENTICATED_KINDS];

#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(super) struct ManifestSettings(pub(super) Tags);

impl ManifestSettings {
    pub(super) fn check(&self) -> Result<(), Refused> {
        self.0.check(&KNOWN)?;
        Ok(Settings::try_from(self).map(drop)?)
    }
}

impl From<&Settings> for ManifestSettings {
    fn from(settings: &Settings) -> Self {
        // 584 years at the most: longer periods mean never.
        let period_ns = u64::try_from(settings.rotation_period.as_nanos()).ok();
        let mut tags = Tags::default();
        tags.set_number(ROTATION_PERIOD, Unknown::Keep, period_ns);
        tags.set_number(ROTATION_BYTES, Unknown::Keep, settings.rotation_bytes);
        let allowed = settings.plaintext == PlaintextPolicy::Allow;
        tags.set_flag(PLAINTEXT, Unknown::Keep, allowed);
        // A restore that passed over it would make a store that accepts more.
        let kinds = settings.integrity.to_numbers();
        let all = settings.integrity.is_all(Integrity::Authenticated);
        tags.set_flag(AUTHENTICATED, Unknown::Refuse, all);
        let some = (!all && !kinds.is_empty()).then_some(kinds);
        tags.set_bytes(AUTHENTICATED_KINDS, Unknown::Refuse, some);
        Self(tags)
    }
}

impl TryFrom<&ManifestSettings> for Settings {
    type Error = &'static str;

    fn try_from(ManifestSettings(tags): &ManifestSettings) -> Result<Self, &'static str> {
        let period_ns = tags.number(ROTATION_PERIOD)?;
        if period_ns == Some(0) {
            return Err("the rotation period is zero");
        }
        let allowed = tags.flag(PLAINTEXT)?;
        Ok(Self {
            rotation_period: period_ns.map_or(Duration::MAX, Duration::from_nanos),
            rotation_bytes: tags.number(ROTATION_BYTES)?,
            plaintext: if allowed { PlaintextPolicy::Allow } else { PlaintextPolicy::Require },
            integrity: IntegrityPolicy::from_tags(
                tags.flag(AUTHENTICATED)?,
                tags.bytes(AUTHENTICATED_KINDS),
            )?,
        })
    }
}
