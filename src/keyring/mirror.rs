//! A second directory that every commit also writes, so that a lost store directory does
//! not take its keyring along.
//!
//! A commit writes the image to the mirror under a temporary name first: if the mirror is
//! full or away, nothing has changed anywhere. Then the store commits, then the mirror's
//! image gets its name. So a crash leaves the mirror at the store's generation or one
//! before it, never after, and the next writer brings it up to date before it does
//! anything else; no key is handed out that is not durable in both.
//!
//! A file beside the keyring tells of each mirror, before it gets anything: a writer that was not
//! given it goes past it, but destroys and replaces no key, which the mirror would keep.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::FilesBeside;
use super::directory::DirectoryStorage;
use super::format::Image;
use super::storage::{KeyringStorage, StoredImage};
use crate::error::{Error, ErrorKind, Result};
use crate::names::{KEYRING_FILE, MIRROR_NOTE, NEW_FILE, NameKind, kind_of};
use crate::vfs::Rename;

/// Most bytes of a mirror's path that an error shows: nobody authenticated it.
const PATH_SHOWN_MAX: usize = 4096;

impl DirectoryStorage {
    /// Lets every commit also write the keyring to `dir`, which must exist: another disk.
    ///
    /// A mirror that cannot be written makes opening for writing and every rotation fail;
    /// reading and writing files goes on. A keyring older than its mirror, or seen to be of
    /// another line than it, is refused with
    /// [`KeyringRolledBack`](ErrorKind::KeyringRolledBack) when the store is opened for
    /// writing; [`recover`](Self::recover) goes on with the one or the other.
    ///
    /// From then on a file `KEYRING.mirror.<id>` in both tells of it, wherever it is mounted. Who opens
    /// the store without the mirror may write files and start new data keys, and the mirror catches
    /// up when it is given again. But what the mirror would keep is neither replaced, destroyed nor
    /// said to be gone without it: that fails with
    /// [`InvalidArgument`](ErrorKind::InvalidArgument). Where a mirror was given up and destroyed,
    /// remove that file.
    #[must_use]
    pub fn with_mirror(mut self, dir: impl Into<PathBuf>) -> Self {
        self.mirror = Some(dir.into());
        self
    }

    /// The mirror's image, if there is one.
    pub(super) fn load_mirror(&self) -> Result<Option<Vec<u8>>> {
        match &self.mirror {
            Some(dir) => self.read(&dir.join(KEYRING_FILE)),
            None => Ok(None),
        }
    }

    /// Writes the next image beside the mirror's, durably.
    pub(super) fn prepare_mirror(&self, bytes: &[u8]) -> Result<()> {
        let Some(dir) = &self.mirror else { return Ok(()) };
        self.check_mirror(dir, bytes)?;
        self.note_mirror(dir)?;
        let new = dir.join(NEW_FILE);
        self.write_new(&new, bytes)
            .map_err(|e| Error::io("the keyring's mirror cannot be written", e).with_path(&new))
    }

    /// Takes back what [`prepare_mirror`](Self::prepare_mirror) wrote.
    pub(super) fn abandon_mirror(&self) {
        if let Some(dir) = &self.mirror {
            // What stays is overwritten by the next commit.
            drop(self.vfs.remove(&dir.join(NEW_FILE)));
        }
    }

    /// Gives the prepared image its name.
    pub(super) fn publish_mirror(&self) -> Result<()> {
        let Some(dir) = &self.mirror else { return Ok(()) };
        let current = dir.join(KEYRING_FILE);
        let moved = self.vfs.rename(&dir.join(NEW_FILE), &current, Rename::Replace);
        moved.and_then(|()| self.vfs.sync_dir(dir)).map_err(|source| {
            let what = "the keyring's mirror may not be durable: open the store again";
            Error::new(ErrorKind::Poisoned, what).with_source(source).with_path(&current)
        })
    }

    /// Brings the mirror to the store's generation, after a crash or when it is new.
    pub(super) fn settle_mirror(&self) -> Result<()> {
        let Some(dir) = &self.mirror else { return Ok(()) };
        let bytes = self.read(&self.dir.join(KEYRING_FILE))?;
        // A keyring that is missing or damaged is for a recovery to judge; the mirror may
        // be what it recovers from.
        let Some(image) = bytes.as_deref().and_then(parse) else { return Ok(()) };
        let mirrored = self.load_mirror()?;
        if mirrored.as_ref() == bytes.as_ref() {
            self.note_mirror(dir)?;
            // Its writer may have died between the rename and the sync.
            let synced = self.vfs.sync_dir(dir);
            return synced.map_err(|e| Error::io("the mirror cannot be synced", e).with_path(dir));
        }
        self.check_mirror(dir, &image.stored.bytes)?;
        self.check_mirror_is_past(&image)?;
        self.prepare_mirror(&image.stored.bytes)?;
        self.publish_mirror()
    }

