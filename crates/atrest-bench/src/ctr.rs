//! AES-256-CTR in memory, in place: this library, the crates and libraries others use, and
//! the rate at which the processor issues AES rounds at all.
//!
//! Every peer runs in the way that suits it: key expanded beforehand, no re-initialisation
//! where its interface can go on (OpenSSL), the nonce given anew where it cannot.

use std::hint::black_box;

use atrest::internals::{CtrKey, Width, limit};
use aws_lc_rs::cipher as aws;
use ctr::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use ctr::{CtrCore, flavors};
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;
use ring::aead;

use crate::Row;
use crate::measure::{Effort, rate_row};

/// Sizes of the report, in bytes.
pub const SIZES: [usize; 9] = [16, 64, 100, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20];
/// Offsets at which this library alone is measured: aligned and not.
pub const OFFSETS: [u64; 5] = [0, 1, 15, 16, 4095];
/// The peers, in the order of the report.
pub const PEERS: [&str; 5] = ["rustcrypto", "openssl", "aws-lc-rs", "ring-gcm", "limit"];

const KEY: [u8; 32] = [7; 32];

/// One call of the named implementation over `size` bytes.
///
/// # Panics
/// For a name that is not in [`PEERS`].
pub fn operation(name: &str, size: usize, offset_bytes: u64) -> Box<dyn FnMut()> {
    let mut buf = vec![0_u8; size];
    match name {
        "atrest" => {
            let key = CtrKey::new(&KEY, [1; 8]);
            Box::new(move || key.apply_in_place(offset_bytes, black_box(&mut buf)))
        }
        "rustcrypto" => {
            let key = aes::Aes256Enc::new(&KEY.into());
            Box::new(move || {
                let iv = (u128::from(offset_bytes) / 16).to_be_bytes();
                let core =
                    CtrCore::<&aes::Aes256Enc, flavors::Ctr64BE>::inner_iv_init(&key, &iv.into());
                StreamCipherCoreWrapper::from_core(core).apply_keystream(black_box(&mut buf));
            })
        }
        "openssl" => {
            let mut context = CipherCtx::new().unwrap();
            context.encrypt_init(Some(Cipher::aes_256_ctr()), Some(&KEY), Some(&[0; 16])).unwrap();
            Box::new(move || {
                context.cipher_update_inplace(black_box(&mut buf), size).unwrap();
            })
        }
        "aws-lc-rs" => {
            let key = aws::UnboundCipherKey::new(&aws::AES_256, &KEY).unwrap();
            let key = aws::EncryptingKey::ctr(key).unwrap();
            Box::new(move || {
                let iv = aws::EncryptionContext::Iv128([0; 16].into());
                key.less_safe_encrypt(black_box(&mut buf), iv).unwrap();
            })
        }
        "ring-gcm" => {
            let key = aead::UnboundKey::new(&aead::AES_256_GCM, &KEY).unwrap();
            let key = aead::LessSafeKey::new(key);
            Box::new(move || {
                let nonce = aead::Nonce::assume_unique_for_key([0; 12]);
                let aad = aead::Aad::empty();
                let tag = key.seal_in_place_separate_tag(nonce, aad, black_box(&mut buf));
                black_box(tag.unwrap().as_ref());
            })
        }
        "limit" => {
            let blocks = (size as u64).div_ceil(16);
            Box::new(move || {
                black_box(limit(Width::chosen(), black_box(blocks)));
            })
        }
        _ => unreachable!("no peer named {name}"),
    }
}

/// Every size against every peer.
pub fn rows(effort: Effort, mut progress: impl FnMut(&str)) -> Vec<Row> {
    let mut rows = Vec::new();
    for size in SIZES {
        for peer in PEERS {
            if peer == "limit" && limit(Width::chosen(), 1).is_none() {
                continue;
            }
            let name = format!("ctr/{size}/{peer}");
            progress(&name);
            let mut ours = operation("atrest", size, 0);
            let mut theirs = operation(peer, size, 0);
            rows.push(rate_row(name, effort, size, &mut *ours, &mut *theirs));
        }
    }
    for size in SIZES {
        for offset in OFFSETS.into_iter().filter(|offset| *offset != 0) {
            let name = format!("ctr/{size}+{offset}/rustcrypto");
            progress(&name);
            let mut ours = operation("atrest", size, offset);
            let mut theirs = operation("rustcrypto", size, 0);
            rows.push(rate_row(name, effort, size, &mut *ours, &mut *theirs));
        }
    }
    rows
}
