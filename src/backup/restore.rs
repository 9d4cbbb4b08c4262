//! From a backup to a new store.
//!
//! The new store's keyring is made in `KEYRING.restore/` beside a note of which backup is
//! being restored. The files are encrypted under its data key, each compared with its hash
//! while it is written, and get their names when they are whole and durable. Only when all
//! are does the keyring move to its place: a directory without `KEYRING` is no store, and
//! one with `KEYRING.restore` is continued by the same restore or refused.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::Chain;
use super::lack::{Lack, LackEntry};
use super::manifest::{Entry, Manifest, What};
use super::object::{self, broken};
use super::objects::{ObjectReader, stream_of};
use super::own;
use super::stream::StreamParts;
use super::waiting::Waiting;
use crate::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::EncryptedFs;
use crate::header::FileKind;
use crate::ids::{DataKeyId, FileId, StoreId};
use crate::keyring::{DirectoryStorage, FileSpec, Keyring, KeyspaceId, Options};
use crate::kms::Kms;
use crate::names::partial_name;
use crate::parallel;
use crate::progress::{Meter, OnProgress};
use crate::store::{Store, StorePlace};
use crate::suite::Suite;
use crate::suite::layout::Layout;
use crate::vfs::{Attributes, OsVfs, Vfs, adopt_owner, keep_attributes};

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
        let (options, vfs) = (Options::default(), Arc::new(OsVfs));
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
    /// The data key that its files are under.
    pub data_key_id: DataKeyId,
    /// Files restored.
    pub files: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Files that a killed restore had written already, proven by their hashes.
    pub resumed_files: u64,
    /// What of the store was not in the backup, and so is not in the new one.
    pub lacks: Vec<Lack>,
}

impl Chain {
    /// Restores a backup as a new store, with a new store key and a new data key: it never
    /// goes on under a key of the old one. Modes and times of files are restored; where
    /// the process may say so, the directory's owner is theirs.
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
        sync_parent(&**vfs, dir).map_err(fail)?;
        let waiting = Waiting::enter(vfs, dir, &note, &manifest)?;
        let adopt = |path: &Path| {
            let parent = path.parent().unwrap_or(dir);
            let adopted = adopt_owner(&**vfs, parent, path);
            adopted.map_err(|e| Error::io("the owner cannot be set", e).with_path(path))
        };
        if !waiting.is_published {
            adopt(&dir.join(crate::names::RESTORE_DIR))?;
        }
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
        let spaces = store.keyspaces().find_or_create(&manifest.keyspaces)?;
        let fs = store.files();
        for directory in &manifest.directories {
            let path = dir.join(object::relative(&directory.path));
            let made = vfs.create_dir(&path, directory.mode | 0o700);
            let stat = made.and_then(|()| vfs.stat(&path));
            let fail = |e| Error::io("the directory cannot be created", e).with_path(&path);
            own::check_kind(&path, stat.map_err(fail)?.kind)?;
            adopt(&path)?;
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
        let directories = directories.map(|it| dir.join(object::relative(&it.path)));
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
            lacks: manifest.lacks.iter().filter_map(LackEntry::lack).collect(),
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
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let partial = &path.with_file_name(partial_name(name, 0));
        // Whatever can be read of it, none of it may be durable.
        match vfs.remove(partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("the file of a killed restore cannot be removed", error));
            }
            _ => {}
        }
        if is_restored(fs, path, entry, what) {
            meter.add(1, entry.object.stream_len)?;
            return Ok(true);
        }
        let open = || ObjectReader::open_expecting(self, &entry.object);
        let mut parts = StreamParts::of(what);
        match what {
            What::Empty => {
                write_plain(&**vfs, partial, |_| Ok(()))?;
            }
            What::Plaintext => {
                let reader = open()?;
                write_plain(&**vfs, partial, |append| {
                    reader.stream(|piece| {
                        parts.take(piece, append)?;
                        meter.add(0, piece.len() as u64)
                    })?;
                    parts.end(entry.object.len)
                })?;
            }
            What::Encrypted { suite, chunk_log2, kind } => {
                let reader = open()?;
                let spec = spec_of(entry, suite, chunk_log2, kind)?.keyspace(keyspace);
                let mut writer = fs.create_new(partial, spec)?;
                reader.stream(|piece| {
                    parts.take(piece, &mut |plaintext| writer.append(plaintext))?;
                    meter.add(0, piece.len() as u64)
                })?;
                parts.end(entry.object.len)?;
                writer.finish()?;
            }
        }
        let (mode, modified_ns) = (Some(entry.mode), Some(entry.modified_ns));
        keep_attributes(&**vfs, partial, &Attributes { owner: None, mode, modified_ns })
            .map_err(|e| Error::io("mode and time of the file cannot be set", e))?;
        adopt_owner(&**vfs, path.parent().unwrap_or(path), partial)
            .map_err(|e| Error::io("the owner of the file cannot be set", e))?;
        fs.rename(partial, path)?;
        meter.add(1, 0)?;
        Ok(false)
    }
}

fn spec_of(entry: &Entry, suite: Suite, chunk_log2: u8, kind: FileKind) -> Result<FileSpec> {
    let spec = FileSpec::new(kind).suite(suite).file_id(FileId::from_bytes(entry.file_id));
    let layout = Layout::parse(suite.number(), chunk_log2)?;
    Ok(layout.chunk_len().map_or(spec, |len| spec.chunk_len(len)))
}

/// Whether a killed restore wrote this file: its content has the right hash. That it has its
/// name says that it is durable.
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

/// Makes the name of the new store's directory durable, where its parent may be opened.
fn sync_parent(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
    let dir = vfs.canonical(dir)?;
    match vfs.sync_dir(dir.parent().unwrap_or(&dir)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

type Append<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

fn write_plain(
    vfs: &dyn Vfs,
    path: &Path,
    fill: impl FnOnce(Append<'_>) -> Result<()>,
) -> Result<()> {
    let fail = |e| Error::io("the file cannot be written", e).with_path(path);
    // Its own mode comes with its last byte.
    let mut file = vfs.create_new(path, 0o600).map_err(fail)?;
    fill(&mut |piece| file.append(piece).map_err(fail))?;
    file.sync().map_err(fail)
}
