//! What tantivy asks of a directory.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use atrest::Integrity;
use tantivy::Directory;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{INDEX_WRITER_LOCK, TerminatingWrite, WatchCallback};

use crate::support::Place;

const FILE: &str = "file.idx";

#[test]
fn files_are_written_once_and_stay_readable_when_they_are_removed() {
    for integrity in Integrity::ALL {
        let place = Place::new(integrity);
        let store = place.store();
        let (directory, path) = (place.directory(&store), Path::new(FILE));
        assert!(matches!(directory.open_read(path), Err(OpenReadError::FileDoesNotExist(_))));
        assert!(matches!(directory.delete(path), Err(DeleteError::FileDoesNotExist(_))));
        assert!(!directory.exists(path).unwrap());
        let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
        let mut file = directory.open_write(path).unwrap();
        file.write_all(&data).unwrap();
        file.flush().unwrap();
        file.terminate().unwrap();
        assert!(directory.exists(path).unwrap());
        assert!(matches!(directory.open_write(path), Err(OpenWriteError::FileAlreadyExists(_))));

        let read = directory.open_read(path).unwrap();
        directory.delete(path).unwrap();
        assert!(!directory.exists(path).unwrap());
        assert_eq!(read.read_bytes().unwrap().as_slice(), data);
        let slice = read.slice(99_999..100_005);
        assert_eq!(slice.read_bytes().unwrap().as_slice(), &data[99_999..100_005]);
        let handle = read.slice(data.len()..data.len());
        assert!(handle.read_bytes().unwrap().is_empty());
    }
}

#[test]
fn a_file_that_was_not_ended_is_refused_where_it_is_authenticated() {
    let place = Place::new(Integrity::Authenticated);
    let store = place.store();
    let directory = place.directory(&store);
    let mut file = directory.open_write(FILE.as_ref()).unwrap();
    file.write_all(b"half").unwrap();
    file.flush().unwrap();
    drop(file);
    assert!(matches!(directory.open_read(FILE.as_ref()), Err(OpenReadError::IoError { .. })));
}

#[test]
fn a_replaced_file_is_whole_and_watchers_are_told() {
    let place = Place::new(Integrity::Authenticated);
    let store = place.store();
    let directory = place.directory(&store);
    let told = Arc::new(AtomicU32::new(0));
    let count = told.clone();
    let (tell, hear) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let _watch = directory
        .clone()
        .watch(WatchCallback::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let _nobody_listens = tell.lock().unwrap().send(());
        }))
        .unwrap();
    // What a crash left under the name that is written first.
    std::fs::write(place.path("data/meta.json.new"), b"left").unwrap();
    for (path, data) in [("meta.json", &b"one"[..]), (".managed.json", b"two"), ("meta.json", b"")]
    {
        directory.atomic_write(path.as_ref(), data).unwrap();
        directory.sync_directory().unwrap();
        assert_eq!(directory.atomic_read(path.as_ref()).unwrap(), data);
    }
    hear.recv().unwrap();
    hear.recv().unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 2);
    assert!(!place.path("data/meta.json.new").exists());
}

#[test]
fn a_lock_is_held_once_and_ends_with_its_holder() {
    let place = Place::new(Integrity::Confidential);
    let store = place.store();
    let directory = place.directory(&store);
    let held = directory.acquire_lock(&INDEX_WRITER_LOCK).unwrap();
    assert!(matches!(directory.acquire_lock(&INDEX_WRITER_LOCK), Err(LockError::LockBusy)));
    drop(held);
    drop(directory.acquire_lock(&INDEX_WRITER_LOCK).unwrap());
}
