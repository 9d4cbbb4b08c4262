//! Suite 3: a log ends where its frames stop being whole and true, and says why.

use std::sync::Arc;

use atrest::ErrorKind::{Authentication, CmekRevoked, InvalidArgument};
use atrest::fs::TornReason;
use atrest::{BODY_LEN_MAX, FRAME_LEN_MAX, Store};

use super::*;
use crate::renewal::exchange::Between;

const LENS: [usize; 5] = [1, 16, 300, 2, 77];

fn appends() -> Vec<Vec<u8>> {
    let mut rest = data(LENS.iter().sum());
    LENS.iter().map(|len| rest.drain(..len).collect()).collect()
}

fn damaged() -> (Damaged, Vec<Vec<u8>>) {
    let appends = appends();
    let slices: Vec<&[u8]> = appends.iter().map(Vec::as_slice).collect();
    (Damaged::new(framed(), &slices), appends)
}

/// Body offsets at which frames begin, and the end.
fn places() -> Vec<usize> {
    let mut at = 0;
    let ends = LENS.iter().map(|len| {
        at += len + 20;
        at
    });
    [0].into_iter().chain(ends).collect()
}

#[test]
fn each_append_is_a_frame() {
    let (file, appends) = damaged();
    let reader = file.open().unwrap();
    assert_eq!((reader.suite(), reader.torn()), (Some(Suite::Aes256GcmLog), None));
    assert_eq!(reader.frame_count().unwrap(), 5);
    let mut frame = vec![1, 2, 3];
    for (index, append) in (0..).zip(&appends) {
        assert!(reader.read_frame(index, &mut frame).unwrap());
        assert_eq!(frame, *append);
    }
    assert!(!reader.read_frame(5, &mut frame).unwrap());
    assert!(!reader.read_frame(u64::MAX, &mut frame).unwrap());
    assert_eq!(read_all(&reader).unwrap(), appends.concat());
}

#[test]
fn each_cut_ends_the_log_at_the_frame_before_and_says_so() {
    let (file, appends) = damaged();
    let (places, data) = (places(), appends.concat());
    for cut in (0..=file.body().len()).rev() {
        file.file.set_len(HEADER + cut as u64).unwrap();
        let whole = places.iter().filter(|place| **place <= cut).count() - 1;
        let end: usize = LENS[..whole].iter().sum();
        let reader = file.open().unwrap();
        assert_eq!(reader.frame_count().unwrap(), whole as u64);
        assert_eq!(read_all(&reader).unwrap(), data[..end]);
        let rest = (cut - places[whole]) as u64;
        let torn = reader.torn().map(|torn| (torn.frame, torn.offset_bytes, torn.len_bytes));
        assert_eq!(torn, (rest > 0).then_some((whole as u64, end as u64, rest)), "cut to {cut}");
        assert!(reader.torn().is_none_or(|torn| torn.reason == TornReason::Cut));
        let mut buf = [9; 8];
        assert_eq!(reader.read_at(&mut buf, end as u64).unwrap(), 0);
        assert!(reader.read_exact_at(&mut buf, end as u64).is_err());
    }
}

/// Why a frame of `rest` bytes to the end of the file, whose head was changed, is not good.
fn reason(head: [u8; 4], rest: usize) -> TornReason {
    match u32::from_be_bytes(head) as usize {
        0 => TornReason::Length,
        len if len > FRAME_LEN_MAX => TornReason::Length,
        len if len + 20 > rest => TornReason::Cut,
        _ => TornReason::Authentication,
    }
}

#[test]
fn every_flipped_bit_ends_the_log_at_its_frame() {
    let (file, appends) = damaged();
    let (reader, data, places) = (file.open().unwrap(), appends.concat(), places());
    let mut seen = std::collections::HashSet::new();
    for (place, bit) in (0..file.body().len()).flat_map(|place| (0..8).map(move |b| (place, b))) {
        let frame = places.iter().filter(|start| **start <= place).count() - 1;
        let start: usize = LENS[..frame].iter().sum();
        let rest = file.body().len() - places[frame];
        let mut head = *file.body()[places[frame]..].first_chunk::<4>().unwrap();
        if let Some(byte) = head.get_mut(place - places[frame]) {
            *byte ^= 1 << bit;
        }
        file.with_flip(place, bit, || {
            let cut = file.open().unwrap();
            let torn = cut.torn().unwrap();
            assert_eq!(
                (torn.frame, torn.offset_bytes, torn.len_bytes, torn.reason),
                (frame as u64, start as u64, rest as u64, reason(head, rest)),
                "byte {place} bit {bit}"
            );
            seen.insert(torn.reason);
            assert_eq!(read_all(&cut).unwrap(), data[..start]);
            assert_eq!(cut.frame_count().unwrap(), frame as u64);
            // Who had verified it before finds out.
            assert_eq!(refused(&reader, start as u64, 1), Authentication);
            assert_eq!(refused(&reader, 0, data.len()), Authentication);
            let mut buf = vec![1];
            assert!(reader.read_frame(frame as u64, &mut buf).is_err() && buf.is_empty());
        });
    }
    assert_eq!(seen.len(), 3);
    assert_eq!(read_all(&reader).unwrap(), data);
}

