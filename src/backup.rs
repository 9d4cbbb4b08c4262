//! Backups: copies of a store's files under a key of their own, made while the store is
//! in use. `docs/FORMAT.md` section 13.
//!
//! A [`Chain`] is a full backup and the incremental ones on top of it, in one
//! [`BackupTarget`]. It has an ordinary keyring of its own, wrapped by the customer's key
//! directly: a backup opens without the store, and the store's data keys may be destroyed
//! whatever backups there are. Every copied file is decrypted and encrypted anew under the
//! chain's data key in suite 2, so that a backup is authenticated even where the store's
//! files are not.
//!
//! ```no_run
//! use std::{ops::ControlFlow, sync::Arc};
//! use atrest::backup::{Chain, DirectoryTarget, RestoreSpec};
//! use atrest::{Store, kms::Kms};
//!
//! # fn example(store: Store, kms: Arc<dyn Kms>, new_kms: Arc<dyn Kms>) -> atrest::Result<()> {
//! let chain = Chain::open_or_create(DirectoryTarget::new("/backup/db"), kms)?;
//! store.backups().add(&chain, "/var/lib/db", &|_| ControlFlow::Continue(()))?;
//!
//! let spec = RestoreSpec::new("/var/lib/db2", new_kms);
//! chain.restore(&spec, &|_| ControlFlow::Continue(()))?;
//! # Ok(()) }
//! ```

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::ids::StoreId;
use crate::keyring::{AccessPolicy, Keyring, Options};
use crate::kms::Kms;
use crate::suite::Integrity;

mod backups;
mod check;
mod copy;
#[cfg(any(test, feature = "danger-internals"))]
pub(crate) mod fuzz;
mod lack;
mod manifest;
mod object;
mod objects;
mod own;
mod plan;
mod restore;
mod sequence;
mod settings;
mod snapshot;
mod spaces;
mod staging;
mod stream;
mod target;
mod waiting;

pub use backups::Backups;
pub use check::{BackupProblem, CheckReport};
pub use copy::BackupReport;
pub use lack::{Lack, LackReason};
pub use restore::{RestoreReport, RestoreSpec};
pub use snapshot::Snapshot;
pub use target::{BackupTarget, DirectoryTarget, PutFile};

/// The file that tells a chain from a store; put before the keyring.
pub const LABEL_NAME: &str = "BACKUP";
const LABEL: &[u8] =
    b"atrest backup 1\nKEYRING holds its keys, docs/FORMAT.md section 13 the rest.\n";

/// A full backup and the incremental ones on top of it, under one key.
#[derive(Debug)]
pub struct Chain {
    target: Arc<dyn BackupTarget>,
    keyring: Keyring,
    writable: bool,
}

/// One backup of a chain. Field names are stable: they are the JSON of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackupInfo {
    /// Its place in the chain; 1 is the full backup.
    pub number: u64,
    /// Whether it needs no other.
    pub full: bool,
    /// When the store was as it is in the backup, nanoseconds since the Unix epoch.
    pub created_ns: u64,
    /// The store.
    pub source_store_id: StoreId,
    /// The generation that its keyring had.
    pub source_generation: u64,
    /// Files in it.
    pub files: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Files that it copied; the others are in backups before it.
    pub copied_files: u64,
    /// Bytes in the target that it added, its manifest included.
    pub added_bytes: u64,
    /// What of the store is not in it. A backup with all of the store's files lacks nothing.
    pub lacks: Vec<Lack>,
    /// SHA-256 of its manifest, in hex. Kept elsewhere, it shows that later backups of the
    /// chain were taken away.
    pub manifest_sha256: String,
}

impl Chain {
    /// Opens the chain in `target` for another backup, or creates one under `kms` where
    /// nothing is yet. One process at a time.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`Keyring::create`];
    /// [`Io`](ErrorKind::Io) of `DirectoryNotEmpty` if something else is there.
    pub fn open_or_create(target: impl BackupTarget + 'static, kms: Arc<dyn Kms>) -> Result<Self> {
        let target: Arc<dyn BackupTarget> = Arc::new(target);
        let storage = target.keyring()?;
        if !is_labelled(&*target)? {
            if storage.load()?.is_some() || !target.is_empty()? {
                let kind = ErrorKind::Io(std::io::ErrorKind::DirectoryNotEmpty);
                return Err(Error::new(kind, "expected an empty directory, or one of backups"));
            }
            let mut put = target.put(LABEL_NAME)?;
            put.append(LABEL)?;
            put.finish()?;
            target.settle()?;
        }
        if storage.load()?.is_some() || !storage.kept()?.is_empty() {
            return Self::open_target(target, vec![kms], true, AccessPolicy::default());
        }
        storage.lock()?;
        if !target.list(target::FILES)?.is_empty() {
            let what = "the keyring of the backups is missing";
            return Err(Error::new(ErrorKind::KeyringMissing, what));
        }
        let keyring = Keyring::create_boxed(storage, kms, options(AccessPolicy::default()))?;
        Ok(Self { target, keyring, writable: true })
    }

