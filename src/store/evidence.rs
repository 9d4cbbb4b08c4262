//! Which data keys the store's files name now: what is asked before a key is destroyed.
//!
//! A walk over all directories, whatever anybody says. Renames through the library, which
//! it could miss, are looked at afterwards, with all renames kept out.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::links::{Linked, hold_linked_elsewhere};
use super::places::Places;
use crate::classify::Contents;
use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::ids::{DataKeyId, StoreId};
use crate::keyring::LiveKeys;
use crate::scan::{Found, OnScan, Visitor, look, look_through, scan};
use crate::vfs::{EntryKind, FileStat, Inode, Vfs};
use crate::walk::PassedBy;

/// The files below the store's directories, and those elsewhere that the engine knows of.
pub(super) struct AllFiles<'a> {
    pub(super) places: &'a Places,
    pub(super) vfs: &'a Arc<dyn Vfs>,
    pub(super) elsewhere: Option<&'a dyn LiveKeys>,
    pub(super) on_scan: OnScan<'a>,
    /// Where nobody looked, once it was looked.
    pub(super) passed_by: Mutex<PassedBy>,
}

impl<'a> AllFiles<'a> {
    pub(super) fn new(
        places: &'a Places,
        vfs: &'a Arc<dyn Vfs>,
        elsewhere: Option<&'a dyn LiveKeys>,
        on_scan: OnScan<'a>,
    ) -> Self {
        Self { places, vfs, elsewhere, on_scan, passed_by: Mutex::default() }
    }
}

impl LiveKeys for AllFiles<'_> {
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>> {
        let left = self.places.left().list();
        let (in_use, passed_by) = keys_in(self.places, self.vfs, &left, self.on_scan)?;
        let InUse { mut keys, linked, met } = in_use;
        *self.passed_by.lock().unwrap_or_else(PoisonError::into_inner) = passed_by;
        let gone = left.iter().filter(|(inode, _)| !met.contains(inode)).map(|(_, key)| *key);
        hold_linked_elsewhere(self.places, self.vfs, linked, &gone.collect())?;
        self.places.left().settle(&left);
        if let Some(elsewhere) = self.elsewhere {
            keys.extend(elsewhere.keys_in_use()?);
        }
        Ok(keys.into_iter().collect())
    }
}

/// What the keyring asks before it destroys a key on others' evidence.
impl LiveKeys for Places {
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>> {
        AllFiles::new(self, self.vfs(), None, &|_| {}).keys_in_use()
    }
}

/// What a look at all files finds.
#[derive(Default)]
struct InUse {
    /// The data keys that they name.
    keys: HashSet<DataKeyId>,
    /// The files with several names.
    linked: Linked,
    /// Those that lost a name and have another in the store.
    met: HashSet<Inode>,
}

impl InUse {
    fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.linked.merge(other.linked);
        self.met.extend(other.met);
    }
}

fn keys_in(
    places: &Places,
    vfs: &Arc<dyn Vfs>,
    left: &HashMap<Inode, DataKeyId>,
    on_scan: OnScan<'_>,
) -> Result<(InUse, PassedBy)> {
    let (moves, store_id) = (places.moves(), places.keyring().store_id());
    let recording = moves.record();
    // After the recording began: a file may have moved into a new one just before.
    let roots = &places.directories().list();
    places.directories().check_own()?;
    let collect =
        || Collect { store_id, left, found: InUse::default(), unreadable: None, links: Vec::new() };
    let (mut found, mut passed_by) = scan(vfs, roots, on_scan, collect)?;
    {
        let alone = moves.alone();
        let mut visitor = collect();
        let mut directories = Vec::new();
        let mut links = Vec::new();
        for path in recording.targets(&alone) {
            match look(&**vfs, &path)? {
                Some((stat, what)) => visitor.add_named(&stat, &what, || path.clone()),
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
        let (moved, passed) = scan(vfs, &directories, on_scan, collect)?;
        found.extend(moved);
        passed_by.append(passed);
        passed_by.settle(roots);
        links.extend(found.iter_mut().flat_map(|part| std::mem::take(&mut part.links)));
        for link in links {
            if let Some((_, what)) = look_through(&**vfs, &link, roots)? {
                visitor.add(&what, || link.clone());
            }
        }
        found.push(visitor);
    }
    // Again: what was taken away in between was not looked at.
    places.directories().check_own()?;
    let mut in_use = InUse::default();
    for part in found {
        if let Some((path, kind)) = part.unreadable {
            let what = format!("the data key of this file cannot be told ({kind:?})");
            return Err(Error::new(ErrorKind::CorruptHeader, what).with_path(path));
        }
        in_use.merge(part.found);
    }
    Ok((in_use, passed_by))
}

struct Collect<'a> {
    store_id: StoreId,
    left: &'a HashMap<Inode, DataKeyId>,
    found: InUse,
    unreadable: Option<(PathBuf, ErrorKind)>,
    links: Vec<PathBuf>,
}

impl Collect<'_> {
    /// The same for a file under one of its names.
    fn add_named(&mut self, stat: &FileStat, what: &Contents, path: impl Fn() -> PathBuf) {
        self.add(what, &path);
        if let Some(header) = what.header().filter(|header| self.needs_key(header)) {
            self.found.linked.add(stat, header.data_key_id, path);
            let inode = (stat.device, stat.inode);
            if self.left.get(&inode) == Some(&header.data_key_id) {
                self.found.met.insert(inode);
            }
        }
    }

    /// Whether a file needs a data key of this keyring.
    fn needs_key(&self, header: &Header) -> bool {
        header.store_id == self.store_id && !header.is_temporary()
    }

    fn add(&mut self, what: &Contents, path: impl FnOnce() -> PathBuf) {
        match what {
            Contents::Encrypted(header) if self.needs_key(header) => {
                self.found.keys.insert(header.data_key_id);
            }
            Contents::Unreadable(kind) if self.unreadable.is_none() => {
                self.unreadable = Some((path(), *kind));
            }
            _ => {}
        }
    }
}

impl Visitor for Collect<'_> {
    fn file(&mut self, found: &Found<'_>) {
        self.add_named(&found.stat, &found.what, || found.path());
    }

    fn staged(&mut self, found: &Found<'_>) {
        self.file(found);
    }

    fn link(&mut self, path: &Path) {
        self.links.push(path.into());
    }
}
