//! Files past the page cache read and write the same bytes as through it.

use std::sync::Arc;

use atrest::vfs::DirectVfs;
use atrest::{FileKind, FileSpec, Suite};

use crate::support::{TestStore, left_out};

/// An aligned piece inside a vector.
fn aligned(bytes: &mut [u8], len: usize) -> &mut [u8] {
    let skip = bytes.as_ptr().align_offset(4096);
    &mut bytes[skip..skip + len]
}

#[test]
fn direct_files_are_those_of_the_page_cache() {
    let store = TestStore::new();
    let buffered = store.fs();
    let direct = buffered.through(Arc::new(DirectVfs));
    let data: Vec<u8> = (0..700_003_u32).map(|i| (i * 131 + 7) as u8).collect();
    for suite in [Suite::Aes256Ctr, Suite::Aes256GcmChunks] {
        for len in [0, 1, 4095, 4096, 4097, 262_144, 700_003] {
            let path = store.data().join("direct.sst");
            let spec = FileSpec::new(FileKind::Table).suite(suite);
            let mut writer = match direct.create_new(&path, spec) {
                Ok(writer) => writer,
                Err(error) => {
                    return left_out(format_args!("the file system has no direct I/O: {error:?}"));
                }
            };
            for (index, piece) in data[..len].chunks(99_991).enumerate() {
                writer.append(piece).unwrap();
                if index % 2 == 0 {
                    writer.flush().unwrap();
                }
            }
            let sealed = writer.finish().unwrap();
            assert_eq!(sealed.physical_len, path.metadata().unwrap().len());
            for fs in [&buffered, &direct] {
                let reader = fs.open(&path).unwrap();
                assert_eq!(reader.len().unwrap(), len as u64);
                let mut back = vec![0; len];
                reader.read_exact_at(&mut back, 0).unwrap();
                assert_eq!(back, data[..len]);
                assert_eq!(reader.read_at(&mut [0; 8], len as u64).unwrap(), 0);
            }
            let reader = direct.open(&path).unwrap();
            let mut memory = vec![0; 16_384 + 4096];
            for (offset, asked) in [(0, 4096), (4096, 8192), (8191, 3), (10_000, 9000)] {
                if offset + asked <= len {
                    let buf = aligned(&mut memory, asked);
                    reader.read_exact_at(buf, offset as u64).unwrap();
                    assert_eq!(buf, &data[offset..offset + asked]);
                }
            }
            // Across the end of the file, aligned and not.
            for offset in [0, 4096, 4097] {
                if offset < len {
                    let buf = aligned(&mut memory, 12_288);
                    let read = reader.read_at(buf, offset as u64).unwrap();
                    assert_eq!(read, (len - offset).min(12_288));
                    assert_eq!(buf[..read], data[offset..offset + read]);
                }
            }
            std::fs::remove_file(&path).unwrap();
        }
    }
}
