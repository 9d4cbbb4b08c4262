//! Which files of a store are under which key, kept in memory while files come and go.
//!
//! It begins empty, is filled by a scan, and follows what the library does to files; a
//! scan that runs meanwhile gives way to what happened since it began. Nothing here is
//! proof: before a key is destroyed its absence is read from the disk.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher, RandomState};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::{DataKeyId, StoreId};

/// What a file counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    Key(DataKeyId),
    /// A file of another store.
    Foreign(StoreId),
    Plaintext,
    /// A temporary file, under no data key of the keyring.
    Temporary,
    /// Empty, ending inside its header, or without one that was written.
    Torn,
    Unreadable,
}

/// Files of one owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) files: u64,
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// The newest file ever counted here; 0 if none.
    pub(crate) last_created_ns: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, file: &FileRecord) {
        self.files += 1;
        self.bytes += file.bytes;
        self.last_created_ns = self.last_created_ns.max(file.created_ns);
    }

    fn subtract(&mut self, file: &FileRecord) {
        self.files = self.files.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(file.bytes);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.last_created_ns = self.last_created_ns.max(other.last_created_ns);
    }
}

/// One file, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileRecord {
    pub(crate) owner: Owner,
    pub(crate) bytes: u64,
    /// As its header says; 0 without one.
    pub(crate) created_ns: u64,
}

/// A file's place: 128 bits of a keyed hash of directory and name, so that a million
/// names need no memory. Two names share a place with a chance below 2^-88.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place(u64, u64);

/// A directory whose path is hashed.
#[derive(Clone)]
pub(crate) struct PlacesIn(DefaultHasher, DefaultHasher);

impl PlacesIn {
    /// The place of a name in it.
    pub(crate) fn place(&self, name: &[u8]) -> Place {
        let Self(mut one, mut other) = self.clone();
        name.hash(&mut one);
        name.hash(&mut other);
        Place(one.finish(), other.finish())
    }
}

impl std::fmt::Debug for PlacesIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlacesIn").finish_non_exhaustive()
    }
}

/// The hash is keyed and good already.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a place hashes as integers");
    }

    fn write_u64(&mut self, half: u64) {
        self.0 ^= half;
    }
}

type Places<T> = HashMap<Place, T, BuildHasherDefault<Ready>>;

pub(crate) struct Ledger {
    hashers: (RandomState, RandomState),
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    places: Places<Name>,
    files: Vec<Stored>,
    free: Vec<u32>,
    owners: Vec<(Owner, Tally)>,
    owner_index: HashMap<Owner, u32>,
    /// Grows with each scan.
    epoch: u32,
    scan: Option<Scan>,
    /// Whether a scan ended, and nothing happened since that only a scan can tell.
    complete: bool,
}

#[derive(Clone, Copy)]
struct Name {
    file: u32,
    /// The scan in or after which it was last seen or touched.
    epoch: u32,
}

#[derive(Clone, Copy)]
struct Stored {
    owner: u32,
    /// Names; 0 in a free place.
    names: u32,
    /// Differs for each file that had this place.
    serial: u32,
    bytes: u64,
    created_ns: u64,
}

#[derive(Default)]
struct Scan {
    /// Names taken away since it began: what it finds there is of the past.
    gone: HashSet<Place, BuildHasherDefault<Ready>>,
    /// Files with several names, by device and inode.
    linked: HashMap<(u64, u64), u32>,
    /// Places of files that lost their last name. Given out again only after the scan, so
    /// that `linked` never leads to another file.
    freed: Vec<u32>,
}

/// Leads back to one file, whatever its name is then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    file: u32,
    serial: u32,
}

/// A scan under way. One that is dropped, as by a panic, did not go through.
pub(crate) struct Scanning<'a> {
    ledger: &'a Ledger,
    whole: bool,
}

impl Scanning<'_> {
    /// Ends it: what it did not see and nobody touched is gone. `whole` tells whether it went
    /// through.
    pub(crate) fn end(mut self, whole: bool) {
        self.whole = whole;
    }
}

impl Drop for Scanning<'_> {
    fn drop(&mut self) {
        self.ledger.end_scan(self.whole);
    }
}

