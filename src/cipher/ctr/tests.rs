//! Every width that the machine has, against one block at a time of the `aes` crate.

use std::sync::Once;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

/// Bytes near which SIMD counters go wrong.
const BLOCK_32: u64 = 1 << 32;
const BLOCK_40: u64 = 1 << 40;

pub(in crate::cipher) fn widths() -> Vec<Width> {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        for width in Width::ALL.into_iter().filter(|width| !width.is_available()) {
            atrest_testkit::left_out(format_args!("this machine has no {}", width.name()));
        }
        // `tests/emulated/run` looks for this line.
        let names: Vec<_> = Width::available().map(Width::name).collect();
        println!("widths: {}", names.join(" "));
    });
    Width::available().collect()
}

fn with_width(key: &[u8; 32], nonce: [u8; 8], width: Width) -> CtrKey {
    CtrKey::with_width(key, nonce, width).expect("an available width")
}

/// Suite 1 as FORMAT.md writes it down.
fn naive(key: &[u8; 32], nonce: [u8; 8], block: u64, skip: usize, data: &mut [u8]) {
    let cipher = Aes256Enc::new(key.into());
    for (i, byte) in (skip..).zip(data) {
        let mut counter = [0; 16];
        counter[..8].copy_from_slice(&nonce);
        counter[8..].copy_from_slice(&block.wrapping_add(i as u64 / 16).to_be_bytes());
        let mut keystream = counter.into();
        cipher.encrypt_block(&mut keystream);
        *byte ^= keystream[i % 16];
    }
}

/// xorshift64*: for inputs that must never change.
pub(in crate::cipher) struct Random(pub(in crate::cipher) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(in crate::cipher) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    pub(in crate::cipher) fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| (self.next() >> 56) as u8);
    }
}

fn unhex<const N: usize>(hex: &str) -> [u8; N] {
    let hex: String = hex.split_whitespace().collect();
    assert_eq!(hex.len(), 2 * N);
    std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hexadecimal"))
}

/// NIST SP 800-38A, F.5.5 and F.5.6, CTR-AES256.
#[test]
fn nist_vectors() {
    let key = unhex("603deb1015ca71be2b73aef0857d7781 1f352c073b6108d72d9810a30914dff4");
    let nonce = unhex("f0f1f2f3f4f5f6f7");
    let block = 0xf8f9_fafb_fcfd_feff;
    let plain: [u8; 64] = unhex(
        "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51
         30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710",
    );
    let cipher: [u8; 64] = unhex(
        "601ec313775789a5b7a7f504bbf3d228 f443e3ca4d62b59aca84e990cacaf5c5
         2b0930daa23de94ce87017ba2d84988d dfc9c58db67aada613c2dd08457941a6",
    );
    for width in widths() {
        let ctr = with_width(&key, nonce, width);
        let mut data = plain;
        ctr.apply_in_place_at_block(block, 0, &mut data);
        assert_eq!(data, cipher, "F.5.5 {width:?}");
        ctr.apply_in_place_at_block(block, 0, &mut data);
        assert_eq!(data, plain, "F.5.6 {width:?}");
    }
}

/// Every length and every start within four batches of the widest width.
#[test]
fn short_calls_match_the_naive_cipher() {
    let (key, nonce) = ([7; 32], *b"atrest!!");
    for width in widths() {
        let ctr = with_width(&key, nonce, width);
        let mut expected = vec![0xa5; 2400];
        naive(&key, nonce, 0, 0, &mut expected);
        for start in (0..80).chain([255, 511, 512, 513, 1023]) {
            for len in (0..300).chain([511, 512, 513, 1024, 1100, 1300]) {
                // Guards on both sides: nothing outside of the slice is written.
                let mut data = vec![0xa5; len + 2];
                ctr.apply_in_place(start as u64, &mut data[1..=len]);
                assert_eq!(
                    data[1..=len],
                    expected[start..start + len],
                    "{width:?} {len} bytes at {start}"
                );
                assert_eq!((data[0], data[len + 1]), (0xa5, 0xa5));
            }
        }
    }
}

/// The counter is 64 bits wide: nothing special happens at 2^32, at 2^40, the largest body, and
/// at the end of the 64 bits, which no file reaches, nothing carries into the nonce.
#[test]
fn counter_boundaries() {
    let (key, nonce) = ([9; 32], [0xff; 8]);
    for boundary in [256, 1 << 16, BLOCK_32, BLOCK_40, 3 << 40, 1 << 48, 0] {
        for before in [0_u64, 1, 2, 3, 4, 7, 31, 32, 33, 256, 400, 1000, 1024] {
            let block = u64::wrapping_sub(boundary, before);
            let mut expected = vec![0x3c; 40_000];
            naive(&key, nonce, block, 3, &mut expected);
            for width in widths() {
                let mut data = vec![0x3c; 40_000];
                with_width(&key, nonce, width).apply_in_place_at_block(block, 3, &mut data);
                assert!(data == expected, "{width:?} {before} blocks before {boundary:#x}");
            }
        }
    }
}

