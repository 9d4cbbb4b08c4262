//! What a manifest says of a copy, and what is said of a broken backup.

use std::path::PathBuf;

use wincode::{SchemaRead, SchemaWrite};

use crate::error::{Error, ErrorKind};

/// The name of a copy; zero for none.
pub(super) type ObjectId = [u8; 16];

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

pub(super) fn broken(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::BrokenBackup, what)
}

/// A path as a manifest has it, relative to the store.
pub(super) fn relative(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}
