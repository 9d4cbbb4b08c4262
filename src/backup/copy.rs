//! Making a backup: what is new is copied, the rest is named.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::Serialize;

use super::lack::{LackEntry, LackReason};
use super::manifest::{DIRECTORY_MODES, DirectoryEntry, Entry, FILE_MODES, Manifest, What};
use super::object::{Object, ObjectId};
use super::objects::{self, ObjectReader, ObjectWriter};
use super::plan::{Plan, identity, is_under, left_out, may_be_stopped, plan};
use super::settings::ManifestSettings;
use super::snapshot::{self, SnapFile};
use super::spaces::Spaces;
use super::target::{FILES, TMP};
use super::{BackupInfo, Chain, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::pieces::Copied;
use crate::fs::{EncryptedFs, TornFile, TornReason};
use crate::header::HEADER_LEN;
use crate::ids::DataKeyId;
use crate::keyring::{Expect, KeyState};
use crate::parallel;
use crate::progress::{Meter, OnProgress};
use crate::store::Store;

/// What a backup did. Field names are stable: they are the JSON of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackupReport {
    /// The chain.
    pub chain_id: crate::StoreId,
    /// The backup.
    #[serde(flatten)]
    pub info: BackupInfo,
    /// Copies that a killed backup had made already.
    pub resumed_files: u64,
    /// Sockets, devices and the like, which are not in the backup.
    pub others: u64,
    /// A file system's [`lost+found`](crate::walk::PassedBy::lost_found), relative to the
    /// store, in which nobody looked.
    #[serde(serialize_with = "crate::shown::paths")]
    pub lost_found: Vec<PathBuf>,
    /// Files that are in the backup up to where they are [torn](TornFile), and no further. One
    /// that is being written through this keyring, and whose last append was under way, is not
    /// one of them.
    pub torn: Vec<TornFile>,
}

/// The last backup of the chain, to find what is not new.
#[derive(Default)]
struct Last {
    manifest: Option<Manifest>,
    hash: [u8; 32],
    /// All copies that any backup names.
    named: HashSet<ObjectId>,
}

