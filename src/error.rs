//! One opaque error with a kind that says what the caller should do.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::descriptors::SystemError;

/// A boxed source of an [`Error`].
pub type Source = Box<dyn StdError + Send + Sync + 'static>;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a value a program can match on.
///
/// The docs of each kind say what a caller should do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file does not begin with the magic of an encrypted file. Refuse it, or read
    /// it as plaintext under an explicit policy.
    NotEncrypted,
    /// The file begins with the magic of another encryption tool, or is a keyring.
    /// Refuse it: it is in the wrong place.
    ForeignFile,
    /// The file has 0 bytes: a crash between its creation and its first write. Recovery
    /// may count it as empty.
    EmptyFile,
    /// The file ends inside its 4096-byte header, or has zeros in its place, which a power cut
    /// kept from the disk. Recovery may delete it: nothing was ever readable in it, or synced.
    TruncatedHeader,
    /// The header's checksum or a reserved zero byte is wrong: bit rot. Restore the file.
    CorruptHeader,
    /// A newer version of this library wrote the file or keyring. Upgrade.
    UnsupportedVersion,
    /// The file or keyring needs a feature this version does not have. Upgrade.
    UnsupportedFeature,
    /// The keyring, freshly read, has no data key of that id, nor a record that it was
    /// destroyed, of which it keeps many. Restore the keyring, or find the store the file
    /// belongs to.
    UnknownKey,
    /// The data key was destroyed on purpose, by a retirement or with its keyspace, and no
    /// restored keyring is meant to bring it back. Delete the file.
    KeyDestroyed,
    /// The key does not fit the header: a wrong key, or somebody changed the header.
    /// Alert; do not retry.
    WrongKey,
    /// A good file, but not the one asked for: another store's, or another file id or
    /// kind. Alert.
    IdentityMismatch,
    /// The file's suite does not authenticate, and the store requires it. Re-encrypt it, or
    /// change the store's settings knowingly.
    SuiteTooWeak,
    /// Ciphertext failed its authentication tag. Alert; restore the file.
    Authentication,
    /// A write failed earlier, or this is a forked child of the process that opened it, so
    /// this handle takes no more. Delete the file, unless it is a parent's, and write a new
    /// one; for a keyring, open it again.
    Poisoned,
    /// A temporary file of a process that ended, or from before access to the customer's key was
    /// withdrawn: its key is nowhere any more. Delete it, and make what was in it anew.
    TemporaryEnded,
    /// The file would exceed 2^44 bytes. Start a new file.
    FileTooLarge,
    /// The handle was opened for reading only.
    ReadOnly,
    /// An argument breaks a documented rule.
    InvalidArgument,

    /// There is no keyring. Create a store, or give the right directory; if older images
    /// exist the message names them, and falling back to one is an explicit recovery.
    KeyringMissing,
    /// A keyring exists already; creating one would lose its keys.
    KeyringExists,
    /// The keyring file ends too early. Recover from an older image.
    KeyringTruncated,
    /// The keyring's checksum or structure is wrong: bit rot. Recover from an older image.
    KeyringCorrupt,
    /// The unwrapped store key does not fit the keyring: the key service answered with
    /// another key, or somebody changed the keyring. Alert; do not retry.
    WrongStoreKey,
    /// The keyring is older than the caller's anchor, than its mirror, or than images that stand
    /// beside it: somebody put an old one back. Alert.
    KeyringRolledBack,
    /// Another process has the keyring open for writing. Wait, or open it read-only.
    KeyringBusy,
    /// Another writer committed first. Reload and look again.
    KeyringConflict,

    /// A backup's manifest, one of its files or a link of its chain is missing or is not
    /// what the manifest says. Use another backup; find out what happened to this one.
    BrokenBackup,

    /// The key service refused or could not be reached.
    Kms(KmsErrorKind),
    /// Access to the customer's key was lost or withdrawn: no key is in memory. Give
    /// access back, then call `restore`.
    CmekRevoked,

    /// The file system or object store failed.
    Io(io::ErrorKind),
}

