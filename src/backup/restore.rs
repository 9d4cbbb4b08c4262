//! From a backup to a new store.
//!
//! The new store's keyring is made in `KEYRING.restore/` beside a note of which backup is
//! being restored. The files are encrypted under its data key, each compared with its hash
//! while it is written. Only when all are durable does the keyring move to its place: a
//! directory without `KEYRING` is no store, and one with `KEYRING.restore` is continued by
//! the same restore or refused.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::Chain;
use super::manifest::{self, Entry, Manifest, What};
use super::object::broken;
use super::objects::{ObjectReader, stream_of};
use super::snapshot::Listing;
use crate::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::EncryptedFs;
use crate::header::FileKind;
use crate::ids::{DataKeyId, FileId, StoreId};
use crate::keyring::{
    DirectoryStorage, FileSpec, FilesBeside, KEYRING_FILE, Keyring, KeyspaceId, Options,
};
use crate::kms::Kms;
use crate::names::RESTORE_DIR;
use crate::parallel;
use crate::progress::{Meter, OnProgress};
use crate::store::{Store, StorePlace};
use crate::suite::Suite;
use crate::suite::layout::Layout;
use crate::vfs::{Attributes, Links, OsVfs, Rename, Vfs, keep_attributes};

/// Where the new keyring waits.
/// Which backup is being restored: `KEYRING.from` in it.
const FROM: &str = "from";

/// What to restore, and to where.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreSpec {
    /// The backup's number; `None`, the default, for the last one.
    pub number: Option<u64>,
    /// The manifest's hash as noted when the backup was made, in hex: another manifest is
    /// refused. Default: none.
    pub manifest_sha256: Option<String>,
    /// The new store's directory: not there, empty, or left by the same restore when it
    /// was killed.
    pub dir: PathBuf,
    /// The customer's key of the new store: the backup's or another.
    pub kms: Arc<dyn Kms>,
    /// How its keyring is used; its settings are those that the store had.
    pub options: Options,
    /// The file system that the directory is in.
    pub vfs: Arc<dyn Vfs>,
}

impl RestoreSpec {
    /// Restores the last backup into `dir`, a new store under `kms`.
    pub fn new(dir: impl Into<PathBuf>, kms: Arc<dyn Kms>) -> Self {
        let options = Options { background: false, ..Options::default() };
        let vfs = Arc::new(OsVfs);
        Self { number: None, manifest_sha256: None, dir: dir.into(), kms, options, vfs }
    }
}

/// What a restore did. Field names are stable: they are the JSON of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The chain.
    pub chain_id: StoreId,
    /// The backup.
    pub number: u64,
    /// When the store was as it is now, nanoseconds since the Unix epoch.
    pub created_ns: u64,
    /// The store that was backed up.
    pub source_store_id: StoreId,
    /// The new store.
    pub store_id: StoreId,
    /// The data key that its files are under. The first opening for writing starts
    /// another.
    pub data_key_id: DataKeyId,
    /// Files restored.
    pub files: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Files that a killed restore had written already, proven by their hashes.
    pub resumed_files: u64,
}

