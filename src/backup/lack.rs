//! What of a store is not in a backup.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wincode::{SchemaRead, SchemaWrite};

/// Something of the store that a backup lacks. Field names are stable: they are the JSON of
/// the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Lack {
    /// Relative to the store; absolute for a directory elsewhere.
    #[serde(serialize_with = "crate::shown::path")]
    pub path: PathBuf,
    /// Why it is not in the backup.
    pub why: LackReason,
    /// Plaintext bytes of the file that are in the backup.
    pub kept_bytes: u64,
    /// Bytes on disk that are not.
    pub lost_bytes: u64,
}

/// Why something is not in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LackReason {
    /// A file without its end: being written, or cut. Every reader refuses it.
    Unfinished,
    /// A file that is in the backup up to where it is torn: a log to its first frame that is not
    /// good, a file of suite 1 to its first part that was never written.
    Torn,
    /// A directory of the store's files that is not below the one that was backed up.
    Elsewhere,
    /// A symbolic link. What it leads to is not in the backup either.
    Link,
    /// A file of which nothing can be read, although the backup before holds bytes of it, or
    /// something is behind where its header was.
    Emptied,
    /// A file whose data key was destroyed, as all are when their keyspace is shredded: nobody
    /// reads it. No copy that an earlier backup has of it is in this one either.
    KeyDestroyed,
}

impl LackReason {
    const ALL: [Self; 6] = [
        Self::Unfinished,
        Self::Torn,
        Self::Elsewhere,
        Self::Link,
        Self::Emptied,
        Self::KeyDestroyed,
    ];

    const fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// The same in a manifest.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(super) struct LackEntry {
    pub(super) path: Vec<u8>,
    why: u8,
    kept_bytes: u64,
    lost_bytes: u64,
}

impl LackEntry {
    pub(super) fn new(path: &Path, why: LackReason) -> Self {
        let path = path.as_os_str().as_bytes().to_vec();
        Self { path, why: why.number(), kept_bytes: 0, lost_bytes: 0 }
    }

    pub(super) fn bytes(self, kept_bytes: u64, lost_bytes: u64) -> Self {
        Self { kept_bytes, lost_bytes, ..self }
    }

    /// `None` if the number means nothing.
    pub(super) fn why(&self) -> Option<LackReason> {
        LackReason::ALL.into_iter().find(|why| why.number() == self.why)
    }

    /// `None` if it is described wrongly.
    pub(super) fn lack(&self) -> Option<Lack> {
        let &Self { kept_bytes, lost_bytes, .. } = self;
        let path = super::object::relative(&self.path);
        Some(Lack { path, why: self.why()?, kept_bytes, lost_bytes })
    }
}
