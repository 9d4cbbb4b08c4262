//! The authenticated part of a keyring: data keys, settings, history.

use std::collections::HashSet;
use std::time::Duration;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use subtle::ConstantTimeEq;
use wincode::config::Configuration;
use wincode::{SchemaRead, SchemaWrite};

use super::audit::Trail;
use super::format::{KEYRING_LEN_MAX, NAME_LEN_MAX, decode_error, encode_error};
use crate::derive::{Derived, Purpose, derive};
use crate::error::{Error, ErrorKind, Result};
use crate::header::Suite;
use crate::ids::{DataKeyId, StoreId, StoreKeyId};
use crate::secret::{DataKey, KEY_LEN, StoreKey, scrubbed};

/// Name of the keyspace that every store has.
pub(crate) const DEFAULT_KEYSPACE: &str = "default";
/// Most keyspaces in one store.
const KEYSPACES_MAX: usize = 65_536;
/// AES-256-GCM, the only way a data key is wrapped.
const WRAP_ALGORITHM: u8 = 1;
/// Store id, data key id, store key id, created, algorithm, zeros, salt.
const WRAP_INFO_LEN: usize = 112;

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
    /// Files of a weaker suite are refused. Default: [`Suite::Aes256Ctr`], which refuses
    /// none.
    pub minimum_suite: Suite,
}

impl Settings {
    /// Shortest rotation period: one second. Every key of a store stays in its keyring, so
    /// a period of milliseconds, most often a mistaken unit, would grow it without end.
    pub const ROTATION_PERIOD_MIN: Duration = Duration::from_secs(1);

    /// Refuses what no new or changed store may have.
    pub(super) fn check(&self) -> Result<()> {
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
            minimum_suite: Suite::Aes256Ctr,
        }
    }
}

/// What may be done with a data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// New files are encrypted under it.
    Active,
    /// Old files are read with it.
    DecryptOnly,
    /// No file is under it; it is destroyed after a time of grace.
    Retiring,
    /// Its wrapped bytes are erased; the record stays as proof.
    Destroyed,
}

#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct RawSettings {
    rotation_period_ns: u64,
    /// 0 for no limit.
    rotation_bytes: u64,
    /// 0 require, 1 allow.
    plaintext: u8,
    minimum_suite: u8,
}

/// One line of data keys with an active one.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct Keyspace {
    pub(crate) name: String,
    pub(crate) active: [u8; 16],
    /// When the clock was first seen to stand before the active key's creation; 0 if not.
    pub(crate) clock_rebased_ns: u64,
}

/// One data key.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct KeyRecord {
    pub(crate) id: [u8; 16],
    /// The store key it is wrapped by.
    pub(crate) store_key_id: [u8; 16],
    /// Index of its keyspace.
    pub(crate) keyspace: u32,
    /// 1 active, 2 decrypt-only, 3 destroyed, 4 retiring.
    pub(crate) state: u8,
    /// 1 if the key may be known outside.
    pub(crate) exposed: u8,
    pub(crate) created_ns: u64,
    /// When it stopped being active; 0 if it is.
    pub(crate) retired_ns: u64,
    /// When the grace of a retiring key ends; 0 in another state.
    pub(crate) retire_after_ns: u64,
    /// When it was destroyed; 0 if it was not.
    pub(crate) destroyed_ns: u64,
    /// Bytes encrypted under it, as of the last commit: a lower bound.
    pub(crate) encrypted_bytes: u64,
    pub(crate) wrap_salt: [u8; 32],
    pub(crate) wrap_commitment: [u8; 32],
    pub(crate) wrapped: [u8; 48],
}

/// Something outside of the store's directories, a backup or hard links, that needs data
/// keys.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct HoldRecord {
    pub(crate) name: String,
    pub(crate) created_ns: u64,
    /// The data keys it needs.
    pub(crate) keys: Vec<[u8; 16]>,
}

#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct Body {
    pub(crate) settings: RawSettings,
    /// Where the store was last written: tells a copied directory from the original.
    pub(crate) location: [u8; 16],
    /// When access was withdrawn on request; 0 if it is not.
    pub(crate) revoked_ns: u64,
    pub(crate) keyspaces: Vec<Keyspace>,
    pub(crate) keys: Vec<KeyRecord>,
    /// Directories of the store's files beside the keyring's own: absolute paths.
    pub(crate) directories: Vec<Vec<u8>>,
    pub(crate) holds: Vec<HoldRecord>,
    pub(crate) audit: Trail,
}