impl Chain {
    /// Restores a backup as a new store, with a new store key and a new data key: it never
    /// goes on under a key of the old one. Modes and times of files are restored, owners
    /// are not.
    ///
    /// # Errors
    /// [`BrokenBackup`](ErrorKind::BrokenBackup) and those of a damaged file for a chain,
    /// manifest or copy that is missing, swapped or changed;
    /// [`Io`](ErrorKind::Io), with `DirectoryNotEmpty` if something else is in the
    /// directory; [`KeyringExists`](ErrorKind::KeyringExists) if a store is;
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch) if an unfinished restore of
    /// another backup is; those of [`Keyring::create`]. The directory is then no store,
    /// and the same call continues.
    pub fn restore(&self, spec: &RestoreSpec, on: OnProgress<'_>) -> Result<RestoreReport> {
        let (manifest, hash) = self.chosen(spec)?;
        let mut note = self.id().as_bytes().to_vec();
        note.extend_from_slice(&hash);
        let (vfs, dir) = (&spec.vfs, spec.dir.as_path());
        let fail = |e| Error::io("the directory cannot be used", e).with_path(dir);
        vfs.create_dir(dir, 0o777).map_err(fail)?;
        let waiting = Waiting::enter(vfs, dir, &note, &manifest)?;
        let mut options = spec.options.clone();
        options.settings = Settings::try_from(&manifest.settings).map_err(broken)?;
        if waiting.is_published {
            let keyring = Keyring::open_read_only(
                DirectoryStorage::with_vfs(dir, vfs.clone()),
                spec.kms.clone(),
                options,
            )?;
            let resumed = manifest.files.len() as u64;
            let report = self.report(&manifest, &keyring, resumed)?;
            waiting.clear()?;
            return Ok(report);
        }
        let place = StorePlace::new(waiting.storage(), vfs.clone());
        let store = Store::open_or_create(place, spec.kms.clone(), options)?;
        let spaces = keyspaces(store.keyring(), &manifest)?;
        let fs = store.files();
        for directory in &manifest.directories {
            let path = dir.join(manifest::relative(&directory.path));
            let made = vfs.create_dir(&path, directory.mode & 0o7777 | 0o700);
            made.map_err(|e| Error::io("the directory cannot be created", e).with_path(&path))?;
        }
        let bytes = manifest.files.iter().map(|file| file.object.stream_len).sum();
        let meter = Meter::new(on, manifest.files.len() as u64, bytes);
        meter.add(0, 0)?;
        let resumed = parallel::each(&manifest.files, |entry| {
            let path = dir.join(entry.relative());
            let keyspace = spaces[entry.keyspace as usize];
            self.restore_file(fs, &path, entry, keyspace, &meter)
                .map_err(|error| error.with_path(&path))
        })?;
        let directories = manifest.directories.iter();
        let directories = directories.map(|it| dir.join(manifest::relative(&it.path)));
        for path in directories.chain([dir.to_owned()]) {
            fs.sync_dir(&path)?;
        }
        let resumed = resumed.into_iter().filter(|resumed| *resumed).count() as u64;
        let report = self.report(&manifest, fs.keyring(), resumed)?;
        drop(store);
        waiting.publish()?;
        waiting.clear()?;
        Ok(report)
    }

    fn chosen(&self, spec: &RestoreSpec) -> Result<(Manifest, [u8; 32])> {
        let count = self.count()?;
        let number = spec.number.unwrap_or(count);
        if number == 0 || number > count {
            let what = match (spec.number, count) {
                (_, 0) => "there is no finished backup".into(),
                _ => format!("expected the number of a backup from 1 to {count}, found {number}"),
            };
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        let mut chosen = None;
        // Those behind it need not be good.
        self.walk(number, |manifest, hash, _| {
            chosen = Some((manifest, hash));
            Ok(())
        })?;
        let (manifest, hash) = chosen.ok_or_else(|| broken("the backup is missing"))?;
        let found = crate::hex::encode(&hash);
        match &spec.manifest_sha256 {
            Some(expected) if !expected.eq_ignore_ascii_case(&found) => Err(broken(format!(
                "expected the manifest {expected}, found {found} as backup {number}"
            ))),
            _ => Ok((manifest, hash)),
        }
    }

    fn report(
        &self,
        manifest: &Manifest,
        keyring: &Keyring,
        resumed_files: u64,
    ) -> Result<RestoreReport> {
        Ok(RestoreReport {
            chain_id: self.id(),
            number: manifest.number,
            created_ns: manifest.created_ns,
            source_store_id: StoreId::from_bytes(manifest.source_store_id),
            store_id: keyring.store_id(),
            data_key_id: keyring.keys().active_id()?,
            files: manifest.files.len() as u64,
            bytes: manifest.files.iter().map(|file| file.object.len).sum(),
            resumed_files,
        })
    }

    /// True if the file was there already.
    fn restore_file(
        &self,
        fs: &EncryptedFs,
        path: &Path,
        entry: &Entry,
        keyspace: KeyspaceId,
        meter: &Meter<'_>,
    ) -> Result<bool> {
        let vfs = fs.vfs();
        let what = entry.what().ok_or_else(|| broken("the file is described wrongly"))?;
        if is_restored(fs, path, entry, what) {
            meter.add(1, entry.object.stream_len)?;
            return Ok(true);
        }
        match vfs.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("the file of a killed restore cannot be removed", error));
            }
            _ => {}
        }
        let open = || ObjectReader::open_expecting(self, &entry.object);
        match what {
            What::Empty => {
                write_plain(&**vfs, path, |_| Ok(()))?;
            }
            What::Plaintext => {
                let reader = open()?;
                write_plain(&**vfs, path, |append| {
                    reader.stream(|piece| {
                        append(piece)?;
                        meter.add(0, piece.len() as u64)
                    })
                })?;
            }
            What::Encrypted { suite, chunk_log2, kind } => {
                let reader = open()?;
                let spec = spec_of(entry, suite, chunk_log2, kind)?.keyspace(keyspace);
                let mut writer = fs.create_new(path, spec)?;
                let mut frames = suite.keeps_appends().then(Frames::default);
                reader.stream(|piece| {
                    match &mut frames {
                        Some(frames) => frames.take(piece, |frame| writer.append(frame))?,
                        None => writer.append(piece)?,
                    }
                    meter.add(0, piece.len() as u64)
                })?;
                if frames.is_some_and(|frames| !frames.0.is_empty()) {
                    return Err(broken("the copied log ends inside a frame"));
                }
                if writer.position() != entry.object.len {
                    return Err(broken("the copy holds another number of bytes than it says"));
                }
                writer.finish()?;
            }
        }
        let (mode, modified_ns) = (Some(entry.mode), Some(entry.modified_ns));
        keep_attributes(&**vfs, path, &Attributes { owner: None, mode, modified_ns })
            .map_err(|e| Error::io("mode and time of the file cannot be set", e))?;
        meter.add(1, 0)?;
        Ok(false)
    }
}

