//! What a backup holds: its manifest, and the chain of manifests. `docs/FORMAT.md`
//! section 13.
//!
//! A manifest is a file of suite 2 under the chain's data key, kind manifest, with the
//! backup's number as file id. Its plaintext is `MAGIC` and then the bincode format of
//! [`Manifest`]; its hash, which the next one names, is the SHA-256 of that plaintext.

use std::path::{Component, PathBuf};

use sha2::{Digest, Sha256};
use wincode::config::Configuration;
use wincode::{SchemaRead, SchemaWrite};

use super::objects::{self, ObjectId};
use crate::error::{Error, ErrorKind, Result};
use crate::header::FileKind;
use crate::keyring::RawSettings;
use crate::suite::Suite;
use crate::suite::layout::Layout;

/// Begins a manifest's plaintext; the last byte is its version.
const MAGIC: [u8; 8] = *b"ATRBACK\x01";
/// Longest manifest, 2 GiB: some ten million files.
pub(super) const MANIFEST_LEN_MAX: usize = 2 << 30;
/// Begins a manifest's name; then its number.
const NAME: &str = "backup.";

/// What a file was, and so how it is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Nothing was readable in it.
    Empty,
    Plaintext,
    Encrypted {
        suite: Suite,
        chunk_log2: u8,
        kind: FileKind,
    },
}

/// One file of a backup.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(super) struct Entry {
    /// Relative to the store, `/` between its parts.
    pub(super) path: Vec<u8>,
    /// 0 empty, 1 plaintext, 2 encrypted.
    what: u8,
    suite: u8,
    chunk_log2: u8,
    kind: u8,
    /// Index in the manifest's keyspaces.
    pub(super) keyspace: u32,
    pub(super) file_id: [u8; 16],
    pub(super) mode: u32,
    pub(super) modified_ns: i64,
    pub(super) inode: u64,
    pub(super) object: Object,
}

/// The copy of a file's content. All zero for an empty file.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(super) struct Object {
    pub(super) id: ObjectId,
    /// Bytes in the target.
    pub(super) physical_len: u64,
    /// Plaintext bytes of the file.
    pub(super) len: u64,
    /// Bytes of the stream, and their SHA-256.
    pub(super) stream_len: u64,
    pub(super) sha256: [u8; 32],
    /// Which content of which file it is a copy of; zero if nothing tells.
    pub(super) identity: [u8; 32],
    /// The backup that wrote it.
    pub(super) held_by: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(super) struct DirectoryEntry {
    pub(super) path: Vec<u8>,
    pub(super) mode: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(super) struct Manifest {
    pub(super) chain_id: [u8; 16],
    /// 1 for the full backup.
    pub(super) number: u64,
    /// Hash of the manifest before; zeros for the first.
    pub(super) previous: [u8; 32],
    /// When the files were as they are here, nanoseconds since the Unix epoch.
    pub(super) created_ns: u64,
    pub(super) source_store_id: [u8; 16],
    pub(super) source_generation: u64,
    pub(super) settings: RawSettings,
    /// The names of the source's keyspaces, first the one that every store has.
    pub(super) keyspaces: Vec<String>,
    /// Parents first.
    pub(super) directories: Vec<DirectoryEntry>,
    /// By path.
    pub(super) files: Vec<Entry>,
    /// Files of suite 2 without their last chunk: being written, or left by a crash.
    pub(super) unfinished: Vec<Vec<u8>>,
}

impl Entry {
    pub(super) fn new(path: Vec<u8>, what: What, file_id: [u8; 16]) -> Self {
        let (number, suite, chunk_log2, kind) = match what {
            What::Empty => (0, 0, 0, 0),
            What::Plaintext => (1, 0, 0, 0),
            What::Encrypted { suite, chunk_log2, kind } => {
                (2, suite.number(), chunk_log2, kind.number())
            }
        };
        Self {
            path,
            what: number,
            suite,
            chunk_log2,
            kind,
            keyspace: 0,
            file_id,
            mode: 0,
            modified_ns: 0,
            inode: 0,
            object: Object::default(),
        }
    }

    /// `None` if the numbers mean nothing.
    pub(super) fn what(&self) -> Option<What> {
        Some(match self.what {
            0 => What::Empty,
            1 => What::Plaintext,
            2 => What::Encrypted {
                suite: Suite::from_number(self.suite)?,
                chunk_log2: self.chunk_log2,
                kind: FileKind::from_number(self.kind)?,
            },
            _ => return None,
        })
    }

    pub(super) fn relative(&self) -> PathBuf {
        relative(&self.path)
    }
}

pub(super) fn relative(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}

impl Manifest {
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        self.check().map_err(|what| Error::new(ErrorKind::InvalidArgument, what))?;
        let config = Configuration::default().with_preallocation_size_limit::<MANIFEST_LEN_MAX>();
        let body = wincode::config::serialize(self, config).map_err(|error| {
            let what = "the manifest cannot be encoded";
            Error::new(ErrorKind::InvalidArgument, what).with_source(error)
        })?;
        Ok([&MAGIC[..], &body].concat())
    }

    /// Decodes authenticated bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let Some(body) = bytes.strip_prefix(&MAGIC[..7]) else {
            return Err(broken("the manifest does not begin with its magic bytes"));
        };
        let Some((version, body)) = body.split_first().filter(|(version, _)| **version == 1) else {
            let version = body.first().copied().unwrap_or(0);
            let what = format!("expected manifest version 1, found {version}");
            return Err(Error::new(ErrorKind::UnsupportedVersion, what));
        };
        debug_assert_eq!(*version, MAGIC[7]);
        let config = Configuration::default().with_preallocation_size_limit::<MANIFEST_LEN_MAX>();
        let manifest: Self = wincode::config::deserialize_exact(body, config)
            .map_err(|error| broken("the manifest cannot be decoded").with_source(error))?;
        manifest.check().map_err(broken)?;
        Ok(manifest)
    }

    /// Authenticated or not: what is written where its paths say must stay inside.
    fn check(&self) -> Result<(), &'static str> {
        if self.number == 0 || (self.number == 1) != (self.previous == [0; 32]) {
            return Err("the manifest's number and predecessor do not fit");
        }
        crate::Settings::try_from(&self.settings)?;
        let ordered = self.directories.windows(2).all(|pair| pair[0].path < pair[1].path)
            && self.files.windows(2).all(|pair| pair[0].path < pair[1].path);
        if !ordered {
            return Err("the manifest's paths are not in order, or not unique");
        }
        let directories = self.directories.iter().map(|directory| &directory.path);
        if !directories.chain(self.files.iter().map(|file| &file.path)).all(|path| is_inside(path))
        {
            return Err("a path of the manifest leads out of the store");
        }
        if self.keyspaces.is_empty() {
            return Err("the manifest has no keyspace");
        }
        for file in &self.files {
            if file.keyspace as usize >= self.keyspaces.len() {
                return Err("a file of the manifest belongs to no keyspace");
            }
            let empty = file.object == Object::default();
            let good = match file.what() {
                Some(What::Empty) => empty,
                Some(What::Plaintext) => !empty,
                Some(What::Encrypted { suite, chunk_log2, .. }) => {
                    !empty && Layout::parse(suite.number(), chunk_log2).is_ok()
                }
                None => false,
            };
            if !good || file.object.held_by > self.number || (!empty && file.object.held_by == 0) {
                return Err("a file of the manifest is described wrongly");
            }
        }
        Ok(())
    }
}

