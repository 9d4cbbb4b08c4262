//! Conditional put: the commit, told apart from what only looks like one, and the proof
//! that the store knows conditions at all.

use std::io;
use std::time::{Duration, SystemTime};

use super::super::object_store::path::Path;
use super::super::object_store::{Error as StoreError, PutMode, UpdateVersion};
use atrest::keyring::{KeyringImage, KeyringStorage, MemoryStorage};
use atrest::{Error, ErrorKind, Result};

use super::{ObjectStoreKeyringStorage, failed, no_version};
use crate::bridge::NoAnswer;

/// Times a commit of unknown outcome is sent; each is the same conditional put.
const ATTEMPTS_MAX: u32 = 7;
/// Wait before the second of them; doubled before each further one: 3 s in all, since some
/// stores take one write of an object a second.
const BACKOFF: Duration = Duration::from_millis(50);
/// What a store is asked to replace before a keyring is trusted to it.
const PROBE_FILE: &str = "PROBE";

/// What became of a conditional put.
pub(super) enum Put {
    /// With what names the new version, if the store tells.
    Done(Option<String>),
    /// Another image is there.
    Refused(Error),
    /// Nothing changed.
    Failed(Error),
    Unknown(Error),
}

impl ObjectStoreKeyringStorage {
    /// Proves that the store refuses what a condition forbids, and does what it allows.
    pub(super) fn probe(&self) -> Result<()> {
        // A name of its own: another writer may be proving the same.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("{PROBE_FILE}.{}-{}", std::process::id(), now.as_nanos());
        let probe = self.path(&name);
        let outcome = self.probe_at(&probe);
        // What cannot be removed does no harm.
        drop(self.delete(&probe));
        outcome
    }

    fn probe_at(&self, probe: &Path) -> Result<()> {
        let first = self.put_probe(probe, b"1", None)?;
        self.expect_refusal(probe, b"2", None)?;
        let second = self.put_probe(probe, b"3", Some(&first))?;
        if second == first {
            return Err(self.no_condition());
        }
        self.expect_refusal(probe, b"4", Some(&first))?;
        // What is read is what the next commit names.
        let read = self.read(probe)?.ok_or_else(|| missing(probe))?;
        if (&read.version, &*read.bytes) != (&second, b"3") {
            let what = "expected a store whose ETags are the same when written and when read";
            return Err(Error::new(ErrorKind::InvalidArgument, what).with_path(probe.as_ref()));
        }
        self.delete(probe)?;
        self.expect_refusal(probe, b"5", Some(&second))
    }

    fn put_probe(&self, probe: &Path, bytes: &[u8], previous: Option<&str>) -> Result<String> {
        match self.put(probe, bytes, previous) {
            Put::Done(Some(version)) => Ok(version),
            Put::Done(None) => self.read(probe)?.map(|image| image.version).ok_or_else(|| {
                Error::new(ErrorKind::Io(io::ErrorKind::NotFound), "the probe is gone")
                    .with_path(probe.as_ref())
            }),
            Put::Refused(error) => Err(self.no_condition().with_source(error)),
            Put::Failed(error) | Put::Unknown(error) => Err(error),
        }
    }

    fn expect_refusal(&self, probe: &Path, bytes: &[u8], previous: Option<&str>) -> Result<()> {
        match self.put(probe, bytes, previous) {
            Put::Refused(_) => Ok(()),
            // How some stores say that there is nothing to replace.
            Put::Failed(error) if error.kind() == ErrorKind::Io(io::ErrorKind::NotFound) => Ok(()),
            // It ignored the condition: two writers would overwrite each other's keys.
            Put::Done(_) => Err(self.no_condition()),
            Put::Failed(error) | Put::Unknown(error) => Err(error),
        }
    }

