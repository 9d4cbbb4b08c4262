//! Random appends and reads, against a `Vec`.

use proptest::prelude::*;

use super::*;

fn piece_len() -> impl Strategy<Value = usize> {
    prop_oneof![0_usize..40, 4060_usize..4120, 0_usize..70_000]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn a_file_holds_what_was_appended(
        log2 in 12_u32..=16,
        suite in prop::sample::select(vec![
            Suite::Aes256Ctr, Suite::Aes256GcmChunks, Suite::Aes256GcmLog,
        ]),
        buffer_len in prop_oneof![Just(4096_usize), Just(10_000), Just(256 << 10)],
        pieces in prop::collection::vec((piece_len(), 0..4_u8), 0..12),
        reads in prop::collection::vec((0.0..1.1_f64, 0_usize..100_000), 12),
    ) {
        let store = TestStore::new();
        let fs = store.fs().write_buffer_len(buffer_len);
        let path = store.data().join("file");
        let spec = FileSpec::new(FileKind::Other).suite(suite).chunk_len(1 << log2);
        let mut writer = fs.create_new(&path, spec).unwrap();
        let mut expected = Vec::new();
        for (len, then) in pieces {
            let piece: Vec<u8> = data(expected.len() + len).split_off(expected.len());
            writer.append(&piece).unwrap();
            expected.extend(piece);
            match then {
                0 => writer.sync().unwrap(),
                1 => writer.flush().unwrap(),
                _ => {}
            }
        }
        let sealed = writer.finish().unwrap();
        prop_assert_eq!(sealed.len, expected.len() as u64);
        prop_assert_eq!(sealed.physical_len, std::fs::metadata(&path).unwrap().len());
        let listed = &fs.list(store.data()).unwrap()[0];
        prop_assert_eq!((listed.len, listed.physical_len), (sealed.len, sealed.physical_len));

        let reader = fs.open(&path).unwrap();
        prop_assert_eq!(reader.len().unwrap(), sealed.len);
        prop_assert!(read_all(&reader).unwrap() == expected);
        for (start, len) in reads {
            let start = (start * expected.len() as f64) as usize;
            let mut buf = vec![0xaa; len];
            let read = reader.read_at(&mut buf, start as u64).unwrap();
            let rest = expected.get(start..).unwrap_or_default();
            prop_assert_eq!(read, len.min(rest.len()));
            prop_assert!(buf[..read] == rest[..read]);
        }
        prop_assert_eq!(reader.read_at(&mut [0; 9], u64::MAX - 4097).unwrap_or(0), 0);
    }
}

/// Every offset and length around the first borders of chunks.
#[test]
fn reads_across_the_borders_of_chunks() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("file");
    let data = data(3 * 4096 + 3);
    write(&fs, &path, chunked(4096), &[&data]);
    let reader = fs.open(&path).unwrap();
    let near = [0, 1, 15, 16, 4095, 4096, 4097, 8191, 8192, 8193, 12_287, 12_288, 12_290];
    for start in near {
        for end in near.into_iter().chain([data.len()]).filter(|end| *end >= start) {
            let mut buf = vec![0; end - start];
            reader.read_exact_at(&mut buf, start as u64).unwrap();
            assert_eq!(buf, data[start..end], "{start}..{end}");
        }
    }
}