/// A file as a scan found it.
pub(crate) struct Seen {
    pub(crate) place: Place,
    pub(crate) record: FileRecord,
    /// Device and inode, if it has several names.
    pub(crate) linked: Option<(u64, u64)>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self { hashers: (RandomState::new(), RandomState::new()), table: Mutex::default() }
    }
}

impl Ledger {
    /// What the places in a directory have in common, under its one canonical path.
    pub(crate) fn directory(&self, dir: &Path) -> PlacesIn {
        let dir = dir.as_os_str().as_encoded_bytes();
        let mut begun = PlacesIn(self.hashers.0.build_hasher(), self.hashers.1.build_hasher());
        dir.hash(&mut begun.0);
        dir.hash(&mut begun.1);
        begun
    }

    /// There is now this file at a place.
    pub(crate) fn created(&self, place: Place, record: FileRecord) -> Token {
        let mut table = self.table();
        table.take_away(place);
        let file = table.store(record);
        table.name(place, file);
        Token { file, serial: table.files[file as usize].serial }
    }

    /// The file of a token, wherever it is now, is finished.
    pub(crate) fn finished(&self, token: Token, record: FileRecord) {
        let mut table = self.table();
        let stored = &table.files[token.file as usize];
        if stored.serial == token.serial && stored.names > 0 {
            table.replace(token.file, record);
        }
    }

    pub(crate) fn removed(&self, place: Place) {
        self.table().take_away(place);
    }

    /// Returns false if nothing is known of `from`.
    pub(crate) fn renamed(&self, from: Place, to: Place) -> bool {
        if from == to {
            return true;
        }
        let mut table = self.table();
        let known = table.places.get(&from).map(|name| name.file);
        let same = known.is_some() && table.places.get(&to).map(|name| name.file) == known;
        if same {
            // Two names of one file: the system leaves both.
            return true;
        }
        table.take_away(to);
        if let Some(file) = known {
            table.name(to, file);
            table.take_away(from);
        }
        known.is_some()
    }

    pub(crate) fn linked(&self, from: Place, to: Place) {
        let mut table = self.table();
        if let Some(file) = table.places.get(&from).map(|name| name.file) {
            table.take_away(to);
            table.name(to, file);
            let epoch = table.epoch;
            if let Some(name) = table.places.get_mut(&from) {
                name.epoch = epoch;
            }
        }
    }

    pub(crate) fn knows(&self, place: Place) -> bool {
        self.table().places.contains_key(&place)
    }

    /// How many names of the file at a place are known.
    pub(crate) fn names(&self, place: Place) -> u64 {
        let table = self.table();
        table.places.get(&place).map_or(0, |name| table.files[name.file as usize].names.into())
    }

    /// Something happened that only a scan can tell, such as the renaming of a directory.
    pub(crate) fn lose_track(&self) {
        self.table().complete = false;
    }

    pub(crate) fn is_complete(&self) -> bool {
        let table = self.table();
        table.complete && table.scan.is_none()
    }

    /// The tallies, in no order.
    pub(crate) fn tallies(&self) -> Vec<(Owner, Tally)> {
        self.table().owners.clone()
    }

