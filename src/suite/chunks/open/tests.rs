#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::ReadPath;
use crate::keyring::Options;
use crate::kms::{KeyFile, Kms, generate_key_file};
use crate::{ErrorKind, FileKind, FileSpec, Store, Suite};

/// A section is shorter in unit tests than a file can be elsewhere.
const SECTION_LEN: usize = super::super::geometry::SECTION_CHUNKS as usize * 4096;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let (key, store) = (dir.path().join("cmek.key"), dir.path().join("data"));
    generate_key_file(&key).unwrap();
    std::fs::create_dir(&store).unwrap();
    let kms: Arc<dyn Kms> = Arc::new(KeyFile::new(&key).unwrap());
    let options = Options { background: false, ..Options::default() };
    let store = Store::create(store, kms, options).unwrap();
    (dir, store)
}

/// Writes so many bytes in chunks of 4 KiB; returns them.
fn write(store: &Store, path: &Path, len: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..len).map(|at| (at * 131 + at / 251) as u8).collect();
    let spec = FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks).chunk_len(4096);
    let mut writer = store.files().create_new(path, spec).unwrap();
    writer.append(&data).unwrap();
    writer.finish().unwrap();
    data
}

/// A store with a file of several sections, where that is, and what is in it.
fn file() -> (tempfile::TempDir, Store, PathBuf, Vec<u8>) {
    let (dir, store) = store();
    let path = dir.path().join("data/t.sst");
    let data = write(&store, &path, 2 * SECTION_LEN + 3 * 4096 - 100);
    (dir, store, path, data)
}

/// Up to 64 tags of the last page are read along with the end: around that, and around a page,
/// files open and read as they were written.
#[test]
fn files_with_any_number_of_tags_in_front_of_the_end_are_read() {
    let (dir, store) = store();
    for chunks in [0, 1, 2, 62, 63, 64, 65, 255, 256, 257, 319, 320, 321] {
        let path = dir.path().join(format!("data/{chunks}.sst"));
        let data = write(&store, &path, chunks * 4096);
        let reader = store.files().open(&path).unwrap();
        let mut buf = vec![0; data.len()];
        reader.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf == data, "{chunks} chunks");
    }
}

/// Tags that were wrong when they were read are read once more, those of a later page too.
#[test]
fn tags_that_were_kept_wrongly_are_read_again() {
    let (_dir, store, path, data) = file();
    let good = std::fs::read(&path).unwrap();
    for wrong in [3, 255, 256, 300, 511] {
        // Behind the header and the first section's chunks.
        let mut bad = good.clone();
        bad[4096 + SECTION_LEN + wrong * 16] ^= 1;
        // Also where the read ends in the page behind.
        for chunks in [wrong..wrong + 1, wrong..(wrong + 3).min(512)] {
            let mut buf = vec![0; chunks.len() * 4096];
            let at = chunks.start * 4096;
            std::fs::write(&path, &bad).unwrap();
            let reader = store.files().open(&path).unwrap();
            let refused = reader.read_exact_at(&mut buf, at as u64).map_err(|error| error.kind());
            assert_eq!(refused, Err(ErrorKind::Authentication), "{wrong}");
            std::fs::write(&path, &good).unwrap();
            reader.read_exact_at(&mut buf, at as u64).unwrap();
            assert!(buf == data[at..at + buf.len()], "{wrong}");
        }
    }
}

#[test]
fn reads_across_sections_are_what_was_written() {
    let (_dir, store, path, data) = file();
    for read_path in [ReadPath::Pread, ReadPath::Mapped] {
        let reader = store.files().clone().read_path(read_path).open(&path).unwrap();
        assert_eq!(reader.is_mapped(), read_path == ReadPath::Mapped);
        for border in [SECTION_LEN, 2 * SECTION_LEN] {
            for start in [border - 300_000, border - 4096 - 5, border - 5, border, border + 5] {
                for asked in [1, 10, 4096, 3 * 4096 + 7, 400_000, data.len()] {
                    let mut buf = vec![0xaa; asked];
                    let read = reader.read_at(&mut buf, start as u64).unwrap();
                    assert_eq!(read, asked.min(data.len() - start));
                    assert!(buf[..read] == data[start..start + read], "{asked} at {start}");
                }
            }
        }
    }
}