    /// Refuses where the mirror's image is not from before this one: an old keyring was put back,
    /// and the mirror may be the last to have the keys of the other line. No crash does that. Of a
    /// mirror that was away for long nothing may tell any more.
    pub(super) fn check_mirror_is_past(&self, image: &Image) -> Result<()> {
        let Some(mirror) = self.load_mirror()?.as_deref().and_then(parse) else { return Ok(()) };
        let (expected, found) = (mirror.fixed.generation, image.fixed.generation);
        let is_past = match found.checked_sub(expected) {
            None => false,
            Some(0) => mirror.stored.bytes == image.stored.bytes,
            Some(1) => image.fixed.previous_mac == *mirror.mac(),
            Some(_) => {
                let kept = self.load_kept(expected)?.as_deref().and_then(parse);
                kept.is_none_or(|kept| kept.mac() == mirror.mac())
            }
        };
        if is_past {
            return Ok(());
        }
        let what = format!(
            "expected the mirror's keyring of generation {expected} or one that came after it, \
             found another of generation {found}"
        );
        Err(Error::new(ErrorKind::KeyringRolledBack, what).with_path(&self.dir))
    }

    /// The names of the files that say which mirror a directory is, or of which mirrors a store
    /// tells.
    fn notes(&self, dir: &Path) -> Result<Vec<OsString>> {
        let is_note = |name: &str| kind_of(name.as_bytes()) == Some(NameKind::Mirror);
        let notes = self.named(dir, is_note)?.into_iter();
        Ok(notes.filter_map(|path| path.file_name().map(OsStr::to_owned)).collect())
    }

    /// Lets the store tell of the mirror, by a name that the mirror has too: its path may lead to
    /// another directory one day, as where nothing is mounted, or be another one.
    fn note_mirror(&self, dir: &Path) -> Result<()> {
        let fail = |e| Error::io("the mirror cannot be used", e).with_path(dir);
        let (known, mut own) = (self.notes(&self.dir)?, self.notes(dir)?);
        if own.iter().any(|note| known.contains(note)) {
            return Ok(());
        }
        if own.is_empty() {
            let mut id = [0; 8];
            crate::random::fill(&mut id)?;
            let note = format!("{KEYRING_FILE}.{MIRROR_NOTE}{}", crate::hex::encode(&id));
            let written = self.write_new(&dir.join(&note), &[]);
            written.and_then(|()| self.vfs.sync_dir(dir)).map_err(fail)?;
            own.push(note.into());
        }
        let path = self.vfs.canonical(dir).map_err(fail)?.into_os_string().into_encoded_bytes();
        let note =
            own[0].to_str().and_then(|note| note.strip_prefix(KEYRING_FILE)?.strip_prefix('.'));
        note.map_or(Ok(()), |note| self.put_beside(note, &path))
    }

    /// Refuses if a mirror that was ever written was not given, or has another image.
    pub(super) fn check_noted_mirrors(&self) -> Result<()> {
        let own = self.mirror.as_ref().map(|dir| self.notes(dir)).transpose()?.unwrap_or_default();
        if let Some(note) = self.notes(&self.dir)?.into_iter().find(|note| !own.contains(note)) {
            let mut path = self.read(&self.dir.join(note))?.unwrap_or_default();
            path.truncate(PATH_SHOWN_MAX);
            let what = "expected the keyring's mirror, which was not given or is not mounted here";
            let error = Error::new(ErrorKind::InvalidArgument, what);
            return Err(error.with_path(OsString::from_vec(path)));
        }
        let Some(dir) = &self.mirror else { return Ok(()) };
        if self.load_mirror()? == self.read(&self.dir.join(KEYRING_FILE))? {
            return Ok(());
        }
        let what = "expected the present keyring in its mirror, found another: open the store for \
                    writing with it";
        Err(Error::new(ErrorKind::InvalidArgument, what).with_path(dir))
    }

    /// Refuses a mirror that is another store's.
    pub(super) fn check_mirror(&self, dir: &Path, bytes: &[u8]) -> Result<()> {
        let mirror = self.load_mirror()?.as_deref().and_then(parse);
        let (Some(mirror), Some(image)) = (mirror, parse(bytes)) else { return Ok(()) };
        let (expected, found) = (image.fixed.store_id, mirror.fixed.store_id);
        if expected == found {
            return Ok(());
        }
        let what = format!("expected a mirror of store {expected}, found store {found}");
        Err(Error::new(ErrorKind::KeyringExists, what).with_path(dir))
    }
}

pub(super) fn parse(bytes: &[u8]) -> Option<Image> {
    Image::parse(StoredImage { bytes: bytes.to_vec(), version: String::new() }).ok()
}
