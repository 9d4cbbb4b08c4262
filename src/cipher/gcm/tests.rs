//! Every width, and the parts of `portable` over every width of counter mode, against the
//! standard's vectors, Wycheproof's, and two other implementations.

use std::ops::Range;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use super::super::ctr::tests::{Random, widths};
use super::*;

const KEY: [u8; 32] = *b"an AES-256 key of 32 bytes, here";
const NONCE: [u8; 12] = *b"twelve bytes";
/// Bytes in as many blocks as share two rounds in the kernels.
const GROUP_LEN: usize = 4096;

/// Every width, and what a machine runs that encrypts in the widest and does not multiply.
fn keys(key: &[u8; 32], nonce: &[u8; 12]) -> Vec<(String, GcmKey)> {
    let with_width = |width| GcmKey::with_width(key, nonce, width).expect("an available width");
    let mut keys: Vec<_> =
        widths().into_iter().map(|width| (format!("{width:?}"), with_width(width))).collect();
    let (high, nonce_low) = split(nonce);
    let hash = Hash::Portable(Secret::new(portable::hash_key(key, Width::chosen())));
    let watched = Watched::new(false);
    let parts = GcmKey { ctr: CtrKey::new(key, high), nonce_low, hash, watched };
    keys.push(("parts".to_owned(), parts));
    keys
}

/// The nonce of a message as FORMAT.md writes it down.
fn naive_nonce(nonce: &[u8; 12], index: u64) -> [u8; 12] {
    let mut message = *nonce;
    for (byte, counted) in message[4..].iter_mut().zip(index.to_be_bytes()) {
        *byte ^= counted;
    }
    message
}

fn naive_seal(
    key: &[u8; 32],
    nonce: &[u8; 12],
    index: u64,
    aad: &[u8],
    data: &mut [u8],
) -> [u8; 16] {
    let nonce = naive_nonce(nonce, index);
    let gcm = Aes256Gcm::new(key.into());
    gcm.encrypt_inout_detached(&nonce.into(), aad, data.into()).expect("a short message").into()
}

fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Random(len as u64 + 1).fill(&mut bytes);
    bytes
}

/// Opens a range into a buffer with a guard on both sides.
fn open(
    gcm: &GcmKey,
    aad: &[u8],
    sealed: &[u8],
    tag: &[u8],
    range: &Range<usize>,
) -> Option<Vec<u8>> {
    let mut guarded = vec![0xee; range.len() + 2];
    let end = guarded.len() - 1;
    let good = gcm.open(7, aad, sealed, tag, range.start, &mut guarded[1..end]);
    assert_eq!((guarded[0], guarded[end]), (0xee, 0xee), "{range:?} of {}", sealed.len());
    let plain = guarded[1..end].to_vec();
    assert!(good || plain.iter().all(|byte| *byte == 0), "unverified plaintext is left");
    good.then_some(plain)
}

/// Opens a whole message where it stands, with a guard on both sides.
fn open_in_place(gcm: &GcmKey, aad: &[u8], sealed: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
    let mut guarded = [&[0xee], sealed, &[0xee]].concat();
    let end = guarded.len() - 1;
    let good = gcm.open_in_place(7, aad, &mut guarded[1..end], tag);
    assert_eq!((guarded[0], guarded[end]), (0xee, 0xee), "{} bytes", sealed.len());
    let plain = guarded[1..end].to_vec();
    assert!(good || plain.iter().all(|byte| *byte == 0), "unverified plaintext is left");
    good.then_some(plain)
}

