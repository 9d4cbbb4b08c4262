//! Destroying old data keys, and showing that they are.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Serialize;

use super::evidence::AllFiles;
use super::renewal::Renewal;
use super::usage::{KeyUsage, Usage};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::DataKeyId;
use crate::keyring::{Anchor, DataKeyStatus, KeyState, LiveKeys, Retirement};
use crate::scan::OnScan;

/// That a data key is gone: its record, and what a fresh look at the store found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DestructionProof {
    /// The record: id, dates, bytes it ever encrypted.
    #[serde(flatten)]
    pub key: DataKeyStatus,
    /// Whether it was destroyed with its keyspace, or the whole store.
    pub shredded: bool,
    /// Files that name the key still, which nothing can read: 0 unless it was shredded.
    pub files: u64,
    /// Files whose headers were read now.
    pub files_read: u64,
    /// Names the keyring that says so: the MAC stands over the record.
    pub keyring: Anchor,
}

impl Renewal<'_> {
    /// Destroys the data keys that are under no file, through two calls at least `grace`
    /// apart: the first finds no file and starts the time of grace, the second looks
    /// again. `elsewhere` names files outside of the store's directories, if there are any.
    /// A key with a file, a [hold](crate::keyring::Holds::register) or an open file under
    /// it is never destroyed. A file of 0 bytes, or cut inside its header, names no key and
    /// keeps none: whatever brings its content back has to come before the grace ends, or be
    /// held, as copies by other tools have to be; a [backup](crate::backup) needs no hold. What
    /// [`Keys::retire`](crate::keyring::Keys::retire) says holds here.
    ///
    /// Files that the engine renames without the library **MUST NOT** move between the
    /// store's directories meanwhile.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) without a known directory and
    /// `elsewhere`, and for a registered directory without its
    /// [marker](crate::store::Directories::register), as where it is not mounted;
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch) for one with the marker of another place;
    /// [`CorruptHeader`](ErrorKind::CorruptHeader) if nobody can tell the key of a file; those of [`Keys::retire`](crate::keyring::Keys::retire).
    pub fn retire(
        &self,
        elsewhere: Option<&dyn LiveKeys>,
        grace: Duration,
        on_scan: OnScan<'_>,
    ) -> Result<Retirement> {
        if elsewhere.is_none() {
            self.roots()?;
        }
        let (places, vfs) = (self.0.places(), self.0.vfs());
        let files = AllFiles::new(places, vfs, elsewhere, on_scan);
        let mut retirement = self.0.keyring().keys().retire_all_but(&files, grace)?;
        let passed_by = files.passed_by.into_inner();
        retirement.passed_by = passed_by.unwrap_or_else(PoisonError::into_inner);
        Ok(retirement)
    }

    /// Shows that a data key is destroyed, that no file of the store names it, unless its
    /// keyspace was shredded, and that no
    /// older copy of the keyring stands beside it or in a
    /// [mirror](crate::keyring::DirectoryStorage::with_mirror). What a bucket keeps of older versions of
    /// its objects, and copies elsewhere, it cannot know.
    ///
    /// # Errors
    /// [`UnknownKey`](ErrorKind::UnknownKey) for a key that is not in the keyring,
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for one that is not destroyed, or that
    /// a [copy](crate::keyring::Keys::copies_aside) of the keyring or a
    /// [mirror](crate::keyring::Keys::check_mirrors) may hold,
    /// [`KeyDestroyed`](ErrorKind::KeyDestroyed) for one that was retired and that a
    /// file names, as after the file was brought back from elsewhere,
    /// [`CorruptHeader`](ErrorKind::CorruptHeader) if nobody can tell the key of a file; those of
    /// [`scan_usage`](Self::scan_usage).
    pub fn prove_destroyed(&self, id: DataKeyId, on_scan: OnScan<'_>) -> Result<DestructionProof> {
        let usage = self.scan_usage(on_scan)?;
        let of = usage.of_key(id).ok_or_else(|| {
            Error::new(ErrorKind::UnknownKey, format!("data key {id} is not in the keyring"))
        })?;
        if of.key.state != KeyState::Destroyed {
            let what = format!("data key {id} is not destroyed: it is {:?}", of.key.state);
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        // OK because there is one for each key.
        Ok(self.proofs(&[of], &usage)?.remove(0))
    }

    /// The same for all destroyed data keys, oldest first, with one look at the store.
    ///
    /// # Errors
    /// Those of [`prove_destroyed`](Self::prove_destroyed).
    pub fn prove_all_destroyed(&self, on_scan: OnScan<'_>) -> Result<Vec<DestructionProof>> {
        let usage = self.scan_usage(on_scan)?;
        let destroyed = usage.keys.iter().filter(|of| of.key.state == KeyState::Destroyed);
        self.proofs(&destroyed.collect::<Vec<_>>(), &usage)
    }

    /// One for each of these destroyed keys.
    fn proofs(&self, keys: &[&KeyUsage], usage: &Usage) -> Result<Vec<DestructionProof>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keyring = self.0.keyring();
        let fail = |kind, what| Err(Error::new(kind, what));
        // A keyspace without an active key was shredded.
        let spaces = keyring.keyspaces().list().into_iter();
        let shredded: HashSet<_> =
            spaces.filter(|space| space.active.is_none()).map(|space| space.name).collect();
        let is_shredded = |of: &KeyUsage| shredded.contains(&of.key.keyspace);
        if let Some(of) = keys.iter().find(|of| of.count.files != 0 && !is_shredded(of)) {
            let (id, files) = (of.key.id, of.count.files);
            let what = format!("files that name the destroyed data key {id}: {files}");
            return fail(ErrorKind::KeyDestroyed, what);
        }
        let unreadable = usage.unreadable.files;
        if unreadable != 0 {
            let what = format!("damaged files whose data keys cannot be told: {unreadable}");
            return fail(ErrorKind::CorruptHeader, what);
        }
        keyring.keys().check_mirrors()?;
        let copies = keyring.keys().copies_aside()?;
        if !copies.is_empty() {
            let what = format!("copies of the keyring may still hold keys: {}", copies.join(", "));
            return fail(ErrorKind::InvalidArgument, what);
        }
        let (files_read, keyring) = (usage.files_read(), keyring.anchor());
        let proof = |of: &&KeyUsage| DestructionProof {
            key: of.key.clone(),
            shredded: is_shredded(of),
            files: of.count.files,
            files_read,
            keyring,
        };
        Ok(keys.iter().map(proof).collect())
    }
}
