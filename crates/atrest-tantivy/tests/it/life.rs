//! Keys over the life of an index.

use atrest::{ErrorKind, Integrity};
use tantivy::Index;

use crate::support::{Place, Texts};

#[test]
fn a_rotation_shows_in_new_segments_and_a_merge_moves_documents_to_it() {
    let place = Place::new(Integrity::Authenticated);
    let store = place.store();
    let index = Texts::create(place.directory(&store));
    let mut writer = index.writer();
    index.add(&writer, 1, "an old whale").unwrap();
    writer.commit().unwrap();
    let old = store.keys().active_id().unwrap();
    assert!(place.segment_keys().iter().all(|key| *key == old));

    let new = store.keys().rotate().unwrap();
    index.add(&writer, 2, "a new whale").unwrap();
    writer.commit().unwrap();
    assert_eq!(index.search("whale").unwrap().0, 2);
    for key in [old, new] {
        assert!(place.segment_keys().contains(&key));
    }
    index.merge(&mut writer);
    assert!(place.segment_keys().iter().all(|key| *key == new));
    assert_eq!(index.search("whale").unwrap().0, 2);
}

#[test]
fn a_withdrawn_key_stops_a_working_index_and_a_restored_one_lets_it_go_on() {
    let place = Place::new(Integrity::Authenticated);
    let store = place.store();
    let index = Texts::create(place.directory(&store));
    let mut writer = index.writer();
    index.add(&writer, 1, "before").unwrap();
    writer.commit().unwrap();
    store.access().revoke().unwrap();
    assert!(index.search("before").is_err());
    let taken = index.add(&writer, 2, "meanwhile").and_then(|_| writer.commit());
    assert!(taken.is_err());
    drop(writer);

    store.access().restore().unwrap();
    assert_eq!(index.search("before").unwrap().0, 1);
    assert_eq!(index.search("meanwhile").unwrap().0, 0);
    let mut writer = index.writer();
    index.add(&writer, 3, "after").unwrap();
    writer.commit().unwrap();
    assert_eq!(index.search("before OR after").unwrap().0, 2);
}

#[test]
fn a_wrong_customer_s_key_is_refused() {
    let place = Place::new(Integrity::Authenticated);
    let store = place.store();
    let index = Texts::create(place.directory(&store));
    drop((index, store));
    std::fs::remove_file(place.path("cmek.key")).unwrap();
    atrest::kms::generate_key_file(place.path("cmek.key")).unwrap();
    let refused = place.try_store().unwrap_err().kind();
    assert!(matches!(refused, ErrorKind::Kms(_) | ErrorKind::WrongStoreKey), "{refused:?}");
}

#[test]
fn changed_bytes_are_refused() {
    let place = Place::new(Integrity::Authenticated);
    let store = place.store();
    let index = Texts::create(place.directory(&store));
    let mut writer = index.writer();
    index.add(&writer, 1, "a whale").unwrap();
    writer.commit().unwrap();
    drop(writer);
    for path in place.files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let whole = std::fs::read(&path).unwrap();
        for at in [4096, whole.len() - 1] {
            let (mut changed, mut cut) = (whole.clone(), whole.clone());
            changed[at] ^= 1;
            cut.truncate(at);
            std::fs::write(&path, cut).unwrap();
            let directory = place.directory(&store);
            assert!(tantivy::Directory::atomic_read(&directory, name.as_ref()).is_err(), "{name}");
            std::fs::write(&path, changed).unwrap();
            let read = || -> tantivy::Result<usize> {
                let index = Texts::of(Index::open(place.directory(&store))?);
                Ok(index.search("whale")?.0)
            };
            // Nothing wrong is ever answered. What no search needs stays unread.
            assert!(read().is_ok_and(|found| found == 1) || read().is_err(), "{name} {at}");
            let whole_file = tantivy::Directory::atomic_read(&directory, name.as_ref());
            assert!(whole_file.is_err(), "{name} {at}");
        }
        std::fs::write(path, whole).unwrap();
    }
    assert_eq!(index.search("whale").unwrap().0, 1);
}
