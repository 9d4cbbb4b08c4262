//! For each kind of error its name for machines, its exit code, and one line of advice.
//! The only place where advice is given by kind.

use std::io;

use atrest::ErrorKind;
use atrest::error::KmsErrorKind;

/// Exit code when the reader of our output closed it, as a shell reports SIGPIPE.
pub(crate) const PIPE_CLOSED: u8 = 141;

/// Exit code where no other fits.
pub(crate) const FAILED: u8 = 1;
/// Exit code of a command that was not understood.
pub(crate) const USAGE: u8 = 2;
const REFUSED: u8 = 3;
const NO_ANSWER: u8 = 4;
const WRONG_KEY: u8 = 5;
const DAMAGED: u8 = 6;
const MISSING: u8 = 7;
const EXISTS: u8 = 8;
const BUSY: u8 = 9;
const NOT_ENCRYPTED: u8 = 10;
const IO: u8 = 11;
const UNSUPPORTED: u8 = 12;
/// Exit code of what was done, but not wholly.
pub(crate) const INCOMPLETE: u8 = 13;
/// Exit code of a command that met logs which end before their files do, and nothing worse.
pub(crate) const TORN: u8 = INCOMPLETE;

pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0   done                                    8   exists already
  1   failed otherwise                        9   another process has the store open
  2   wrong usage or configuration           10   not an encrypted file
  3   the key service refuses the key        11   file system or object store failed
  4   no answer of the key service about it  12   written by a newer version
  5   wrong key, or somebody changed data    13   done, but not all of it
  6   file or keyring is damaged            129   ended by SIGHUP
  7   no such keyring, file or data key     130   ended by Ctrl-C (SIGINT)
                                            141   whoever read the output closed it
                                            143   ended by SIGTERM
";

/// What the command line makes of a kind of error.
pub(crate) struct Verdict {
    /// Stable name, for machines.
    pub(crate) name: &'static str,
    /// Exit code of the process.
    pub(crate) exit_code: u8,
    /// What the user should do, one line.
    pub(crate) advice: &'static str,
}

impl Verdict {
    pub(crate) fn of_error(error: &atrest::Error) -> Self {
        if error.is_out_of_descriptors() {
            return Self {
                name: "io-too-many-open-files",
                exit_code: IO,
                advice: "raise the limit of open files (`ulimit -Hn`, LimitNOFILE= of the service), or do less at a time; no file was found wrong",
            };
        }
        Self::of(error.kind())
    }

    pub(crate) fn of(kind: ErrorKind) -> Self {
        let (name, exit_code, advice) = match kind {
            ErrorKind::Kms(kind) => return Self::of_kms(kind),
            ErrorKind::Io(kind) => return Self::of_io(kind),
            ErrorKind::NotEncrypted => (
                "not-encrypted",
                NOT_ENCRYPTED,
                "if this file is from before encryption, allow such files with `init --allow-plaintext`; otherwise somebody replaced it",
            ),
            ErrorKind::ForeignFile => {
                ("foreign-file", NOT_ENCRYPTED, "open it with the tool that wrote it")
            }
            ErrorKind::EmptyFile => (
                "empty-file",
                NOT_ENCRYPTED,
                "a crash left it before its first write: delete it, nothing was in it",
            ),
            ErrorKind::TruncatedHeader => (
                "truncated-header",
                DAMAGED,
                "nothing can be read from it: restore the file from a backup",
            ),
            ErrorKind::CorruptHeader => {
                ("corrupt-header", DAMAGED, "restore the file from a backup")
            }
            ErrorKind::UnsupportedVersion => (
                "unsupported-version",
                UNSUPPORTED,
                "use the version of atrest that wrote it, or a newer one",
            ),
            ErrorKind::UnsupportedFeature => (
                "unsupported-feature",
                UNSUPPORTED,
                "use the version of atrest that wrote it, or a newer one",
            ),
            ErrorKind::UnknownKey => (
                "unknown-key",
                MISSING,
                "find the store this file belongs to with `atrest inspect`, or restore its keyring",
            ),
            ErrorKind::KeyDestroyed => (
                "key-destroyed",
                MISSING,
                "delete the file: its data key was destroyed on purpose, and nothing brings it back",
            ),
            ErrorKind::WrongKey => (
                "wrong-key",
                WRONG_KEY,
                "do not trust the file: somebody changed its header; restore it and find out who",
            ),
            ErrorKind::IdentityMismatch => (
                "identity-mismatch",
                WRONG_KEY,
                "it belongs elsewhere: compare `atrest inspect FILE` with `atrest status DIR`, or say with `atrest keys take-directory` that the store was moved",
            ),
            ErrorKind::SuiteTooWeak => {
                ("suite-too-weak", WRONG_KEY, "encrypt the file anew with an authenticated suite")
            }
            ErrorKind::Authentication => (
                "authentication",
                WRONG_KEY,
                "do not trust the file: somebody changed it; restore it and find out who",
            ),
            ErrorKind::Poisoned => {
                ("poisoned", FAILED, "run the command again; `atrest status DIR` shows the state")
            }
            ErrorKind::TemporaryEnded => (
                "temporary-ended",
                MISSING,
                "delete it: its key was in the memory of a process that ended",
            ),
            ErrorKind::FileTooLarge => {
                ("file-too-large", USAGE, "split the input: a file holds at most 16 TiB")
            }
            ErrorKind::ReadOnly => {
                ("read-only", USAGE, "use a command that opens the store for writing")
            }
            ErrorKind::InvalidArgument => {
                ("invalid-argument", USAGE, "see `atrest COMMAND --help` for what is expected")
            }
            ErrorKind::KeyringMissing => (
                "keyring-missing",
                MISSING,
                "give the directory of a store, or create one with `atrest init DIR --cmek URI`",
            ),
            ErrorKind::KeyringExists => (
                "keyring-exists",
                EXISTS,
                "use the store as it is, or give another directory: a keyring is never overwritten",
            ),
            ErrorKind::KeyringTruncated => (
                "keyring-truncated",
                DAMAGED,
                "keep the directory as it is; see what its older images open with `atrest recover DIR --cmek URI`",
            ),
            ErrorKind::KeyringCorrupt => (
                "keyring-corrupt",
                DAMAGED,
                "keep the directory as it is; see what its older images open with `atrest recover DIR --cmek URI`",
            ),
            ErrorKind::WrongStoreKey => (
                "wrong-store-key",
                WRONG_KEY,
                "do not use the store: the key service or somebody with access to the keyring changed it",
            ),
            ErrorKind::KeyringRolledBack => (
                "keyring-rolled-back",
                WRONG_KEY,
                "somebody put an old keyring back: restore the newest one and find out who",
            ),
            ErrorKind::KeyringBusy => (
                "keyring-busy",
                BUSY,
                "stop the process that has the store open, or wait for it; reading works meanwhile",
            ),
            ErrorKind::KeyringConflict => {
                ("keyring-conflict", BUSY, "another writer was first: run the command again")
            }
            ErrorKind::BrokenBackup => (
                "broken-backup",
                DAMAGED,
                "use another backup; find out who or what changed this one",
            ),
            ErrorKind::CmekRevoked => (
                "cmek-revoked",
                REFUSED,
                "give access to the customer's key back; what `atrest cmek revoke` took, `atrest cmek restore DIR` gives back",
            ),
            _ => ("other", FAILED, "see the message above"),
        };
        Self { name, exit_code, advice }
    }

