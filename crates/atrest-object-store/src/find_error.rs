//! From any error back to the core's.

use std::error::Error as StdError;

/// The core's error inside of any other: an object store's, an engine's, an I/O error.
///
/// ```
/// # use atrest::{Error, ErrorKind};
/// let error = object_store::Error::Generic {
///     store: "EncryptedStore",
///     source: Error::new(ErrorKind::WrongKey, "the header does not fit").into(),
/// };
/// let kind = atrest_object_store::find_error(&error).map(Error::kind);
/// assert_eq!(kind, Some(ErrorKind::WrongKey));
/// ```
pub fn find_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a atrest::Error> {
    let mut error = error;
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // The source of an I/O error is its content's source: the content itself would
        // be passed over.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        error = match inner {
            Some(inner) => inner,
            None => error.source()?,
        };
    }
}
