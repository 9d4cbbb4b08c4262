//! What a call returns: one number for each kind of error, stable.

use std::ffi::c_char;
use std::io;

use atrest::ErrorKind;
use atrest::kms::KmsErrorKind;

/// What a call returns. The numbers are stable; new ones may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Atrest1 {
    /// Done.
    Ok = 0,
    /// A kind of error that this version of the interface has no number for.
    Other = 1,
    /// A panic was caught: a fault of this library.
    Panic = 2,
    /// An argument breaks a rule: a NULL pointer, a string that is not UTF-8, an option.
    InvalidArgument = 3,
    /// Bytes were to be encrypted at another offset than the next one. Nothing was done.
    NotSequential = 4,
    /// The handle takes no more: finished, an earlier failure, or a forked child.
    Poisoned = 5,
    /// The handle is for reading only.
    ReadOnly = 6,
    /// The file would exceed 2^44 bytes.
    FileTooLarge = 7,

    /// The file does not begin like an encrypted one.
    NotEncrypted = 20,
    /// A keyring, or a file of another encryption tool.
    ForeignFile = 21,
    /// The file has 0 bytes: a crash before its first write.
    EmptyFile = 22,
    /// The file ends inside its 4096-byte header, or has zeros in its place.
    TruncatedHeader = 23,
    /// Bit rot in the header.
    CorruptHeader = 24,
    /// Written by a newer version.
    UnsupportedVersion = 25,
    /// Needs a feature that this version, or the file's suite, does not have.
    UnsupportedFeature = 26,
    /// The keyring has no usable data key of that id.
    UnknownKey = 27,
    /// The key does not fit the header: a wrong key, or somebody changed the header.
    WrongKey = 28,
    /// A good file, but not the one asked for.
    IdentityMismatch = 29,
    /// The store requires authentication, and the file's suite has none.
    SuiteTooWeak = 30,
    /// The ciphertext was changed.
    Authentication = 31,
    /// A temporary file whose key is gone: delete it.
    TemporaryEnded = 32,
    /// The data key was destroyed on purpose: delete the file.
    KeyDestroyed = 33,

    /// There is no keyring.
    KeyringMissing = 40,
    /// There is one already.
    KeyringExists = 41,
    /// It ends too early.
    KeyringTruncated = 42,
    /// Bit rot in it.
    KeyringCorrupt = 43,
    /// The customer's key unwrapped another store's key.
    WrongStoreKey = 44,
    /// Somebody put an old one back.
    KeyringRolledBack = 45,
    /// Another process has the store open for writing.
    KeyringBusy = 46,
    /// Another writer committed first.
    KeyringConflict = 47,

    /// Access to the customer's key was withdrawn: no key is in memory.
    CmekRevoked = 60,
    /// The key service cannot be reached now.
    KmsUnavailable = 61,
    /// The key service denies access to the key.
    KmsDenied = 62,
    /// The key's URI, credentials or options are wrong, or the answer makes no sense.
    KmsFailed = 63,

    /// The file system failed.
    Io = 80,
    /// There is no such file.
    IoNotFound = 81,
    /// There is such a file.
    IoExists = 82,
    /// The file ends before that.
    IoEnd = 83,
    /// The disk or a quota is full.
    IoFull = 84,
    /// The system does not permit it.
    IoDenied = 85,
    /// The file system cannot do that, or not between two.
    IoUnsupported = 86,
}

impl From<ErrorKind> for Atrest1 {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument => Self::InvalidArgument,
            ErrorKind::Poisoned => Self::Poisoned,
            ErrorKind::ReadOnly => Self::ReadOnly,
            ErrorKind::FileTooLarge => Self::FileTooLarge,
            ErrorKind::NotEncrypted => Self::NotEncrypted,
            ErrorKind::ForeignFile => Self::ForeignFile,
            ErrorKind::EmptyFile => Self::EmptyFile,
            ErrorKind::TruncatedHeader => Self::TruncatedHeader,
            ErrorKind::CorruptHeader => Self::CorruptHeader,
            ErrorKind::UnsupportedVersion => Self::UnsupportedVersion,
            ErrorKind::UnsupportedFeature => Self::UnsupportedFeature,
            ErrorKind::UnknownKey => Self::UnknownKey,
            ErrorKind::KeyDestroyed => Self::KeyDestroyed,
            ErrorKind::WrongKey => Self::WrongKey,
            ErrorKind::IdentityMismatch => Self::IdentityMismatch,
            ErrorKind::SuiteTooWeak => Self::SuiteTooWeak,
            ErrorKind::Authentication => Self::Authentication,
            ErrorKind::TemporaryEnded => Self::TemporaryEnded,
            ErrorKind::KeyringMissing => Self::KeyringMissing,
            ErrorKind::KeyringExists => Self::KeyringExists,
            ErrorKind::KeyringTruncated => Self::KeyringTruncated,
            ErrorKind::KeyringCorrupt => Self::KeyringCorrupt,
            ErrorKind::WrongStoreKey => Self::WrongStoreKey,
            ErrorKind::KeyringRolledBack => Self::KeyringRolledBack,
            ErrorKind::KeyringBusy => Self::KeyringBusy,
            ErrorKind::KeyringConflict => Self::KeyringConflict,
            ErrorKind::CmekRevoked => Self::CmekRevoked,
            ErrorKind::Kms(kind) => kind.into(),
            ErrorKind::Io(kind) => kind.into(),
            _ => Self::Other,
        }
    }
}

