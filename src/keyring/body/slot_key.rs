//! The slot keys that a store keeps, wrapped by its store key, so that whoever has the
//! store open gives every slot a new store key without asking any key service.

use wincode::{SchemaRead, SchemaWrite};

use crate::derive::Purpose;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{SlotKeyId, StoreId, StoreKeyId};
use crate::keyring::wrap::{Place, Wrap};
use crate::secret::{SlotKey, StoreKey};

/// One slot's key.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct KeptSlotKey {
    pub(crate) id: [u8; 16],
    wrap: Wrap,
}

impl KeptSlotKey {
    pub(crate) fn new(
        (id, key): (SlotKeyId, &SlotKey),
        store_id: StoreId,
        (store_key_id, store_key): (StoreKeyId, &StoreKey),
    ) -> Result<Self> {
        let id = *id.as_bytes();
        let place = place(id, store_id, store_key_id);
        let wrap = Wrap::seal(&place, store_key.bytes()?, key.bytes()?)?;
        Ok(Self { id, wrap })
    }

    pub(crate) fn unwrap(
        &self,
        store_id: StoreId,
        (store_key_id, store_key): (StoreKeyId, &StoreKey),
    ) -> Result<SlotKey> {
        let mut key = SlotKey::zeroed();
        let place = place(self.id, store_id, store_key_id);
        if self.wrap.open(&place, store_key.bytes()?, key.bytes_mut()) {
            return Ok(key);
        }
        let id = SlotKeyId::from_bytes(self.id);
        Err(Error::new(ErrorKind::KeyringCorrupt, format!("slot key {id} does not unwrap")))
    }
}

fn place(id: [u8; 16], store_id: StoreId, store_key_id: StoreKeyId) -> Place {
    let by_id = *store_key_id.as_bytes();
    Place { purpose: Purpose::Keep, store_id, key_id: id, by_id, created_ns: 0 }
}
