//! The record of one data key, wrapped by the store key.

use wincode::{SchemaRead, SchemaWrite};

use crate::derive::Purpose;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DataKeyId, StoreId, StoreKeyId};
use crate::keyring::key_state::KeyState;
use crate::keyring::wrap::{Place, Wrap};
use crate::secret::{DataKey, StoreKey};

/// One data key.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct KeyRecord {
    pub(crate) id: [u8; 16],
    /// The store key it is wrapped by.
    pub(crate) store_key_id: [u8; 16],
    /// Index of its keyspace.
    pub(crate) keyspace: u32,
    pub(crate) state: KeyState,
    /// Whether the key may be known outside.
    pub(crate) exposed: bool,
    pub(crate) created_ns: u64,
    /// When it stopped being active; 0 if it is.
    pub(crate) retired_ns: u64,
    /// When the grace of a retiring key ends; 0 in another state.
    pub(crate) retire_after_ns: u64,
    /// When it was destroyed; 0 if it was not.
    pub(crate) destroyed_ns: u64,
    /// Bytes encrypted under it, as of the last commit: a lower bound.
    pub(crate) encrypted_bytes: u64,
    pub(crate) wrap: Wrap,
}

impl KeyRecord {
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
            state: KeyState::Active,
            exposed: false,
            created_ns,
            retired_ns: 0,
            retire_after_ns: 0,
            destroyed_ns: 0,
            encrypted_bytes: 0,
            wrap: Wrap::ERASED,
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
        self.wrap = Wrap::seal(&self.place(store_id), store_key.bytes()?, key.bytes()?)?;
        Ok(())
    }

    pub(crate) fn unwrap(&self, store_id: StoreId, store_key: &StoreKey) -> Result<DataKey> {
        let mut key = DataKey::zeroed();
        if self.wrap.open(&self.place(store_id), store_key.bytes()?, key.bytes_mut()) {
            return Ok(key);
        }
        let id = DataKeyId::from_bytes(self.id);
        Err(Error::new(ErrorKind::KeyringCorrupt, format!("data key {id} does not unwrap")))
    }

    /// Whether all that goes into an unwrap is the same, so that it gives the same key.
    pub(crate) fn same_wrap(&self, other: &Self) -> bool {
        self.id == other.id
            && self.store_key_id == other.store_key_id
            && self.created_ns == other.created_ns
            && self.wrap == other.wrap
    }

    /// Marks the key as destroyed and erases its wrapped bytes.
    pub(crate) fn destroy(&mut self, now_ns: u64) {
        self.state = KeyState::Destroyed;
        self.retire_after_ns = 0;
        self.destroyed_ns = now_ns;
        self.wrap = Wrap::ERASED;
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        let destroyed = self.state == KeyState::Destroyed;
        let retiring = self.state == KeyState::Retiring;
        if destroyed != self.wrap.is_erased() || retiring != (self.retire_after_ns != 0) {
            return Err("a data key's state is invalid");
        }
        Ok(())
    }

    fn place(&self, store_id: StoreId) -> Place {
        Place {
            purpose: Purpose::Wrap,
            store_id,
            key_id: self.id,
            by_id: self.store_key_id,
            created_ns: self.created_ns,
        }
    }
}