fn is_inside(path: &[u8]) -> bool {
    let path = relative(path);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let again: PathBuf = path.components().collect();
    plain
        && !path.as_os_str().is_empty()
        && again.as_os_str() == path.as_os_str()
        && !path.as_os_str().as_encoded_bytes().contains(&0)
        && !crate::names::is_reserved_path(path)
}

pub(super) fn broken(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::BrokenBackup, what)
}

pub(super) fn name(number: u64) -> String {
    format!("{NAME}{number:06}")
}

/// The number of a manifest's name.
pub(super) fn number(name_: &str) -> Option<u64> {
    let number = name_.strip_prefix(NAME)?.parse().ok()?;
    (name(number) == name_).then_some(number)
}

pub(super) fn hash(plaintext: &[u8]) -> [u8; 32] {
    Sha256::digest(plaintext).into()
}

impl super::Chain {
    /// How many backups there are; every one from 1 on must be there.
    pub(super) fn count(&self) -> Result<u64> {
        let names = self.target.list("")?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|(name, _)| number(name)).collect();
        numbers.sort_unstable();
        for (expected, found) in (1..).zip(&numbers) {
            if expected != *found {
                let what = format!("backup {expected} is missing, later ones are there");
                return Err(broken(what));
            }
        }
        Ok(numbers.len() as u64)
    }

    /// Reads the manifests from 1 to `last` and proves that each follows the one before.
    pub(super) fn walk(
        &self,
        last: u64,
        mut each: impl FnMut(Manifest, [u8; 32], u64) -> Result<()>,
    ) -> Result<()> {
        let mut previous = [0; 32];
        for number in 1..=last {
            let (manifest, hash, physical_len) = self.manifest(number)?;
            if manifest.previous != previous {
                return Err(broken(format!("backup {number} does not follow the one before it")));
            }
            previous = hash;
            each(manifest, hash, physical_len)?;
        }
        Ok(())
    }

    fn manifest(&self, number: u64) -> Result<(Manifest, [u8; 32], u64)> {
        let name = name(number);
        let read = || {
            let file = self.target.open(&name)?;
            let physical_len = file.len().map_err(|e| Error::io("the length is unknown", e))?;
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            let reader = objects::open_as(self, &name, file, id, FileKind::Manifest)?;
            let len = usize::try_from(reader.len()?).unwrap_or(usize::MAX);
            if len > MANIFEST_LEN_MAX {
                return Err(broken(format!("expected at most 2 GiB of manifest, found {len}")));
            }
            let mut bytes = vec![0; len];
            reader.read_exact_at(&mut bytes, 0)?;
            let manifest = Manifest::decode(&bytes)?;
            if manifest.chain_id != *self.id().as_bytes() || manifest.number != number {
                return Err(broken("the manifest is that of another backup"));
            }
            Ok((manifest, hash(&bytes), physical_len))
        };
        read().map_err(|error: Error| match error.kind() {
            ErrorKind::Io(std::io::ErrorKind::NotFound) => {
                broken(format!("backup {number} is missing")).with_source(error)
            }
            _ => error.with_path(&name),
        })
    }

    /// Writes the manifest, which makes the backup.
    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<([u8; 32], u64)> {
        let bytes = manifest.encode()?;
        let physical_len =
            objects::write_whole(self, &name(manifest.number), manifest.number, &bytes)?;
        Ok((hash(&bytes), physical_len))
    }
}
