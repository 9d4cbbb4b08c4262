//! A store with a directory outside of its own that was copied, or moved: which of the two it
//! was only somebody who knows can say.

use std::path::{Path, PathBuf};
use std::time::Duration;

use atrest::backup::Snapshot;
use atrest::progress::WorkProgress;
use atrest::store::{Reencrypt, StalePolicy};
use atrest::verify::verify;
use atrest::{EncryptedFs, Error, ErrorKind, FileKind, FileSpec, Store};

use super::write;
use crate::support::{TestStore, copy, kind, manual};

/// A store with one file in a directory outside.
fn with_outside() -> (TestStore, PathBuf) {
    let store = TestStore::new();
    let outside = store.dir.path().canonicalize().unwrap().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let opened = store.create(manual());
    write(opened.files(), &outside.join("a"), b"outside");
    write(opened.files(), &store.data().join("b"), b"inside");
    opened.close().unwrap();
    (store, outside)
}

fn open(store: &TestStore, name: &str) -> Store {
    Store::open(store.dir.path().join(name), store.kms(), manual()).unwrap()
}

fn read(fs: &EncryptedFs, path: &Path) -> Vec<u8> {
    let reader = fs.open(path).unwrap();
    let mut content = vec![0; reader.len().unwrap() as usize];
    reader.read_exact_at(&mut content, 0).unwrap();
    content
}

fn reencrypt(store: &Store) -> Result<u64, Error> {
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    let report = store.renewal().reencrypt(&how)?;
    assert!(report.failed.is_empty(), "{report:?}");
    Ok(report.files)
}

/// All that changes files or keys by what the directories hold.
fn assert_refused(store: &Store, outside: &Path) {
    let retire = |store: &Store| store.renewal().retire(None, Duration::ZERO, &|_| {}).map(drop);
    for refused in [
        reencrypt(store).map(drop),
        retire(store),
        store.renewal().remove_temporary(&|_| {}).map(drop),
    ] {
        let error = refused.unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::IdentityMismatch, Some(outside)));
        assert!(error.to_string().contains("take it over"), "{error}");
    }
    let foreign = store.directories().foreign();
    assert_eq!(foreign.iter().map(|(dir, _)| dir.as_path()).collect::<Vec<_>>(), [outside]);
}

#[test]
fn a_copy_leaves_the_directories_of_its_original_alone() {
    let (store, outside) = with_outside();
    copy(&store.data(), &store.dir.path().join("clone"));
    let clone = open(&store, "clone");
    clone.keys().rotate().unwrap();
    let temporary = FileSpec::new(FileKind::Temporary);
    let original = open(&store, "data");
    original.files().create_new(outside.join("t"), temporary).unwrap().finish().unwrap();
    assert_refused(&clone, &outside);
    // Reading goes on.
    assert_eq!(read(clone.files(), &outside.join("a")), b"outside");
    clone.renewal().scan_usage(&|_| {}).unwrap();
    clone.renewal().rebuild_usage(&|_| {}).unwrap();
    let go_on = &|_: WorkProgress| std::ops::ControlFlow::Continue(());
    verify(clone.files(), store.dir.path().join("clone"), go_on).unwrap();
    Snapshot::take(&clone, store.dir.path().join("clone")).unwrap();
    // Nor by a directory above, which nobody has marked.
    let base = store.dir.path().canonicalize().unwrap();
    write(clone.files(), &base.join("above"), b"above");
    assert_refused(&clone, &outside);
    clone.directories().unregister(&outside).unwrap();
    assert_eq!(kind(reencrypt(&clone)), ErrorKind::IdentityMismatch);
    let temporary = clone.renewal().remove_temporary(&|_| {});
    assert_eq!(kind(temporary), ErrorKind::IdentityMismatch);
    clone.directories().unregister(&base).unwrap();
    std::fs::remove_file(base.join("above")).unwrap();
    // It gets what it let go back by nothing but the word of somebody who knows.
    assert_eq!(reencrypt(&clone).unwrap(), 1);
    let mismatch = ErrorKind::IdentityMismatch;
    assert_eq!(kind(clone.files().create_new(outside.join("c"), FileKind::Table)), mismatch);
    assert_eq!(kind(clone.directories().register(&outside)), mismatch);
    assert!(!outside.join("c").exists());
    // The original knows nothing of it.
    assert_eq!(original.directories().foreign().len(), 0);
    original.keys().rotate().unwrap();
    assert_eq!(reencrypt(&original).unwrap(), 2);
    original.renewal().retire(None, Duration::ZERO, &|_| {}).unwrap();
    assert_eq!(read(original.files(), &outside.join("a")), b"outside");
    assert_eq!(read(original.files(), &store.data().join("b")), b"inside");
}

#[test]
fn a_store_that_moved_takes_its_directories_over() {
    let (store, outside) = with_outside();
    std::fs::rename(store.data(), store.dir.path().join("moved")).unwrap();
    let moved = open(&store, "moved");
    moved.keys().rotate().unwrap();
    assert_refused(&moved, &outside);
    // An engine goes on.
    write(moved.files(), &outside.join("new"), b"new");
    assert_eq!(kind(moved.directories().register(&outside)), ErrorKind::IdentityMismatch);
    assert_eq!(kind(moved.directories().take_over("outside")), ErrorKind::InvalidArgument);
    let reader = Store::open_read_only(store.dir.path().join("moved"), store.kms(), manual());
    let reader = reader.unwrap();
    assert_eq!(kind(reader.directories().take_over(&outside)), ErrorKind::ReadOnly);
    assert_refused(&moved, &outside);
    moved.directories().take_over(&outside).unwrap();
    assert_eq!(moved.directories().foreign().len(), 0);
    assert_eq!(reencrypt(&moved).unwrap(), 2);
    moved.renewal().retire(None, Duration::ZERO, &|_| {}).unwrap();
    assert_eq!(read(moved.files(), &outside.join("a")), b"outside");
    drop(moved);
    // Once is enough.
    let again = open(&store, "moved");
    again.keys().rotate().unwrap();
    assert_eq!(reencrypt(&again).unwrap(), 3);
    again.directories().unregister(&outside).unwrap();
    let left = std::fs::read_dir(&outside).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with("KEYRING.")).count(), 0);
}
