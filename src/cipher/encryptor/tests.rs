//! The format's known answers, and what an encryptor and a decryptor refuse.

use sha2::{Digest, Sha256};

use super::*;
use crate::ErrorKind;
use crate::cipher::Decryptor;
use crate::header::{FileKind, Header, NewHeader, PREFIX_LEN};
use crate::ids::{DataKeyId, FileId, StoreId};
use crate::secret::DataKey;
use crate::suite::chunks::{ChunkLen, ChunkMap};
use crate::suite::limits::BODY_LEN_MAX;
use crate::suite::log::{FRAME_LEN_MAX, verify};
use crate::vectors::{array, vectors};

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| (131 * i + 7) as u8).collect()
}

/// The file of the vectors, in any suite.
fn file(suite: Suite, chunk_log2: u8) -> (Encryptor, Decryptor) {
    let layout = Layout::parse(suite.number(), chunk_log2).expect("a layout");
    let mut key = DataKey::zeroed();
    *key.bytes_mut() = array("/inputs/dek");
    let new = NewHeader {
        layout,
        kind: if suite == Suite::Aes256GcmLog { FileKind::Log } else { FileKind::Table },
        created_ns: 1_700_000_000_000_000_000,
        store_id: StoreId::from_bytes(array("/inputs/store_id")),
        data_key_id: DataKeyId::from_bytes(array("/inputs/dek_id")),
        file_id: FileId::from_bytes(array("/inputs/file_id")),
    };
    let (header, derived) = new.seal(&key, array("/inputs/salt")).expect("no fork");
    let parsed = Header::parse(&header[..]).expect("a new header");
    let slot = KeySlot::new(&parsed.prefix, &derived);
    let decryptor = Decryptor::new(&parsed, slot.clone());
    (Encryptor::new(header, layout, slot, ByteCount::new(0), Process::current()), decryptor)
}

/// The whole file, appended in these pieces.
fn seal(suite: Suite, chunk_log2: u8, pieces: &[&[u8]]) -> Vec<u8> {
    let (mut encryptor, _) = file(suite, chunk_log2);
    let mut out = encryptor.header().to_vec();
    for piece in pieces {
        encryptor.append(piece, &mut out).expect("a short file");
        assert!(encryptor.physical_len() == out.len() as u64);
    }
    encryptor.end(&mut out).expect("a short file");
    assert!(encryptor.physical_len() == out.len() as u64);
    out
}

fn check_vector(name: &str, file: &[u8]) {
    let vectors = vectors();
    let (vector, body) = (&vectors[name], &file[HEADER_LEN..]);
    let vector = |field: &str| vector[field].as_str().expect("a string").to_owned();
    assert_eq!(text(&file[..PREFIX_LEN]), vector("header_prefix"));
    assert_eq!(text(&file[128..160]), vector("commitment"));
    assert_eq!(text(&file[160..176]), vector("checksum"));
    assert_eq!(body.len() as u64, vectors[name]["body_len"].as_u64().expect("a number"));
    assert_eq!(text(&body[..32]), vector("body_first32"));
    assert_eq!(text(&body[body.len() - 32..]), vector("body_last32"));
    assert_eq!(text(&Sha256::digest(file)), vector("file_sha256"));
}

#[test]
fn suite_1_has_the_known_answer() {
    let data = plaintext(10_000);
    check_vector("ctr", &seal(Suite::Aes256Ctr, 0, &[&data]));
    check_vector("ctr", &seal(Suite::Aes256Ctr, 0, &[&data[..17], &[], &data[17..]]));
}

/// Longer than what is encrypted at once.
#[test]
fn a_long_append_is_as_its_pieces() {
    let plain = plaintext(40_000);
    let pieces: Vec<&[u8]> = plain.chunks(9_999).collect();
    assert!(seal(Suite::Aes256Ctr, 0, &[&plain]) == seal(Suite::Aes256Ctr, 0, &pieces));
}

