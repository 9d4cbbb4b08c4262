#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use crate::fs::ReadPath;
use crate::keyring::Options;
use crate::kms::{KeyFile, Kms, generate_key_file};
use crate::{FileKind, FileSpec, Store, Suite};

/// A section is shorter in unit tests than a file can be elsewhere.
const SECTION_LEN: usize = super::super::geometry::SECTION_CHUNKS as usize * 4096;

#[test]
fn reads_across_sections_are_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("cmek.key");
    generate_key_file(&key).unwrap();
    let kms: Arc<dyn Kms> = Arc::new(KeyFile::new(&key).unwrap());
    let options = Options { background: false, ..Options::default() };
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let store = Store::create(dir.path().join("data"), kms, options).unwrap();
    let data: Vec<u8> =
        (0..2 * SECTION_LEN + 3 * 4096 - 100).map(|at| (at * 131 + at / 251) as u8).collect();
    let path = dir.path().join("data/t.sst");
    let spec = FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks).chunk_len(4096);
    let mut writer = store.files().create_new(&path, spec).unwrap();
    writer.append(&data).unwrap();
    writer.finish().unwrap();
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