    /// From now on [`seen`](Self::seen) is told what is on the disk. `None` if another scan
    /// is under way.
    pub(crate) fn begin_scan(&self) -> Option<Scanning<'_>> {
        let mut table = self.table();
        if table.scan.is_some() {
            return None;
        }
        table.epoch = table.epoch.wrapping_add(1);
        table.scan = Some(Scan::default());
        table.complete = true;
        Some(Scanning { ledger: self, whole: false })
    }

    pub(crate) fn seen(&self, files: &[Seen]) {
        let mut table = self.table();
        for file in files {
            table.seen(file);
        }
    }

    fn end_scan(&self, whole: bool) {
        let mut table = self.table();
        let Some(scan) = table.scan.take() else { return };
        table.free.extend(scan.freed);
        table.complete &= whole;
        if !whole {
            return;
        }
        let epoch = table.epoch;
        let unseen: Vec<Place> =
            table.places.iter().filter(|(_, n)| n.epoch != epoch).map(|(p, _)| *p).collect();
        for place in unseen {
            table.forget(place);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn seen(&mut self, seen: &Seen) {
        let Some(scan) = &self.scan else { return };
        if scan.gone.contains(&seen.place) {
            return;
        }
        let linked = seen.linked.and_then(|inode| scan.linked.get(&inode).copied());
        let linked = linked.filter(|file| self.files[*file as usize].names > 0);
        let known = self.places.get(&seen.place).copied();
        let file = match known {
            // Touched since the scan began: newer than what it saw.
            Some(name) if name.epoch == self.epoch => {
                // Whether the other names still lead to the same file, the next scan tells.
                self.complete &= seen.linked.is_none();
                return;
            }
            Some(name) if linked == Some(name.file) => name.file,
            Some(name) if linked.is_none() && self.files[name.file as usize].names == 1 => {
                self.replace(name.file, seen.record);
                name.file
            }
            // New, or its names may have come apart behind the library's back.
            _ => linked.unwrap_or_else(|| self.store(seen.record)),
        };
        if known.is_none_or(|name| name.file != file) {
            self.forget(seen.place);
        }
        self.name(seen.place, file);
        if let (Some(inode), Some(scan)) = (seen.linked, &mut self.scan) {
            scan.linked.insert(inode, file);
        }
    }

    /// A new file, as yet without a name and not counted.
    fn store(&mut self, record: FileRecord) -> u32 {
        let owner = self.owner(record.owner);
        let FileRecord { bytes, created_ns, .. } = record;
        let mut stored = Stored { owner, names: 0, serial: 0, bytes, created_ns };
        if let Some(file) = self.free.pop() {
            stored.serial = self.files[file as usize].serial.wrapping_add(1);
            self.files[file as usize] = stored;
            return file;
        }
        self.files.push(stored);
        // A store of four thousand million files would not fit into memory.
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// The file behind a name is another than was thought.
    fn replace(&mut self, file: u32, record: FileRecord) {
        if self.record(file) == record {
            return;
        }
        let owner = self.owner(record.owner);
        let old = self.record(file);
        let stored = &mut self.files[file as usize];
        self.owners[stored.owner as usize].1.subtract(&old);
        (stored.owner, stored.bytes, stored.created_ns) = (owner, record.bytes, record.created_ns);
        self.owners[owner as usize].1.add(&record);
    }

    fn record(&self, file: u32) -> FileRecord {
        let stored = &self.files[file as usize];
        let owner = self.owners[stored.owner as usize].0;
        FileRecord { owner, bytes: stored.bytes, created_ns: stored.created_ns }
    }

    fn owner(&mut self, owner: Owner) -> u32 {
        match self.owner_index.entry(owner) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                self.owners.push((owner, Tally::default()));
                *entry.insert(u32::try_from(self.owners.len() - 1).unwrap_or(u32::MAX))
            }
        }
    }

    /// Gives a file a name, or refreshes it.
    fn name(&mut self, place: Place, file: u32) {
        let name = Name { file, epoch: self.epoch };
        if self.places.insert(place, name).is_some_and(|old| old.file == file) {
            return;
        }
        if let Some(scan) = &mut self.scan {
            scan.gone.remove(&place);
        }
        self.files[file as usize].names += 1;
        if self.files[file as usize].names == 1 {
            let record = self.record(file);
            let owner = self.files[file as usize].owner;
            self.owners[owner as usize].1.add(&record);
        }
    }

    /// Takes a name away, for good.
    fn take_away(&mut self, place: Place) {
        self.forget(place);
        if let Some(scan) = &mut self.scan {
            scan.gone.insert(place);
        }
    }

    fn forget(&mut self, place: Place) {
        let Some(name) = self.places.remove(&place) else { return };
        let record = self.record(name.file);
        let stored = &mut self.files[name.file as usize];
        stored.names -= 1;
        if stored.names == 0 {
            self.owners[stored.owner as usize].1.subtract(&record);
            self.scan.as_mut().map_or(&mut self.free, |scan| &mut scan.freed).push(name.file);
        }
    }
}