#[test]
fn suite_2_has_the_known_answer() {
    let data = plaintext(10_000);
    check_vector("gcm4k", &seal(Suite::Aes256GcmChunks, 12, &[&data]));
    let cuts: Vec<&[u8]> = data.chunks(997).collect();
    check_vector("gcm4k", &seal(Suite::Aes256GcmChunks, 12, &cuts));
    let (full, rest) = data.split_at(4096);
    check_vector("gcm4k", &seal(Suite::Aes256GcmChunks, 12, &[full, &[], rest]));
}

#[test]
fn no_chunk_and_full_chunks_have_the_known_answers() {
    for (name, len) in [("empty", 0), ("two_full_chunks_of_zeros", 2 * 4096)] {
        let vector = &vectors()["gcm4k"][name];
        let file = seal(Suite::Aes256GcmChunks, 12, &[&vec![0; len]]);
        let body = &file[HEADER_LEN..];
        assert_eq!(body.len() as u64, vector["body_len"].as_u64().expect("a number"));
        assert_eq!(text(&Sha256::digest(body)), vector["sha256"].as_str().expect("a string"));
    }
}

/// Sections have 512 chunks in unit tests: two whole ones, each with two pages of tags, and more.
#[test]
fn sections_are_read_across_and_cannot_be_exchanged() {
    const SECTION: usize = 512 * 4096;
    let data: Vec<u8> = (0..2 * SECTION + 300 * 4096 + 5)
        .map(|i| (i as u32).wrapping_mul(0x9e37_79b9).rotate_left(9) as u8)
        .collect();
    let bytes = seal(Suite::Aes256GcmChunks, 12, &[&data[..9_999], &data[9_999..]]);
    assert!(bytes == seal(Suite::Aes256GcmChunks, 12, &[&data]));
    let open = |bytes: &[u8]| {
        crate::fs::fuzz::reader(bytes, file(Suite::Aes256GcmChunks, 12).1).expect("its end is good")
    };
    let reader = open(&bytes);
    reader.will_need(0, u64::MAX);
    let mut at = 0;
    for (i, len) in [4096, 1, 65_536, 300_000, 4095, 1 << 20, 7].into_iter().cycle().enumerate() {
        let mut buf = vec![0; len];
        let read = reader.read_at(&mut buf, at as u64).expect("good chunks");
        assert_eq!(read, len.min(data.len() - at));
        assert!(buf[..read] == data[at..at + read], "{len} at {at}");
        at += len + i % 3 * 50_000;
        if at >= data.len() {
            break;
        }
    }
    for border in [256 * 4096, SECTION, 2 * SECTION] {
        for (before, len) in [(4096, 8192), (1, 2), (0, 4096), (100_000, 600_000)] {
            let (start, mut buf) = (border - before, vec![0; len]);
            reader.read_exact_at(&mut buf, start as u64).expect("good chunks");
            assert!(buf == data[start..start + len]);
        }
    }
    // Two sections with their tags, exchanged as they are.
    let (sealed, start) = (SECTION + 512 * 16, HEADER_LEN);
    let mut swapped = bytes.clone();
    swapped[start..start + 2 * sealed].rotate_left(sealed);
    let reader = open(&swapped);
    for at in [0, 300 * 4096, SECTION, 2 * SECTION - 1] {
        let mut buf = [9; 16];
        let read = reader.read_at(&mut buf, at as u64);
        assert_eq!(read.expect_err("moved").kind(), ErrorKind::Authentication);
        assert_eq!(buf, [0; 16]);
    }
    let mut rest = vec![0; 5000];
    reader.read_exact_at(&mut rest, 2 * SECTION as u64).expect("a section in its place");
    // One section and its tags left out, behind which the end still is.
    let shorter = [&bytes[..start + sealed], &bytes[start + 2 * sealed..]].concat();
    let (_, decryptor) = file(Suite::Aes256GcmChunks, 12);
    let refused = crate::fs::fuzz::reader(&shorter, decryptor).expect_err("another length");
    assert_eq!(refused.kind(), ErrorKind::Authentication);
}

