//! The one place that opens stores: from a command's arguments to the keyring, whose image
//! is read once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atrest::backup::BackupTarget;
use atrest::keyring::{
    Access, Anchor, Audit, AuditEvent, DirectoryStorage, ImageInfo, ImagePlace, KEYRING_FILE,
    KeyringInfo, KeyringStorage, Recovery, SlotInfo,
};
use atrest::kms::{Kms, KmsErrorKind};
use atrest::{EncryptedFs, ErrorKind, Keyring, Options, Store, StoreId};

use crate::failure::{Failure, Result};
use crate::key::CmekArgs;
use crate::place::{Place, refuse_uri};
use crate::{signal, units};

mod elsewhere;
mod making;
mod names;
mod pins;

pub(crate) use elsewhere::{is_there, without};

/// The store that a command is about, and the keys that open it.
#[derive(clap::Args)]
pub(crate) struct StoreArgs {
    /// The store's directory; where only keys or headers are looked at, also its prefix in an
    /// object store.
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) cmek: CmekArgs,
    /// Longest time for all calls to key services in one step; 15s if not given.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    kms_timeout: Option<Duration>,
    /// Wait as long as this for a key service that does not answer, or does not accept the
    /// credentials, instead of failing at once.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    wait_for_cmek: Option<Duration>,
    /// Refuse another store than this: the id that `atrest status` shows.
    #[arg(long, value_name = "ID")]
    store_id: Option<StoreId>,
    /// Refuse another store and an older keyring: what `atrest status` showed, kept
    /// elsewhere.
    #[arg(long, value_name = "TEXT")]
    anchor: Option<Anchor>,
    /// The directory that the keyring is mirrored to: every change is written there too. Without
    /// it no key of a mirrored store is destroyed, replaced or proven to be gone.
    #[arg(long, value_name = "DIR")]
    mirror: Option<PathBuf>,
}

type Keys = Vec<Arc<dyn Kms>>;

impl StoreArgs {
    /// Opens the store for writing.
    pub(crate) fn open(&self) -> Result<Opened> {
        self.open_with(self.keys()?)
    }

    /// The same with these keys, instead of those given.
    pub(crate) fn open_with(&self, keys: Keys) -> Result<Opened> {
        self.opened(keys, Keyring::open)
    }

    /// Opens the store for reading, beside a writer or not.
    pub(crate) fn open_read_only(&self) -> Result<Opened> {
        self.read_only_with(self.keys()?)
    }

    /// The same with these keys, instead of those given.
    pub(crate) fn read_only_with(&self, keys: Keys) -> Result<Opened> {
        self.opened(keys, Keyring::open_read_only)
    }

    /// Opens a store or backups, wherever they are, to change keys. Nothing that looks for
    /// files may stand on it: those in a bucket are not seen.
    pub(crate) fn open_keys(&self) -> Result<Opened> {
        match Place::parse(&self.dir)? {
            Place::Directory(dir) => self.opened_in(&dir, self.keys_of(&dir)?, Keyring::open),
            bucket => self.opened_at(&bucket, self.cmek.some()?, Keyring::open),
        }
    }

    /// Opens a store or backups, wherever they are, to look at keys.
    pub(crate) fn read_keys(&self, place: &Place, keys: Keys) -> Result<Opened> {
        match place {
            Place::Directory(dir) => self.opened_in(dir, keys, Keyring::open_read_only),
            bucket => self.opened_at(bucket, keys, Keyring::open_read_only),
        }
    }

    /// Opens a store for writing that may be revoked, and gives access back.
    pub(crate) fn open_and_restore(&self) -> Result<Opened> {
        self.opened(self.keys()?, Access::open_and_restore)
    }

    /// All events of the audit trail, also of a store that is revoked.
    pub(crate) fn audit(&self) -> Result<Vec<AuditEvent>> {
        let keys = self.keys()?;
        let events = Audit::read(&storage(&self.dir)?, keys, &self.options());
        events.map_err(|error| self.at(error))
    }

    /// Asks whoever opens the store from now on, or has it open, to give its keys up.
    pub(crate) fn request_revocation(&self) -> Result<()> {
        Access::request_revocation(&storage(&self.dir)?).map_err(|error| self.at(error))
    }

    /// Whether somebody did.
    pub(crate) fn is_revocation_requested(&self) -> Result<bool> {
        Access::is_revocation_requested(&storage(&self.dir)?).map_err(|error| self.at(error))
    }

