//! Files read from a map are those that `pread` reads, and are refused and withdrawn just so.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use atrest::fs::ReadPath;
use atrest::{EncryptedFs, ErrorKind, FileKind, FileSpec, Suite};

use crate::support::{TestStore, refused};

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 131 + i / 251 + 7) as u8).collect()
}

fn write(fs: &EncryptedFs, path: &Path, spec: FileSpec, data: &[u8]) {
    let mut writer = fs.create_new(path, spec).unwrap();
    data.chunks(99_991).for_each(|piece| writer.append(piece).unwrap());
    writer.finish().unwrap();
}

fn spec(suite: Suite) -> FileSpec {
    FileSpec::new(FileKind::Table).suite(suite)
}

fn mapped(fs: &EncryptedFs) -> EncryptedFs {
    fs.clone().read_path(ReadPath::Mapped)
}

#[test]
fn mapped_files_are_those_of_pread() {
    let store = TestStore::new();
    let fs = store.fs();
    let data = data(700_003);
    let path = store.data().join("a.sst");
    for (suite, chunk_len) in
        [(Suite::Aes256Ctr, 4096), (Suite::Aes256GcmChunks, 4096), (Suite::Aes256GcmChunks, 65_536)]
    {
        for len in [0, 1, 4095, 4096, 8192, 65_537, 700_003] {
            write(&fs, &path, spec(suite).chunk_len(chunk_len), &data[..len]);
            let (plain, reader) = (fs.open(&path).unwrap(), mapped(&fs).open(&path).unwrap());
            assert!(reader.is_mapped() && !plain.is_mapped());
            assert_eq!(reader.len().unwrap(), len as u64);
            for start in [0, 1, 4095, 4096, 12_288, 65_535, 300_000, len.saturating_sub(1), len] {
                for asked in [0, 1, 100, 4096, 4097, 65_536, 700_003] {
                    let mut buf = vec![0xaa; asked];
                    let read = reader.read_at(&mut buf, start as u64).unwrap();
                    let rest = data[..len].get(start..).unwrap_or_default();
                    assert_eq!(read, asked.min(rest.len()));
                    assert!(buf[..read] == rest[..read], "{asked} at {start} of {len}");
                }
            }
            let mut beyond = [0; 9];
            assert_eq!(reader.read_at(&mut beyond, u64::MAX - 4097).unwrap_or(0), 0);
            fs.remove(&path).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_mapped_is_read_all_the_same() {
    let store = TestStore::new();
    let fs = store.fs();
    let data = data(50_000);
    let log = store.data().join("a.log");
    write(&fs, &log, spec(Suite::Aes256GcmLog), &data);
    let reader = mapped(&fs).open(&log).unwrap();
    assert!(!reader.is_mapped());
    let mut buf = vec![0; data.len()];
    reader.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf == data);
    // A file of suite 1 that grows: what was added is read, too.
    let path = store.data().join("grows");
    let mut writer = fs.create_new(&path, spec(Suite::Aes256Ctr)).unwrap();
    writer.append(&data[..10_000]).unwrap();
    writer.flush().unwrap();
    let reader = mapped(&fs).open(&path).unwrap();
    writer.append(&data[10_000..]).unwrap();
    writer.finish().unwrap();
    for (start, len) in [(0, 10_000), (9_999, 2), (10_000, 40_000), (0, 50_000)] {
        let mut buf = vec![0; len];
        reader.read_exact_at(&mut buf, start as u64).unwrap();
        assert!(reader.is_mapped() && buf == data[start..start + len]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn past_the_page_cache_nothing_is_mapped() {
    let store = TestStore::new();
    let fs = store.fs();
    let direct = fs.through(std::sync::Arc::new(atrest::vfs::DirectVfs));
    let path = store.data().join("a.sst");
    write(&fs, &path, spec(Suite::Aes256GcmChunks), &data(9000));
    if let Ok(reader) = mapped(&direct).open(&path) {
        assert!(!reader.is_mapped());
    }
}

/// What was verified once is verified again: the file may change under the map.
#[test]
fn what_changes_under_a_map_is_refused() {
    let store = TestStore::new();
    let fs = mapped(&store.fs());
    let path = store.data().join("a.sst");
    let data = data(10_000);
    write(&fs, &path, spec(Suite::Aes256GcmChunks), &data);
    let reader = fs.open(&path).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    let flip = |at: u64| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    };
    // Every 97th byte of the chunks, and every one of their tags; the end is opening's.
    for at in (4096..4096 + 10_000).step_by(97).chain(4096 + 10_000..len - 16) {
        let chunk = at.checked_sub(4096 + 10_000).map_or((at - 4096) / 4096, |tag| tag / 16);
        flip(at);
        assert_eq!(refused(&reader, chunk * 4096, 1), ErrorKind::Authentication, "byte {at}");
        assert_eq!(refused(&reader, chunk * 4096 + 7, 800), ErrorKind::Authentication);
        assert_eq!(refused(&reader, 0, 10_000), ErrorKind::Authentication);
        flip(at);
    }
    let mut buf = vec![0; data.len()];
    reader.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf == data);
}

#[test]
fn revoking_stops_mapped_readers_and_restoring_resumes() {
    let store = TestStore::new();
    let fs = mapped(&store.fs());
    let data = data(100_000);
    let readers: Vec<_> = [Suite::Aes256Ctr, Suite::Aes256GcmChunks]
        .into_iter()
        .map(|suite| {
            let path = store.data().join(suite.name());
            write(&fs, &path, spec(suite), &data);
            fs.open(&path).unwrap()
        })
        .collect();
    let mut buf = vec![0; data.len()];
    for reader in &readers {
        reader.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf == data);
    }
    fs.keyring().access().revoke().unwrap();
    for reader in &readers {
        assert_eq!(refused(reader, 0, data.len()), ErrorKind::CmekRevoked);
        assert_eq!(refused(reader, 4096, 4096), ErrorKind::CmekRevoked);
    }
    fs.keyring().access().restore().unwrap();
    for reader in &readers {
        reader.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf == data);
    }
}
