#![allow(clippy::unwrap_used)]

use super::*;
use crate::cipher::{ByteCount, Decryptor, Encryptor, KeySlot};
use crate::process::Process;
use crate::suite::limits::BODY_LEN_MAX;
use crate::vectors::{array, bytes, vectors};

fn data_key() -> DataKey {
    let mut key = DataKey::zeroed();
    *key.bytes_mut() = array("/inputs/dek");
    key
}

fn new_header(suite: Suite, chunk_log2: u8, kind: FileKind) -> NewHeader {
    NewHeader {
        layout: Layout::parse(suite.number(), chunk_log2).unwrap(),
        kind,
        created_ns: 1_700_000_000_000_000_000,
        store_id: StoreId::from_bytes(array("/inputs/store_id")),
        data_key_id: DataKeyId::from_bytes(array("/inputs/dek_id")),
        file_id: FileId::from(7),
    }
}

/// A header of suite 1, as the known answers have it.
fn header() -> [u8; HEADER_LEN] {
    *new_header(Suite::Aes256Ctr, 0, FileKind::Table)
        .seal(&data_key(), array("/inputs/salt"))
        .unwrap()
        .0
}

fn kind_of(file: &[u8]) -> ErrorKind {
    Header::parse(file).unwrap_err().kind()
}

#[test]
fn known_headers_keys_and_commitments() {
    let cases = [
        ("ctr", Suite::Aes256Ctr, 0, FileKind::Table),
        ("gcm4k", Suite::Aes256GcmChunks, 12, FileKind::Table),
        ("log", Suite::Aes256GcmLog, 0, FileKind::Log),
    ];
    for (name, suite, chunk_log2, kind) in cases {
        let new = new_header(suite, chunk_log2, kind);
        let (file, derived) = new.seal(&data_key(), array("/inputs/salt")).unwrap();
        assert_eq!(file[..PREFIX_LEN], bytes(&format!("/{name}/header_prefix")), "{name}");
        assert_eq!(file[128..160], bytes(&format!("/{name}/commitment")), "{name}");
        assert_eq!(file[160..176], bytes(&format!("/{name}/checksum")), "{name}");
        assert_eq!(file[176..], [0; 3920], "{name}");
        assert_eq!(*derived.key(), array(&format!("/{name}/key")), "{name}");
        assert_eq!(*derived.nonce(), array(&format!("/{name}/nonce12")), "{name}");
        let parsed = Header::parse(&file[..]).unwrap();
        assert_eq!((parsed.suite, parsed.kind), (suite, kind));
        assert_eq!(parsed.chunk_len, (chunk_log2 != 0).then(|| 1 << chunk_log2));
        assert_eq!(parsed.file_id, FileId::from(7));
        assert_eq!(*parsed.unseal(&data_key()).unwrap().key(), *derived.key());
    }
}

#[test]
fn a_known_file_of_suite_1() {
    let (file, derived) = new_header(Suite::Aes256Ctr, 0, FileKind::Table)
        .seal(&data_key(), array("/inputs/salt"))
        .unwrap();
    let mut prefix = [0; PREFIX_LEN];
    prefix.copy_from_slice(&file[..PREFIX_LEN]);
    let slot = KeySlot::new(&prefix, &derived);
    let (count, process) = (ByteCount::new(0), Process::current());
    let mut encryptor = Encryptor::new(file, Layout::Stream, slot, count, process);
    let mut whole = encryptor.header().to_vec();
    let mut body: Vec<u8> = (0..10_000_u32).map(|i| (131 * i + 7) as u8).collect();
    let (first, second) = body.split_at_mut(3333);
    encryptor.encrypt_in_place(first).unwrap();
    encryptor.encrypt_in_place(second).unwrap();
    assert_eq!(body[..32], bytes("/ctr/body_first32"));
    assert_eq!(body[body.len() - 32..], bytes("/ctr/body_last32"));
    whole.extend_from_slice(&body);
    assert_eq!(Sha256::digest(&whole)[..], bytes("/ctr/file_sha256"));
}