/// The new store's keyspaces, in the order of the manifest. One that no file is in any
/// more, such as a shredded one, is not created; the first stands for it.
fn keyspaces(keyring: &Keyring, manifest: &Manifest) -> Result<Vec<KeyspaceId>> {
    let mut ids = Vec::with_capacity(manifest.keyspaces.len());
    let used: HashSet<usize> = manifest.files.iter().map(|file| file.keyspace as usize).collect();
    for (index, name) in manifest.keyspaces.iter().enumerate() {
        ids.push(match keyring.keyspaces().find(name) {
            Some(id) => id,
            None if used.contains(&index) => keyring.keyspaces().create(name)?,
            None => KeyspaceId::default(),
        });
    }
    Ok(ids)
}

fn spec_of(entry: &Entry, suite: Suite, chunk_log2: u8, kind: FileKind) -> Result<FileSpec> {
    let spec = FileSpec::new(kind).suite(suite).file_id(FileId::from_bytes(entry.file_id));
    let layout = Layout::parse(suite.number(), chunk_log2)?;
    Ok(layout.chunk_len().map_or(spec, |len| spec.chunk_len(len)))
}

/// Whether a killed restore wrote this file wholly: its content has the right hash.
fn is_restored(fs: &EncryptedFs, path: &Path, entry: &Entry, what: What) -> bool {
    use sha2::{Digest, Sha256};
    let there = fs.vfs().stat(path);
    let Ok(stat) = there else { return false };
    if let What::Empty = what {
        return stat.len == 0;
    }
    let Ok(reader) = fs.open(path) else { return false };
    let suite = if let What::Encrypted { suite, .. } = what { Some(suite) } else { None };
    let mut hash = Sha256::new();
    let streamed = stream_of(&reader, |piece| {
        hash.update(piece);
        Ok(())
    });
    reader.suite() == suite
        && streamed.is_ok_and(|copied| copied.len == entry.object.len)
        && hash.finalize()[..] == entry.object.sha256
}

type Append<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