#[test]
fn frames_that_are_moved_doubled_dropped_or_from_another_log_end_it() {
    use TornReason::{Authentication, Length, Zeros};
    let (file, appends) = damaged();
    let other = file.path.with_extension("other");
    let slices: Vec<&[u8]> = appends.iter().map(Vec::as_slice).collect();
    write(&file.fs, &other, framed(), &slices);
    let other = std::fs::read(&other).unwrap();
    let places = places();
    let frame = |i: usize| &file.body()[places[i]..places[i + 1]];
    let foreign = &other[HEADER as usize..][places[1]..places[2]];
    for (body, good, reason) in [
        ([frame(1), frame(0), frame(2), frame(3), frame(4)].concat(), 0, Authentication),
        ([frame(0), frame(0), frame(1), frame(2), frame(3)].concat(), 1, Authentication),
        ([frame(0), frame(2), frame(3), frame(4)].concat(), 1, Authentication),
        ([frame(1), frame(2), frame(3), frame(4)].concat(), 0, Authentication),
        ([frame(0), foreign, frame(2), frame(3), frame(4)].concat(), 1, Authentication),
        ([frame(0), frame(1), frame(2), frame(3), frame(4), frame(4)].concat(), 5, Authentication),
        ([frame(0), &[0; 100]].concat(), 1, Zeros),
        ([frame(0), &[0; 4]].concat(), 1, Zeros),
        ([frame(0), &[0; 3]].concat(), 1, TornReason::Cut),
        ([frame(0), &[0; 12], &[1; 12]].concat(), 1, Length),
        ([frame(0), &[0xff; 100]].concat(), 1, Length),
        (other[HEADER as usize..].to_vec(), 0, Authentication),
    ] {
        file.set_body(&body);
        let reader = file.open().unwrap();
        let torn = reader.torn().unwrap();
        assert_eq!((torn.frame, torn.reason), (good as u64, reason));
        assert_eq!(torn.len_bytes, (body.len() - places[good]) as u64);
        assert_eq!(read_all(&reader).unwrap(), appends[..good].concat());
    }
    // Frames from the end may be missing: that is a shorter log.
    file.set_body(&[frame(0), frame(1)].concat());
    let reader = file.open().unwrap();
    assert_eq!((reader.frame_count().unwrap(), reader.torn()), (2, None));
}

/// What a file system may leave of an append that was not synced: its length without its
/// bytes, or without some pages of them.
#[test]
fn a_power_cut_leaves_the_synced_appends() {
    let synced = [data(5000), data(3), data(9000)];
    let unsynced = data(40_000);
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("wal");
    let slices: Vec<&[u8]> = synced.iter().map(Vec::as_slice).chain([&unsynced[..]]).collect();
    write(&fs, &path, framed(), &slices);
    let good = std::fs::read(&path).unwrap();
    let start = good.len() - unsynced.len() - 20;
    let expected = synced.concat();
    let check = |bytes: &[u8], reason| {
        std::fs::write(&path, bytes).unwrap();
        let reader = fs.open(&path).unwrap();
        assert_eq!(read_all(&reader).unwrap(), expected);
        let torn = reader.torn().unwrap();
        assert_eq!((torn.frame, torn.reason), (3, reason));
        assert_eq!(torn.len_bytes, (bytes.len() - start) as u64);
        assert_eq!(fs.list(store.data()).unwrap().len(), 1);
    };
    for lost in (0..good.len() / 4096).filter(|page| page * 4096 >= start) {
        let mut bytes = good.clone();
        bytes[lost * 4096..][..4096].fill(0);
        check(&bytes, TornReason::Authentication);
    }
    for len in [4, 19, 20, 4096, 100_000] {
        check(&[&good[..start], &vec![0; len]].concat(), TornReason::Zeros);
    }
    check(&good[..good.len() - 1], TornReason::Cut);
}

