//! Suite 2: every way to change a file is refused.

use atrest::ErrorKind::{Authentication, CmekRevoked};
use sha2::{Digest, Sha256};

use super::*;

const C: usize = 4096;
const P: usize = C - 16;

/// Three full chunks and 1,000 bytes.
fn damaged() -> (Damaged, Vec<u8>) {
    let data = data(3 * P + 1000);
    (Damaged::new(chunked(C as u32), &[&data]), data)
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let (file, data) = damaged();
    let len = file.good.len() as u64;
    for cut in (HEADER..len).rev() {
        file.file.set_len(cut).unwrap();
        assert_eq!(file.open().unwrap_err().kind(), Authentication, "cut to {cut}");
    }
    file.set_body(file.body());
    for extension in (1..40).chain(C as u64 - 1020..C as u64 + 40) {
        file.file.set_len(len + extension).unwrap();
        assert_eq!(file.open().unwrap_err().kind(), Authentication, "longer by {extension}");
        file.file.set_len(len).unwrap();
    }
    assert_eq!(read_all(&file.open().unwrap()).unwrap(), data);
}

#[test]
fn full_chunks_alone_are_refused_and_an_empty_last_one_is_not() {
    for full in 0..3 {
        let data = data(full * P);
        let file = Damaged::new(chunked(C as u32), &[&data]);
        assert_eq!(file.body().len(), full * C + 16);
        assert_eq!(read_all(&file.open().unwrap()).unwrap(), data);
        file.set_body(&file.body()[..full * C]);
        assert_eq!(file.open().unwrap_err().kind(), Authentication);
    }
}

#[test]
fn every_flipped_byte_is_refused_where_it_is() {
    let (file, data) = damaged();
    let reader = file.open().unwrap();
    for place in 0..file.body().len() {
        let (chunk, last) = (place / C, place / C == 3);
        file.with_flip(place, place as u32 % 8, || {
            let start = chunk * P;
            let within = start + place % (P.min(data.len() - start));
            assert_eq!(refused(&reader, within as u64, 1), Authentication, "byte {place}");
            if last || place % 16 == 0 {
                assert_eq!(file.open().is_err(), last, "byte {place}");
            }
            if place % 64 == 0 {
                assert_eq!(refused(&reader, 0, data.len()), Authentication);
                // The other chunks are as good as ever.
                let other = (chunk + 1) % 3;
                let mut buf = [0; 100];
                reader.read_exact_at(&mut buf, (other * P) as u64).unwrap();
                assert_eq!(buf, data[other * P..][..100]);
            }
        });
    }
    assert_eq!(read_all(&reader).unwrap(), data);
}

#[test]
fn every_bit_of_a_tag_counts() {
    let (file, _) = damaged();
    let reader = file.open().unwrap();
    for bit in 0..128 {
        file.with_flip(C - 16 + bit / 8, bit as u32 % 8, || {
            assert_eq!(refused(&reader, 7, 1), Authentication);
        });
    }
}

#[test]
fn chunks_that_are_swapped_doubled_dropped_or_from_another_file_are_refused() {
    let (file, data) = damaged();
    let other = file.path.with_extension("other");
    write(&file.fs, &other, chunked(C as u32), &[&data]);
    let other = std::fs::read(&other).unwrap();
    let chunk = |i: usize| &file.body()[i * C..((i + 1) * C).min(file.body().len())];
    let foreign = |i: usize| &other[HEADER as usize..][i * C..];
    for body in [
        [chunk(1), chunk(0), chunk(2), chunk(3)].concat(),
        [chunk(0), chunk(0), chunk(2), chunk(3)].concat(),
        [chunk(0), &foreign(1)[..C], chunk(2), chunk(3)].concat(),
    ] {
        file.set_body(&body);
        // The length is as it was, and the last chunk is in its place.
        let reader = file.open().unwrap();
        assert_eq!(refused(&reader, 0, data.len()), Authentication);
    }
    for body in [
        [chunk(0), chunk(1), chunk(3)].concat(),
        [chunk(1), chunk(2), chunk(3)].concat(),
        [chunk(0), chunk(1), chunk(2), chunk(2), chunk(3)].concat(),
        [chunk(0), chunk(1), chunk(2), foreign(3)].concat(),
        [chunk(0), chunk(1), chunk(2), chunk(3), chunk(3)].concat(),
        [chunk(0), chunk(1), &chunk(2)[..1016]].concat(),
        other[HEADER as usize..].to_vec(),
    ] {
        file.set_body(&body);
        assert_eq!(file.open().unwrap_err().kind(), Authentication);
    }
}