fn write_plain(
    vfs: &dyn Vfs,
    path: &Path,
    fill: impl FnOnce(Append<'_>) -> Result<()>,
) -> Result<()> {
    let fail = |e| Error::io("the file cannot be written", e).with_path(path);
    let mut file = vfs.create_new(path, 0o666).map_err(fail)?;
    fill(&mut |piece| file.append(piece).map_err(fail))?;
    file.sync().map_err(fail)
}

/// Finds the frames of a log in pieces of its stream.
#[derive(Default)]
struct Frames(Vec<u8>);

impl Frames {
    fn take(&mut self, piece: &[u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.0.extend_from_slice(piece);
        let mut rest = self.0.as_slice();
        while let Some((len, behind)) = rest.split_first_chunk::<4>() {
            let len = u32::from_le_bytes(*len) as usize;
            if len == 0 || len > crate::FRAME_LEN_MAX {
                return Err(broken("a frame of the copied log has a wrong length"));
            }
            let Some((frame, behind)) = behind.split_at_checked(len) else { break };
            each(frame)?;
            rest = behind;
        }
        let done = self.0.len() - rest.len();
        self.0.drain(..done);
        Ok(())
    }
}

/// The directory in which the new keyring waits.
struct Waiting<'a> {
    vfs: &'a Arc<dyn Vfs>,
    dir: &'a Path,
    path: PathBuf,
    is_published: bool,
}

impl<'a> Waiting<'a> {
    fn enter(
        vfs: &'a Arc<dyn Vfs>,
        dir: &'a Path,
        note: &[u8],
        manifest: &Manifest,
    ) -> Result<Self> {
        let path = dir.join(RESTORE_DIR);
        let mut waiting = Self { vfs, dir, path, is_published: false };
        let fail = |e| Error::io("the directory cannot be used", e).with_path(dir);
        let noted = waiting.storage().load_beside(FROM)?;
        let is_there = |path: &Path| vfs.open(path, Links::Follow).is_ok();
        let has_keyring = is_there(&dir.join(KEYRING_FILE));
        match noted {
            Some(noted) if noted != note => {
                let what = "an unfinished restore of another backup is in the directory";
                return Err(Error::new(ErrorKind::IdentityMismatch, what).with_path(dir));
            }
            Some(_) => {
                waiting.is_published = has_keyring && !is_there(&waiting.path.join(KEYRING_FILE));
                if has_keyring && !waiting.is_published {
                    return Err(exists(dir));
                }
            }
            None if has_keyring => return Err(exists(dir)),
            None => {
                let found = Listing::read(&**vfs, dir)?;
                let found = found.files.keys().chain(found.directories.keys());
                // Every new ext file system has that one.
                let mut found = found.filter(|path| *path != Path::new("lost+found"));
                if let Some(found) = found.next() {
                    return Err(not_empty(&dir.join(found)));
                }
                vfs.create_dir(&waiting.path, 0o700).map_err(fail)?;
                vfs.sync_dir(dir).map_err(fail)?;
                waiting.storage().put_beside(FROM, note)?;
            }
        }
        if !waiting.is_published {
            waiting.check_strangers(manifest)?;
        }
        Ok(waiting)
    }

    /// Refuses what the restore did not put there.
    fn check_strangers(&self, manifest: &Manifest) -> Result<()> {
        let found = Listing::read(&**self.vfs, self.dir)?;
        for path in found.files.keys() {
            let bytes = path.as_os_str().as_bytes();
            let find = |file: &Entry| file.path.as_slice().cmp(bytes);
            if manifest.files.binary_search_by(find).is_err() {
                return Err(not_empty(&self.dir.join(path)));
            }
        }
        Ok(())
    }

    fn storage(&self) -> DirectoryStorage {
        DirectoryStorage::with_vfs(&self.path, self.vfs.clone())
    }

    /// Makes the directory a store.
    fn publish(&self) -> Result<()> {
        let to = self.dir.join(KEYRING_FILE);
        let moved = self.vfs.rename(&self.path.join(KEYRING_FILE), &to, Rename::Replace);
        moved
            .and_then(|()| self.vfs.sync_dir(self.dir))
            .map_err(|e| Error::io("the keyring cannot be put in place", e).with_path(&to))
    }

    fn clear(&self) -> Result<()> {
        let fail = |e| Error::io("what is left cannot be removed", e).with_path(&self.path);
        // The note last: without it the rest would belong to nobody.
        let mut entries = self.vfs.list(&self.path).map_err(fail)?;
        entries.sort_by_key(|entry| entry.path.ends_with(format!("{KEYRING_FILE}.{FROM}")));
        for entry in entries {
            self.vfs.remove(&entry.path).map_err(fail)?;
        }
        self.vfs.remove(&self.path).map_err(fail)?;
        self.vfs.sync_dir(self.dir).map_err(fail)
    }
}

fn exists(dir: &Path) -> Error {
    Error::new(ErrorKind::KeyringExists, "expected an empty directory, found a store")
        .with_path(dir)
}

fn not_empty(path: &Path) -> Error {
    let kind = ErrorKind::Io(io::ErrorKind::DirectoryNotEmpty);
    Error::new(kind, "expected an empty directory, found something in it").with_path(path)
}
