//! How many files and bytes are under each data key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;

use super::ledger::{Owner, Tally};
use super::renewal::Renewal;
use super::visitors::{Met, Rebuild, Tallies, record_of};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::EncryptedFs;
use crate::ids::DataKeyId;
use crate::keyring::{DataKeyStatus, KeyState};
use crate::parallel;
use crate::scan::{OnScan, ScanProgress, Visitor, look, scan};
use crate::walk::PassedBy;

/// A number of files and their bytes on disk, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Count {
    /// Files; one with several names counts once.
    pub files: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What is under one data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyUsage {
    /// The key: id, keyspace, state, dates, bytes it ever encrypted.
    #[serde(flatten)]
    pub key: DataKeyStatus,
    /// Files and bytes on disk.
    #[serde(flatten)]
    pub count: Count,
    /// Age of the key in nanoseconds.
    pub age_ns: u64,
    /// Creation of the newest file seen under it, nanoseconds since the Unix epoch.
    pub last_created_ns: Option<u64>,
}

impl KeyUsage {
    /// [`churned_in`] of this key.
    pub fn churned_in(&self) -> Option<Duration> {
        churned_in(&self.key, self.count.bytes, self.age_ns)
    }
}

/// When the engine will have rewritten the `bytes_left` under a data key of `age_ns`, if
/// it goes on as since the key was created: the bytes left, by the bytes that went away in
/// that time. `None` while nothing can be said: the key is active, or nothing went away.
pub fn churned_in(key: &DataKeyStatus, bytes_left: u64, age_ns: u64) -> Option<Duration> {
    if key.state == KeyState::Active {
        return None;
    }
    if bytes_left == 0 {
        return Some(Duration::ZERO);
    }
    let gone = key.encrypted_bytes.saturating_sub(bytes_left);
    if gone == 0 || age_ns == 0 {
        return None;
    }
    let left_ns = u128::from(age_ns) * u128::from(bytes_left) / u128::from(gone);
    Some(Duration::from_nanos(u64::try_from(left_ns).unwrap_or(u64::MAX)))
}

/// Files that name a data key which the keyring does not have, and which nobody can read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnknownKeyUsage {
    /// The key that the headers name.
    pub id: DataKeyId,
    /// Files and bytes on disk.
    #[serde(flatten)]
    pub count: Count,
}

/// What is under which key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// All data keys of the keyring, oldest first, those without files too.
    pub keys: Vec<KeyUsage>,
    /// Files without encryption.
    pub plaintext: Count,
    /// Temporary files, of this process and of others: under no data key of the keyring.
    pub temporary: Count,
    /// Empty files and torn headers: nothing was ever readable in them, or they are being
    /// written.
    pub torn: Count,
    /// Files that cannot be read, or whose header is damaged.
    pub unreadable: Count,
    /// Files of other stores.
    pub foreign: Count,
    /// Files under keys that the keyring does not have.
    pub unknown_keys: Vec<UnknownKeyUsage>,
    /// Directories in which nothing was looked at; empty where no scan was made.
    #[serde(flatten)]
    pub passed_by: PassedBy,
}

impl Usage {
    /// Files whose headers were read.
    pub(super) fn files_read(&self) -> u64 {
        let others =
            [self.plaintext, self.temporary, self.torn, self.unreadable, self.foreign].into_iter();
        let of_keys = self.keys.iter().map(|key| key.count);
        let unknown = self.unknown_keys.iter().map(|key| key.count);
        of_keys.chain(unknown).chain(others).map(|count| count.files).sum()
    }

    fn new(fs: &EncryptedFs, tallies: impl IntoIterator<Item = (Owner, Tally)>) -> Self {
        let now_ns = fs.keyring().now_ns();
        let mut usage = Self::default();
        let mut by_key = BTreeMap::new();
        for (owner, tally) in tallies {
            let count = match owner {
                Owner::Key(id) => {
                    by_key.insert(id, tally);
                    continue;
                }
                Owner::Foreign(_) => &mut usage.foreign,
                Owner::Plaintext => &mut usage.plaintext,
                Owner::Temporary => &mut usage.temporary,
                Owner::Torn => &mut usage.torn,
                Owner::Unreadable => &mut usage.unreadable,
            };
            count.files += tally.files;
            count.bytes += tally.bytes;
        }
        for key in fs.keyring().status().data_keys {
            let tally = by_key.remove(&key.id).unwrap_or_default();
            usage.keys.push(KeyUsage {
                count: Count::from(&tally),
                age_ns: now_ns.saturating_sub(key.created_ns),
                last_created_ns: (tally.last_created_ns != 0).then_some(tally.last_created_ns),
                key,
            });
        }
        usage.keys.sort_by_key(|usage| usage.key.created_ns);
        let unknown = by_key.into_iter().filter(|(_, tally)| tally.files > 0);
        usage.unknown_keys =
            unknown.map(|(id, tally)| UnknownKeyUsage { id, count: Count::from(&tally) }).collect();
        usage
    }

    /// What is under one data key.
    pub fn of_key(&self, id: DataKeyId) -> Option<&KeyUsage> {
        self.keys.iter().find(|usage| usage.key.id == id)
    }
}

impl From<&Tally> for Count {
    fn from(tally: &Tally) -> Self {
        Self { files: tally.files, bytes: tally.bytes }
    }
}

