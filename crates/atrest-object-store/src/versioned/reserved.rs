//! The paths that belong to the keyring: hidden from listings, refused everywhere else.

use super::object_store::path::Path;

use atrest::names::kind_of;

/// The path segment under which a keyring is kept in an object store. An
/// [`EncryptedStore`](super::EncryptedStore) hides every path that has it.
pub const KEYRING_PREFIX: &str = atrest::names::OBJECT_DIR;

pub(crate) use atrest::keyring::KEYRING_FILE;

/// Whether a path belongs to a keyring: one below `_atrest` anywhere, or one that has a name
/// of a keyring in a local directory in any part.
pub(crate) fn is_reserved(path: &Path) -> bool {
    path.parts().any(|part| {
        let part = part.as_ref();
        part == KEYRING_PREFIX || kind_of(part.as_bytes()).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_librarys_names_are_reserved_but_in_any_part() {
        for path in [
            "_atrest",
            "_atrest/KEYRING",
            "a/_atrest/KEYRING.7",
            "KEYRING",
            "KEYRING.new",
            "a/KEYRING",
            "a/KEYRING.staging.1/b",
        ] {
            assert!(is_reserved(&Path::from(path)), "{path}");
        }
        for path in ["", "a", "KEYRINGS", "a_atrest/b", "_atrest2", "a/KEYRING-1"] {
            assert!(!is_reserved(&Path::from(path)), "{path}");
        }
    }
}
