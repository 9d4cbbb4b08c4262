//! A store: a keyring and the files under it. What an engine opens.
//!
//! The keyring knows no file. What a store knows of its files besides stands in
//! `store/places.rs`: where they are, which are under which key, and what is being renamed
//! while somebody looks at all of them.

use std::sync::{Arc, Weak};

use crate::error::Result;
use crate::fs::EncryptedFs;
use crate::keyring::{Access, Audit, Holds, Keyring, Keys, Keyspaces, KmsSet, Options, Slots};
use crate::kms::Kms;
use crate::vfs::{OsVfs, Vfs};
use places::Places;

mod directories;
mod evidence;
pub(crate) mod ledger;
mod left;
mod links;
pub(crate) mod moves;
mod orphans;
mod place;
pub(crate) mod places;
mod reencrypt;
mod renewal;
mod retire;
mod stale;
mod temporary;
mod usage;
mod visitors;

pub use crate::scan::{OnScan, ScanProgress};
pub use directories::Directories;
pub use links::HARD_LINKS_HOLD;
pub use place::StorePlace;
pub use reencrypt::{CommitHook, Reencrypt, ReencryptProgress, ReencryptReport, Skipped, SpecOf};
pub use renewal::Renewal;
pub use retire::DestructionProof;
pub use stale::{StaleFile, StaleFiles, StaleJudge, StalePolicy, StaleReason};
pub use usage::{Count, KeyUsage, UnknownKeyUsage, Usage, churned_in};

/// An open store. A clone is another handle on the same one. An engine that stops calls
/// [`close`](Self::close).
///
/// | what an engine does | where |
/// |---|---|
/// | create, read, rename, remove files | [`files`](Self::files) |
/// | see old keys go away: usage, stale files, re-encryption, destruction | [`renewal`](Self::renewal) |
/// | rotate keys, change settings | [`keys`](Self::keys) |
/// | change who can open it | [`slots`](Self::slots) |
/// | watch, withdraw and restore access | [`access`](Self::access) |
/// | give tenants keys of their own | [`keyspaces`](Self::keyspaces) |
/// | keep keys for copies elsewhere | [`holds`](Self::holds) |
/// | see what happened to the keys | [`audit`](Self::audit) |
/// | copy it while it is in use | [`backups`](Self::backups) |
#[derive(Clone, Debug)]
pub struct Store {
    files: EncryptedFs,
}

impl Store {
    /// Creates a store in a place that has none. Files that are there already are refused,
    /// unless the settings [allow plaintext](Options::allowing_plaintext).
    ///
    /// # Errors
    /// [`KeyringMissing`](crate::ErrorKind::KeyringMissing) where encrypted files are and no
    /// keyring: another store lost its own. Those of [`Keyring::create`].
    pub fn create(
        place: impl Into<StorePlace>,
        kms: Arc<dyn Kms>,
        options: Options,
    ) -> Result<Self> {
        let StorePlace { storage, vfs } = place.into();
        refuse_orphans(&*storage, &*vfs)?;
        Self::over_vfs(Keyring::create_in(storage, kms, options)?, vfs)
    }

    /// Opens a store for reading and writing. One process at a time.
    ///
    /// # Errors
    /// Those of [`Keyring::open`].
    pub fn open(
        place: impl Into<StorePlace>,
        kms: impl Into<KmsSet>,
        options: Options,
    ) -> Result<Self> {
        let StorePlace { storage, vfs } = place.into();
        Self::over_vfs(Keyring::open_in(storage, kms.into(), options)?, vfs)
    }

    /// Opens a store for reading, beside a writer or not.
    ///
    /// # Errors
    /// Those of [`Keyring::open_read_only`].
    pub fn open_read_only(
        place: impl Into<StorePlace>,
        kms: impl Into<KmsSet>,
        options: Options,
    ) -> Result<Self> {
        let StorePlace { storage, vfs } = place.into();
        Self::over_vfs(Keyring::open_boxed(storage, kms.into().0, options, false)?, vfs)
    }

    /// Opens a store, or creates it if it has no keyring, no older images of one and no
    /// encrypted files.
    ///
    /// # Errors
    /// Those of [`create`](Self::create) and [`open`](Self::open).
    pub fn open_or_create(
        place: impl Into<StorePlace>,
        kms: Arc<dyn Kms>,
        options: Options,
    ) -> Result<Self> {
        let StorePlace { storage, vfs } = place.into();
        refuse_orphans(&*storage, &*vfs)?;
        Self::over_vfs(Keyring::open_or_create_in(storage, kms, options)?, vfs)
    }

    /// The store of a keyring that is open already, with files of the operating system.
    ///
    /// # Errors
    /// [`KeyringBusy`](crate::ErrorKind::KeyringBusy) if there is a store over it: two
    /// would not see each other's renames.
    pub fn over(keyring: Keyring) -> Result<Self> {
        Self::over_vfs(keyring, Arc::new(OsVfs))
    }

    /// The same over another file system.
    ///
    /// # Errors
    /// Those of [`over`](Self::over).
    pub fn over_vfs(keyring: Keyring, vfs: Arc<dyn Vfs>) -> Result<Self> {
        let places = Arc::new(Places::new(keyring, vfs));
        let files: Weak<Places> = Arc::downgrade(&places);
        places.keyring().claim(files)?;
        Ok(Self { files: EncryptedFs::of_store(&places) })
    }

    /// The store's files.
    pub fn files(&self) -> &EncryptedFs {
        &self.files
    }

    /// The directories that hold the store's files.
    pub fn directories(&self) -> &Directories {
        self.files.places().directories()
    }

    /// How files come under newer keys, and old keys to their end.
    pub fn renewal(&self) -> Renewal<'_> {
        Renewal(&self.files)
    }

    /// The store key and the data keys.
    pub fn keys(&self) -> Keys<'_> {
        self.keyring().keys()
    }

    /// The CMEK slots.
    pub fn slots(&self) -> Slots<'_> {
        self.keyring().slots()
    }

    /// Access to the customer's key: what is known of it, withdrawing it, restoring it.
    pub fn access(&self) -> Access<'_> {
        self.keyring().access()
    }

    /// The keyspaces.
    pub fn keyspaces(&self) -> Keyspaces<'_> {
        self.keyring().keyspaces()
    }

    /// The holds on data keys.
    pub fn holds(&self) -> Holds<'_> {
        self.keyring().holds()
    }

    /// What happened to the store's keys.
    pub fn audit(&self) -> Audit<'_> {
        self.keyring().audit()
    }

    /// The keyring.
    pub fn keyring(&self) -> &Keyring {
        self.files.keyring()
    }

    /// [`Keyring::close`] for an engine that stops. Its writers are finished or dropped
    /// before.
    ///
    /// # Errors
    /// Those of [`Keyring::close`].
    pub fn close(self) -> Result<()> {
        self.keyring().clone().close()
    }
}

/// Before a keyring is made. Older images of one are for its creation to tell of.
fn refuse_orphans(storage: &dyn crate::keyring::KeyringStorage, vfs: &dyn Vfs) -> Result<()> {
    match storage.location().directory {
        Some(dir) if storage.load()?.is_none() && storage.kept()?.is_empty() => {
            orphans::refuse(vfs, &dir)
        }
        _ => Ok(()),
    }
}

/// The store that these files are of.
impl From<EncryptedFs> for Store {
    fn from(files: EncryptedFs) -> Self {
        Self { files }
    }
}