#[test]
fn suite_3_has_the_known_answer() {
    let (vectors, data) = (vectors(), plaintext(10_000));
    let mut rest = &data[..];
    let lens = vectors["log"]["appends"].as_array().expect("a list");
    let pieces: Vec<_> = lens
        .iter()
        .map(|len| rest.split_off(..len.as_u64().expect("a number") as usize).expect("10,000"))
        .collect();
    assert!(rest.is_empty());
    check_vector("log", &seal(Suite::Aes256GcmLog, 0, &pieces));
}

#[test]
fn an_append_that_is_refused_takes_nothing() {
    let (mut encryptor, _) = file(Suite::Aes256GcmLog, 0);
    let mut out = vec![1, 2, 3];
    let long = vec![0; FRAME_LEN_MAX + 1];
    let error = encryptor.append(&long, &mut out).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!((encryptor.position(), out.len()), (0, 3));
    encryptor.append(&long[1..], &mut out).expect("the longest frame");
    assert_eq!(out.len(), 3 + FRAME_LEN_MAX + 20);
    encryptor.append(&[], &mut out).expect("nothing");
    assert_eq!(encryptor.physical_len() as usize, HEADER_LEN + FRAME_LEN_MAX + 20);

    for (suite, max) in [
        (Suite::Aes256GcmChunks, ChunkLen::from_log2(12).expect("a chunk").file_len_max()),
        (Suite::Aes256GcmLog, BODY_LEN_MAX - 20),
        (Suite::Aes256Ctr, BODY_LEN_MAX),
    ] {
        let log2 = if suite == Suite::Aes256GcmChunks { 12 } else { 0 };
        let (mut encryptor, _) = file(suite, log2);
        encryptor.position = max - 1;
        let mut out = Vec::new();
        let error = encryptor.append(&[0; 2], &mut out).expect_err("too long");
        assert_eq!((error.kind(), out.len()), (ErrorKind::FileTooLarge, 0), "{suite:?}");
        assert_eq!(encryptor.position, max - 1);
        encryptor.append(&[0], &mut out).expect("the last byte");
    }
}

#[test]
fn each_suite_refuses_the_calls_of_the_others() {
    let unsupported = |result: Result<()>| {
        assert_eq!(result.expect_err("refused").kind(), ErrorKind::UnsupportedFeature);
    };
    for (suite, log2) in [(Suite::Aes256GcmChunks, 14), (Suite::Aes256GcmLog, 0)] {
        let (mut encryptor, decryptor) = file(suite, log2);
        let mut buf = [7; 32];
        unsupported(encryptor.encrypt_in_place(&mut buf));
        unsupported(encryptor.encrypt(&[1; 32], &mut buf));
        unsupported(decryptor.decrypt_in_place(0, &mut buf));
        unsupported(decryptor.decrypt(0, &[1; 32], &mut buf));
        assert_eq!((buf, encryptor.position()), ([7; 32], 0));
    }
    let mut out = Vec::new();
    for (suite, log2) in [(Suite::Aes256Ctr, 0), (Suite::Aes256GcmLog, 0)] {
        let (_, decryptor) = file(suite, log2);
        unsupported(decryptor.decrypt_chunks(0, &[0; 4], &[0; 16], 0, &mut [0; 4]));
        unsupported(decryptor.decrypt_chunks_in_place(0, &mut [0; 4], &[0; 16]));
        unsupported(decryptor.chunk_map(16).map(|_| ()));
        let map = ChunkMap::of_plaintext(4096, 0).expect("a map");
        unsupported(decryptor.verify_end(&map, &[0; 16]));
        assert_eq!(decryptor.chunk_len(), None);
    }
    for (suite, log2) in [(Suite::Aes256Ctr, 0), (Suite::Aes256GcmChunks, 14)] {
        let (_, decryptor) = file(suite, log2);
        unsupported(decryptor.decrypt_frame(0, &[0, 0, 0, 1], &mut out).map(|_| ()));
    }
}