impl From<KmsErrorKind> for Atrest1 {
    fn from(kind: KmsErrorKind) -> Self {
        match kind {
            kind if kind.is_transient() => Self::KmsUnavailable,
            kind if kind.denies_access() => Self::KmsDenied,
            _ => Self::KmsFailed,
        }
    }
}

impl From<io::ErrorKind> for Atrest1 {
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::NotFound => Self::IoNotFound,
            io::ErrorKind::AlreadyExists => Self::IoExists,
            io::ErrorKind::UnexpectedEof => Self::IoEnd,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::IoFull,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::IoDenied,
            io::ErrorKind::Unsupported | io::ErrorKind::CrossesDevices => Self::IoUnsupported,
            _ => Self::Io,
        }
    }
}

/// Every code with its name.
const NAMES: &[(Atrest1, &std::ffi::CStr)] = &[
    (Atrest1::Ok, c"ok"),
    (Atrest1::Other, c"other"),
    (Atrest1::Panic, c"panic"),
    (Atrest1::InvalidArgument, c"invalid-argument"),
    (Atrest1::NotSequential, c"not-sequential"),
    (Atrest1::Poisoned, c"poisoned"),
    (Atrest1::ReadOnly, c"read-only"),
    (Atrest1::FileTooLarge, c"file-too-large"),
    (Atrest1::NotEncrypted, c"not-encrypted"),
    (Atrest1::ForeignFile, c"foreign-file"),
    (Atrest1::EmptyFile, c"empty-file"),
    (Atrest1::TruncatedHeader, c"truncated-header"),
    (Atrest1::CorruptHeader, c"corrupt-header"),
    (Atrest1::UnsupportedVersion, c"unsupported-version"),
    (Atrest1::UnsupportedFeature, c"unsupported-feature"),
    (Atrest1::UnknownKey, c"unknown-key"),
    (Atrest1::WrongKey, c"wrong-key"),
    (Atrest1::IdentityMismatch, c"identity-mismatch"),
    (Atrest1::SuiteTooWeak, c"suite-too-weak"),
    (Atrest1::Authentication, c"authentication"),
    (Atrest1::TemporaryEnded, c"temporary-ended"),
    (Atrest1::KeyDestroyed, c"key-destroyed"),
    (Atrest1::KeyringMissing, c"keyring-missing"),
    (Atrest1::KeyringExists, c"keyring-exists"),
    (Atrest1::KeyringTruncated, c"keyring-truncated"),
    (Atrest1::KeyringCorrupt, c"keyring-corrupt"),
    (Atrest1::WrongStoreKey, c"wrong-store-key"),
    (Atrest1::KeyringRolledBack, c"keyring-rolled-back"),
    (Atrest1::KeyringBusy, c"keyring-busy"),
    (Atrest1::KeyringConflict, c"keyring-conflict"),
    (Atrest1::CmekRevoked, c"cmek-revoked"),
    (Atrest1::KmsUnavailable, c"kms-unavailable"),
    (Atrest1::KmsDenied, c"kms-denied"),
    (Atrest1::KmsFailed, c"kms-failed"),
    (Atrest1::Io, c"io"),
    (Atrest1::IoNotFound, c"io-not-found"),
    (Atrest1::IoExists, c"io-exists"),
    (Atrest1::IoEnd, c"io-end"),
    (Atrest1::IoFull, c"io-full"),
    (Atrest1::IoDenied, c"io-denied"),
    (Atrest1::IoUnsupported, c"io-unsupported"),
];

/// The name of a code in lower case, stable for logs; "unknown" for any other number.
#[unsafe(no_mangle)]
pub extern "C" fn atrest1_code_name(code: i32) -> *const c_char {
    let found = NAMES.iter().find(|(known, _)| *known as i32 == code);
    found.map_or(c"unknown", |(_, name)| name).as_ptr()
}
