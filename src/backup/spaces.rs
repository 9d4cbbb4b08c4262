//! The keyspaces that a manifest names.

use std::collections::HashMap;

use crate::fs::EncryptedFs;
use crate::ids::DataKeyId;

/// The keyspaces of the store, and which data key belongs to which. One that was shredded
/// is there only if a file is in it.
pub(super) struct Spaces {
    pub(super) names: Vec<String>,
    numbers: HashMap<String, u32>,
    of_key: HashMap<DataKeyId, String>,
}

impl Spaces {
    /// Asked after the files were opened, which brings the newest keys into memory.
    pub(super) fn of(fs: &EncryptedFs) -> Self {
        let keys = fs.keyring().status().data_keys.into_iter();
        let of_key = keys.map(|key| (key.id, key.keyspace)).collect();
        let all = fs.keyring().keyspaces().list().into_iter().enumerate();
        // The first one is that which every store has.
        let kept = all.filter(|(at, keyspace)| *at == 0 || keyspace.active.is_some());
        let mut spaces = Self { names: Vec::new(), numbers: HashMap::new(), of_key };
        for (_, keyspace) in kept {
            spaces.number(keyspace.name);
        }
        spaces
    }

    pub(super) fn index(&mut self, id: DataKeyId) -> u32 {
        let name = self.of_key.get(&id).cloned();
        name.map_or(0, |name| self.number(name))
    }

    fn number(&mut self, name: String) -> u32 {
        // OK because a keyring has at most 65,536 keyspaces.
        let next = u32::try_from(self.names.len()).expect("a keyspace's number");
        *self.numbers.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            next
        })
    }
}