    /// What can be read without a key.
    pub(crate) fn inspect(&self) -> Result<KeyringInfo> {
        inspect(&self.dir)
    }

    /// Generations of the images that are newer than the keyring that was read.
    pub(crate) fn newer_images(&self, info: &KeyringInfo) -> Result<Vec<u64>> {
        newer_images(&Place::Directory(self.dir.clone()), info)
    }

    /// Whether there is a keyring, or an older image of one.
    pub(crate) fn has_keyring(&self) -> Result<bool> {
        if self.dir.join(KEYRING_FILE).symlink_metadata().is_ok() {
            return Ok(true);
        }
        Ok(!DirectoryStorage::new(&self.dir).kept()?.is_empty())
    }

    /// Refuses a directory that is no store, before anything else is looked at.
    pub(crate) fn check(&self) -> Result<()> {
        check(&self.dir)
    }

    /// The path of the file `name` in the store.
    pub(crate) fn resolve(&self, name: &str) -> Result<PathBuf> {
        self.check()?;
        names::resolve(&self.dir, name)
    }

    /// The images of the keyring that are there, each tried with the keys.
    pub(crate) fn images(&self, keys: &Keys) -> Result<Vec<ImageInfo>> {
        let images = self.mirrored(DirectoryStorage::new(&self.dir))?.images(keys, &self.options());
        images.map_err(|error| self.at(error))
    }

    /// Refuses where a mirror was not given, or is behind.
    pub(crate) fn check_mirrors(&self) -> Result<()> {
        let checked = self.mirrored(DirectoryStorage::new(&self.dir))?.check_mirrors();
        checked.map_err(|error| Failure::from(error).advise(
            "give the mirror with --mirror; where it was given up and destroyed, remove the file that tells of it",
        ))
    }

    /// Puts an image back.
    pub(crate) fn recover(&self, place: ImagePlace, keys: Keys) -> Result<Recovery> {
        let _committing = signal::Committing::begin();
        let storage = self.mirrored(DirectoryStorage::new(&self.dir))?;
        match storage.recover(place, keys, self.options()) {
            Ok((_, recovery)) => Ok(recovery),
            Err(error) => Err(self.at(error)),
        }
    }

    /// Options of a command that opens a store for a moment: what is due is done by the
    /// command itself, not by a thread.
    pub(crate) fn options(&self) -> Options {
        let mut options = Options::default();
        options.background = false;
        (options.store_id, options.anchor) = (self.store_id, self.anchor);
        options.kms_deadline = self.kms_timeout.unwrap_or(options.kms_deadline);
        options.kms_wait = self.wait_for_cmek.unwrap_or(options.kms_wait);
        options
    }

    /// The keys given, at least one.
    pub(crate) fn keys(&self) -> Result<Keys> {
        self.keys_of(&self.dir)
    }

    /// The same for the store in `dir`.
    pub(crate) fn keys_of(&self, dir: &Path) -> Result<Keys> {
        storage(dir)?;
        let keys = self.cmek.open()?;
        if keys.is_empty() {
            let slots = inspect(dir)?.slots;
            let what = "expected the customer's key, found none";
            let failure = Failure::new(ErrorKind::Kms(KmsErrorKind::Misconfigured), what);
            return Err(failure.advise(format!(
                "give it with --cmek or in ATREST_CMEK; {}",
                wanted(slots.iter())
            )));
        }
        Ok(keys)
    }

    fn opened(
        &self,
        keys: Keys,
        open: impl FnOnce(DirectoryStorage, Keys, Options) -> atrest::Result<Keyring>,
    ) -> Result<Opened> {
        self.opened_in(&self.dir, keys, open)
    }

    fn opened_in(
        &self,
        dir: &Path,
        keys: Keys,
        open: impl FnOnce(DirectoryStorage, Keys, Options) -> atrest::Result<Keyring>,
    ) -> Result<Opened> {
        let given = uris(&keys);
        let keyring = open(self.mirrored(storage(dir)?)?, keys, self.options());
        let keyring = keyring.map_err(|error| words_are_wrong(&given, at(dir, error)))?;
        Ok(Opened { inner: Store::over(keyring)?, given })
    }

    fn opened_at(
        &self,
        bucket: &Place,
        keys: Keys,
        open: impl FnOnce(Arc<dyn KeyringStorage>, Keys, Options) -> atrest::Result<Keyring>,
    ) -> Result<Opened> {
        if self.mirror.is_some() {
            let what = "expected no --mirror: a keyring in an object store has none";
            return Err(Failure::new(ErrorKind::InvalidArgument, what));
        }
        let given = uris(&keys);
        let storage = bucket.existing()?.keyring().map_err(|error| bucket.at(error))?;
        let keyring = open(Arc::from(storage), keys, self.options());
        let keyring = keyring.map_err(|error| words_are_wrong(&given, bucket.at(error)))?;
        Ok(Opened { inner: Store::over(keyring)?, given })
    }