impl Renewal<'_> {
    /// What is under which key, from memory. The first call scans the store; after that
    /// it is exact for all that is created (counted when it is finished), removed,
    /// renamed and linked through the library. What else happens to the files is seen by
    /// [`rebuild_usage`](Self::rebuild_usage).
    ///
    /// # Errors
    /// Those of [`rebuild_usage`](Self::rebuild_usage), if a scan is needed.
    pub fn usage(&self) -> Result<Usage> {
        if self.0.places().ledger().is_complete() {
            return Ok(Usage::new(self.0, self.0.places().ledger().tallies()));
        }
        self.rebuild_usage(&|_| {})
    }

    /// Reads the headers of all files of the store anew, while the store is in use.
    /// Memory: about 100 bytes a file.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the store has no known
    /// directory, and for a registered one without its
    /// [marker](super::Directories::register), as where it is not mounted;
    /// [`KeyringBusy`](ErrorKind::KeyringBusy) if another thread does the
    /// same; [`Io`](ErrorKind::Io) if a directory cannot be read.
    pub fn rebuild_usage(&self, on_scan: OnScan<'_>) -> Result<Usage> {
        const ATTEMPTS_MAX: usize = 3;
        let mut passed_by = PassedBy::default();
        for _ in 0..ATTEMPTS_MAX {
            passed_by = self.rebuild_once(on_scan)?;
            if self.0.places().ledger().is_complete() {
                break;
            }
            // A directory was renamed, or a file with several names changed, meanwhile.
        }
        let usage = Usage::new(self.0, self.0.places().ledger().tallies());
        Ok(Usage { passed_by, ..usage })
    }

    fn rebuild_once(&self, on_scan: OnScan<'_>) -> Result<PassedBy> {
        let (keyring, places) = (self.0.keyring(), self.0.places());
        let ledger = places.ledger();
        let recording = places.moves().record();
        // After the recording began: a file may have moved into a new one just before.
        let roots = self.roots()?;
        let Some(scanning) = ledger.begin_scan() else {
            let what = "another thread is reading the headers of the store";
            return Err(Error::new(ErrorKind::KeyringBusy, what));
        };
        let result = self.scan_whole(&roots, on_scan, || Rebuild::new(ledger, keyring));
        if result.is_ok() {
            // Renames that the walk may have missed.
            let alone = places.moves().alone();
            for path in recording.targets(&alone) {
                let Some(place) = self.0.places().place(&path) else { continue };
                if ledger.knows(place) {
                    continue;
                }
                if let Ok(Some((stat, what))) = look(&**self.0.vfs(), &path) {
                    ledger.created(place, record_of(&stat, &what, keyring));
                }
            }
        }
        scanning.end(result.is_ok());
        result.map(|(_, passed_by)| passed_by)
    }

    /// Reads the headers of all files of the store, keeping a few bytes for each key
    /// alone: for a look from outside, as with a keyring opened read-only.
    ///
    /// # Errors
    /// As [`rebuild_usage`](Self::rebuild_usage), without `KeyringBusy`.
    pub fn scan_usage(&self, on_scan: OnScan<'_>) -> Result<Usage> {
        let (keyring, shared) = (self.0.keyring(), Met::default());
        let (found, passed_by) = self.scan_all(on_scan, || Tallies::new(keyring, &shared))?;
        Ok(Usage { passed_by, ..Usage::new(self.0, Tallies::merge(found)) })
    }

    /// The same for the files below `roots`, which **MUST NOT** contain each other.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if a directory cannot be read.
    pub fn scan_usage_of(&self, roots: &[PathBuf], on_scan: OnScan<'_>) -> Result<Usage> {
        let (keyring, shared) = (self.0.keyring(), Met::default());
        let (found, passed_by) =
            scan(self.0.vfs(), roots, on_scan, || Tallies::new(keyring, &shared))?;
        Ok(Usage { passed_by, ..Usage::new(self.0, Tallies::merge(found)) })
    }

    /// What the engine's own list of live files is under. Files that are not there are
    /// left out.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    pub fn usage_of<P: AsRef<Path> + Sync>(
        &self,
        paths: &[P],
        on_scan: OnScan<'_>,
    ) -> Result<Usage> {
        let shared = Met::default();
        let progress = Mutex::new(ScanProgress::default());
        let parts: Vec<_> = paths.chunks(1024).collect();
        let parts = parallel::each(&parts, |paths| {
            let mut tallies = Tallies::new(self.0.keyring(), &shared);
            let mut bytes = 0;
            for path in *paths {
                if let Some((stat, what)) = look(&**self.0.vfs(), path.as_ref())? {
                    bytes += stat.len;
                    tallies.add(&stat, &what);
                }
            }
            // A panic in the callback of another thread ends that thread alone.
            let mut progress = progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            progress.files += paths.len() as u64;
            progress.bytes += bytes;
            on_scan(*progress);
            Ok(tallies)
        })?;
        Ok(Usage::new(self.0, Tallies::merge(parts)))
    }

    /// Scans the store's directories, which have to be there: nothing is shown by one that is
    /// not mounted.
    pub(super) fn scan_all<V: Visitor>(
        &self,
        on_scan: OnScan<'_>,
        visitor: impl Fn() -> V + Sync,
    ) -> Result<(Vec<V>, PassedBy)> {
        self.scan_whole(&self.roots()?, on_scan, visitor)
    }

    fn scan_whole<V: Visitor>(
        &self,
        roots: &[PathBuf],
        on_scan: OnScan<'_>,
        visitor: impl Fn() -> V + Sync,
    ) -> Result<(Vec<V>, PassedBy)> {
        let directories = self.0.places().directories();
        directories.check_present()?;
        let found = scan(self.0.vfs(), roots, on_scan, visitor)?;
        // Again: what was taken away in between was not looked at.
        directories.check_present()?;
        Ok(found)
    }

    pub(super) fn roots(&self) -> Result<Vec<PathBuf>> {
        let roots = self.0.places().directories().list();
        if roots.is_empty() {
            let what = "the keyring knows no directory of the store";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        Ok(roots)
    }
}
