//! What every place for backups has to do.

use std::io;

use atrest::backup::BackupTarget;
use atrest::vfs::ReadFile;
use atrest::{ErrorKind, Result};

/// Holds a target to the contract of [`BackupTarget`].
///
/// Each call of `make` gives a target at a new place, where there is nothing.
///
/// # Panics
/// If the target breaks the contract.
pub fn backup_target_conformance(make: &dyn Fn() -> Box<dyn BackupTarget>) {
    is_empty_at_first(&*make());
    shows_a_file_when_it_is_finished(&*make());
    never_replaces_a_file(&*make());
    forgets_what_was_dropped(&*make());
    takes_files_of_any_length(&*make());
    takes_files_of_several_threads(&*make());
    keeps_its_keyring_apart(&*make());
}

fn put(target: &dyn BackupTarget, name: &str, bytes: &[u8]) -> Result<()> {
    let mut file = target.put(name)?;
    for piece in bytes.chunks(1_000_003) {
        file.append(piece)?;
    }
    file.finish()
}

fn read(target: &dyn BackupTarget, name: &str) -> Vec<u8> {
    let file = target.open(name).expect("open");
    read_all(&*file)
}

fn read_all(file: &dyn ReadFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().expect("len")).expect("a short file")];
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + 300_001);
        let read = file.read_at(&mut bytes[at..end], at as u64).expect("read_at");
        assert_eq!(read, end - at, "fewer bytes only at the end");
        at += read;
    }
    assert_eq!(file.read_at(&mut [0; 4], at as u64).expect("read_at"), 0);
    bytes
}

fn list(target: &dyn BackupTarget, folder: &str) -> Vec<(String, u64)> {
    let mut names = target.list(folder).expect("list");
    names.sort();
    names
}

fn is_empty_at_first(target: &dyn BackupTarget) {
    assert!(target.is_empty().expect("is_empty"));
    assert_eq!(list(target, ""), []);
    assert_eq!(list(target, "files"), [], "a folder that does not exist");
    let missing = target.open("none").map(drop).unwrap_err().kind();
    assert_eq!(missing, ErrorKind::Io(io::ErrorKind::NotFound));
    target.settle().expect("settle nothing");
}

fn shows_a_file_when_it_is_finished(target: &dyn BackupTarget) {
    let mut file = target.put("backup.1").expect("put");
    file.append(b"one").expect("append");
    assert_eq!(list(target, ""), [], "not finished");
    assert!(target.open("backup.1").is_err(), "not finished");
    file.append(b" two").expect("append");
    file.finish().expect("finish");
    put(target, "files/a", b"below").expect("put");
    target.settle().expect("settle");
    assert!(!target.is_empty().expect("is_empty"));
    assert_eq!(list(target, ""), [("backup.1".into(), 7)]);
    assert_eq!(list(target, "files"), [("a".into(), 5)]);
    assert_eq!(read(target, "backup.1"), b"one two");
    assert_eq!(read(target, "files/a"), b"below");
    target.remove("files/a").expect("remove");
    target.settle().expect("settle");
    assert_eq!(list(target, "files"), []);
    assert!(target.open("files/a").is_err(), "it is removed");
}

fn never_replaces_a_file(target: &dyn BackupTarget) {
    let mut late = target.put("backup.1").expect("put");
    late.append(b"late").expect("append");
    put(target, "backup.1", b"first").expect("put");
    let taken = ErrorKind::Io(io::ErrorKind::AlreadyExists);
    assert_eq!(late.finish().unwrap_err().kind(), taken, "another was first");
    assert_eq!(put(target, "backup.1", b"again").unwrap_err().kind(), taken);
    assert_eq!(read(target, "backup.1"), b"first");
}

fn forgets_what_was_dropped(target: &dyn BackupTarget) {
    let mut file = target.put("files/a").expect("put");
    file.append(b"half").expect("append");
    drop(file);
    assert_eq!(list(target, "files"), []);
    put(target, "files/a", b"whole").expect("put");
    assert_eq!(read(target, "files/a"), b"whole");
}

fn takes_files_of_any_length(target: &dyn BackupTarget) {
    for len in [0, 1, (8 << 20) - 1, 8 << 20, (17 << 20) + 5] {
        let name = format!("files/{len}");
        let bytes: Vec<u8> = (0..len).map(|at: u32| (at ^ (at >> 9)) as u8).collect();
        put(target, &name, &bytes).expect("put");
        assert!(read(target, &name) == bytes, "{len} bytes");
    }
}

fn takes_files_of_several_threads(target: &dyn BackupTarget) {
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                let name = format!("files/{thread}");
                put(target, &name, &vec![thread; 100_000]).expect("put in a thread");
            });
        }
    });
    assert_eq!(list(target, "files").len(), 4);
    for thread in 0..4_u8 {
        assert!(read(target, &format!("files/{thread}")) == vec![thread; 100_000]);
    }
}

fn keeps_its_keyring_apart(target: &dyn BackupTarget) {
    let keyring = target.keyring().expect("keyring");
    keyring.lock().expect("lock");
    assert_eq!(keyring.load().expect("load"), None);
    keyring.commit(b"image", 1, None).expect("commit");
    assert_eq!(list(target, ""), [], "the keyring's files are not the target's");
    let again = target.keyring().expect("keyring").load().expect("load");
    assert_eq!(again.expect("the image").bytes, b"image", "one keyring for one target");
}
