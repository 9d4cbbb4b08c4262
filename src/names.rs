//! The names that are this library's among an engine's files: one list, from which
//! `docs/FORMAT.md` section 8 and every check are held to be the same.

use std::path::Path;

use crate::ids::StoreId;
use crate::vfs::FileStat;

/// File name of the current keyring.
pub const KEYRING_FILE: &str = "KEYRING";
/// Below it a keyring is kept in an object store; no name of its own in a directory.
pub const OBJECT_DIR: &str = "_atrest";
/// Begins all of the keyring's names but its own.
const KEYRING_PREFIX: &str = "KEYRING.";
pub(crate) const NEW_FILE: &str = "KEYRING.new";
/// Locked by whoever has a store open for writing.
pub const LOCK_FILE: &str = "KEYRING.lock";
pub(crate) const STAGING_PREFIX: &str = "KEYRING.staging.";
pub(crate) const RESTORE_DIR: &str = "KEYRING.restore";
const REENCRYPT_PREFIX: &str = ".atrest-reencrypt-";
/// Begins, behind the keyring's prefix, the names of files that tell of mirrors.
pub(crate) const MIRROR_NOTE: &str = "mirror.";
const MARKER_PREFIX: &str = "KEYRING.directory.";
const PARTIAL_PREFIX: &str = ".atrest-partial-";

/// What a reserved name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameKind {
    /// The current keyring.
    Keyring,
    /// An older one, of this generation.
    Older(u64),
    /// What a crash cut off before it got its name.
    Unfinished,
    /// Locked by a writer.
    Lock,
    /// Archived audit events.
    Audit,
    /// A request to withdraw access.
    Revoke,
    /// The directory of a running backup's links.
    Staging,
    /// The directory of an unfinished restore.
    Restore,
    /// Which backup is being restored.
    RestoreNote,
    /// What a recovery put aside.
    Bad,
    /// A file that a re-encryption works on.
    Reencrypt,
    /// Tells that a registered directory is there, and whose it is.
    Marker,
    /// Tells of a mirror, and which one it is.
    Mirror,
    /// A file that is being written, and is renamed when it is whole.
    Partial,
    /// Reserved, and nothing this version makes.
    Unknown,
}

impl NameKind {
    /// Whether what has such a name may hold wrapped keys: an image of the keyring, or a
    /// directory with one.
    pub fn may_hold_keys(self) -> bool {
        match self {
            Self::Keyring
            | Self::Older(_)
            | Self::Unfinished
            | Self::Restore
            | Self::Bad
            | Self::Unknown => true,
            Self::Lock
            | Self::Audit
            | Self::Revoke
            | Self::Staging
            | Self::RestoreNote
            | Self::Reencrypt
            | Self::Marker
            | Self::Mirror
            | Self::Partial => false,
        }
    }
}

/// One row of the list.
#[derive(Clone, Copy, Debug)]
pub struct ReservedName {
    /// The name, with `<...>` and `*` for what varies; directories end in `/`.
    pub pattern: &'static str,
    /// What is there.
    pub content: &'static str,
}

/// Every name that this library gives to what it makes in a store. What else begins with
/// `KEYRING.` is reserved for later versions.
pub const RESERVED_NAMES: &[ReservedName] = &[
    row("KEYRING", "the current image"),
    row("KEYRING.<generation>", "older images, the last two, in decimal"),
    row("KEYRING.new", "an image whose commit did not finish: ignored, removed by the next"),
    row("KEYRING.*.new", "any other of these files that a crash cut off: ignored, replaced"),
    row("KEYRING.lock", "locked (flock) by the one writer"),
    row("KEYRING.audit.<hash>", "archived events, 64 hexadecimal digits (section 9)"),
    row("KEYRING.revoke", "somebody asked for access to be withdrawn: 16 random bytes, or nothing"),
    row(
        "KEYRING.staging.<random>/",
        "hard links that keep the files of a running backup (section 13)",
    ),
    row("KEYRING.restore/", "the keyring of a restore that is not finished (section 13)"),
    row("KEYRING.from", "in `KEYRING.restore/`: which backup is restored (section 13)"),
    row(
        "KEYRING.bad-*",
        "what a recovery found in the keyring's place: kept until it is removed on request",
    ),
    row(
        "KEYRING.directory.<store id>",
        "the `location` of the keyring that registered this directory, in hexadecimal (D6)",
    ),
    row(
        "KEYRING.mirror.<id>",
        "the path of a mirror, which has to have what the store has; empty in that mirror",
    ),
    row(".atrest-reencrypt-<hash>", "the successor of a file that is re-encrypted, beside it"),
    row(".atrest-reencrypt-<hash>-<hash>-<hash>", "it or the file itself while they change places"),
    row(".atrest-partial-<hash>", "a file that is being written, beside where it will be"),
    row("_atrest/", "in an object store: the directory of all of these"),
];

const fn row(pattern: &'static str, content: &'static str) -> ReservedName {
    ReservedName { pattern, content }
}