#[test]
fn a_log_is_read_while_it_is_written() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("a.log");
    let mut writer = fs.create_new(&path, framed()).unwrap();
    writer.sync().unwrap();
    let reader = fs.open(&path).unwrap();
    let mut all = Vec::new();
    for append in 0..300_usize {
        let piece = data(1 + append * 7);
        writer.append(&piece).unwrap();
        let mut buf = vec![0; piece.len()];
        assert_eq!(reader.read_at(&mut buf, all.len() as u64).unwrap(), 0, "not written yet");
        writer.sync().unwrap();
        reader.read_exact_at(&mut buf, all.len() as u64).unwrap();
        assert_eq!(buf, piece);
        all.extend(piece);
        assert_eq!(reader.len().unwrap(), all.len() as u64);
        assert_eq!(reader.frame_count().unwrap(), append as u64 + 1);
    }
    writer.finish().unwrap();
    assert_eq!(read_all(&reader).unwrap(), all);
    let entry = &fs.list(store.data()).unwrap()[0];
    assert_eq!(
        (entry.len, entry.physical_len),
        (all.len() as u64, HEADER + all.len() as u64 + 6000)
    );
}

#[test]
fn an_append_under_way_is_torn_until_it_is_whole() {
    let (file, appends) = damaged();
    let places = places();
    file.file.set_len(HEADER + places[4] as u64).unwrap();
    let reader = file.open().unwrap();
    assert_eq!(reader.torn(), None);
    file.set_body(&file.body()[..places[4] + 50]);
    assert_eq!(reader.len().unwrap(), 319);
    let torn = reader.torn().unwrap();
    assert_eq!((torn.len_bytes, torn.reason), (50, TornReason::Cut));
    // The file grows before it is filled.
    file.set_body(&[&file.body()[..places[4]], &[0; 97]].concat());
    assert_eq!(reader.len().unwrap(), 319);
    assert_eq!(reader.torn().unwrap().reason, TornReason::Zeros);
    file.set_body(file.body());
    assert_eq!(read_all(&reader).unwrap(), appends.concat());
    assert_eq!(reader.torn(), None);
    file.file.set_len(HEADER + places[4] as u64).unwrap();
    assert_eq!(reader.len().unwrap_err().kind(), Authentication);
}

#[test]
fn readers_of_a_growing_log_see_a_true_beginning() {
    let store = TestStore::new();
    let fs = store.fs().write_buffer_len(4096);
    let path = store.data().join("a.log");
    let mut writer = fs.create_new(&path, framed()).unwrap();
    writer.sync().unwrap();
    let reader = fs.open(&path).unwrap();
    let whole = data(400_000);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = 0;
                while seen < whole.len() {
                    let mut buf = vec![0; 5000];
                    let read = reader.read_at(&mut buf, seen as u64).unwrap();
                    assert!(buf[..read] == whole[seen..seen + read]);
                    seen += read;
                }
            });
        }
        for piece in whole.chunks(997) {
            writer.append(piece).unwrap();
        }
        writer.finish().unwrap();
    });
}

#[test]
fn the_longest_append_is_one_frame_and_a_longer_one_is_refused() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("a.log");
    let mut writer = fs.create_new(&path, framed()).unwrap();
    let long = data(FRAME_LEN_MAX + 1);
    writer.append(b"before").unwrap();
    assert_eq!(writer.append(&long).unwrap_err().kind(), InvalidArgument);
    assert_eq!(writer.position(), 6);
    writer.append(&long[1..]).unwrap();
    writer.append(&[]).unwrap();
    writer.append(b"after").unwrap();
    writer.finish().unwrap();
    let reader = fs.open(&path).unwrap();
    assert_eq!(reader.frame_count().unwrap(), 3);
    assert!(read_all(&reader).unwrap() == [b"before", &long[1..], b"after"].concat());
    let mut buf = [0; 3];
    reader.read_exact_at(&mut buf, 5 + FRAME_LEN_MAX as u64).unwrap();
    assert_eq!(buf, [long[FRAME_LEN_MAX], b'a', b'f']);
}

#[test]
fn revoking_stops_and_restoring_resumes() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("a.log");
    let mut writer = fs.create_new(&path, framed()).unwrap();
    writer.append(b"before ").unwrap();
    writer.sync().unwrap();
    let reader = fs.open(&path).unwrap();
    fs.keyring().access().revoke().unwrap();
    assert_eq!(refused(&reader, 0, 7), CmekRevoked);
    assert_eq!(writer.append(b"lost").unwrap_err().kind(), CmekRevoked);
    fs.keyring().access().restore().unwrap();
    writer.append(b"after").unwrap();
    writer.finish().unwrap();
    assert_eq!(read_all(&reader).unwrap(), b"before after");
}