    /// Opens a chain for another backup.
    ///
    /// # Errors
    /// [`BrokenBackup`](ErrorKind::BrokenBackup) if there is none; those of
    /// [`Keyring::open`].
    pub fn open(target: impl BackupTarget + 'static, kms: Vec<Arc<dyn Kms>>) -> Result<Self> {
        Self::open_target(Arc::new(target), kms, true, AccessPolicy::default())
    }

    /// Opens a chain to list, verify or restore.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) without `KeyringBusy`.
    pub fn open_read_only(
        target: impl BackupTarget + 'static,
        kms: Vec<Arc<dyn Kms>>,
    ) -> Result<Self> {
        Self::open_read_only_watching(target, kms, AccessPolicy::default())
    }

    /// The same, watching over access to the customer's key in this way: what is under way
    /// ends with [`CmekRevoked`](ErrorKind::CmekRevoked) when the key is gone.
    ///
    /// # Errors
    /// Those of [`open_read_only`](Self::open_read_only).
    pub fn open_read_only_watching(
        target: impl BackupTarget + 'static,
        kms: Vec<Arc<dyn Kms>>,
        access: AccessPolicy,
    ) -> Result<Self> {
        Self::open_target(Arc::new(target), kms, false, access)
    }

    fn open_target(
        target: Arc<dyn BackupTarget>,
        kms: Vec<Arc<dyn Kms>>,
        writable: bool,
        access: AccessPolicy,
    ) -> Result<Self> {
        if !is_labelled(&*target)? {
            return Err(object::broken("there are no backups: the file BACKUP is missing"));
        }
        let storage = target.keyring()?;
        if writable {
            storage.lock()?;
        }
        let keyring = Keyring::open_boxed(storage, kms, options(access), writable)?;
        Ok(Self { target, keyring, writable })
    }

    /// The chain's id: the store id of its keyring.
    pub fn id(&self) -> StoreId {
        self.keyring.store_id()
    }

    /// The chain's own keyring.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The backups of the chain, oldest first. Every manifest is read and proven.
    ///
    /// # Errors
    /// [`BrokenBackup`](ErrorKind::BrokenBackup) and those of a damaged file, which
    /// nothing behind is trusted after; [`Io`](ErrorKind::Io).
    pub fn list(&self) -> Result<Vec<BackupInfo>> {
        let mut infos = Vec::new();
        self.walk(self.count()?, |manifest, hash, physical_len| {
            infos.push(BackupInfo::new(&manifest, hash, physical_len));
            Ok(())
        })?;
        Ok(infos)
    }
}

/// A chain's data key does not rotate. A thread watches over access to the customer's key: a
/// large restore takes longer than a revocation may.
fn options(access: AccessPolicy) -> Options {
    let mut options = Options { access, ..Options::default() };
    options.settings.rotation_period = Duration::MAX;
    options.settings.integrity = Integrity::Authenticated.into();
    options
}

fn is_labelled(target: &dyn BackupTarget) -> Result<bool> {
    let file = match target.open(LABEL_NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::Io(std::io::ErrorKind::NotFound) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let first = LABEL.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut found = vec![0; first.len()];
    let read = file.read_at(&mut found, 0);
    read.map_err(|e| Error::io("the file BACKUP cannot be read", e))?;
    if found != first {
        let what = "expected backups of version 1, found others in the file BACKUP";
        return Err(Error::new(ErrorKind::UnsupportedVersion, what));
    }
    Ok(true)
}

impl BackupInfo {
    fn new(manifest: &manifest::Manifest, hash: [u8; 32], physical_len: u64) -> Self {
        // Two names of one file have one copy.
        let mut added: Vec<_> = manifest
            .files
            .iter()
            .filter(|file| file.object.held_by == manifest.number)
            .map(|file| (file.object.id, file.object.physical_len))
            .collect();
        added.sort_unstable();
        added.dedup();
        Self {
            number: manifest.number,
            full: manifest.number == 1,
            created_ns: manifest.created_ns,
            source_store_id: StoreId::from_bytes(manifest.source_store_id),
            source_generation: manifest.source_generation,
            files: manifest.files.len() as u64,
            bytes: manifest.files.iter().map(|file| file.object.len).sum(),
            copied_files: added.len() as u64,
            added_bytes: added.iter().map(|(_, len)| len).sum::<u64>() + physical_len,
            lacks: manifest.lacks.iter().filter_map(lack::LackEntry::lack).collect(),
            manifest_sha256: crate::hex::encode(&hash),
        }
    }
}