impl Body {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let config = Configuration::default().with_preallocation_size_limit::<KEYRING_LEN_MAX>();
        wincode::config::serialize(self, config).map_err(encode_error)
    }

    /// Decodes an authenticated body.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let config = Configuration::default().with_preallocation_size_limit::<KEYRING_LEN_MAX>();
        let body: Self = wincode::config::deserialize_exact(bytes, config).map_err(decode_error)?;
        body.check().map_err(|what| Error::new(ErrorKind::KeyringCorrupt, what))?;
        Ok(body)
    }

    /// The invariants of every body.
    fn check(&self) -> Result<(), &'static str> {
        Settings::try_from(&self.settings)?;
        if self.keyspaces.is_empty() || self.keyspaces.len() > KEYSPACES_MAX {
            return Err("expected at least one keyspace");
        }
        let mut names = HashSet::with_capacity(self.keyspaces.len());
        for keyspace in &self.keyspaces {
            if keyspace.name.is_empty() || keyspace.name.len() > NAME_LEN_MAX {
                return Err("a keyspace's name is empty or too long");
            }
            if !names.insert(keyspace.name.as_str()) {
                return Err("two keyspaces have one name");
            }
        }
        let mut ids = HashSet::with_capacity(self.keys.len());
        let mut active = 0;
        for key in &self.keys {
            if !ids.insert(key.id) {
                return Err("two data keys have one id");
            }
            let Some(keyspace) = self.keyspaces.get(key.keyspace as usize) else {
                return Err("a data key belongs to no keyspace");
            };
            if (key.state == 1) != (keyspace.active == key.id) {
                return Err("a keyspace's active data key is not marked so");
            }
            active += usize::from(key.state == 1);
            let erased = key.wrapped == [0; 48];
            let grace = key.retire_after_ns != 0;
            if !(1..=4).contains(&key.state)
                || key.exposed > 1
                || (key.state == 3) != erased
                || (key.state == 4) != grace
            {
                return Err("a data key's state is invalid");
            }
        }
        let mut names = HashSet::with_capacity(self.holds.len());
        for hold in &self.holds {
            if hold.name.is_empty()
                || hold.name.len() > NAME_LEN_MAX
                || !names.insert(hold.name.as_str())
            {
                return Err("a hold's name is empty, too long or not unique");
            }
        }
        if self.directories.iter().any(|path| path.first() != Some(&b'/')) {
            return Err("a directory's path is not absolute");
        }
        let shredded = self.keyspaces.iter().filter(|k| k.active == [0; 16]).count();
        if active + shredded != self.keyspaces.len() {
            return Err("a keyspace has no active data key");
        }
        Ok(())
    }

    pub(crate) fn settings(&self) -> Settings {
        // OK because a body is checked when it is decoded and built from valid settings.
        Settings::try_from(&self.settings).expect("checked settings")
    }
}

impl KeyRecord {
    pub(crate) fn state(&self) -> KeyState {
        match self.state {
            1 => KeyState::Active,
            2 => KeyState::DecryptOnly,
            4 => KeyState::Retiring,
            _ => KeyState::Destroyed,
        }
    }

    /// A record of a new active key.
    pub(crate) fn new(
        key: &DataKey,
        keyspace: u32,
        created_ns: u64,
        store_id: StoreId,
        store_key: (StoreKeyId, &StoreKey),
    ) -> Result<Self> {
        let mut record = Self {
            id: *DataKeyId::random()?.as_bytes(),
            store_key_id: [0; 16],
            keyspace,
            state: 1,
            exposed: 0,
            created_ns,
            retired_ns: 0,
            retire_after_ns: 0,
            destroyed_ns: 0,
            encrypted_bytes: 0,
            wrap_salt: [0; 32],
            wrap_commitment: [0; 32],
            wrapped: [0; 48],
        };
        record.wrap(key, store_id, store_key)?;
        Ok(record)
    }

    /// Wraps `key` anew under a store key, with a fresh salt.
    pub(crate) fn wrap(
        &mut self,
        key: &DataKey,
        store_id: StoreId,
        (store_key_id, store_key): (StoreKeyId, &StoreKey),
    ) -> Result<()> {
        self.store_key_id = *store_key_id.as_bytes();
        crate::random::fill(&mut self.wrap_salt)?;
        self.seal(key, store_id, store_key)
    }