/// A group is as many frames, also where it meets appends of one, and in suites without frames.
#[test]
fn appends_in_groups_are_frames_of_their_own() {
    let store = TestStore::new();
    let fs = store.fs().write_buffer_len(8192);
    let path = store.data().join("file");
    for spec in [framed(), chunked(4096), framed().suite(Suite::Aes256Ctr)] {
        let expected = data(40_000);
        let mut writer = fs.create_new(&path, spec).unwrap();
        let (mut rest, mut frames) = (&expected[..], Vec::new());
        for group in (0..).map(|i| i % 7) {
            let pieces = (0..group).map(|i| i * i * 97 + 1).map(|len: usize| {
                let (piece, later) = rest.split_at(len.min(rest.len()));
                rest = later;
                piece
            });
            let pieces: Vec<&[u8]> = pieces.collect();
            writer.append_many(&pieces).unwrap();
            frames.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
            if rest.is_empty() {
                break;
            }
        }
        let sealed = writer.finish().unwrap();
        assert_eq!(sealed.len, expected.len() as u64);
        let reader = fs.open(&path).unwrap();
        assert!(read_all(&reader).unwrap() == expected);
        if reader.suite() == Some(Suite::Aes256GcmLog) {
            assert_eq!((reader.torn(), reader.frame_count().unwrap()), (None, frames.len() as u64));
            let mut frame = Vec::new();
            for (index, expected) in (0..).zip(frames) {
                assert!(reader.read_frame(index, &mut frame).unwrap());
                assert_eq!(frame, expected);
            }
        }
        fs.remove(&path).unwrap();
    }
}

/// A batch of frames is verified at once: one that is not good ends the log at its place, with
/// those behind it in the same batch.
#[test]
fn a_bad_frame_among_many_ends_the_log_there() {
    let many: Vec<Vec<u8>> = (0..2000).map(|i| data(i % 300 + 1)).collect();
    let slices: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    let file = Damaged::new(framed(), &slices);
    let mut at = 0;
    for (index, append) in (0..).zip(&many) {
        if index % 97 == 3 || index == 1999 {
            file.with_flip(at + 4, 2, || {
                let reader = file.open().unwrap();
                let torn = reader.torn().unwrap();
                assert_eq!((torn.frame, torn.reason), (index, TornReason::Authentication));
                assert_eq!(torn.len_bytes as usize, file.body().len() - at);
                assert_eq!(reader.frame_count().unwrap(), index);
            });
        }
        at += append.len() + 20;
    }
    assert_eq!(file.open().unwrap().frame_count().unwrap(), 2000);
}

#[test]
fn a_list_goes_on_past_a_log_that_a_shorter_one_replaced() {
    let store = TestStore::new();
    let [log, other, short] = ["log", "other", "short"].map(|name| store.data().join(name));
    let (replaced, by, cut) = (log.clone(), other.clone(), short.clone());
    // Between the listing of the directory and this file's turn; or just after it was opened.
    let between = Between::reading(move |path, offset| {
        if path == replaced && offset.is_none() && by.exists() {
            std::fs::rename(&by, path).unwrap();
        }
        if path == cut && offset == Some(0) {
            OpenOptions::new().write(true).open(path).unwrap().set_len(HEADER + 50).unwrap();
        }
    });
    let fs = Store::over_vfs(store.keyring(), Arc::new(between));
    let fs = fs.unwrap().files().clone();
    write(&fs, &log, framed(), &[&data(100), &data(9000), &data(300)]);
    write(&fs, &other, framed(), &[&data(70), &data(7)]);
    write(&fs, &short, framed(), &[&data(100)]);
    let entries = fs.list(store.data()).unwrap();
    let found = entries.iter().find(|entry| entry.path == log).unwrap();
    assert_eq!((found.len, found.physical_len), (77, HEADER + 77 + 40));
}

#[test]
fn a_body_longer_than_any_is_refused_however_early_its_frames_end() {
    let (file, appends) = damaged();
    let roomy = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = roomy.path().join("long");
    std::fs::write(&path, &file.good).unwrap();
    let long = OpenOptions::new().write(true).open(&path).unwrap();
    long.set_len(HEADER + BODY_LEN_MAX).unwrap();
    let reader = file.fs.open(&path).unwrap();
    assert_eq!(read_all(&reader).unwrap(), appends.concat());
    long.set_len(HEADER + BODY_LEN_MAX + 1).unwrap();
    assert_eq!(file.fs.open(&path).unwrap_err().kind(), ErrorKind::FileTooLarge);
    assert_eq!(reader.len().unwrap_err().kind(), ErrorKind::FileTooLarge);
}
