//! Files with several names: those of which some are not below the store's directories
//! keep their data keys, since nobody looks at them before a key is destroyed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::places::Places;
use crate::error::Result;
use crate::ids::DataKeyId;
use crate::keyring::{KeyState, Keyring};
use crate::scan::{Found, Visitor, scan};
use crate::vfs::{FileStat, Inode, Vfs};

/// The name of the [hold](crate::keyring::Holds) on data keys of files that have hard links
/// outside of the store's directories, such as a checkpoint. A retirement or a re-encryption
/// that meets one registers it; it stays until somebody
/// [releases](crate::keyring::Holds::release) it, who knows that those links are gone. Links that
/// a running [backup](crate::backup::Snapshot) keeps, of this process or another, are none of them.
///
/// What the library itself takes a name away from is remembered until the next retirement in
/// this process. A file that loses its names in the store past the library, or in a process
/// that ends before a retirement, is not found.
pub const HARD_LINKS_HOLD: &str = "hard links outside of the store";

/// Files with several names, and the names that were met.
#[derive(Default)]
pub(super) struct Linked(HashMap<Inode, OneFile>);

struct OneFile {
    key: DataKeyId,
    links: u64,
    names: HashSet<PathBuf>,
}

impl Linked {
    pub(super) fn add(&mut self, stat: &FileStat, key: DataKeyId, path: impl FnOnce() -> PathBuf) {
        let Some(inode) = stat.shared_inode() else { return };
        let new = || OneFile { key, links: 0, names: HashSet::new() };
        let file = self.0.entry(inode).or_insert_with(new);
        file.links = file.links.max(stat.links);
        file.names.insert(path());
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (inode, file) in other.0 {
            match self.0.get_mut(&inode) {
                Some(known) => {
                    known.links = known.links.max(file.links);
                    known.names.extend(file.names);
                }
                None => drop(self.0.insert(inode, file)),
            }
        }
    }

    /// Keeps the files that have more names than were met, under keys that `wanted` tells.
    fn keep_elsewhere(&mut self, wanted: impl Fn(DataKeyId) -> bool) {
        self.0.retain(|_, file| file.links > file.names.len() as u64 && wanted(file.key));
    }
}

/// Registers the hold on the keys of files that have more names than were met, and of those
/// that are `gone` from the store and may have names elsewhere.
pub(super) fn hold_linked_elsewhere(
    places: &Places,
    vfs: &Arc<dyn Vfs>,
    mut linked: Linked,
    gone: &HashSet<DataKeyId>,
) -> Result<()> {
    let free = free_keys(places.keyring());
    linked.keep_elsewhere(|key| free.contains(&key));
    let mut keys: HashSet<DataKeyId> = gone.intersection(&free).copied().collect();
    if !linked.0.is_empty() {
        keys.extend(still_elsewhere(places, vfs, linked)?);
    }
    hold(places.keyring(), &keys.into_iter().collect::<Vec<_>>())
}

/// The keys of those files that a second look finds just so.
fn still_elsewhere(
    places: &Places,
    vfs: &Arc<dyn Vfs>,
    mut linked: Linked,
) -> Result<HashSet<DataKeyId>> {
    // Names came and went while they were counted, those of a running backup too. What is
    // missing at a second look is missing.
    let suspects: HashSet<Inode> = linked.0.keys().copied().collect();
    let new = || Again { suspects: &suspects, names: HashMap::new() };
    let mut names: HashMap<Inode, HashSet<PathBuf>> = HashMap::new();
    let (found, _) = scan(vfs, &places.directories().list(), &|_| {}, new)?;
    for part in found {
        for (inode, found) in part.names {
            names.entry(inode).or_default().extend(found);
        }
    }
    let elsewhere = |inode: Inode, names: &HashSet<PathBuf>| {
        let stats = names.iter().filter_map(|path| vfs.stat(path).ok());
        let here: Vec<_> = stats.filter(|stat| stat.shared_inode() == Some(inode)).collect();
        here.iter().any(|stat| stat.links > here.len() as u64)
    };
    linked.0.retain(|inode, _| names.get(inode).is_some_and(|names| elsewhere(*inode, names)));
    Ok(linked.0.values().map(|file| file.key).collect())
}

/// Keys that are not destroyed and not held for this yet.
fn free_keys(keyring: &Keyring) -> HashSet<DataKeyId> {
    let held: HashSet<DataKeyId> = keyring
        .holds()
        .list()
        .into_iter()
        .filter(|hold| hold.name == HARD_LINKS_HOLD)
        .flat_map(|hold| hold.keys)
        .collect();
    let keys = keyring.status().data_keys.into_iter();
    let free = keys.filter(|key| key.state != KeyState::Destroyed && !held.contains(&key.id));
    free.map(|key| key.id).collect()
}

/// Holds a key of which a file has names elsewhere. Does nothing if it is held.
pub(super) fn hold_key(keyring: &Keyring, key: DataKeyId) -> Result<()> {
    if free_keys(keyring).contains(&key) { hold(keyring, &[key]) } else { Ok(()) }
}

fn hold(keyring: &Keyring, keys: &[DataKeyId]) -> Result<()> {
    if keys.is_empty() { Ok(()) } else { keyring.holds().register(HARD_LINKS_HOLD, keys) }
}

/// The names of some files.
struct Again<'a> {
    suspects: &'a HashSet<Inode>,
    names: HashMap<Inode, Vec<PathBuf>>,
}

impl Visitor for Again<'_> {
    fn file(&mut self, found: &Found<'_>) {
        let inode = found.stat.shared_inode().filter(|inode| self.suspects.contains(inode));
        if let Some(inode) = inode {
            self.names.entry(inode).or_default().push(found.path());
        }
    }

    fn staged(&mut self, found: &Found<'_>) {
        self.file(found);
    }

    fn link(&mut self, _path: &Path) {}
}
