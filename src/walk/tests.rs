//! What a walk meets.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::vfs::OsVfs;

#[test]
fn everything_is_met_once_and_nothing_of_another_store() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for made in ["a/b", "nested/deep", "KEYRING.staging.1", "linked", "c/KEYRING"] {
        fs::create_dir_all(at(made)).unwrap();
    }
    let files =
        ["KEYRING", "f", "a/b/g", "nested/KEYRING", "nested/deep/h", "KEYRING.staging.1/0", "c/i"];
    for made in files {
        fs::write(at(made), made).unwrap();
    }
    symlink(at("linked"), at("a/link")).unwrap();
    symlink("nowhere", at("a/broken")).unwrap();
    let mut met = Vec::new();
    walk(&OsVfs, dir.path(), &mut |what, entry| {
        let path = entry.path.strip_prefix(dir.path()).unwrap();
        met.push((path.to_str().unwrap().to_owned(), what));
        Ok(())
    })
    .unwrap();
    met.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("KEYRING", Met::Own),
        ("KEYRING.staging.1", Met::Own),
        ("a", Met::Directory),
        ("a/b", Met::Directory),
        ("a/b/g", Met::File),
        ("a/broken", Met::Link),
        ("a/link", Met::Link),
        ("c", Met::Directory),
        ("c/KEYRING", Met::Own),
        ("c/i", Met::File),
        ("f", Met::File),
        ("linked", Met::Directory),
        ("nested", Met::NestedStore),
    ];
    let expected: Vec<_> = expected.map(|(path, what)| (path.to_owned(), what)).into();
    assert_eq!(met, expected);
}

#[test]
fn a_root_must_be_there_and_the_visitors_error_ends_the_walk() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), "f").unwrap();
    let missing = walk(&OsVfs, &dir.path().join("x"), &mut |_, _| Ok(()));
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::Io(io::ErrorKind::NotFound));
    let stopped = walk(&OsVfs, dir.path(), &mut |_, entry| Err(nested(&entry.path)));
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::InvalidArgument);
}
