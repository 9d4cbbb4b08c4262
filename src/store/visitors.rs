//! What scans do with the files they find.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::ledger::{FileRecord, Ledger, Owner, Seen, Tally};
use crate::classify::Contents;
use crate::keyring::{Keyring, PlaintextPolicy};
use crate::scan::{Found, Visitor};
use crate::vfs::FileStat;

/// What a file counts for.
pub(super) fn record_of(stat: &FileStat, what: &Contents, keyring: &Keyring) -> FileRecord {
    let store_id = keyring.store_id();
    let (owner, created_ns) = match what {
        Contents::Encrypted(header) if header.store_id == store_id && header.is_temporary() => {
            (Owner::Temporary, header.created_ns)
        }
        Contents::Encrypted(header) if header.store_id == store_id => {
            (Owner::Key(header.data_key_id), header.created_ns)
        }
        Contents::Encrypted(header) => (Owner::Foreign(header.store_id), header.created_ns),
        Contents::Plaintext | Contents::Keyring => (Owner::Plaintext, 0),
        Contents::Unwritten if keyring.settings().plaintext == PlaintextPolicy::Allow => {
            (Owner::Plaintext, 0)
        }
        Contents::Empty | Contents::Torn | Contents::Unwritten => (Owner::Torn, 0),
        Contents::Unreadable(_) => (Owner::Unreadable, 0),
    };
    FileRecord { owner, bytes: stat.len, created_ns }
}

/// Files with several names that were met, by device and inode.
pub(super) type Met = Arc<Mutex<HashSet<(u64, u64)>>>;

/// Counts and keeps nothing else.
pub(super) struct Tallies<'a> {
    keyring: &'a Keyring,
    met: Met,
    owners: HashMap<Owner, Tally>,
}

impl<'a> Tallies<'a> {
    pub(super) fn new(keyring: &'a Keyring, met: &Met) -> Self {
        Self { keyring, met: met.clone(), owners: HashMap::new() }
    }

    pub(super) fn add(&mut self, stat: &FileStat, what: &Contents) {
        let again = stat.links > 1
            && stat.inode != 0
            && !self
                .met
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert((stat.device, stat.inode));
        if !again {
            let record = record_of(stat, what, self.keyring);
            self.owners.entry(record.owner).or_default().add(&record);
        }
    }

    /// The counts of all threads together.
    pub(super) fn merge(parts: Vec<Self>) -> HashMap<Owner, Tally> {
        let mut all: HashMap<Owner, Tally> = HashMap::new();
        for (owner, tally) in parts.into_iter().flat_map(|part| part.owners) {
            all.entry(owner).or_default().merge(&tally);
        }
        all
    }
}

impl Visitor for Tallies<'_> {
    fn file(&mut self, found: &Found<'_>) {
        self.add(&found.stat, &found.what);
    }

    fn staged(&mut self, found: &Found<'_>) {
        self.file(found);
    }

    fn link(&mut self, _path: &Path) {}
}

/// Tells the ledger, some hundred files at a time.
pub(super) struct Rebuild<'a> {
    ledger: &'a Ledger,
    keyring: &'a Keyring,
    seen: Vec<Seen>,
}

impl<'a> Rebuild<'a> {
    pub(super) fn new(ledger: &'a Ledger, keyring: &'a Keyring) -> Self {
        Self { ledger, keyring, seen: Vec::new() }
    }
}

impl Visitor for Rebuild<'_> {
    fn file(&mut self, found: &Found<'_>) {
        let stat = &found.stat;
        self.seen.push(Seen {
            place: self.ledger.directory(found.dir).place(found.name),
            record: record_of(stat, &found.what, self.keyring),
            linked: stat.shared_inode(),
        });
    }

    fn staged(&mut self, found: &Found<'_>) {
        self.file(found);
    }

    fn link(&mut self, _path: &Path) {}

    fn flush(&mut self) {
        self.ledger.seen(&self.seen);
        self.seen.clear();
    }
}