/// Seals and opens `plain` with every key, against the expected ciphertext and tag.
fn check(
    keys: &[(String, GcmKey)],
    aad: &[u8],
    plain: &[u8],
    sealed: &[u8],
    tag: &[u8],
    ranges: &[Range<usize>],
) {
    let len = plain.len();
    for (name, gcm) in keys {
        let mut guarded = vec![0xee; len + 2];
        let found = gcm.seal(7, aad, plain, &mut guarded[1..=len]);
        assert!(guarded[1..=len] == *sealed, "{name}: ciphertext of {len} bytes");
        assert_eq!((guarded[0], guarded[len + 1]), (0xee, 0xee), "{name}: {len} bytes");
        assert_eq!(found, tag, "{name}: tag of {len} bytes");
        let opened = open_in_place(gcm, aad, sealed, tag);
        assert!(opened.as_deref() == Some(plain), "{name}: {len} bytes in place");
        for range in ranges {
            let opened = open(gcm, aad, sealed, tag, range);
            assert!(opened.as_deref() == Some(&plain[range.clone()]), "{name}: {range:?} of {len}");
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hexadecimal"))
        .collect()
}

/// Test cases 13 to 16 of "The Galois/Counter Mode of Operation" (McGrew, Viega), which
/// NIST's validation system reuses.
#[test]
fn standard_vectors() {
    let key = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
    let plain = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                 1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";
    let cipher = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                  8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad";
    let zeros = "0".repeat(64);
    let iv = "cafebabefacedbaddecaf888";
    let aad = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
    let (z12, z16) = ("0".repeat(24), "0".repeat(32));
    let cases = [
        (&*zeros, &*z12, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
        (
            &zeros,
            &z12,
            "",
            &z16,
            "cea7403d4d606b6e074ec5d3baf39d18",
            "d0d1c8a799996bf0265b98b5d48ab919",
        ),
        (key, iv, "", plain, cipher, "b094dac5d93471bdec1a502270e3cc6c"),
        (key, iv, aad, &plain[..120], &cipher[..120], "76fc6ece0f4e1768cddf8853bb2d551b"),
    ];
    for (key, iv, aad, plain, cipher, tag) in cases {
        let (key, iv) = (bytes(key).try_into().expect("32"), bytes(iv).try_into().expect("12"));
        // Index 7 counted into a nonce that has it already.
        let iv = naive_nonce(&iv, 7);
        let plain = bytes(plain);
        check(
            &keys(&key, &iv),
            &bytes(aad),
            &plain,
            &bytes(cipher),
            &bytes(tag),
            &[0..plain.len(), 0..0],
        );
    }
}

#[test]
fn wycheproof_vectors() {
    let set = TestSet::load(TestName::AesGcm).expect("the vectors");
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in group.tests {
            let key = test.key.as_ref().try_into().expect("32 bytes");
            let nonce: [u8; 12] = test.nonce.as_ref().try_into().expect("12 bytes");
            let keys = keys(key, &naive_nonce(&nonce, 7));
            if test.result == TestResult::Valid {
                check(&keys, &test.aad, &test.pt, &test.ct, &test.tag, &[0..test.pt.len(), 0..0]);
                valid += 1;
                continue;
            }
            for (name, gcm) in &keys {
                let opened = open(gcm, &test.aad, &test.ct, &test.tag, &(0..test.ct.len()));
                assert!(opened.is_none(), "{name}: vector {}", test.tc_id);
            }
            invalid += 1;
        }
    }
    assert!(valid >= 30 && invalid >= 20, "{valid} and {invalid} vectors");
}

/// Every length up to four batches of the widest width and around the borders of groups, with
/// ranges that begin and end anywhere, against `aws-lc-rs`.
#[test]
fn lengths_and_ranges_match_aws_lc() {
    let aws = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).expect("a key"));
    let keys = keys(&KEY, &NONCE);
    let near = |len: usize| len - 20..len + 21;
    let borders = (1..=6).flat_map(|groups| near(groups * GROUP_LEN));
    let data = random(7 * GROUP_LEN);
    let mut draw = Random(5);
    for len in (0..=2100).chain(borders) {
        let (plain, aad) = (&data[..len], &data[..[0, 4, 16, 37][len % 4]]);
        let mut sealed = plain.to_vec();
        let nonce = Nonce::assume_unique_for_key(naive_nonce(&NONCE, 7));
        let tag = aws.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut sealed);
        let start = draw.below(len as u64 + 1) as usize;
        let end = start + draw.below((len - start) as u64 + 1) as usize;
        let short = start..len.min(start + draw.below(40) as usize);
        let ranges = [0..len, start..end, short];
        check(&keys, aad, plain, &sealed, tag.expect("a tag").as_ref(), &ranges);
    }
}