    fn mirrored(&self, storage: DirectoryStorage) -> Result<DirectoryStorage> {
        let Some(mirror) = &self.mirror else { return Ok(storage) };
        refuse_uri(mirror)?;
        Ok(storage.with_mirror(mirror))
    }

    fn at(&self, error: atrest::Error) -> Failure {
        at(&self.dir, error)
    }
}

/// An open store.
pub(crate) struct Opened {
    inner: Store,
    /// The URIs of the keys it was opened with.
    given: Vec<String>,
}

impl Opened {
    pub(crate) fn files(&self) -> &EncryptedFs {
        self.inner.files()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        self.inner.keyring()
    }

    /// Ends the store cleanly, with all counts kept.
    pub(crate) fn close(self) -> Result<()> {
        Ok(self.inner.close()?)
    }

    /// Changes the keyring. An interruption waits for it, and an error names the slots
    /// whose keys are missing.
    pub(crate) fn commit<T>(&self, change: impl FnOnce(&Store) -> atrest::Result<T>) -> Result<T> {
        let _committing = signal::Committing::begin();
        change(&self.inner).map_err(|error| self.explain(error))
    }

    /// Long work that may end in a change of the keyring: the first interruption asks it to
    /// end, which it does before that change.
    pub(crate) fn commit_stoppable<T>(
        &self,
        work: impl FnOnce(&Store) -> atrest::Result<T>,
    ) -> Result<T> {
        let _stoppable = signal::Stoppable::begin();
        work(&self.inner).map_err(|error| self.explain(error))
    }

    fn explain(&self, error: atrest::Error) -> Failure {
        let slots = self.keyring().slots().list();
        let said = chain(&error);
        let missing = slots.iter().filter(|slot| !self.given.contains(&slot.key_uri));
        let missing: Vec<_> = missing.collect();
        // A key that is itself misconfigured has the same kind.
        let is_about_one = missing.iter().any(|slot| said.contains(&slot.key_uri));
        if error.kind() != ErrorKind::Kms(KmsErrorKind::Misconfigured) || !is_about_one {
            return error.into();
        }
        let advice = format!(
            "this needs the key of each slot that it wraps anew; {}",
            wanted(missing.into_iter())
        );
        Failure::from(error).advise(advice)
    }
}

/// Words that look the same may be others.
fn words_are_wrong(given: &[String], failure: Failure) -> Failure {
    let refused = failure.kind() == Some(ErrorKind::Kms(KmsErrorKind::Integrity));
    if !refused || !given.iter().any(|uri| uri == "passphrase:") {
        return failure;
    }
    failure.advise(
        "these are not the words the store was made with: mind case and blanks at both ends, in a variable a line break at the end or a byte order mark in front, and that letters like ü are written in two ways (NFC and NFD)",
    )
}

fn uris(keys: &Keys) -> Vec<String> {
    keys.iter().map(|key| key.key_uri().to_string()).collect()
}

/// What an error says, with what is below it.
fn chain(error: &atrest::Error) -> String {
    let mut said = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        said.push_str(&cause.to_string());
        next = cause.source();
    }
    said
}

/// How to give the keys of these slots.
fn wanted<'a>(slots: impl Iterator<Item = &'a SlotInfo>) -> String {
    let each = slots.map(|slot| format!("for the slot {}: --cmek {}", slot.name, slot.key_uri));
    each.collect::<Vec<_>>().join(", ")
}

/// Refuses a directory that is no store.
pub(crate) fn check(dir: &Path) -> Result<()> {
    storage(dir).map(drop)
}

/// What can be read of the store in a directory without a key.
pub(crate) fn inspect(dir: &Path) -> Result<KeyringInfo> {
    KeyringInfo::read(&storage(dir)?).map_err(|error| at(dir, error))
}

/// The same of a store or backups, wherever they are.
pub(crate) fn inspect_anywhere(place: &Place) -> Result<KeyringInfo> {
    match place {
        Place::Directory(dir) => inspect(dir),
        bucket => {
            let read = |target: Box<dyn BackupTarget>| KeyringInfo::read(&*target.keyring()?);
            read(bucket.existing()?).map_err(|error| bucket.at(error))
        }
    }
}

