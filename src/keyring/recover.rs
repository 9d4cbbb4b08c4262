//! A lost or damaged keyring: what images there are, and putting one back.
//!
//! Never by itself: an older image lacks the data keys that came after it, so somebody has
//! to choose. What was in the place stays, under another name.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::access::revocation_requested;
use super::audit::AuditKind;
use super::body::Body;
use super::client::Client;
use super::commit::Draft;
use super::directory::DirectoryStorage;
use super::format::Image;
use super::key_state::KeyState;
use super::mirror::parse;
use super::rollback;
use super::status::KeyringInfo;
use super::storage::StoredImage;
use super::unlock::Search;
use super::{
    Counts, Keyring, KeyringStorage, Marks, Options, Snapshot, StoreKey, Unlocked, withdrawn,
};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::DataKeyId;
use crate::kms::Kms;
use crate::names::{KEYRING_FILE, NEW_FILE};
use crate::vfs::Rename;

/// Where an image of a keyring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ImagePlace {
    /// `KEYRING`, in use.
    Current,
    /// `KEYRING.<generation>`, kept from before.
    Kept(u64),
    /// `KEYRING` in the mirror.
    Mirror,
}

/// An image of a keyring, and what it would open. Field names are stable: they are the
/// JSON of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Where it is.
    pub place: ImagePlace,
    /// What it says without a key; `None` if it is damaged.
    pub info: Option<KeyringInfo>,
    /// With the customer's key: its data keys that are not destroyed. `None` if it was not
    /// tried, or does not open.
    pub data_keys: Option<Vec<DataKeyId>>,
    /// If it opens: the directories it knows of where files of the store are, its own left out.
    #[serde(serialize_with = "crate::shown::paths")]
    pub directories: Vec<PathBuf>,
    /// Why it does not open.
    pub problem: Option<String>,
}

/// What a recovery did. Field names are stable: they are the JSON of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Recovery {
    /// The image that was put back.
    pub place: ImagePlace,
    /// Its generation; the store's is one more.
    pub generation: u64,
    /// Files that were in the way, under their new names.
    #[serde(serialize_with = "crate::shown::paths")]
    pub kept_aside: Vec<PathBuf>,
    /// The new data key.
    pub data_key_id: DataKeyId,
}

impl DirectoryStorage {
    /// The current image, the older ones and the mirror's, the newest place first. With
    /// `kms` each is unlocked. Reads only.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io). What is wrong with an image is in its
    /// [`problem`](ImageInfo::problem).
    pub fn images(&self, kms: &[Arc<dyn Kms>], options: &Options) -> Result<Vec<ImageInfo>> {
        let mut images = Vec::new();
        let mut add = |place, bytes: Option<Vec<u8>>| {
            if let Some(bytes) = bytes {
                images.push(judge(place, bytes, kms, options));
            }
        };
        add(ImagePlace::Current, self.read(&self.dir.join(KEYRING_FILE))?);
        add(ImagePlace::Mirror, self.load_mirror()?);
        for generation in self.kept()?.into_iter().rev() {
            add(ImagePlace::Kept(generation), self.load_kept(generation)?);
        }
        Ok(images)
    }

    fn image(&self, place: ImagePlace) -> Result<Option<Vec<u8>>> {
        match place {
            ImagePlace::Current => self.read(&self.dir.join(KEYRING_FILE)),
            ImagePlace::Kept(generation) => self.load_kept(generation),
            ImagePlace::Mirror => self.load_mirror(),
        }
    }

    /// Gives the present image, and those that would pass for later ones of the line that begins
    /// now, second names, durably. Returns both names of each.
    fn keep_aside(
        &self,
        (generation, chosen): (u64, &[u8]),
        now_ns: u64,
    ) -> Result<Vec<(PathBuf, PathBuf)>> {
        let mut names = vec![(KEYRING_FILE.to_owned(), format!("{KEYRING_FILE}.bad-{now_ns}"))];
        for kept in self.kept()?.into_iter().filter(|kept| *kept >= generation) {
            if kept > generation || self.load_kept(kept)?.is_some_and(|it| it != chosen) {
                let aside = format!("{KEYRING_FILE}.bad-{kept}-{now_ns}");
                names.push((format!("{KEYRING_FILE}.{kept}"), aside));
            }
        }
        let mut aside = Vec::new();
        for (from, to) in names {
            let (from, to) = (self.dir.join(from), self.dir.join(to));
            let Some(bytes) = self.read(&from)? else { continue };
            let image = StoredImage { bytes, version: String::new() };
            self.keep(&from, &to, &image).map_err(|e| cannot_keep(e, &from))?;
            aside.push((from, to));
        }
        self.settle()?;
        Ok(aside)
    }

