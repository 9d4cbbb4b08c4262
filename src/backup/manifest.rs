//! What a backup holds: the bytes of its manifest. `docs/FORMAT.md` section 13.
//!
//! The plaintext of a manifest is magic, version, and then the bincode format of
//! [`Manifest`].

use std::path::PathBuf;

use wincode::config::Configuration;
use wincode::{ReadResult, SchemaRead, SchemaWrite};

use super::lack::LackEntry;
use super::object::{Object, broken, relative};
use super::settings::ManifestSettings;
use crate::decoding::decode_exact;
use crate::error::{Error, ErrorKind, Result};
use crate::header::FileKind;
use crate::suite::Suite;

mod check;

pub(super) use check::{DIRECTORY_MODES, FILE_MODES};

/// Begins a manifest's plaintext; the version, one byte, follows.
const MAGIC: [u8; 7] = *b"ATRBACK";
/// The version of manifests that this library writes, and the only one it reads.
const MANIFEST_VERSION: u8 = 2;
/// Longest manifest, 2 GiB: some ten million files.
pub(super) const MANIFEST_LEN_MAX: usize = 2 << 30;

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
    pub(super) settings: ManifestSettings,
    /// The names of the source's keyspaces, first the one that every store has.
    pub(super) keyspaces: Vec<String>,
    /// Parents first.
    pub(super) directories: Vec<DirectoryEntry>,
    /// By path.
    pub(super) files: Vec<Entry>,
    /// What of the store is not in the backup. By path.
    pub(super) lacks: Vec<LackEntry>,
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

    /// Whether the copy of one file may be that of the other: both are one file, or copies
    /// of one.
    pub(super) fn is_copied_as(&self, other: &Self) -> bool {
        let of = |file: &Self| (file.what, file.suite, file.chunk_log2, file.kind, file.file_id);
        self.object == other.object && of(self) == of(other)
    }
}

impl Manifest {
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        self.check(ErrorKind::InvalidArgument)?;
        let config = Configuration::default().with_preallocation_size_limit::<MANIFEST_LEN_MAX>();
        let fail = |error| {
            let what = "the manifest cannot be encoded";
            Error::new(ErrorKind::InvalidArgument, what).with_source(error)
        };
        let body_len = wincode::config::serialized_size(self, config).map_err(fail)?;
        let mut bytes = Vec::with_capacity(MAGIC.len() + 1 + body_len as usize);
        bytes.extend_from_slice(&MAGIC);
        bytes.push(MANIFEST_VERSION);
        wincode::config::serialize_into(&mut bytes, self, config).map_err(fail)?;
        Ok(bytes)
    }

    /// Decodes authenticated bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((version, body)) = bytes.strip_prefix(&MAGIC).and_then(<[u8]>::split_first) else {
            return Err(broken("the manifest does not begin with its magic bytes"));
        };
        if *version != MANIFEST_VERSION {
            let what = format!("expected manifest version {MANIFEST_VERSION}, found {version}");
            return Err(Error::new(ErrorKind::UnsupportedVersion, what));
        }
        let manifest: ReadResult<Self> = decode_exact!(body, MANIFEST_LEN_MAX);
        let manifest = manifest
            .map_err(|error| broken("the manifest cannot be decoded").with_source(error))?;
        manifest.check(ErrorKind::BrokenBackup)?;
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests;