#[test]
fn chunks_and_frames_decrypt_without_a_file() {
    let data = plaintext(10_000);
    let sealed = seal(Suite::Aes256GcmChunks, 12, &[&data]);
    let (_, decryptor) = file(Suite::Aes256GcmChunks, 12);
    let body = &sealed[HEADER_LEN..];
    let body_len = body.len() as u64;
    let part = |range: &std::ops::Range<u64>| &body[range.start as usize..range.end as usize];
    assert_eq!(decryptor.chunk_len(), Some(4096));
    assert_eq!(decryptor.plaintext_len(body_len).expect("its length"), 10_000);
    assert!(decryptor.plaintext_len(15).is_err() && decryptor.chunk_map(32).is_err());
    let map = decryptor.chunk_map(body_len).expect("a map");
    decryptor.verify_end(&map, part(&map.end())).expect("the end");
    for len in [9_999, 10_001] {
        let other = ChunkMap::of_plaintext(4096, len).expect("a map");
        let error = decryptor.verify_end(&other, part(&map.end())).expect_err("another length");
        assert_eq!(error.kind(), ErrorKind::Authentication);
    }
    let kind = |result: Result<()>| result.expect_err("refused").kind();
    for range in [0..10_000, 0..1, 4095..4097, 4096..8192, 5000..10_000, 9_999..10_000] {
        let chunks = map.chunks_of(range.clone());
        for run in map.runs(chunks) {
            let skip = (range.start - run.bytes.start) as usize;
            let (bytes, tags) = (part(&run.bytes), part(&run.tags));
            let mut back = vec![9; (range.end - range.start) as usize];
            let first = run.chunks.start;
            decryptor.decrypt_chunks(first, bytes, tags, skip, &mut back).expect("good chunks");
            assert!(back == data[range.start as usize..range.end as usize]);
            let mut whole = bytes.to_vec();
            decryptor.decrypt_chunks_in_place(first, &mut whole, tags).expect("good chunks");
            assert!(whole == data[run.bytes.start as usize..run.bytes.end as usize]);

            let mut whole = bytes.to_vec();
            let moved = decryptor.decrypt_chunks(first + 1, bytes, tags, skip, &mut back);
            assert_eq!(kind(moved), ErrorKind::Authentication);
            let moved = decryptor.decrypt_chunks_in_place(first + 1, &mut whole, tags);
            assert_eq!(kind(moved), ErrorKind::Authentication);
            assert!(back.iter().chain(&whole).all(|byte| *byte == 0));
            for tags in [&tags[1..], &tags[16..], &[tags, tags].concat()] {
                let other = decryptor.decrypt_chunks(first, bytes, tags, skip, &mut back);
                assert_eq!(kind(other), ErrorKind::InvalidArgument);
            }
        }
    }
    let tags = part(&map.runs(0..3).next().expect("a run").tags);
    for range in [0..0, 0..8192, 0..10_001, 4096..9000] {
        let mut back = vec![9; range.len()];
        let other = decryptor.decrypt_chunks(0, &body[..10_000], tags, range.start, &mut back);
        assert_eq!(kind(other), ErrorKind::InvalidArgument, "{range:?}");
    }
    for first in [u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
        let (mut part, mut whole) = ([9], body[..10_000].to_vec());
        let end = decryptor.decrypt_chunks(first, &body[..4], &tags[..16], 0, &mut part);
        assert_eq!(kind(end), ErrorKind::FileTooLarge);
        let end = decryptor.decrypt_chunks_in_place(first, &mut whole, tags);
        assert_eq!(kind(end), ErrorKind::FileTooLarge);
        assert!(part.iter().chain(&whole).all(|byte| *byte == 0));
    }

    let sealed = seal(Suite::Aes256GcmLog, 0, &[&data[..1], &data[1..]]);
    let (_, decryptor) = file(Suite::Aes256GcmLog, 0);
    let mut rest = &sealed[HEADER_LEN..];
    let mut back = Vec::new();
    for (index, len) in [(0, 1), (1, 9_999)] {
        for cut in [0, 3, 4, len + 19] {
            let torn = decryptor.decrypt_frame(index, &rest[..cut], &mut back);
            assert_eq!(torn.expect("a torn frame"), None);
        }
        assert!(decryptor.decrypt_frame(index + 1, rest, &mut back).is_err());
        let used = decryptor.decrypt_frame(index, rest, &mut back).expect("a good frame");
        rest = &rest[used.expect("a whole frame")..];
    }
    assert!(rest.is_empty() && back == data);
}