/// What a key service's answer means, whichever service it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KmsErrorKind {
    /// No answer: network, DNS, TLS handshake, time-out, 5xx, sealed. Retry; says nothing
    /// about the key.
    Unreachable,
    /// The service asks for fewer calls. Retry after its delay.
    Throttled,
    /// The credentials are not accepted: they lapsed, were renewed elsewhere or taken away,
    /// or there are none. Says nothing about the key; whether it counts as a denial is
    /// [`LapsedCredential`](crate::kms::LapsedCredential)'s to say.
    Unauthenticated,
    /// The credentials are good and may not use this key.
    AccessDenied,
    /// The key is disabled.
    KeyDisabled,
    /// The key is scheduled for deletion: the last chance to keep the data.
    PendingDeletion,
    /// The key version that wrapped this blob is no longer allowed.
    VersionRetired,
    /// There is no such key.
    NotFound,
    /// The key material is destroyed.
    Destroyed,
    /// The wrapped key does not belong to this key or context, or was changed.
    Integrity,
    /// The URI, file, permissions or options are wrong. Fix the configuration.
    Misconfigured,
    /// An answer that is not understood.
    Protocol,
}

impl KmsErrorKind {
    /// Whether the same call may succeed a little later without anybody acting.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Throttled)
    }

    /// Whether this answer says that access to the key is gone.
    pub fn denies_access(self) -> bool {
        matches!(
            self,
            Self::AccessDenied
                | Self::KeyDisabled
                | Self::PendingDeletion
                | Self::VersionRetired
                | Self::NotFound
                | Self::Destroyed
        )
    }

    /// The kind in lower-case words, stable for logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Throttled => "throttled",
            Self::Unauthenticated => "unauthenticated",
            Self::AccessDenied => "access denied",
            Self::KeyDisabled => "key disabled",
            Self::PendingDeletion => "key pending deletion",
            Self::VersionRetired => "key version retired",
            Self::NotFound => "key not found",
            Self::Destroyed => "key destroyed",
            Self::Integrity => "wrapped key refused",
            Self::Misconfigured => "misconfigured",
            Self::Protocol => "unexpected answer",
        }
    }
}

impl fmt::Display for KmsErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of every operation: a [kind](ErrorKind), a sentence with what was expected
/// and found, the path where there is one, and the cause as [`source`](StdError::source).
///
/// It never holds key material or plaintext.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    what: String,
    path: Option<PathBuf>,
    source: Option<Source>,
}

impl Error {
    /// A new error of `kind`; `what` is lower case without a full stop.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), path: None, source: None }))
    }

    /// An operating-system error met while doing `what`.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        match source.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            // An `Error` that travelled through an `io::Error` keeps its kind.
            Some(inner) => Self::new(inner.kind(), what).with_source(source),
            None => Self::new(ErrorKind::Io(source.kind()), what).with_source(source),
        }
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Attaches the path, unless a deeper layer already did.
    #[must_use]
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path.get_or_insert_with(|| path.as_ref().to_owned());
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the process, or the system, had no descriptor left to open something with. It
    /// says nothing about what was to be opened. What ends it is a higher limit
    /// (`RLIMIT_NOFILE`), or fewer files open at a time.
    pub fn is_out_of_descriptors(&self) -> bool {
        let mut next = self.source();
        while let Some(cause) = next {
            if let Some(error) = cause.downcast_ref::<io::Error>()
                && error.is_exhaustion()
            {
                return true;
            }
            next = cause.source();
        }
        false
    }

    /// The file or directory concerned.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.0.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&self.0.what)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("what", &self.0.what);
        if let Some(path) = &self.0.path {
            out.field("path", path);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Io(kind) => kind,
            ErrorKind::KeyringMissing => io::ErrorKind::NotFound,
            ErrorKind::KeyringExists => io::ErrorKind::AlreadyExists,
            ErrorKind::KeyringBusy => io::ErrorKind::ResourceBusy,
            ErrorKind::Kms(kind) if kind.is_transient() => io::ErrorKind::TimedOut,
            ErrorKind::Kms(_) | ErrorKind::CmekRevoked | ErrorKind::ReadOnly => {
                io::ErrorKind::PermissionDenied
            }
            ErrorKind::InvalidArgument => io::ErrorKind::InvalidInput,
            ErrorKind::FileTooLarge => io::ErrorKind::FileTooLarge,
            ErrorKind::EmptyFile | ErrorKind::TruncatedHeader | ErrorKind::KeyringTruncated => {
                io::ErrorKind::UnexpectedEof
            }
            ErrorKind::Poisoned | ErrorKind::KeyringConflict => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