fn offset() -> impl Strategy<Value = u64> {
    let near = |block: u64| (block - 3000) * 16..(block + 3000) * 16;
    prop_oneof![0_u64..5000, 0_u64..1 << 44, near(BLOCK_32), near(1 << 20), near(BLOCK_40)]
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![0_usize..64, 0_usize..2048, 0_usize..60_000]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn widths_match_the_naive_cipher(
        key: [u8; 32],
        nonce: [u8; 8],
        offset in offset(),
        len in len(),
        (shift_src, shift_dst) in (0_usize..64, 0_usize..64),
        seed in 1_u64..,
        cuts in prop::collection::vec(0.0..1.0_f64, 0..6),
    ) {
        let mut src = vec![0; shift_src + len];
        Random(seed).fill(&mut src);
        let src = &src[shift_src..];
        let mut expected = src.to_vec();
        naive(&key, nonce, offset / 16, (offset % 16) as usize, &mut expected);

        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * len as f64) as usize).collect();
        cuts.extend([0, len]);
        cuts.sort_unstable();

        for width in widths() {
            let ctr = with_width(&key, nonce, width);
            let mut dst = vec![0xee; shift_dst + len + 1];
            ctr.apply(offset, src, &mut dst[shift_dst..shift_dst + len]);
            prop_assert!(dst[shift_dst..shift_dst + len] == expected, "{:?} apply", width);
            prop_assert!(dst[..shift_dst].iter().all(|byte| *byte == 0xee));
            prop_assert_eq!(dst[shift_dst + len], 0xee);

            let whole = &mut dst[shift_dst..shift_dst + len];
            whole.copy_from_slice(src);
            for cut in cuts.windows(2) {
                ctr.apply_in_place(offset + cut[0] as u64, &mut whole[cut[0]..cut[1]]);
            }
            prop_assert!(*whole == expected, "{:?} in place, cut at {:?}", width, cuts);
        }
    }
}

/// 10,000 operations on one buffer; the hash of each state goes into one value that no width, no
/// machine and no release may change.
#[test]
fn ten_thousand_operations_have_one_hash() {
    let golden = "8f0b1de6729121f241994a9d62d3c056879bdf1d4a32e758ec145acdcc5454dd";
    for width in widths() {
        let mut random = Random(0x6174_7265_7374_0001);
        let (mut key, mut nonce) = ([0; 32], [0; 8]);
        let mut data = vec![0; 20_000];
        let mut other = vec![0; 20_000];
        let mut hash = Sha256::new();
        random.fill(&mut data);
        for operation in 0..10_000 {
            random.fill(&mut nonce);
            random.fill(&mut key);
            let ctr = with_width(&key, nonce, width);
            let offset = random.below(1 << 44);
            let len_max = if operation % 100 == 0 { data.len() as u64 } else { 700 };
            let len = random.below(len_max) as usize;
            let start = random.below((data.len() - len) as u64) as usize;
            let range = start..start + len;
            if random.below(2) == 0 {
                ctr.apply_in_place(offset, &mut data[range.clone()]);
            } else {
                ctr.apply(offset, &data[range.clone()], &mut other[range.clone()]);
                data[range.clone()].copy_from_slice(&other[range.clone()]);
            }
            hash.update(&data[range]);
        }
        hash.update(&data);
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, golden, "{width:?}");
    }
}

#[test]
fn a_width_that_is_missing_or_unknown_counts_as_the_best() {
    let best = Width::available().last().expect("the portable one");
    let choose = |wanted| Width::choose(wanted, |_| true);
    assert_eq!(choose(None), best);
    assert_eq!(choose(Some("")), best);
    assert_eq!(choose(Some("AESNI")), best);
    for width in Width::ALL {
        let chosen = if width.is_available() { width } else { best };
        assert_eq!(choose(Some(width.name())), chosen);
        assert_eq!(CtrKey::with_width(&[0; 32], [0; 8], width).is_some(), width.is_available());
    }
}

#[test]
fn a_width_that_computes_wrongly_is_not_chosen() {
    let available: Vec<_> = Width::available().collect();
    for right in 0..=available.len() {
        let (right, wrong) = available.split_at(right);
        let best = right.last().copied().unwrap_or(Width::Portable);
        let is_right = |width| !wrong.contains(&width);
        assert_eq!(Width::choose(None, is_right), best);
        for width in wrong {
            assert_eq!(Width::choose(Some(width.name()), is_right), best);
        }
    }
}

#[test]
#[should_panic(expected = "source and destination differ in length")]
fn lengths_must_be_equal() {
    CtrKey::new(&[0; 32], [0; 8]).apply(0, &[0; 16], &mut [0; 15]);
}