    /// Whether all that goes into an unwrap is the same, so that it gives the same key.
    pub(crate) fn same_wrap(&self, other: &Self) -> bool {
        self.id == other.id
            && self.store_key_id == other.store_key_id
            && self.created_ns == other.created_ns
            && self.wrap_salt == other.wrap_salt
            && self.wrap_commitment == other.wrap_commitment
            && self.wrapped == other.wrapped
    }

    /// Wraps `key` under the salt that the record has.
    fn seal(&mut self, key: &DataKey, store_id: StoreId, store_key: &StoreKey) -> Result<()> {
        scrubbed(|| self.seal_here(key, store_id, store_key))
    }

    fn seal_here(&mut self, key: &DataKey, store_id: StoreId, store_key: &StoreKey) -> Result<()> {
        let (info, derived) = self.derive(store_id, store_key);
        let (body, tag_out) = self.wrapped.split_at_mut(KEY_LEN);
        body.copy_from_slice(key.expose());
        let tag = Aes256Gcm::new(derived.key().into())
            .encrypt_inout_detached(derived.nonce().into(), &info, body.into())
            .map_err(|_| {
                Error::new(ErrorKind::InvalidArgument, "the data key cannot be wrapped")
            })?;
        tag_out.copy_from_slice(&tag);
        self.wrap_commitment = *derived.commitment();
        Ok(())
    }

    pub(crate) fn unwrap(&self, store_id: StoreId, store_key: &StoreKey) -> Result<DataKey> {
        scrubbed(|| self.unwrap_here(store_id, store_key))
    }

    fn unwrap_here(&self, store_id: StoreId, store_key: &StoreKey) -> Result<DataKey> {
        let refused = || {
            let id = DataKeyId::from_bytes(self.id);
            Error::new(ErrorKind::KeyringCorrupt, format!("data key {id} does not unwrap"))
        };
        let (info, derived) = self.derive(store_id, store_key);
        if !bool::from(derived.commitment().ct_eq(&self.wrap_commitment)) {
            return Err(refused());
        }
        let mut key = DataKey::zeroed();
        key.bytes_mut().copy_from_slice(&self.wrapped[..KEY_LEN]);
        let mut tag = [0; 16];
        tag.copy_from_slice(&self.wrapped[KEY_LEN..]);
        Aes256Gcm::new(derived.key().into())
            .decrypt_inout_detached(
                derived.nonce().into(),
                &info,
                key.bytes_mut().as_mut_slice().into(),
                &tag.into(),
            )
            .map_err(|_| refused())?;
        Ok(key)
    }

    fn derive(&self, store_id: StoreId, store_key: &StoreKey) -> ([u8; WRAP_INFO_LEN], Derived) {
        let mut info = [0; WRAP_INFO_LEN];
        info[..16].copy_from_slice(store_id.as_bytes());
        info[16..32].copy_from_slice(&self.id);
        info[32..48].copy_from_slice(&self.store_key_id);
        info[48..56].copy_from_slice(&self.created_ns.to_le_bytes());
        info[56] = WRAP_ALGORITHM;
        info[80..].copy_from_slice(&self.wrap_salt);
        (info, derive(store_key.expose(), Purpose::Wrap, &[&info]))
    }
}

impl TryFrom<&RawSettings> for Settings {
    type Error = &'static str;

    fn try_from(raw: &RawSettings) -> Result<Self, &'static str> {
        if raw.rotation_period_ns == 0 {
            return Err("the rotation period is zero");
        }
        Ok(Self {
            rotation_period: Duration::from_nanos(raw.rotation_period_ns),
            rotation_bytes: (raw.rotation_bytes != 0).then_some(raw.rotation_bytes),
            plaintext: match raw.plaintext {
                0 => PlaintextPolicy::Require,
                1 => PlaintextPolicy::Allow,
                _ => return Err("the plaintext policy is unknown"),
            },
            minimum_suite: Suite::from_number(raw.minimum_suite)
                .ok_or("the minimum suite is unknown")?,
        })
    }
}

impl From<&Settings> for RawSettings {
    fn from(settings: &Settings) -> Self {
        Self {
            // 584 years at the most: longer periods mean never.
            rotation_period_ns: u64::try_from(settings.rotation_period.as_nanos())
                .unwrap_or(u64::MAX)
                .max(1),
            rotation_bytes: settings.rotation_bytes.unwrap_or(0),
            plaintext: u8::from(settings.plaintext == PlaintextPolicy::Allow),
            minimum_suite: settings.minimum_suite.number(),
        }
    }
}
