//! What every keyring storage has to do.

use atrest::keyring::{KEPT_IMAGES, KeyringImage, KeyringStorage};
use atrest::{ErrorKind, Result};

/// Holds a storage to the contract of [`KeyringStorage`].
///
/// Each call of `make` gives a storage at a new place, where there is no keyring.
///
/// # Panics
/// If the storage breaks the contract.
pub fn keyring_storage_conformance(make: &dyn Fn() -> Box<dyn KeyringStorage>) {
    is_empty_at_first(&*make());
    replaces_the_image_it_is_told(&*make());
    refuses_a_stale_writer(&*make());
    keeps_the_last_images(&*make());
    keeps_what_is_put_beside(&*make());
    tells_places_apart(&*make(), &*make());
}

fn image(generation: u64) -> Vec<u8> {
    // Of different lengths, up to what a keyring of thousands of keys has.
    (0..generation * 50_000 + 100).map(|at| (at ^ generation).to_le_bytes()[0]).collect()
}

fn load(storage: &dyn KeyringStorage) -> Option<KeyringImage> {
    storage.load().expect("load")
}

fn commit(
    storage: &dyn KeyringStorage,
    generation: u64,
    previous: Option<&KeyringImage>,
) -> Result<KeyringImage> {
    let bytes = image(generation);
    let version = storage.commit(&bytes, generation, previous)?;
    let stored = load(storage).expect("the image is there");
    assert!(stored == KeyringImage { bytes, version }, "generation {generation} reads back");
    Ok(stored)
}

fn is_empty_at_first(storage: &dyn KeyringStorage) {
    storage.lock().expect("lock");
    storage.lock().expect("the same writer may lock again");
    assert_eq!(load(storage), None);
    assert!(storage.kept().expect("kept").is_empty());
    storage.forget_kept(7).expect("forget nothing");
}

fn tells_places_apart(here: &dyn KeyringStorage, there: &dyn KeyringStorage) {
    let (here, there) = (here.location(), there.location());
    // Else a copy of a store goes on under the data keys of the original.
    assert!(!here.is_certain || here.id != there.id, "two places with one certain id");
}

fn replaces_the_image_it_is_told(storage: &dyn KeyringStorage) {
    storage.lock().expect("lock");
    let first = commit(storage, 1, None).expect("the first");
    let second = commit(storage, 2, Some(&first)).expect("the second");
    // Shorter than the one before.
    let bytes = b"third".to_vec();
    let version = storage.commit(&bytes, 3, Some(&second)).expect("the third");
    assert_eq!(load(storage), Some(KeyringImage { bytes, version }));
}

fn refuses_a_stale_writer(storage: &dyn KeyringStorage) {
    storage.lock().expect("lock");
    let missing = KeyringImage { bytes: image(7), version: "\"7\"".into() };
    let refused = |generation, previous: Option<&KeyringImage>| {
        let outcome = storage.commit(b"stale", generation, previous);
        let kind = outcome.map_err(|error| error.kind());
        assert_eq!(kind, Err(ErrorKind::KeyringConflict), "a stale writer of {generation}");
    };
    refused(8, Some(&missing));
    assert_eq!(load(storage), None);
    let first = commit(storage, 1, None).expect("the first");
    refused(1, None);
    let second = commit(storage, 2, Some(&first)).expect("the second");
    refused(2, Some(&first));
    refused(1, None);
    assert!(load(storage).as_ref() == Some(&second), "nothing changed");
    commit(storage, 3, Some(&second)).expect("the third");
}

fn keeps_the_last_images(storage: &dyn KeyringStorage) {
    storage.lock().expect("lock");
    let mut last = None;
    for generation in 1..=12 {
        last = Some(commit(storage, generation, last.as_ref()).expect("commit"));
        let oldest = generation.saturating_sub(KEPT_IMAGES as u64).max(1);
        let expected: Vec<_> = (oldest..generation).collect();
        assert_eq!(storage.kept().expect("kept"), expected, "oldest first at {generation}");
        for old in expected {
            assert!(storage.load_kept(old).expect("load") == Some(image(old)), "as it was");
        }
        assert_eq!(storage.load_kept(generation).expect("load"), None);
    }
    storage.forget_kept(11).expect("forget");
    assert_eq!(storage.kept().expect("kept"), [11], "later ones stay");
    assert!(storage.load_kept(11).expect("load") == Some(image(11)), "as it was");
    storage.forget_kept(12).expect("forget");
    assert!(storage.kept().expect("kept").is_empty());
    assert!(load(storage) == last, "the current one stays");
    commit(storage, 13, last.as_ref()).expect("commit");
    assert_eq!(storage.kept().expect("kept").len(), 1);
}

fn keeps_what_is_put_beside(storage: &dyn KeyringStorage) {
    storage.lock().expect("lock");
    storage.remove_beside("note").expect("remove nothing");
    assert_eq!(storage.load_beside("note").expect("load"), None);
    storage.put_beside("note", b"one").expect("put");
    storage.put_beside("note", b"").expect("replace");
    storage.put_beside("audit.00000000000000000001", b"two").expect("put");
    assert_eq!(storage.load_beside("note").expect("load").as_deref(), Some(&b""[..]));
    // Neither an image nor an older one.
    assert_eq!(load(storage), None);
    assert!(storage.kept().expect("kept").is_empty());
    commit(storage, 1, None).expect("commit");
    storage.forget_kept(1).expect("forget");
    let two = storage.load_beside("audit.00000000000000000001").expect("load");
    assert_eq!(two.as_deref(), Some(&b"two"[..]));
    storage.remove_beside("note").expect("remove");
    assert_eq!(storage.load_beside("note").expect("load"), None);
}
