//! The format's known answers, and what an encryptor and a decryptor refuse.

use sha2::{Digest, Sha256};

use super::*;
use crate::ErrorKind;
use crate::cipher::Decryptor;
use crate::header::{FileKind, Header, NewHeader, PREFIX_LEN};
use crate::ids::{DataKeyId, FileId, StoreId};
use crate::secret::DataKey;
use crate::suite::chunks::ChunkLen;
use crate::suite::limits::{BODY_LEN_MAX, message_index};
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
    let (header, derived) = new.seal(&key, array("/inputs/salt"));
    let parsed = Header::parse(&header[..]).expect("a new header");
    let slot = KeySlot::new(&parsed.prefix, &derived);
    let decryptor = Decryptor::new(&parsed, slot.clone());
    (Encryptor::new(header, layout, slot, ByteCount::new(0)), decryptor)
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

#[test]
fn suite_2_has_the_known_answer() {
    let data = plaintext(10_000);
    check_vector("gcm4k", &seal(Suite::Aes256GcmChunks, 12, &[&data]));
    let cuts: Vec<&[u8]> = data.chunks(997).collect();
    check_vector("gcm4k", &seal(Suite::Aes256GcmChunks, 12, &cuts));
    let (full, rest) = data.split_at(4080);
    check_vector("gcm4k", &seal(Suite::Aes256GcmChunks, 12, &[full, &[], rest]));
}

#[test]
fn a_file_of_full_chunks_ends_with_an_empty_one() {
    let vector = &vectors()["gcm4k"]["two_full_chunks_of_zeros_then_empty"];
    let file = seal(Suite::Aes256GcmChunks, 12, &[&[0; 2 * 4080]]);
    let body = &file[HEADER_LEN..];
    assert_eq!(body.len() as u64, vector["body_len"].as_u64().expect("a number"));
    assert_eq!(text(&Sha256::digest(body)), vector["sha256"].as_str().expect("a string"));
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
fn chunk_arithmetic_agrees_with_itself_and_refuses_impossible_lengths() {
    for log2 in 12..=20 {
        let chunk = ChunkLen::from_log2(log2).expect("a chunk");
        let (sealed, plain) = (chunk.sealed() as u64, chunk.plain() as u64);
        let near = |len: u64| len.saturating_sub(40)..len + 40;
        let max = chunk.file_len_max();
        let lens = near(0).chain(near(plain)).chain(near(2 * plain)).chain(near(7 * plain));
        for len in lens.chain(max - 40..=max) {
            assert_eq!(chunk.file_len(chunk.body_len(len)), Some(len));
        }
        for chunks in [0, 1, 2, 1000] {
            for rest in 0..16 {
                assert_eq!(chunk.file_len(chunks * sealed + rest), None);
            }
        }
        assert!(chunk.body_len(max) <= BODY_LEN_MAX);
        assert!(chunk.body_len(max + 1) > BODY_LEN_MAX);
        assert!(message_index(max / plain).is_ok());
    }
    assert!(message_index(1 << 32).is_err());
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
        unsupported(decryptor.decrypt_chunk(0, &[0; 20], &mut [0; 4]));
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
    assert_eq!(decryptor.chunk_len(), Some(4096));
    assert_eq!(decryptor.plaintext_len(body.len() as u64).expect("its length"), 10_000);
    assert!(decryptor.plaintext_len(8192).is_err());
    let mut back = Vec::new();
    for (index, chunk) in (0..).zip(body.chunks(4096)) {
        let start = back.len();
        back.resize(start + chunk.len() - 16, 0);
        decryptor.decrypt_chunk(index, chunk, &mut back[start..]).expect("a good chunk");
        let mut wiped = vec![9; chunk.len() - 16];
        let error = decryptor.decrypt_chunk(index + 1, chunk, &mut wiped).expect_err("moved");
        assert_eq!(error.kind(), ErrorKind::Authentication);
        assert!(wiped.iter().all(|byte| *byte == 0));
        let error = decryptor.decrypt_chunk(index, chunk, &mut [0; 3]).expect_err("lengths");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    assert!(back == data);

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
        slot.give_back(&crate::derive::derive(key.expose(), crate::derive::Purpose::File, &info));
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