/// What a file's or directory's name is reserved for; `None` if it is an engine's.
pub fn kind_of(name: &[u8]) -> Option<NameKind> {
    if name == KEYRING_FILE.as_bytes() {
        return Some(NameKind::Keyring);
    }
    if name.starts_with(REENCRYPT_PREFIX.as_bytes()) {
        return Some(NameKind::Reencrypt);
    }
    if name.starts_with(PARTIAL_PREFIX.as_bytes()) {
        return Some(NameKind::Partial);
    }
    let rest = name.strip_prefix(KEYRING_PREFIX.as_bytes())?;
    if let Some(generation) = decimal(rest) {
        return Some(NameKind::Older(generation));
    }
    Some(match rest {
        b"lock" => NameKind::Lock,
        b"revoke" => NameKind::Revoke,
        b"restore" => NameKind::Restore,
        b"from" => NameKind::RestoreNote,
        _ if rest == b"new" || rest.ends_with(b".new") => NameKind::Unfinished,
        _ if rest.starts_with(b"audit.") => NameKind::Audit,
        _ if rest.starts_with(b"staging.") => NameKind::Staging,
        _ if rest.starts_with(b"bad-") => NameKind::Bad,
        _ if rest.starts_with(b"directory.") => NameKind::Marker,
        _ if rest.starts_with(MIRROR_NOTE.as_bytes()) => NameKind::Mirror,
        _ => NameKind::Unknown,
    })
}

/// A generation as it is written: no sign, no zeros in front.
fn decimal(text: &[u8]) -> Option<u64> {
    let number: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

/// Whether a name is one of the keyring's own: `KEYRING` or what begins with `KEYRING.`.
pub fn is_keyring_name(name: &[u8]) -> bool {
    name == KEYRING_FILE.as_bytes() || name.starts_with(KEYRING_PREFIX.as_bytes())
}

/// Whether any part of a path is reserved, so that no engine may have a file there:
/// everything below a directory of the library's is the library's.
pub fn is_reserved_path(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref().as_os_str().as_encoded_bytes();
    path.split(|byte| *byte == b'/').any(|part| kind_of(part).is_some())
}

/// Whether a name is given to what is being written: no file of the store yet, and a leftover
/// if nobody writes it any more.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    matches!(kind_of(name), Some(NameKind::Reencrypt | NameKind::Partial))
}

/// Whether a name says that nothing depends on what has it: it is a file in the making, which
/// never had another name. Files that change places have names of their own, and are whole.
pub(crate) fn is_in_the_making(name: &[u8]) -> bool {
    is_temporary(name)
        && !name.strip_prefix(REENCRYPT_PREFIX.as_bytes()).unwrap_or(b"").contains(&b'-')
}

/// Whether a path may be given to a file although it is reserved: by whoever writes it, and
/// renames it when it is whole.
pub(crate) fn is_partial_path(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let in_engines = !path.parent().is_some_and(is_reserved_path);
    in_engines && kind_of(name) == Some(NameKind::Partial)
}

/// The name under which a file's successor is written.
pub(crate) fn temporary_name(name: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    // Names may have the greatest length there is, so theirs cannot be a part of it.
    format!("{REENCRYPT_PREFIX}{}", crate::hex::encode(&Sha256::digest(name)[..16]))
}

/// The name under which a file and its successor change places. It tells both, so that
/// whoever finds it can say whether what is there is one of them.
pub(crate) fn exchange_name(name: &[u8], old: &FileStat, new: &FileStat) -> String {
    format!("{}-{}-{}", temporary_name(name), identity(old), identity(new))
}

/// Whether what has one of these names is a re-encryption's to remove: a successor that
/// never had another name, or one of the two files that changed places. Anything else was
/// put in the file's place by its engine.
pub(crate) fn is_disposable(name: &[u8], found: &FileStat) -> bool {
    let Some(hashes) = name.strip_prefix(REENCRYPT_PREFIX.as_bytes()) else {
        return true; // A partial file, which never had another name.
    };
    let mut parts = hashes.split(|b| *b == b'-');
    let found = identity(found);
    match (parts.next(), parts.next(), parts.next()) {
        (_, Some(old), Some(new)) => old == found.as_bytes() || new == found.as_bytes(),
        (_, one, _) => one.is_none(),
    }
}

/// One content of one file. Without its device, whose number may change with the machine's
/// next start.
fn identity(stat: &FileStat) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(stat.inode.to_le_bytes());
    hash.update(stat.len.to_le_bytes());
    hash.update(stat.modified_ns.to_le_bytes());
    crate::hex::encode(&hash.finalize()[..8])
}

/// The name of the marker in a store's registered directories.
pub(crate) fn marker_name(store_id: StoreId) -> String {
    format!("{MARKER_PREFIX}{store_id}")
}

/// The name of the link by which a running backup keeps the file with this inode, in its directory
/// of links: whoever has the file finds it with one question to the system.
pub(crate) fn staged_name(inode: u64) -> String {
    inode.to_string()
}

/// A name for a file that is being written, beside `name`, which it gets when it is whole.
/// `number` tells those apart who write at once: a random one, as process ids are the same in
/// several containers. A [re-encryption](crate::store::Renewal::reencrypt) removes what has such
/// a name as a leftover: nobody **MUST** write one in a store meanwhile.
pub fn partial_name(name: &[u8], number: u32) -> String {
    use sha2::{Digest, Sha256};
    let hash = Sha256::new().chain_update(number.to_le_bytes()).chain_update(name).finalize();
    format!("{PARTIAL_PREFIX}{}", crate::hex::encode(&hash[..16]))
}

#[cfg(test)]
mod tests;