#[test]
fn another_chunk_length_or_suite_in_the_header_is_refused() {
    let (file, _) = damaged();
    for (place, value) in [(13, 13), (13, 20), (12, 1), (12, 3)] {
        let mut header = file.good[..HEADER as usize].to_vec();
        header[place] = value;
        if place == 12 {
            header[13] = 0;
        }
        let digest = Sha256::digest(&header[..160]);
        header[160..176].copy_from_slice(&digest[..16]);
        file.file.write_all_at(&header, 0).unwrap();
        assert_eq!(file.open().unwrap_err().kind(), ErrorKind::WrongKey, "{place} = {value}");
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_open_is_refused() {
    let (file, data) = damaged();
    let reader = file.open().unwrap();
    // So that the good bytes are still in the buffer that reads go through.
    assert_eq!(read_all(&reader).unwrap(), data);
    file.file.set_len(HEADER + C as u64 + 100).unwrap();
    assert_eq!(refused(&reader, 0, data.len()), Authentication);
    assert_eq!(refused(&reader, P as u64, 1), Authentication);
    let mut buf = [0; 9];
    reader.read_exact_at(&mut buf, 3).unwrap();
    assert_eq!(buf, data[3..12]);
}

#[test]
fn a_chunk_is_written_when_it_is_full_and_the_last_one_by_finish() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("a.sst");
    let mut writer = fs.create_new(&path, chunked(C as u32)).unwrap();
    let data = data(2 * P + 5);
    let physical = || std::fs::metadata(&path).unwrap().len();
    for (piece, chunks) in [(&data[..P - 1], 0), (&data[P - 1..P], 1), (&data[P..], 2)] {
        writer.append(piece).unwrap();
        writer.sync().unwrap();
        assert_eq!(physical(), HEADER + chunks * C as u64);
        assert_eq!(fs.open(&path).unwrap_err().kind(), Authentication);
        // What is there of an unfinished file.
        assert_eq!(fs.list(store.data()).unwrap()[0].len, chunks * P as u64);
    }
    assert_eq!(writer.finish_unsynced().unwrap().physical_len, physical());
    let reader = fs.open(&path).unwrap();
    assert_eq!(read_all(&reader).unwrap(), data);
    assert_eq!(reader.torn(), None);
    assert!(reader.frame_count().is_err());
}

#[test]
fn a_dropped_writer_leaves_a_file_that_is_refused() {
    let store = TestStore::new();
    let fs = store.fs().write_buffer_len(4096);
    let path = store.data().join("a.sst");
    let mut writer = fs.create_new(&path, chunked(C as u32)).unwrap();
    writer.append(&data(10 * P)).unwrap();
    writer.flush().unwrap();
    drop(writer);
    assert_eq!(fs.open(&path).unwrap_err().kind(), Authentication);
}

#[test]
fn many_threads_read_one_handle() {
    let (file, data) = damaged();
    let reader = file.open().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (reader, data) = (&reader, &data);
            scope.spawn(move || {
                for i in 0..500 {
                    let start = (thread * 977 + i * 37) % (data.len() - 300);
                    let mut buf = [0; 300];
                    reader.read_exact_at(&mut buf, start as u64).unwrap();
                    assert_eq!(buf, data[start..start + 300]);
                }
            });
        }
    });
}

#[test]
fn revoking_stops_and_restoring_resumes() {
    let store = TestStore::new();
    let fs = store.fs();
    let (path, half) = (store.data().join("a.sst"), store.data().join("b.sst"));
    let data = data(3 * P);
    write(&fs, &path, chunked(C as u32), &[&data]);
    let reader = fs.open(&path).unwrap();
    let mut writer = fs.create_new(&half, chunked(C as u32)).unwrap();
    writer.append(&data[..P + 9]).unwrap();
    fs.keyring().access().revoke().unwrap();
    assert_eq!(refused(&reader, 0, data.len()), CmekRevoked);
    assert_eq!(writer.append(&data[P + 9..]).unwrap_err().kind(), CmekRevoked);
    assert_eq!(writer.position(), P as u64 + 9);
    fs.keyring().access().restore().unwrap();
    assert_eq!(read_all(&reader).unwrap(), data);
    writer.append(&data[P + 9..]).unwrap();
    writer.finish().unwrap();
    assert_eq!(read_all(&fs.open(&half).unwrap()).unwrap(), data);
}
