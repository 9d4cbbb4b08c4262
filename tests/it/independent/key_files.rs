//! Who may use a key file: by the library, and by the text alone.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::{available, name, open, read};
use crate::support::TestStore;

#[test]
fn a_key_file_is_refused_for_its_owner_and_mode_alike() {
    if !available() {
        return;
    }
    let store = TestStore::new();
    drop(store.keyring());
    let key = store.dir.path().join("cmek.key");
    let own = std::fs::metadata(&key).unwrap().uid();
    // Only root can give a file away, and has one of root's.
    let owners: &[u32] = if own == 0 { &[0, 65534] } else { &[own] };
    for owner in owners {
        chown(&key, Some(*owner), None).unwrap();
        let mut good = Vec::new();
        for mode in [0o400, 0o600, 0o440, 0o640, 0o644, 0o660, 0o604] {
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
            let library = open(&store.data(), &[store.kms()]).map_err(|error| name(error.kind()));
            match (library, read(&store.data(), &key, &[])) {
                (Ok(_), Ok(_)) => good.push(mode),
                (Err(library), Err(text)) => {
                    assert!(text.starts_with(&format!("refused: {library}")), "{library}: {text}");
                }
                (library, text) => {
                    panic!("{mode:o} of user {owner}: {:?}, {text:?}", library.map(drop));
                }
            }
        }
        let expected: &[u32] = match owner {
            0 => &[0o400, 0o600, 0o440, 0o640],
            _ => &[0o400, 0o600],
        };
        assert_eq!(good, expected, "of user {owner}");
    }
}
