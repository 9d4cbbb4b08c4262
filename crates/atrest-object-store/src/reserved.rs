//! The paths that belong to the keyring: hidden from listings, refused everywhere else.

use object_store::path::Path;

/// The path segment under which a keyring is kept in an object store. An
/// [`EncryptedStore`](crate::EncryptedStore) hides every path that has it.
pub const KEYRING_PREFIX: &str = "_atrest";

/// The current image below [`KEYRING_PREFIX`]; in a local directory, at its root.
pub(crate) const KEYRING_FILE: &str = atrest::keyring::KEYRING_FILE;

/// Whether a path belongs to a keyring: one below `_atrest` anywhere, or one of the files
/// that a keyring in the local directory of the same name keeps at the root.
pub(crate) fn is_reserved(path: &Path) -> bool {
    let mut parts = path.parts();
    let (first, second) = (parts.next(), parts.next());
    let at_root = first.is_some_and(|name| second.is_none() && is_keyring_file(name.as_ref()));
    at_root || path.parts().any(|part| part.as_ref() == KEYRING_PREFIX)
}

fn is_keyring_file(name: &str) -> bool {
    name.strip_prefix(KEYRING_FILE).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keyring_is_reserved() {
        for path in ["_atrest", "_atrest/KEYRING", "a/_atrest/KEYRING.7", "KEYRING", "KEYRING.new"]
        {
            assert!(is_reserved(&Path::from(path)), "{path}");
        }
        for path in ["", "a", "atrest/KEYRING", "a/KEYRING", "KEYRINGS", "a_atrest/b", "_atrest2"] {
            assert!(!is_reserved(&Path::from(path)), "{path}");
        }
    }
}