pub(crate) fn is_revocation_requested(place: &Place) -> Result<bool> {
    match place {
        Place::Directory(dir) => {
            Access::is_revocation_requested(&storage(dir)?).map_err(|error| at(dir, error))
        }
        bucket => {
            let read = |target: Box<dyn BackupTarget>| {
                Access::is_revocation_requested(&*target.keyring()?)
            };
            read(bucket.existing()?).map_err(|error| bucket.at(error))
        }
    }
}

/// Generations of the images that are newer than the keyring that was read.
pub(crate) fn newer_images(place: &Place, info: &KeyringInfo) -> Result<Vec<u64>> {
    match place {
        Place::Directory(dir) => info.newer_images(&storage(dir)?).map_err(|error| at(dir, error)),
        bucket => {
            let newer = |target: Box<dyn BackupTarget>| info.newer_images(&*target.keyring()?);
            newer(bucket.existing()?).map_err(|error| bucket.at(error))
        }
    }
}

/// Whether the key opens what is there. No answer is no.
pub(crate) fn opens(place: &Place, key: Arc<dyn Kms>) -> bool {
    let mut options = Options::default();
    options.background = false;
    match place {
        Place::Directory(dir) => {
            storage(dir).is_ok_and(|it| Keyring::open_read_only(it, key, options).is_ok())
        }
        bucket => {
            let open = |target: Box<dyn BackupTarget>| {
                let storage: Arc<dyn KeyringStorage> = Arc::from(target.keyring()?);
                Keyring::open_read_only(storage, key, options)
            };
            bucket.existing().is_ok_and(|target| open(target).is_ok())
        }
    }
}

/// The store in a directory that has no arguments of a command.
#[cfg(feature = "demo")]
pub(crate) fn open(dir: &Path, key: Arc<dyn Kms>, options: Options) -> Result<Keyring> {
    Ok(Keyring::open(DirectoryStorage::new(dir), key, options)?)
}

/// A new store in such a directory, which is there.
#[cfg(feature = "demo")]
pub(crate) fn create(dir: &Path, key: Arc<dyn Kms>, options: Options) -> Result<Keyring> {
    let store = Store::create(DirectoryStorage::new(dir), key, options);
    store.map(|store| store.keyring().clone()).map_err(|error| at(dir, error))
}

/// The keyring's place in an existing directory. An opening must not leave a lock file in
/// a directory that never was a store.
fn storage(dir: &Path) -> Result<DirectoryStorage> {
    refuse_uri(dir)?;
    match dir.metadata() {
        Ok(metadata) if !metadata.is_dir() => {
            let what = "expected a directory, found a file";
            return Err(atrest::Error::new(ErrorKind::InvalidArgument, what).with_path(dir).into());
        }
        Ok(_) => {}
        Err(source) => {
            let is_missing = source.kind() == std::io::ErrorKind::NotFound;
            let failure = Failure::io("the store cannot be opened", dir, source);
            let better = "check the path; `atrest init DIR --cmek URI` creates a store";
            return Err(if is_missing { failure.advise(better) } else { failure });
        }
    }
    let storage = DirectoryStorage::new(dir);
    if let Err(source) = dir.join(KEYRING_FILE).symlink_metadata()
        && source.kind() == std::io::ErrorKind::NotFound
    {
        // Says what is there instead.
        KeyringInfo::read(&storage).map_err(|error| at(dir, error))?;
    }
    Ok(storage)
}

/// An error of the store in `dir`. A lost keyring of which older images are left is none to
/// create anew.
pub(crate) fn at(dir: &Path, error: atrest::Error) -> Failure {
    let is_lost = match error.kind() {
        ErrorKind::KeyringMissing => true,
        ErrorKind::KeyringExists => !dir.join(KEYRING_FILE).exists(),
        _ => false,
    };
    let is_rolled_back = error.kind() == ErrorKind::KeyringRolledBack;
    let failure = Failure::from(error.with_path(dir));
    if is_rolled_back {
        let dir = dir.display();
        return failure.advise(format!(
            "somebody put an old keyring back: leave all of KEYRING.* as it is, find out who, and see what each image opens: atrest recover {dir} --cmek URI"
        ));
    }
    if is_lost && DirectoryStorage::new(dir).kept().is_ok_and(|kept| !kept.is_empty()) {
        let dir = dir.display();
        return failure.advise(format!("see what they open: atrest recover {dir} --cmek URI"));
    }
    failure
}