/// Every border of a range within a message of several batches of every width.
#[test]
fn every_range_of_a_few_batches() {
    let plain = random(1300);
    for (name, gcm) in keys(&KEY, &NONCE) {
        let mut sealed = vec![0; plain.len()];
        let tag = gcm.seal(7, b"", &plain, &mut sealed);
        for start in (0..plain.len()).step_by(13) {
            for len in [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 256, 511, 512, 513, 700, 1024] {
                let range = start..plain.len().min(start + len);
                let opened = open(&gcm, b"", &sealed, &tag, &range);
                assert!(opened.as_deref() == Some(&plain[range.clone()]), "{name}: {range:?}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for (_, gcm) in keys(&KEY, &NONCE) {
        let mut sealed = vec![0; 37];
        let tag = gcm.seal(9, b"aad", &[7; 37], &mut sealed);
        let flips = |len: usize| (0..len * 8).map(|bit| (bit / 8, 1_u8 << (bit % 8)));
        assert!(gcm.verify(9, b"aad", &sealed, &tag));
        for (i, bit) in flips(37) {
            sealed[i] ^= bit;
            assert!(!gcm.verify(9, b"aad", &sealed, &tag));
            sealed[i] ^= bit;
        }
        for (i, bit) in flips(16) {
            let mut bad = tag;
            bad[i] ^= bit;
            assert!(!gcm.verify(9, b"aad", &sealed, &bad));
        }
        for bit in 0..32 {
            assert!(!gcm.verify(9 ^ 1 << bit, b"aad", &sealed, &tag));
        }
        assert!(!gcm.verify(9, b"aae", &sealed, &tag));
        assert!(!gcm.verify(9, b"", &sealed, &tag));
        assert!(!gcm.verify(9, b"aad", &sealed[..36], &tag));
        assert!(!gcm.verify(9, b"aad", &sealed, &tag[..15]));
        assert!(!gcm.verify(9, b"aad", &sealed, &[]));
    }
}

/// One flipped bit anywhere, also where nothing is decrypted, leaves zeros in the whole range.
#[test]
fn a_wrong_tag_leaves_zeros() {
    for len in [1, 16, 100, 700, 5000, 3 * GROUP_LEN + 1] {
        let plain = vec![0xa5; len];
        for (name, gcm) in keys(&KEY, &NONCE) {
            let mut sealed = vec![0; len];
            let tag = gcm.seal(7, b"", &plain, &mut sealed);
            for place in [0, len / 3, len / 2, len - 1] {
                sealed[place] ^= 0x10;
                for range in [0..len, len / 4..len / 2, len - 1..len] {
                    let opened = open(&gcm, b"", &sealed, &tag, &range);
                    assert!(opened.is_none(), "{name}: byte {place} of {len}");
                }
                let opened = open_in_place(&gcm, b"", &sealed, &tag);
                assert!(opened.is_none(), "{name}: byte {place} of {len} in place");
                sealed[place] ^= 0x10;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn matches_the_aes_gcm_crate(
        key: [u8; 32],
        nonce: [u8; 12],
        aad in prop::collection::vec(any::<u8>(), 0..40),
        len in prop_oneof![0_usize..300, 4000_usize..4200, 0_usize..40_000],
        (shift, cut) in (0_usize..64, (0.0..1.0_f64, 0.0..1.0_f64)),
    ) {
        let data = random(shift + len);
        let data = &data[shift..];
        let mut expected = data.to_vec();
        let tag = naive_seal(&key, &nonce, 7, &aad, &mut expected);
        let start = (cut.0 * len as f64) as usize;
        let end = start + (cut.1 * (len - start) as f64) as usize;
        check(&keys(&key, &nonce), &aad, data, &expected, &tag, &[start..end, 0..len]);
    }

    #[test]
    fn indices_count_into_the_nonce(nonce: [u8; 12], index: u32) {
        let mut expected = vec![0x3c; 100];
        let tag = naive_seal(&KEY, &nonce, index.into(), b"", &mut expected);
        for (name, gcm) in keys(&KEY, &nonce) {
            let mut sealed = vec![0; 100];
            prop_assert_eq!(gcm.seal(index, b"", &[0x3c; 100], &mut sealed), tag, "{}", name);
            prop_assert!(sealed == expected);
        }
    }
}

/// The third byte of the counter changes after 2^16 blocks.
#[test]
fn long_messages_match_too() {
    let plain = random((1 << 20) + 9000);
    let mut sealed = plain.clone();
    let tag = naive_seal(&KEY, &[0xff; 12], 7, b"", &mut sealed);
    let late = (1 << 20) - 700..(1 << 20) + 5000;
    check(&keys(&KEY, &[0xff; 12]), b"", &plain, &sealed, &tag, &[0..plain.len(), late]);
}

#[test]
fn the_longest_message_matches_too() {
    let data = vec![0x5a; 1 << 24];
    let mut expected = data.clone();
    let tag = naive_seal(&KEY, &[0xff; 12], u32::MAX.into(), b"", &mut expected);
    let gcm = GcmKey::from_parts(&KEY, &[0xff; 12]);
    let mut sealed = vec![0; data.len()];
    assert_eq!(gcm.seal(u32::MAX, b"", &data, &mut sealed), tag);
    assert!(sealed == expected);
}

#[test]
#[should_panic(expected = "beyond the end of the message")]
fn a_range_beyond_the_end_is_refused() {
    let gcm = GcmKey::from_parts(&KEY, &NONCE);
    let _ = gcm.open(0, b"", &[0; 16], &[0; 16], 10, &mut [0; 7]);
}

#[test]
#[should_panic(expected = "source and destination differ in length")]
fn lengths_must_be_equal() {
    GcmKey::from_parts(&KEY, &NONCE).seal(0, b"", &[0; 16], &mut [0; 15]);
}