#[test]
fn known_keystream_at_huge_offsets() {
    let header = Header::parse(&header()).unwrap();
    let derived = header.unseal(&data_key()).unwrap();
    let decryptor = Decryptor::new(&header, KeySlot::new(&header.prefix, &derived));
    let vectors = vectors();
    let known = vectors.pointer("/ctr/keystream_at").unwrap().as_object().unwrap();
    assert_eq!(known.len(), 6);
    for (offset, keystream) in known {
        let mut buf = [0; 32];
        decryptor.decrypt_in_place(offset.parse().unwrap(), &mut buf).unwrap();
        let mut expected = [0; 32];
        assert!(crate::hex::decode(keystream.as_str().unwrap(), &mut expected));
        assert_eq!(buf, expected, "at {offset}");
    }
    let mut buf = [0; 2];
    let refused = decryptor.decrypt_in_place(BODY_LEN_MAX - 1, &mut buf).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FileTooLarge);
    decryptor.decrypt_in_place(BODY_LEN_MAX - 2, &mut buf).unwrap();
}

#[test]
fn nothing_is_not_the_beginning_of_a_header() {
    assert!(!begins_encrypted(&[]) && !begins_encrypted(b"\x88"));
    assert!(begins_encrypted(&MAGIC[..1]) && begins_encrypted(&header()));
}

#[test]
fn a_header_says_whether_the_file_is_temporary() {
    for (kind, expected) in [(FileKind::Table, false), (FileKind::Temporary, true)] {
        let new = new_header(Suite::Aes256Ctr, 0, kind);
        let (bytes, _) = new.seal(&data_key(), [1; 32]).expect("no fork");
        assert_eq!(is_temporary(&bytes), expected);
        assert_eq!(Header::parse(&bytes[..]).expect("ours").is_temporary(), expected);
    }
}

#[test]
fn every_bit_flip_is_refused() {
    let good = header();
    for bit in 0..8 * HEADER_LEN {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0..8 => ErrorKind::NotEncrypted,
            8..10 => ErrorKind::UnsupportedVersion,
            _ => ErrorKind::CorruptHeader,
        };
        // The bit between the two magics makes a keyring of the file.
        let expected = if bad[..8] == KEYRING_MAGIC { ErrorKind::ForeignFile } else { expected };
        assert_eq!(kind_of(&bad), expected, "bit {bit}");
    }
}

#[test]
fn every_bit_flip_with_a_right_checksum_is_refused() {
    let good = header();
    let mut outcomes = std::collections::BTreeMap::<String, usize>::new();
    for bit in 0..8 * CHECKED_LEN {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        let sum = checksum(&bad);
        bad[CHECKED_LEN..RAW_LEN].copy_from_slice(&sum);
        let expected = match bit / 8 {
            0..8 => [ErrorKind::NotEncrypted, ErrorKind::ForeignFile].as_slice(),
            8..10 => &[ErrorKind::UnsupportedVersion],
            10..12 => &[ErrorKind::CorruptHeader],
            // Suite 1 to 3 parses, and the commitment refuses it.
            12 => &[ErrorKind::UnsupportedFeature, ErrorKind::CorruptHeader, ErrorKind::WrongKey],
            13 | 15 | 80..96 => &[ErrorKind::CorruptHeader],
            14 => &[ErrorKind::UnsupportedFeature, ErrorKind::WrongKey],
            16..20 => &[ErrorKind::UnsupportedFeature],
            // Compatible features, ids, time, salt, commitment.
            _ => &[ErrorKind::WrongKey],
        };
        let refused = match Header::parse(&bad) {
            Ok(header) => header.unseal(&data_key()).err().unwrap().kind(),
            Err(error) => error.kind(),
        };
        assert!(expected.contains(&refused), "bit {bit}: {refused:?}");
        *outcomes.entry(format!("{refused:?}")).or_default() += 1;
    }
    assert!(outcomes["WrongKey"] >= 8 * (4 + 8 + 48 + 32 + 32));
}

#[test]
fn every_truncation_is_refused() {
    let good = header();
    assert_eq!(kind_of(&[]), ErrorKind::EmptyFile);
    for len in 1..HEADER_LEN {
        assert_eq!(kind_of(&good[..len]), ErrorKind::TruncatedHeader, "{len} bytes");
    }
    assert!(Header::parse(&good).is_ok());
    assert!(Header::parse(&[&good[..], b"body"].concat()).is_ok());
}

#[test]
fn each_reserved_byte_is_checked_behind_a_right_checksum() {
    let refused = |at: usize, value: u8| {
        let mut bad = header();
        bad[at] = value;
        let sum = checksum(&bad);
        bad[CHECKED_LEN..RAW_LEN].copy_from_slice(&sum);
        Header::parse(&bad).unwrap_err()
    };
    for at in [15, 80, 95, 176, 4095] {
        assert_eq!(refused(at, 1).kind(), ErrorKind::CorruptHeader, "byte {at}");
    }
    let unknown = refused(17, 0x80);
    assert_eq!(unknown.kind(), ErrorKind::UnsupportedFeature);
    assert!(unknown.to_string().contains("0x8000"), "{unknown}");
    for (at, value) in [(12, 0), (12, 4), (14, 0), (14, 7)] {
        assert_eq!(refused(at, value).kind(), ErrorKind::UnsupportedFeature);
    }
}