    /// Takes from what is kept aside the names that it had, and keeps the mirror's image aside.
    /// Returns the names that are left.
    fn clear_way(
        &self,
        aside: Vec<(PathBuf, PathBuf)>,
        chosen: ImagePlace,
        now_ns: u64,
    ) -> Result<Vec<PathBuf>> {
        let current = self.dir.join(KEYRING_FILE);
        for (from, _) in aside.iter().filter(|(from, _)| *from != current) {
            self.remove_if_there(from).map_err(|e| cannot_keep(e, from))?;
        }
        self.settle()?;
        let mut aside: Vec<_> = aside.into_iter().map(|(_, to)| to).collect();
        if let Some(mirror) = self.mirror.as_ref().filter(|_| chosen != ImagePlace::Mirror) {
            let from = mirror.join(KEYRING_FILE);
            let to = mirror.join(format!("{KEYRING_FILE}.bad-{now_ns}"));
            match self.vfs.rename(&from, &to, Rename::Replace) {
                Ok(()) => aside.push(to),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(cannot_keep(error, &from)),
            }
            let synced = self.vfs.sync_dir(mirror);
            synced.map_err(|e| Error::io("the mirror cannot be synced", e).with_path(mirror))?;
        }
        Ok(aside)
    }
}

fn cannot_keep(error: std::io::Error, path: &Path) -> Error {
    Error::io("the keyring cannot be kept aside", error).with_path(path)
}

fn judge(place: ImagePlace, bytes: Vec<u8>, kms: &[Arc<dyn Kms>], options: &Options) -> ImageInfo {
    let directories = Vec::new();
    let mut found = ImageInfo { place, info: None, data_keys: None, directories, problem: None };
    let image = match Image::parse(StoredImage { bytes, version: String::new() }) {
        Ok(image) => image,
        Err(error) => {
            found.problem = Some(error.to_string());
            return found;
        }
    };
    found.info = Some(KeyringInfo::from(&image));
    if kms.is_empty() {
        return found;
    }
    match open(&image, kms, options) {
        Ok((_, body)) => {
            let live = body.keys.iter().filter(|record| record.state != KeyState::Destroyed);
            found.data_keys = Some(live.map(|record| DataKeyId::from_bytes(record.id)).collect());
            let directories = body.directories.into_iter();
            found.directories = directories.map(|dir| OsString::from_vec(dir).into()).collect();
        }
        Err(error) => {
            let mut problem = error.to_string();
            if let Some(cause) = std::error::Error::source(&error) {
                problem = format!("{problem}: {cause}");
            }
            found.problem = Some(problem);
        }
    }
    found
}

fn open(image: &Image, kms: &[Arc<dyn Kms>], options: &Options) -> Result<(Arc<StoreKey>, Body)> {
    super::check_store(image, options)?;
    let search = Search::opening(options, false);
    Ok(search.unlock(image, &Client::all(kms.to_vec()))?)
}

