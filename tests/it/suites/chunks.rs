//! Suite 2: every way to change a file is refused.

use atrest::ErrorKind::{Authentication, CmekRevoked};
use sha2::{Digest, Sha256};

use super::*;

const C: usize = 4096;

/// Three full chunks and 1,000 bytes, their four tags, the end.
fn damaged() -> (Damaged, Vec<u8>) {
    let data = data(3 * C + 1000);
    let damaged = Damaged::new(chunked(C as u32), &[&data]);
    assert_eq!(damaged.body().len(), data.len() + 5 * 16);
    (damaged, data)
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

/// The end of the file behind a body of another length, which may be a finished file's.
#[test]
fn the_end_is_that_of_one_length() {
    let (file, data) = damaged();
    let (body, end) = file.body().split_at(file.body().len() - 16);
    for cut in (0..body.len()).step_by(8).chain([body.len() - 1]) {
        file.set_body(&[&body[..cut], end].concat());
        assert_eq!(file.open().unwrap_err().kind(), Authentication, "cut to {cut}");
    }
    for extension in [1, 16, 17, 4096, 4112] {
        file.set_body(&[body, &vec![0; extension], end].concat());
        assert_eq!(file.open().unwrap_err().kind(), Authentication, "longer by {extension}");
    }
    // A chunk and its tag left out: what a file that was finished earlier would look like.
    let tags = data.len();
    for left_out in 0..4 {
        let mut shorter = body.to_vec();
        shorter.drain(tags + left_out * 16..tags + left_out * 16 + 16);
        shorter.drain(left_out * C..((left_out + 1) * C).min(tags));
        file.set_body(&[&shorter, end].concat());
        assert_eq!(file.open().unwrap_err().kind(), Authentication, "without {left_out}");
    }
}

#[test]
fn chunks_without_their_tags_or_their_end_are_refused() {
    for full in 0..3 {
        let data = data(full * C);
        let file = Damaged::new(chunked(C as u32), &[&data]);
        assert_eq!(file.body().len(), full * C + full * 16 + 16);
        assert_eq!(read_all(&file.open().unwrap()).unwrap(), data);
        for len in [full * C, full * C + full * 16] {
            file.set_body(&file.body()[..len]);
            assert_eq!(file.open().unwrap_err().kind(), Authentication);
        }
    }
}

/// The chunk that a byte of the body belongs to, or its tag does; `None` for the end.
fn chunk_at(place: usize, data_len: usize) -> Option<usize> {
    let tag = place.checked_sub(data_len).map(|tag| tag / 16);
    tag.map_or(Some(place / C), |tag| (tag < data_len.div_ceil(C)).then_some(tag))
}

#[test]
fn every_flipped_byte_is_refused_where_it_is() {
    let (file, data) = damaged();
    let reader = file.open().unwrap();
    for place in 0..file.body().len() {
        let in_data = place < data.len();
        file.with_flip(place, place as u32 % 8, || {
            let Some(chunk) = chunk_at(place, data.len()) else {
                assert_eq!(file.open().unwrap_err().kind(), Authentication, "byte {place}");
                return;
            };
            // Tags that were read before the damage may still be used.
            let opened = (!in_data || place % 64 == 0).then(|| file.open().unwrap());
            let reader = opened.as_ref().unwrap_or(&reader);
            let start = chunk * C;
            let within = start + place % C.min(data.len() - start);
            assert_eq!(refused(reader, within as u64, 1), Authentication, "byte {place}");
            if opened.is_some() {
                let whole = C.min(data.len() - start);
                assert_eq!(refused(reader, start as u64, whole), Authentication);
                assert_eq!(refused(reader, 0, data.len()), Authentication);
                assert_eq!(refused(reader, 3, data.len() - 5), Authentication);
                // The other chunks are as good as ever.
                let other = (chunk + 1) % 3;
                let mut buf = [0; 100];
                reader.read_exact_at(&mut buf, (other * C) as u64).unwrap();
                assert_eq!(buf, data[other * C..][..100]);
            }
        });
    }
    assert_eq!(read_all(&reader).unwrap(), data);
}

#[test]
fn every_bit_of_a_tag_and_of_the_end_counts() {
    let (file, data) = damaged();
    for bit in 0..128 {
        let (byte, bit) = (bit / 8, bit as u32 % 8);
        file.with_flip(data.len() + byte, bit, || {
            assert_eq!(refused(&file.open().unwrap(), 7, 1), Authentication);
        });
        file.with_flip(file.body().len() - 16 + byte, bit, || {
            assert_eq!(file.open().unwrap_err().kind(), Authentication);
        });
    }
}

/// Whoever reads a tag wrongly once does not keep it.
#[test]
fn tags_that_are_wrong_are_read_anew() {
    let (file, data) = damaged();
    let reader = file.with_flip(data.len() + 20, 3, || {
        let reader = file.open().unwrap();
        assert_eq!(refused(&reader, C as u64, C), Authentication);
        assert_eq!(refused(&reader, C as u64 + 1, 5), Authentication);
        reader
    });
    assert_eq!(read_all(&reader).unwrap(), data);
}

#[test]
fn chunks_that_are_swapped_doubled_or_from_another_file_are_refused() {
    let (file, data) = damaged();
    let other = file.path.with_extension("other");
    write(&file.fs, &other, chunked(C as u32), &[&data]);
    let other = std::fs::read(&other).unwrap();
    let foreign = &other[HEADER as usize..];
    let tag = |chunk: usize| data.len() + chunk * 16..data.len() + chunk * 16 + 16;
    // With the tags of where they come from, and with those of where they are put.
    let put = |body: &mut Vec<u8>, to: usize, source: &[u8], from: usize, with_tag: bool| {
        body[to * C..][..C].copy_from_slice(&source[from * C..][..C]);
        if with_tag {
            body[tag(to)].copy_from_slice(&source[tag(from)]);
        }
    };
    for with_tag in [false, true] {
        let good = file.body();
        let mut swapped = good.to_vec();
        put(&mut swapped, 0, good, 1, with_tag);
        put(&mut swapped, 1, good, 0, with_tag);
        let mut doubled = good.to_vec();
        put(&mut doubled, 1, good, 0, with_tag);
        let mut spliced = good.to_vec();
        put(&mut spliced, 1, foreign, 1, with_tag);
        for body in [swapped, doubled, spliced] {
            file.set_body(&body);
            // The length is as it was, and the end is in its place.
            let reader = file.open().unwrap();
            assert_eq!(refused(&reader, 0, data.len()), Authentication);
            assert_eq!(refused(&reader, C as u64 + 1, 1), Authentication);
            let mut rest = [0; 1000];
            reader.read_exact_at(&mut rest, 3 * C as u64).unwrap();
            assert_eq!(rest, data[3 * C..]);
        }
    }
    let mut end = file.body().to_vec();
    let place = end.len() - 16..;
    end[place.clone()].copy_from_slice(&foreign[place]);
    for body in [end, foreign.to_vec()] {
        file.set_body(&body);
        assert_eq!(file.open().unwrap_err().kind(), Authentication);
    }
}

#[test]
fn another_chunk_length_or_suite_in_the_header_is_refused() {
    let (file, _) = damaged();
    for (place, value) in [(13, 13), (13, 16), (12, 1), (12, 3)] {
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
    // What is there is as good as ever, while its tags are kept.
    let mut buf = [0; 9];
    reader.read_exact_at(&mut buf, 3).unwrap();
    assert_eq!(buf, data[3..12]);
    assert_eq!(refused(&reader, 0, data.len()), Authentication);
    assert_eq!(refused(&reader, C as u64, 1), Authentication);
    assert_eq!(refused(&reader, C as u64, C), Authentication);
}

#[test]
fn a_chunk_is_written_when_it_is_full_and_the_last_one_by_finish() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("a.sst");
    let mut writer = fs.create_new(&path, chunked(C as u32)).unwrap();
    let data = data(2 * C + 5);
    let physical = || std::fs::metadata(&path).unwrap().len();
    for (piece, chunks) in [(&data[..C - 1], 0), (&data[C - 1..C], 1), (&data[C..], 2)] {
        writer.append(piece).unwrap();
        writer.sync().unwrap();
        assert_eq!(physical(), HEADER + chunks * C as u64);
        assert_eq!(fs.open(&path).unwrap_err().kind(), Authentication);
        // A hint of what is there of an unfinished file.
        assert!(fs.list(store.data()).unwrap()[0].len <= chunks * C as u64);
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
    writer.append(&data(10 * C)).unwrap();
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
    let data = data(3 * C);
    write(&fs, &path, chunked(C as u32), &[&data]);
    let reader = fs.open(&path).unwrap();
    let mut writer = fs.create_new(&half, chunked(C as u32)).unwrap();
    writer.append(&data[..C + 9]).unwrap();
    fs.keyring().access().revoke().unwrap();
    assert_eq!(refused(&reader, 0, data.len()), CmekRevoked);
    assert_eq!(writer.append(&data[C + 9..]).unwrap_err().kind(), CmekRevoked);
    assert_eq!(writer.position(), C as u64 + 9);
    fs.keyring().access().restore().unwrap();
    assert_eq!(read_all(&reader).unwrap(), data);
    writer.append(&data[C + 9..]).unwrap();
    writer.finish().unwrap();
    assert_eq!(read_all(&fs.open(&half).unwrap()).unwrap(), data);
}