/// A header whose layout no writer chooses, under the right key.
fn with_layout(suite: u8, parameter: u8) -> [u8; HEADER_LEN] {
    let mut file = header();
    [file[12], file[13]] = [suite, parameter];
    let prefix = *file.first_chunk().unwrap();
    reseal(&mut file, &prefix, &data_key());
    file
}

#[test]
fn the_chunk_byte_has_to_fit_the_suite() {
    for log2 in 0..=255_u8 {
        let fits = (12..=16).contains(&log2);
        match Header::parse(&with_layout(2, log2)) {
            Ok(header) => {
                assert!(fits, "{log2}");
                assert_eq!(header.chunk_len, Some(1 << log2));
                assert_eq!(header.layout.parameter(), log2);
                assert!(header.unseal(&data_key()).is_ok());
            }
            Err(error) => {
                assert!(!fits, "{log2}");
                assert_eq!(error.kind(), ErrorKind::CorruptHeader);
            }
        }
        for suite in [1, 3] {
            assert_eq!(Header::parse(&with_layout(suite, log2)).is_ok(), log2 == 0);
        }
    }
    assert_eq!(kind_of(&with_layout(3, 12)), ErrorKind::CorruptHeader);
    assert_eq!(kind_of(&with_layout(4, 12)), ErrorKind::UnsupportedFeature);
    // Suite, then chunk byte, then kind: the first that is wrong is the error.
    let with_kind = |suite, parameter| {
        let mut file = with_layout(suite, parameter);
        file[14] = 9;
        let prefix = *file.first_chunk().unwrap();
        reseal(&mut file, &prefix, &data_key());
        kind_of(&file)
    };
    assert_eq!(with_kind(2, 12), ErrorKind::UnsupportedFeature);
    assert_eq!(with_kind(2, 11), ErrorKind::CorruptHeader);
    assert_eq!(with_kind(4, 11), ErrorKind::UnsupportedFeature);
}

#[test]
fn single_fields_are_those_of_the_header() {
    let file = header();
    let parsed = Header::parse(&file).unwrap();
    assert_eq!(suite(prefix(&file)), Some(parsed.suite));
    assert_eq!(data_key_id(prefix(&file)), parsed.data_key_id);
    assert_eq!(created_and_commitment(&file), (parsed.created_ns, parsed.commitment));
    assert_eq!(claimed_layout(&file[..LAYOUT_LEN]), Some(parsed.layout));
    assert_eq!(claimed_layout(&file[..LAYOUT_LEN - 3]), None);
    assert_eq!(claimed_layout(&[0; LAYOUT_LEN]), None);
}

#[test]
fn files_of_other_tools_are_named() {
    let cases: [(&[u8], &str); 4] = [
        (b"age-encryption.org/v1\n-> X25519", "age"),
        (b"Salted__12345678", "openssl"),
        (b"LUKS\xba\xbe\x00\x02", "LUKS"),
        (&KEYRING_MAGIC, "keyring"),
    ];
    for (file, tool) in cases {
        let error = Header::parse(file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ForeignFile);
        assert!(error.to_string().contains(tool), "{error}");
    }
    assert_eq!(kind_of(b"plain text"), ErrorKind::NotEncrypted);
    for len in [1, 7, 8, HEADER_LEN - 1, HEADER_LEN, HEADER_LEN + 1] {
        assert_eq!(kind_of(&vec![0; len]), ErrorKind::TruncatedHeader, "{len} zeros");
        let mut part = vec![0; len];
        part[len.min(HEADER_LEN) - 1] = 1;
        assert_eq!(kind_of(&part), ErrorKind::NotEncrypted, "{len} bytes");
        part.resize(len.max(HEADER_LEN) + 1, 1);
        part[..HEADER_LEN].fill(0);
        assert_eq!(kind_of(&part), ErrorKind::TruncatedHeader, "zeros and a body");
    }
    // Text-mode damage.
    assert_eq!(kind_of(b"\x89ATRF\n\x1a\x01\x00"), ErrorKind::NotEncrypted);
}