impl DirectoryStorage {
    /// Puts the image at `place` back as the store's keyring, opens it, and starts new
    /// data keys: nobody knows what was encrypted under the lost ones. The image is proven
    /// with the customer's key before anything changes; what was in its way is kept under
    /// names that begin with `KEYRING.bad-`.
    ///
    /// Files under data keys that the image does not have cannot be read afterwards, until
    /// a keyring that has them comes back. An anchor kept outside refuses the older
    /// generation, as it should. One image is written, which has the new data keys: however
    /// a recovery is cut off, the store opens with them or not at all.
    ///
    /// # Errors
    /// [`KeyringExists`](ErrorKind::KeyringExists) if the current keyring opens, is no
    /// older than the chosen image, and has neither newer images beside it nor a mirror of another
    /// line, and if the mirror is another store's; [`KeyringMissing`](ErrorKind::KeyringMissing) if there
    /// is no such image; the errors of a damaged image and of [`Keyring::open`];
    /// [`Io`](ErrorKind::Io). A recovery that was cut off is done again.
    pub fn recover(
        self,
        place: ImagePlace,
        kms: Vec<Arc<dyn Kms>>,
        options: Options,
    ) -> Result<(Keyring, Recovery)> {
        self.lock_alone()?;
        if revocation_requested(&self)? {
            let what = "a request to revoke access lies beside the keyring: remove KEYRING.revoke \
                        if access is to come back, and recover then";
            return Err(Error::new(ErrorKind::CmekRevoked, what).with_path(&self.dir));
        }
        let bytes = self.image(place)?.ok_or_else(|| {
            Error::new(ErrorKind::KeyringMissing, "there is no such image of the keyring")
        })?;
        let image = Image::parse(StoredImage { bytes: bytes.clone(), version: String::new() })?;
        if let Some(dir) = &self.mirror {
            self.check_mirror(dir, &bytes)?;
        }
        let (store_key, body) = open(&image, &kms, &options)?;
        if body.revoked_ns != 0 {
            return Err(withdrawn());
        }
        let generation = image.fixed.generation;
        let current = self.image(ImagePlace::Current)?;
        if let Some(current) = current.as_deref().and_then(parse) {
            let opens = open(&current, &kms, &options).is_ok();
            // One that was put back beside newer images is there by mistake, or by choice.
            let contested = rollback::refuse(&self, &current, &self.kept()?).is_err()
                || self.check_mirror_is_past(&current).is_err();
            if opens && !contested && current.fixed.generation >= generation {
                let what = format!(
                    "the keyring opens, and its generation {} is no older than {generation}",
                    current.fixed.generation
                );
                return Err(Error::new(ErrorKind::KeyringExists, what));
            }
        }
        let now_ns = options.clock.now_ns();
        let renewed = self.renewed(image, store_key, body, now_ns)?;
        // The chosen image keeps its name until the next one is there, and what refuses the store
        // is in its way until then: a recovery that is cut off is done again.
        self.prepare(&renewed.image.stored.bytes)?;
        let aside = self.keep_aside((generation, &bytes), now_ns)?;
        self.put_back()?;
        let kept_aside = self.clear_way(aside, place, now_ns)?;
        self.settle_mirror()?;
        let keyring = Keyring::open_locked(Box::new(self), kms, options, true, Marks::Refuse)?;
        let data_key_id = keyring.keys().active_id()?;
        Ok((keyring, Recovery { place, generation, kept_aside, data_key_id }))
    }
}

impl DirectoryStorage {
    /// The generation after `image`, with new data keys. Nothing that opens the store ever
    /// sees the old ones active again.
    fn renewed(
        &self,
        image: Image,
        store_key: Arc<StoreKey>,
        body: Body,
        now_ns: u64,
    ) -> Result<Snapshot> {
        let generation = image.fixed.generation;
        let unlocked = Unlocked::new(store_key, &image, &body, None, &Counts::new())?;
        let chosen = Snapshot { image, body, unlocked: Some(Arc::new(unlocked)) };
        let mut draft = Draft::new(&chosen, chosen.unlocked()?, now_ns);
        draft.rotate_all_data_keys()?;
        draft.record(AuditKind::Recovered, format!("generation {generation}"));
        draft.body.location = self.location().id;
        let committed = chosen.body.audit.tail_len();
        draft.body.audit.archive(self, draft.store_id(), committed)?;
        draft.prove(&chosen)
    }

    /// Writes the next image beside the present one: what takes room, and changes nothing.
    fn prepare(&self, bytes: &[u8]) -> Result<()> {
        let new = self.dir.join(NEW_FILE);
        self.write_new(&new, bytes)
            .map_err(|e| Error::io("the keyring cannot be written", e).with_path(&new))
    }

    fn put_back(&self) -> Result<()> {
        let (current, new) = (self.dir.join(KEYRING_FILE), self.dir.join(NEW_FILE));
        let renamed = self.vfs.rename(&new, &current, Rename::Replace);
        renamed
            .and_then(|()| self.vfs.sync_dir(&self.dir))
            .map_err(|e| Error::io("the keyring cannot be written", e).with_path(&current))
    }
}