    /// One conditional put: over `previous` and no other version, or `None` for a new
    /// object.
    pub(super) fn put(&self, path: &Path, bytes: &[u8], previous: Option<&str>) -> Put {
        let mode = previous.map_or(PutMode::Create, |version| PutMode::Update(named(version)));
        let (store, at, payload) = (self.store.clone(), path.clone(), bytes.to_vec().into());
        let put = async move { store.put_opts(&at, payload, mode.into()).await };
        let what = "the keyring cannot be written";
        match self.bridge.run(put) {
            Ok(Ok(result)) => Put::Done(version(result.e_tag, result.version)),
            Ok(Err(error)) => match error {
                StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => {
                    let what = "another writer committed first";
                    let error = Error::new(ErrorKind::KeyringConflict, what).with_source(error);
                    Put::Refused(error.with_path(path.as_ref()))
                }
                StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
                    Put::Failed(self.no_condition().with_source(error))
                }
                StoreError::PermissionDenied { .. }
                | StoreError::Unauthenticated { .. }
                | StoreError::NotFound { .. }
                | StoreError::InvalidPath { .. } => Put::Failed(failed(what, path, error)),
                // It may have arrived, and the answer not.
                _ => Put::Unknown(failed(what, path, error)),
            },
            Err(NoAnswer(error)) => Put::Unknown(error.with_path(path.as_ref())),
        }
    }

    fn no_condition(&self) -> Error {
        let what = format!("expected a store with conditional put, found {}", self.store);
        Error::new(ErrorKind::InvalidArgument, what).with_path(self.dir.as_ref())
    }

    /// Sends a commit until its outcome is known. The put is conditional, so sending it
    /// again cannot do it twice.
    pub(super) fn replace(
        &self,
        bytes: &[u8],
        generation: u64,
        previous: Option<&KeyringImage>,
    ) -> Result<String> {
        let current = self.current();
        let replaced = previous.map(|image| image.version.as_str());
        let mut backoff = BACKOFF;
        let mut unknown = None;
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                std::thread::sleep(backoff);
                backoff *= 2;
            }
            match self.put(&current, bytes, replaced) {
                Put::Done(version) => return self.read_back(bytes, generation, version),
                // Perhaps by ourselves: an attempt that got no answer, here or inside of
                // the store's client.
                Put::Refused(conflict) => match self.read(&current) {
                    Ok(Some(image)) if image.bytes == bytes => return Ok(image.version),
                    // Nobody was first: the store could not decide between two requests.
                    Ok(image) if image.as_ref() == previous => {
                        unknown.get_or_insert(conflict);
                    }
                    Ok(_) => return Err(conflict),
                    Err(error) => return Err(poisoned(error)),
                },
                // With an earlier attempt under way, nobody knows.
                Put::Failed(error) if unknown.is_none() => return Err(error),
                Put::Failed(error) | Put::Unknown(error) => unknown = Some(error),
            }
        }
        // No answer to any attempt: the last chance to learn the truth.
        match self.read(&current) {
            Ok(Some(image)) if image.bytes == bytes => Ok(image.version),
            Ok(image) if image.as_ref() != previous => {
                // Another image is there, so ours can no longer arrive.
                let what = "another writer committed first";
                Err(Error::new(ErrorKind::KeyringConflict, what).with_path(current.as_ref()))
            }
            // The old image is there, and the put may still arrive.
            Ok(_) => Err(poisoned(unknown.unwrap_or_else(|| no_version(&current)))),
            Err(error) => Err(poisoned(error)),
        }
    }

    /// The version of what was just written. That a store said so is not enough: one that
    /// drops conditions, as in an outage of its own, lets another writer commit over it.
    fn read_back(&self, bytes: &[u8], generation: u64, version: Option<String>) -> Result<String> {
        let conflict = |what| Err(Error::new(ErrorKind::KeyringConflict, what));
        match (self.read(&self.current()), version) {
            (Ok(Some(image)), _) if image.bytes == bytes => Ok(image.version),
            // Written, and replaced since by one that read it.
            (Ok(Some(image)), Some(version)) if generation_of(&image) > Some(generation) => {
                Ok(version)
            }
            // As if another writer had been first, for the caller then reads what is there.
            (Ok(Some(_)), _) => conflict("another keyring is in the place of the written one"),
            (Ok(None), _) => Err(poisoned(missing(&self.current()))),
            // Nothing contradicts the store.
            (Err(_), Some(version)) => Ok(version),
            (Err(error), None) => Err(poisoned(error)),
        }
    }

    /// After a lost race: the older image that was put aside must not outlive a rotation
    /// of the store key or of a customer's key by the winner, which removed all older
    /// images.
    pub(super) fn withdraw_kept(&self, previous: &KeyringImage, generation: u64) -> Result<()> {
        let image = MemoryStorage::new();
        image.commit(&previous.bytes, generation, None)?;
        let (before, now) = (
            atrest::keyring::KeyringInfo::read(&image)?,
            atrest::keyring::KeyringInfo::read(self)?,
        );
        if (before.store_key_id, before.slots) != (now.store_key_id, now.slots) {
            self.delete(&self.kept_path(generation))?;
        }
        Ok(())
    }
}

/// What names one version of an object: the ETag, on which most stores condition a put,
/// and the version, on which GCS does.
pub(super) fn version(e_tag: Option<String>, version: Option<String>) -> Option<String> {
    match (e_tag, version) {
        (None, None) => None,
        (e_tag, version) => {
            Some(format!("{}\n{}", e_tag.unwrap_or_default(), version.unwrap_or_default()))
        }
    }
}

fn named(text: &str) -> UpdateVersion {
    let (e_tag, version) = text.split_once('\n').unwrap_or((text, ""));
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    UpdateVersion { e_tag: given(e_tag), version: given(version) }
}

fn poisoned(source: Error) -> Error {
    let what = "nobody knows which keyring is there: open the store again";
    Error::new(ErrorKind::Poisoned, what).with_source(source)
}

/// The generation that an image says it is.
fn generation_of(image: &KeyringImage) -> Option<u64> {
    let storage = MemoryStorage::new();
    storage.commit(&image.bytes, 1, None).ok()?;
    Some(atrest::keyring::KeyringInfo::read(&storage).ok()?.generation)
}

fn missing(path: &Path) -> Error {
    let what = "the store does not have what it said it wrote";
    Error::new(ErrorKind::Io(io::ErrorKind::NotFound), what).with_path(path.as_ref())
}
