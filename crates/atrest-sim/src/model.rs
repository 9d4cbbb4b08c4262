//! What has to be on the disk, whatever happens to it.

use std::collections::{BTreeMap, BTreeSet};

use atrest::Suite;

/// What begins every plaintext: it must stand nowhere on a disk.
pub(crate) const MARKER: &[u8; 16] = b"plaintext-marker";

/// What a file has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// Bytes that were acknowledged.
    pub(crate) bytes: Vec<u8>,
    /// Bytes behind them that may be there, all or a part.
    pub(crate) tail: Vec<u8>,
    /// How they are encrypted.
    pub(crate) suite: Suite,
    /// Whether nothing else may be behind.
    pub(crate) is_finished: bool,
    /// Whether it is the tenant's.
    pub(crate) is_tenants: bool,
}

impl Content {
    /// Whether a reader may find this.
    pub(crate) fn allows(&self, found: &[u8]) -> bool {
        if self.is_finished {
            return found == self.bytes;
        }
        // Suite 1 does not notice what became of bytes that were not synced.
        let is_good = |found: &[u8]| match self.suite {
            Suite::Aes256Ctr => true,
            _ => self.tail.starts_with(found),
        };
        found.strip_prefix(&self.bytes[..]).is_some_and(is_good)
    }
}

/// What may be there: one of several, each `None` where there may be nothing.
pub(crate) type Choice<T> = Vec<Option<T>>;

/// All that is to be there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// Whether the store was created.
    pub(crate) is_created: bool,
    /// Whether it may be marked as revoked, and whether it may not.
    pub(crate) revoked: BTreeSet<bool>,
    /// Files by name.
    pub(crate) files: BTreeMap<String, Choice<Content>>,
    /// Files that were never acknowledged: anything, or nothing.
    pub(crate) loose: BTreeSet<String>,
    /// Files that may be under the key of a shredded keyspace, and then nothing reads them.
    pub(crate) lost: BTreeSet<String>,
    /// What the engine's records are.
    pub(crate) records: BTreeMap<u8, Choice<String>>,
    /// What the backups of the chain hold, by number.
    pub(crate) backups: BTreeMap<u64, BTreeMap<String, Choice<Content>>>,
}

impl Model {
    /// Before a store is.
    pub(crate) fn new() -> Self {
        Self { revoked: BTreeSet::from([false]), ..Self::default() }
    }

    /// What this or the other allows.
    #[must_use]
    pub(crate) fn or(&self, other: &Self) -> Self {
        Self {
            is_created: self.is_created && other.is_created,
            revoked: &self.revoked | &other.revoked,
            files: either(&self.files, &other.files),
            loose: &self.loose | &other.loose,
            lost: &self.lost | &other.lost,
            records: either(&self.records, &other.records),
            backups: if self.backups.len() < other.backups.len() { self } else { other }
                .backups
                .clone(),
        }
    }

    /// Names of files that are there for sure.
    pub(crate) fn sure(&self) -> Vec<String> {
        let sure = self.files.iter().filter(|(_, choice)| !choice.contains(&None));
        sure.map(|(name, _)| name.clone()).filter(|name| !self.lost.contains(name)).collect()
    }

    /// The tenant's files can be read no longer.
    pub(crate) fn lose_tenants(&mut self) {
        let of_tenant =
            |choice: &Choice<Content>| choice.iter().flatten().any(|content| content.is_tenants);
        for (name, choice) in self.files.iter_mut().filter(|(_, choice)| of_tenant(choice)) {
            choice.retain(|way| way.as_ref().is_none_or(|content| !content.is_tenants));
            self.lost.insert(name.clone());
        }
        self.files.retain(|_, choice| !choice.is_empty());
    }
}

fn either<K: Ord + Clone, T: Clone + PartialEq>(
    one: &BTreeMap<K, Choice<T>>,
    other: &BTreeMap<K, Choice<T>>,
) -> BTreeMap<K, Choice<T>> {
    let mut both = BTreeMap::new();
    let nothing = vec![None];
    for key in one.keys().chain(other.keys()) {
        let mut choice = one.get(key).unwrap_or(&nothing).clone();
        for way in other.get(key).unwrap_or(&nothing) {
            if !choice.contains(way) {
                choice.push(way.clone());
            }
        }
        both.insert(key.clone(), choice);
    }
    both
}
