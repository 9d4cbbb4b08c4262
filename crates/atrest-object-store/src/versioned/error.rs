//! From the core's errors to the object store's.

use std::error::Error as StdError;

use super::object_store::Error;
use super::object_store::path::Path;
use atrest::ErrorKind;

/// The name under which this store's own errors appear.
const STORE: &str = "EncryptedStore";

type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// An error of the keyring or the format, met at `location`.
///
/// Lost access to a key becomes [`Error::PermissionDenied`], all else [`Error::Generic`].
pub(crate) fn refused(location: &Path, error: atrest::Error) -> Error {
    let kind = error.kind();
    let denied = match kind {
        ErrorKind::CmekRevoked => true,
        ErrorKind::Kms(kind) => kind.denies_access(),
        _ => false,
    };
    let error = error.with_path(location.as_ref());
    let source = if may_pass(kind) { error.into() } else { lasting(error) };
    if denied {
        Error::PermissionDenied { path: location.to_string(), source }
    } else {
        Error::Generic { store: STORE, source }
    }
}

/// Whether the same call may succeed a little later without anybody acting.
fn may_pass(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Io(_) | ErrorKind::KeyringConflict | ErrorKind::KeyringBusy => true,
        ErrorKind::Kms(kind) => kind.is_transient(),
        _ => false,
    }
}

/// Marks an error that no retry mends. SlateDB retries everything else, for ever.
#[cfg(feature = "slatedb")]
fn lasting(error: impl Into<BoxError>) -> BoxError {
    Box::new(slatedb_common::retry::NonRetryable(error.into()))
}

#[cfg(not(feature = "slatedb"))]
fn lasting(error: impl Into<BoxError>) -> BoxError {
    error.into()
}

/// A range that does not fit the object.
pub(crate) fn bad_range(source: impl Into<BoxError>) -> Error {
    Error::Generic { store: STORE, source: lasting(source) }
}

/// A fault of the store below that a retry may mend.
pub(crate) fn fault(what: String) -> Error {
    Error::Generic { store: STORE, source: what.into() }
}

/// A path that belongs to the keyring.
pub(crate) fn reserved(location: &Path) -> Error {
    let what = format!("{location} is reserved for the keyring");
    let error = atrest::Error::new(ErrorKind::InvalidArgument, what);
    Error::NotSupported { source: error.into() }
}
