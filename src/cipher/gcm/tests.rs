//! Against the standard's vectors and the `aes-gcm` crate.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use proptest::prelude::*;

use super::*;

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
        let gcm = GcmKey::from_parts(
            &bytes(key).try_into().expect("32 bytes"),
            &bytes(iv).try_into().expect("12 bytes"),
        );
        let (plain, aad) = (bytes(plain), bytes(aad));
        let mut sealed = vec![0; plain.len()];
        assert_eq!(gcm.seal(0, &aad, &plain, &mut sealed)[..], bytes(tag));
        assert_eq!(sealed, bytes(cipher));
        let mut back = vec![0; plain.len()];
        gcm.verify(0, &aad, &sealed, &bytes(tag)).expect("a good tag").decrypt(0, &mut back);
        assert_eq!(back, plain);
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let gcm = GcmKey::from_parts(&[3; 32], &[5; 12]);
    let mut sealed = vec![0; 37];
    let tag = gcm.seal(9, b"aad", &[7; 37], &mut sealed);
    let flips = |len: usize| (0..len * 8).map(|bit| (bit / 8, 1_u8 << (bit % 8)));
    assert!(gcm.verify(9, b"aad", &sealed, &tag).is_some());
    for (i, bit) in flips(37) {
        sealed[i] ^= bit;
        assert!(gcm.verify(9, b"aad", &sealed, &tag).is_none());
        sealed[i] ^= bit;
    }
    for (i, bit) in flips(16) {
        let mut bad = tag;
        bad[i] ^= bit;
        assert!(gcm.verify(9, b"aad", &sealed, &bad).is_none());
    }
    for bit in 0..32 {
        assert!(gcm.verify(9 ^ 1 << bit, b"aad", &sealed, &tag).is_none());
    }
    assert!(gcm.verify(9, b"aae", &sealed, &tag).is_none());
    assert!(gcm.verify(9, b"", &sealed, &tag).is_none());
    assert!(gcm.verify(9, b"aad", &sealed[..36], &tag).is_none());
    assert!(gcm.verify(9, b"aad", &sealed, &tag[..15]).is_none());
    assert!(gcm.verify(9, b"aad", &sealed, &[]).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn matches_the_aes_gcm_crate(
        key: [u8; 32],
        nonce: [u8; 12],
        index: u32,
        aad in prop::collection::vec(any::<u8>(), 0..40),
        data in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            prop::collection::vec(any::<u8>(), 4000..4200),
        ],
        cut in (0.0..1.0_f64, 0.0..1.0_f64),
    ) {
        let mut expected = data.clone();
        let tag = naive_seal(&key, &nonce, index.into(), &aad, &mut expected);
        let gcm = GcmKey::from_parts(&key, &nonce);
        let mut sealed = vec![0; data.len()];
        prop_assert_eq!(gcm.seal(index, &aad, &data, &mut sealed), tag);
        prop_assert!(sealed == expected);
        let verified = gcm.verify(index, &aad, &sealed, &tag).expect("its own tag");
        // Any piece of it decrypts alone.
        let start = (cut.0 * data.len() as f64) as usize;
        let len = (cut.1 * (data.len() - start) as f64) as usize;
        let mut piece = vec![0; len];
        verified.decrypt(start, &mut piece);
        prop_assert!(piece == data[start..start + len]);
    }
}

#[test]
fn the_longest_message_matches_too() {
    let data = vec![0x5a; 1 << 24];
    let mut expected = data.clone();
    let tag = naive_seal(&[1; 32], &[0xff; 12], u32::MAX.into(), b"", &mut expected);
    let gcm = GcmKey::from_parts(&[1; 32], &[0xff; 12]);
    let mut sealed = vec![0; data.len()];
    assert_eq!(gcm.seal(u32::MAX, b"", &data, &mut sealed), tag);
    assert!(sealed == expected);
}
