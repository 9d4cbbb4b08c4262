//! Which kind an object is, told by its path.

use super::object_store::path::Path;
use atrest::FileKind;

/// The kinds of SlateDB's objects: `wal/` holds logs, `compacted/` tables, `manifest/` and
/// `compactions/` manifests. For [`with_file_kind`](super::EncryptedStore::with_file_kind).
pub fn slatedb_file_kind(location: &Path) -> FileKind {
    let directory = location.parts().rev().nth(1);
    match directory.as_ref().map(AsRef::as_ref) {
        Some("wal") => FileKind::Log,
        Some("compacted") => FileKind::Table,
        Some("manifest" | "compactions") => FileKind::Manifest,
        _ => FileKind::Other,
    }
}
