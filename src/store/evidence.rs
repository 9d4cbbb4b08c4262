//! Which data keys the store's files name now: what is asked before a key is destroyed.
//!
//! A walk over all directories, whatever anybody says. Renames through the library, which
//! it could miss, are looked at afterwards, with all renames kept out.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::moves::Moves;
use super::places::Places;
use crate::classify::Contents;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DataKeyId, StoreId};
use crate::keyring::LiveKeys;
use crate::scan::{Found, OnScan, Visitor, look, look_through, scan};
use crate::vfs::{EntryKind, Vfs};

/// The files below the store's directories, and those elsewhere that the engine knows of.
pub(super) struct AllFiles<'a> {
    pub(super) places: &'a Places,
    pub(super) vfs: &'a Arc<dyn Vfs>,
    pub(super) elsewhere: Option<&'a dyn LiveKeys>,
    pub(super) on_scan: OnScan<'a>,
}

impl LiveKeys for AllFiles<'_> {
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>> {
        let roots = self.places.directories().list();
        let store_id = self.places.keyring().store_id();
        let mut keys = keys_in(self.vfs, &roots, self.places.moves(), store_id, self.on_scan)?;
        if let Some(elsewhere) = self.elsewhere {
            keys.extend(elsewhere.keys_in_use()?);
        }
        Ok(keys.into_iter().collect())
    }
}

/// What the keyring asks before it destroys a key on others' evidence.
impl LiveKeys for Places {
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>> {
        AllFiles { places: self, vfs: self.vfs(), elsewhere: None, on_scan: &|_| {} }.keys_in_use()
    }
}

/// The data keys that the store's files name.
fn keys_in(
    vfs: &Arc<dyn Vfs>,
    roots: &[PathBuf],
    moves: &Moves,
    store_id: StoreId,
    on_scan: OnScan<'_>,
) -> Result<HashSet<DataKeyId>> {
    let recording = moves.record();
    let collect =
        || Collect { store_id, keys: HashSet::new(), unreadable: None, links: Vec::new() };
    let mut found = scan(vfs, roots, on_scan, collect)?;
    {
        let alone = moves.alone();
        let mut visitor = collect();
        let mut directories = Vec::new();
        let mut links = Vec::new();
        for path in recording.targets(&alone) {
            match look(&**vfs, &path)? {
                Some((_, what)) => visitor.add(&what, || path.clone()),
                None => directories.push(path),
            }
        }
        // What is no file may be a directory that moved with all in it.
        directories.retain(|path| match vfs.stat(path).map(|stat| stat.kind) {
            Ok(EntryKind::Directory) => true,
            Ok(EntryKind::Link) => {
                links.push(path.clone());
                false
            }
            _ => false,
        });
        directories.sort_unstable();
        directories.dedup_by(|below, above| below.starts_with(above));
        found.extend(scan(vfs, &directories, on_scan, collect)?);
        links.extend(found.iter_mut().flat_map(|part| std::mem::take(&mut part.links)));
        for link in links {
            if let Some((_, what)) = look_through(&**vfs, &link, roots)? {
                visitor.add(&what, || link.clone());
            }
        }
        found.push(visitor);
    }
    let mut keys = HashSet::new();
    for part in found {
        if let Some((path, kind)) = part.unreadable {
            let what = format!("the data key of this file cannot be told ({kind:?})");
            return Err(Error::new(ErrorKind::CorruptHeader, what).with_path(path));
        }
        keys.extend(part.keys);
    }
    Ok(keys)
}

struct Collect {
    store_id: StoreId,
    keys: HashSet<DataKeyId>,
    unreadable: Option<(PathBuf, ErrorKind)>,
    links: Vec<PathBuf>,
}

impl Collect {
    fn add(&mut self, what: &Contents, path: impl FnOnce() -> PathBuf) {
        match what {
            Contents::Encrypted(header) if header.store_id == self.store_id => {
                self.keys.insert(header.data_key_id);
            }
            Contents::Unreadable(kind) if self.unreadable.is_none() => {
                self.unreadable = Some((path(), *kind));
            }
            _ => {}
        }
    }
}

impl Visitor for Collect {
    fn file(&mut self, found: &Found<'_>) {
        self.add(&found.what, || found.path());
    }

    fn staged(&mut self, found: &Found<'_>) {
        self.file(found);
    }

    fn link(&mut self, path: &Path) {
        self.links.push(path.into());
    }

    /// Its files need the keys of its own keyring.
    fn nested(&mut self, _dir: &Path) {}
}