impl Chain {
    /// Makes the next backup of the chain: a full one if it is the first, otherwise an
    /// incremental one, which copies what is new since the last and reads only the headers
    /// of the rest; torn files are copied each time. Files whose data key was destroyed are
    /// named as what it [lacks](BackupInfo::lacks). It exists, and is listed, only when all of it
    /// is durable. A backup that was cancelled or killed is continued by the next call: whole
    /// copies are not made twice.
    ///
    /// What is new is told by a file's header and length alone. A file whose bytes changed at its
    /// old length, such as a log whose last pages a power cut left as zeros behind a backup, is
    /// in the backup as it was copied before.
    ///
    /// `store` is that the snapshot was taken of; its keys may rotate meanwhile.
    ///
    /// # Errors
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch) if the chain is that of another
    /// store; every error of opening and reading a file of the store, with its path;
    /// [`BrokenBackup`](ErrorKind::BrokenBackup) for a damaged chain;
    /// [`ReadOnly`](ErrorKind::ReadOnly); [`Io`](ErrorKind::Io), `Interrupted` when
    /// cancelled.
    pub fn back_up(
        &self,
        store: &Store,
        snapshot: &Snapshot,
        on: OnProgress<'_>,
    ) -> Result<BackupReport> {
        let fs = store.files();
        if !self.writable {
            return Err(Error::new(ErrorKind::ReadOnly, "the backups were opened read-only"));
        }
        let last = self.last()?;
        self.check_source(snapshot, &last)?;
        let number = last.manifest.as_ref().map_or(0, |manifest| manifest.number) + 1;
        let leftovers = self.leftovers(&last, number)?;
        let destroyed = destroyed_keys(fs);
        let (plans, copies, mut lacks) =
            plan(&**fs.vfs(), snapshot, &destroyed, last.manifest.as_ref(), &leftovers);
        let bytes_total = copies.iter().map(|file| file.stat.len).sum();
        let meter = Meter::new(on, copies.len() as u64, bytes_total);
        meter.add(0, 0)?;
        let copied = parallel::each(&copies, |file| {
            let copied = self.copy(fs, file, number, &meter);
            match copied.and_then(|copied| self.known_before(file, copied, &last, &leftovers)) {
                // Its keyspace was shredded meanwhile, before it was opened or after.
                Err(error)
                    if matches!(error.kind(), ErrorKind::KeyDestroyed | ErrorKind::CmekRevoked)
                        && is_under(file, &destroyed_keys(fs)) =>
                {
                    Ok(Err(LackReason::KeyDestroyed))
                }
                other => other.map_err(|error| error.with_path(&file.path)),
            }
        })?;
        let mut spaces = Spaces::of(fs);
        let mut resumed = HashSet::new();
        let mut files = Vec::with_capacity(plans.len());
        let mut torn = Vec::new();
        for (file, plan) in plans {
            let (object, copied) = match plan {
                Plan::Empty => (Object::default(), None),
                Plan::Have(object) => (*object, None),
                Plan::Copy(index) => match copied[index] {
                    Ok((object, copied)) => (object, Some(copied)),
                    Err(why) => {
                        lacks.push(left_out(file, why));
                        continue;
                    }
                },
            };
            if leftovers.get(&object.identity).is_some_and(|left| left.id == object.id) {
                resumed.insert(object.identity);
            }
            if let Some(file) = copied.and_then(|copied| torn_file(fs, file, &copied)) {
                let lack = LackEntry::new(&file.path, LackReason::Torn);
                lacks.push(lack.bytes(file.kept_bytes, file.lost_bytes));
                torn.push(file);
            }
            files.push(entry(file, object, &mut spaces));
        }
        let previous = last.hash;
        drop((copied, copies));
        drop(last);
        let directories = snapshot.directories.iter().map(|(path, mode)| DirectoryEntry {
            path: path.as_os_str().as_bytes().to_vec(),
            mode: *mode & DIRECTORY_MODES,
        });
        lacks.extend(snapshot.lacks.iter().cloned());
        let mut manifest = Manifest {
            chain_id: *self.id().as_bytes(),
            number,
            previous,
            created_ns: snapshot.taken_ns,
            source_store_id: *snapshot.store_id.as_bytes(),
            source_generation: snapshot.generation,
            settings: ManifestSettings::from(&fs.keyring().settings()),
            keyspaces: spaces.names,
            directories: directories.collect(),
            files,
            lacks,
        };
        // Paths order by their parts, a manifest by bytes.
        manifest.files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        manifest.directories.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        manifest.lacks.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        self.target.settle()?;
        let (hash, physical_len) = self.write_manifest(&manifest)?;
        self.target.settle()?;
        for left in leftovers.values().filter(|left| !resumed.contains(&left.identity)) {
            // The backup is made; the next one tries again.
            drop(self.discard(&objects::name(&left.id)));
        }
        let info = BackupInfo::new(&manifest, hash, physical_len);
        let resumed_files = resumed.len() as u64;
        let (others, lost_found) = (snapshot.others(), snapshot.lost_found().to_vec());
        Ok(BackupReport { chain_id: self.id(), info, resumed_files, others, lost_found, torn })
    }

    fn last(&self) -> Result<Last> {
        let mut last = Last::default();
        self.walk(self.count()?, |manifest, hash, _| {
            last.named.extend(manifest.files.iter().map(|file| file.object.id));
            last.hash = hash;
            last.manifest = Some(manifest);
            Ok(())
        })?;
        Ok(last)
    }

    fn check_source(&self, snapshot: &Snapshot, last: &Last) -> Result<()> {
        let found = snapshot.store_id;
        match &last.manifest {
            Some(manifest) if manifest.source_store_id != *found.as_bytes() => {
                let expected = crate::StoreId::from_bytes(manifest.source_store_id);
                let what = format!("expected backups of store {found}, found store {expected}");
                Err(Error::new(ErrorKind::IdentityMismatch, what))
            }
            _ => Ok(()),
        }
    }

    /// Whole copies that no backup names, by what they are copies of. What is not whole or
    /// not ours is removed.
    fn leftovers(&self, last: &Last, number: u64) -> Result<HashMap<[u8; 32], Object>> {
        for (name, _) in self.target.list(TMP)? {
            self.discard(&format!("{TMP}/{name}"))?;
        }
        let names = self.target.list(FILES)?;
        let ids: Vec<(String, Option<ObjectId>)> = names
            .into_iter()
            .map(|(name, _)| {
                let id = crate::hex::decode_array(&name);
                (name, id)
            })
            .filter(|(_, id)| id.is_none_or(|id| !last.named.contains(&id)))
            .collect();
        let read = parallel::each(&ids, |(name, id)| {
            let opened = id.map(|id| ObjectReader::open(self, id));
            match opened {
                Some(Ok(opened)) if opened.footer.identity != [0; 32] => {
                    return Ok(Some(Object { held_by: number, ..opened.footer }));
                }
                // Not damaged, but out of reach: not to be taken for worthless.
                Some(Err(error)) if !is_damage(error.kind()) => return Err(error),
                _ => {}
            }
            self.discard(&format!("{FILES}/{name}"))?;
            Ok(None)
        })?;
        let mut found = HashMap::new();
        for object in read.into_iter().flatten() {
            if let MapEntry::Vacant(place) = found.entry(object.identity) {
                place.insert(object);
            } else {
                self.discard(&objects::name(&object.id))?;
            }
        }
        Ok(found)
    }

    /// Removes what no manifest names, unless it may be another writer's.
    fn discard(&self, name: &str) -> Result<()> {
        if self.target.is_exclusive() { self.target.remove(name) } else { Ok(()) }
    }

    fn copy(
        &self,
        fs: &EncryptedFs,
        file: &SnapFile,
        number: u64,
        meter: &Meter<'_>,
    ) -> Result<Result<(Object, Copied), LackReason>> {
        let opened = snapshot::open_capped(fs.vfs(), file)?;
        let reader = match fs.open_file(&file.path, opened, &Expect::default()) {
            // It was caught in the middle of a write, or left by a writer that was stopped.
            Err(error)
                if error.kind() == ErrorKind::Authentication
                    && (has_grown(fs, file) || may_be_stopped(file)) =>
            {
                return Ok(Err(LackReason::Unfinished));
            }
            other => other?,
        };
        if reader.suite() != file.header.as_ref().map(|header| header.suite) {
            let what = "the file's header changed since it was linked";
            return Err(Error::new(ErrorKind::IdentityMismatch, what));
        }
        let mut writer = ObjectWriter::create(self, file.stat.len)?;
        let copied = objects::stream_of(&reader, |piece| {
            writer.append(piece)?;
            meter.add(0, piece.len() as u64)
        })?;
        // What could not be read now is copied when it can be.
        let identity = identity(file, copied_len(file, &copied));
        let object = writer.finish(copied.len, identity, number)?;
        meter.add(1, 0)?;
        Ok(Ok((object, copied)))
    }

    /// A file that could again not be copied to its end has a copy already: that one, then.
    fn known_before(
        &self,
        file: &SnapFile,
        copied: Result<(Object, Copied), LackReason>,
        last: &Last,
        leftovers: &HashMap<[u8; 32], Object>,
    ) -> Result<Result<(Object, Copied), LackReason>> {
        let Ok((object, copied)) = copied else { return Ok(copied) };
        if file.header.is_none() || copied_len(file, &copied) == file.stat.len {
            return Ok(Ok((object, copied)));
        }
        let is_same = |other: &&Object| {
            (other.identity, other.len, other.sha256)
                == (object.identity, object.len, object.sha256)
        };
        let before = last.manifest.iter().flat_map(|manifest| &manifest.files);
        let before = before.map(|file| &file.object).chain(leftovers.values()).find(is_same);
        if before.is_some() {
            self.discard(&objects::name(&object.id))?;
        }
        Ok(Ok((before.copied().unwrap_or(object), copied)))
    }
}

