//! Every implementation of the core keeps its contract.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use atrest::backup::{BackupTarget, DirectoryTarget};
use atrest::keyring::{DirectoryStorage, KeyringStorage, MemoryStorage};
use atrest::kms::{KeyFile, KeyUri, Kms, generate_key_file};
use atrest::vfs::{Attributes, DirectVfs, EntryKind, Links, OsVfs, Vfs};
use atrest_testkit::kms::Service;
use atrest_testkit::{
    MemFs, ScriptedKms, backup_target_conformance, keyring_storage_conformance, kms_conformance,
    left_out, vfs_conformance,
};

#[test]
fn the_operating_systems_files() {
    let dir = tempfile::tempdir().unwrap();
    vfs_conformance(&OsVfs, dir.path());
}

#[test]
fn files_past_the_page_cache() {
    let dir = tempfile::tempdir().unwrap();
    if let Err(error) = DirectVfs.create_new(&dir.path().join("probe"), 0o600) {
        return left_out(format_args!("the file system has no direct I/O: {error}"));
    }
    OsVfs.remove(&dir.path().join("probe")).unwrap();
    vfs_conformance(&DirectVfs, dir.path());
}

#[test]
fn files_in_memory() {
    vfs_conformance(&MemFs::new("/d"), Path::new("/d"));
    let most = MemFs::new("/d");
    most.with_exchange();
    vfs_conformance(&most, Path::new("/d"));
    let least = MemFs::new("/a/b/c");
    least.without_links();
    vfs_conformance(&least, Path::new("/a/b/c"));
}

/// What the suite cannot try, since a `Vfs` makes no symbolic links.
#[test]
fn a_symbolic_link_is_followed_where_that_is_asked_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let mem = MemFs::new(dir.path());
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    std::fs::write(&file, "1").unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    mem.put(&file, b"1");
    mem.put_link(&link, "file");
    for vfs in [&OsVfs as &dyn Vfs, &mem] {
        assert!(vfs.open(&link, Links::Follow).is_ok(), "{vfs:?}");
        assert!(vfs.open(&link, Links::Refuse).is_err(), "{vfs:?}");
        assert_eq!(vfs.stat(&link).unwrap().kind, EntryKind::Link);
        let entries = vfs.list(dir.path()).unwrap();
        let entry = entries.iter().find(|entry| entry.path == link).unwrap();
        assert_eq!(entry.kind, EntryKind::Link);
        let mode = Attributes { mode: Some(0o600), ..Attributes::default() };
        assert!(vfs.set_attributes(&link, &mode).is_err(), "{vfs:?}");
        assert!(vfs.canonical(&link).unwrap().ends_with("file"));
        vfs.remove(&link).unwrap();
        assert!(vfs.stat(&file).is_ok(), "{vfs:?}");
    }
}

#[test]
fn keyrings_in_memory_and_in_directories() {
    keyring_storage_conformance(&|| Box::new(MemoryStorage::new()));
    keyring_storage_conformance(&|| Box::new(Arc::new(MemoryStorage::new())));
    let dir = tempfile::tempdir().unwrap();
    let count = Cell::new(0);
    let fresh = || {
        count.set(count.get() + 1);
        let dir = dir.path().join(count.get().to_string());
        std::fs::create_dir(&dir).unwrap();
        dir
    };
    keyring_storage_conformance(&|| Box::new(DirectoryStorage::new(fresh())));
    keyring_storage_conformance(&|| {
        Box::new(DirectoryStorage::new(fresh()).with_mirror(fresh())) as Box<dyn KeyringStorage>
    });
    for without_links in [false, true] {
        keyring_storage_conformance(&|| {
            let mem = MemFs::new("/d");
            if without_links {
                mem.without_links();
            }
            Box::new(DirectoryStorage::with_vfs("/d", Arc::new(mem)))
        });
    }
}

#[test]
fn backups_in_directories() {
    let dir = tempfile::tempdir().unwrap();
    let count = Cell::new(0);
    backup_target_conformance(&|| {
        count.set(count.get() + 1);
        let dir = dir.path().join(count.get().to_string());
        std::fs::create_dir(&dir).unwrap();
        Box::new(DirectoryTarget::new(dir)) as Box<dyn BackupTarget>
    });
    for without_links in [false, true] {
        backup_target_conformance(&|| {
            let mem = MemFs::new("/d");
            if without_links {
                mem.without_links();
            }
            Box::new(DirectoryTarget::with_vfs("/d", Arc::new(mem)))
        });
    }
}

/// Counts the keys it made.
struct ScriptedService(AtomicU32);

impl Service for ScriptedService {
    fn new_key(&self) -> KeyUri {
        ScriptedKms::new(self.0.fetch_add(1, Ordering::Relaxed)).key_uri().clone()
    }

    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms> {
        ScriptedKms::new(uri.as_str().strip_prefix("scripted:").unwrap())
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn the_scripted_key_service() {
    kms_conformance(&ScriptedService(0.into()));
}

struct KeyFiles(tempfile::TempDir, AtomicU32);

impl Service for KeyFiles {
    fn new_key(&self) -> KeyUri {
        let number = self.1.fetch_add(1, Ordering::Relaxed);
        let path = self.0.path().join(number.to_string());
        generate_key_file(&path).unwrap();
        KeyFile::new(&path).unwrap().key_uri().clone()
    }

    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms> {
        atrest::kms::from_uri(uri.as_str()).unwrap()
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn key_files() {
    kms_conformance(&KeyFiles(tempfile::tempdir().unwrap(), 0.into()));
}