    fn of_kms(kind: KmsErrorKind) -> Self {
        let (name, exit_code, advice) = match kind {
            KmsErrorKind::Unreachable => {
                ("kms-unreachable", NO_ANSWER, "check the network and the service, then try again")
            }
            KmsErrorKind::Throttled => ("kms-throttled", NO_ANSWER, "wait a little and try again"),
            KmsErrorKind::Unauthenticated => {
                ("kms-unauthenticated", NO_ANSWER, "renew the credentials for the key service")
            }
            KmsErrorKind::AccessDenied => {
                ("kms-access-denied", REFUSED, "grant this user the use of the key")
            }
            KmsErrorKind::KeyDisabled => {
                ("kms-key-disabled", REFUSED, "enable the key at the key service")
            }
            KmsErrorKind::PendingDeletion => (
                "kms-pending-deletion",
                REFUSED,
                "cancel the deletion now: without this key all data is lost",
            ),
            KmsErrorKind::VersionRetired => {
                ("kms-version-retired", REFUSED, "allow the key's older version again")
            }
            KmsErrorKind::NotFound => (
                "kms-not-found",
                REFUSED,
                "put the key back where the URI says, or give its new place with --cmek",
            ),
            KmsErrorKind::Destroyed => (
                "kms-destroyed",
                REFUSED,
                "restore the key from its backup: without it all data is lost",
            ),
            KmsErrorKind::Integrity => (
                "kms-integrity",
                WRONG_KEY,
                "give the key the store was made with: `atrest status DIR` names it without any key",
            ),
            KmsErrorKind::Misconfigured => (
                "kms-misconfigured",
                USAGE,
                "put right what the message names; `atrest keygen PATH` makes a key file, and the other forms of --cmek are in `atrest init --help`",
            ),
            KmsErrorKind::Protocol => {
                ("kms-protocol", FAILED, "check that the URI names a key service of that kind")
            }
            _ => ("kms-other", FAILED, "see the message above"),
        };
        Self { name, exit_code, advice }
    }

    fn of_io(kind: io::ErrorKind) -> Self {
        let (name, exit_code, advice) = match kind {
            io::ErrorKind::NotFound => {
                ("io-not-found", MISSING, "check the path; names are relative to the store")
            }
            io::ErrorKind::AlreadyExists => {
                ("io-already-exists", EXISTS, "give another name, or --force where there is one")
            }
            io::ErrorKind::PermissionDenied => {
                ("io-permission-denied", IO, "run as a user with access to the path")
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                ("io-read-only", IO, "mount the file system writable, or use another directory")
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
                "io-storage-full",
                IO,
                "make room on the disk, see with `atrest status DIR` what was done, and run the command again",
            ),
            io::ErrorKind::UnexpectedEof => {
                ("io-unexpected-end", DAMAGED, "the file is shorter than it was: restore it")
            }
            _ => ("io", IO, "check the disk and the path"),
        };
        Self { name, exit_code, advice }
    }
}