/// Up to which of its bytes on disk a file was copied.
fn copied_len(file: &SnapFile, copied: &Copied) -> u64 {
    let Some(header) = &file.header else { return copied.len };
    let appends = copied.appends.unwrap_or_default();
    HEADER_LEN as u64 + header.layout.body_len(copied.len, appends)
}

/// What of a file is not in its copy.
fn torn_file(fs: &EncryptedFs, file: &SnapFile, copied: &Copied) -> Option<TornFile> {
    let header = file.header.as_ref()?;
    let lost_bytes = file.stat.len.checked_sub(copied_len(file, copied)).filter(|it| *it > 0)?;
    let reason = copied.torn.map(|torn| torn.reason);
    if reason.is_none() && !header.suite.keeps_appends() {
        // It became shorter, as a file past the page cache does at each flush. A log does not.
        return None;
    }
    if reason.is_none_or(TornReason::is_usual_while_writing)
        && fs.keyring().is_being_written(header)
    {
        return None;
    }
    Some(TornFile { path: file.path.clone(), reason, kept_bytes: copied.len, lost_bytes })
}

/// Whether a file that has an end was longer later: then it was not finished.
fn has_grown(fs: &EncryptedFs, file: &SnapFile) -> bool {
    file.header.as_ref().is_some_and(|header| header.suite.has_end())
        && fs.vfs().stat(&file.link.path()).is_ok_and(|stat| stat.len > file.stat.len)
}

/// Errors that say what is wrong with a file, not with the way to it.
fn is_damage(kind: ErrorKind) -> bool {
    use std::io::ErrorKind::UnexpectedEof;
    !matches!(kind, ErrorKind::Io(kind) if kind != UnexpectedEof)
        && !matches!(
            kind,
            ErrorKind::CmekRevoked
                | ErrorKind::Kms(_)
                | ErrorKind::UnknownKey
                | ErrorKind::KeyDestroyed
        )
}

/// The keys that were destroyed, as far as this process knows.
fn destroyed_keys(fs: &EncryptedFs) -> HashSet<DataKeyId> {
    let keys = fs.keyring().status().data_keys.into_iter();
    keys.filter(|key| key.state == KeyState::Destroyed).map(|key| key.id).collect()
}

fn entry(file: &SnapFile, object: Object, spaces: &mut Spaces) -> Entry {
    let (what, file_id) = match &file.header {
        _ if file.empty => (What::Empty, [0; 16]),
        None => (What::Plaintext, [0; 16]),
        Some(header) => {
            let chunk_log2 = header.layout.parameter();
            let what = What::Encrypted { suite: header.suite, chunk_log2, kind: header.kind };
            (what, *header.file_id.as_bytes())
        }
    };
    let mut entry = Entry::new(file.path.as_os_str().as_bytes().to_vec(), what, file_id);
    entry.mode = file.stat.mode & FILE_MODES;
    entry.modified_ns = file.stat.modified_ns;
    entry.inode = file.stat.inode;
    entry.object = object;
    entry.keyspace = file.header.as_ref().map_or(0, |header| spaces.index(header.data_key_id));
    entry
}