#[test]
fn a_key_comes_back_from_the_prefix_alone() {
    let data = plaintext(9_000);
    for (suite, log2) in
        [(Suite::Aes256Ctr, 0), (Suite::Aes256GcmChunks, 12), (Suite::Aes256GcmLog, 0)]
    {
        let expected = seal(suite, log2, &[&data[..5_000], &data[5_000..]]);
        let (mut encryptor, _) = file(suite, log2);
        let mut out = encryptor.header().to_vec();
        encryptor.append(&data[..5_000], &mut out).expect("access");
        encryptor.slot.withdraw();
        let so_far = out.clone();
        let error = encryptor.append(&data[5_000..], &mut out).expect_err("no access");
        assert_eq!(error.kind(), ErrorKind::CmekRevoked);
        if suite == Suite::Aes256GcmChunks {
            assert!(encryptor.end(&mut out).is_err());
        }
        assert!(out == so_far && encryptor.position() == 5_000);
        let mut key = DataKey::zeroed();
        *key.bytes_mut() = array("/inputs/dek");
        let slot = encryptor.slot.clone();
        let info = [&slot.prefix[..]];
        slot.put_back(slot.again(&crate::derive::derive(
            key.bytes().expect("no fork"),
            crate::derive::Purpose::File,
            &info,
        )));
        encryptor.append(&data[5_000..], &mut out).expect("access");
        encryptor.finish(&mut out).expect("access");
        assert!(out == expected, "{suite:?}");
    }
}

/// Only who has the key can make these: its tag is right, its length is not.
#[test]
fn a_frame_with_a_wrong_length_is_refused_though_its_tag_is_right() {
    let (encryptor, decryptor) = file(Suite::Aes256GcmLog, 0);
    let slot = &encryptor.slot;
    let seal = |head: u32, plaintext: &[u8]| {
        let mut frame = head.to_be_bytes().to_vec();
        frame.resize(4 + plaintext.len(), 0);
        let sealed = slot.with_gcm(|key| {
            let tag = key.seal(0, &head.to_be_bytes(), plaintext, &mut frame[4..]);
            frame.extend_from_slice(&tag);
            Ok(())
        });
        sealed.map(|()| frame).expect("access")
    };
    let is_good = |frame: &[u8]| {
        let mut good = false;
        let looked = slot.with_gcm(|key| {
            good = verify(key, 0, frame)?;
            Ok(())
        });
        looked.map(|()| good).expect("access")
    };
    assert!(is_good(&seal(4, &[7; 4])));
    for (head, len) in [(0, 0), (5, 4), (3, 4), ((1 << 24) + 1, 4), (u32::MAX, 4)] {
        assert!(!is_good(&seal(head, &vec![7; len])));
    }
    let mut out = Vec::new();
    for head in [0, (1 << 24) + 1, u32::MAX] {
        let refused = decryptor.decrypt_frame(0, &seal(head, &[7; 4]), &mut out);
        assert_eq!(refused.expect_err("refused").kind(), ErrorKind::Authentication);
    }
    assert!(out.is_empty());
}
