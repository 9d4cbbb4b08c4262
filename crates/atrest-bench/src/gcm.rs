//! AES-256-GCM in memory: this library sealing and opening, what others link, and the rate at
//! which the processor issues the rounds and products of it at all.

use std::hint::black_box;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use atrest::internals::{GcmKey, Width, gcm_limit};
use aws_lc_rs::aead as aws;
use ring::aead as ring;

use crate::Row;
use crate::measure::{Effort, rate_row};

/// Sizes of the report, in bytes.
pub const SIZES: [usize; 5] = [256, 4 << 10, 16 << 10, 64 << 10, 1 << 20];
/// What is done: the groups of rows.
pub const GROUPS: [&str; 2] = ["seal", "open"];
/// The peers of each, in the order of the report.
pub const PEERS: [&str; 4] = ["aws-lc-rs", "ring", "aes-gcm", "limit"];

const KEY: [u8; 32] = [7; 32];
const NONCE: [u8; 12] = [1; 12];
const TAG_LEN: usize = 16;

/// One call of the named operation over `size` bytes; from one buffer into another where the
/// interface has that.
///
/// # Panics
/// For names that are not in [`GROUPS`] and [`PEERS`], but for `atrest`.
pub fn operation(group: &str, name: &str, size: usize) -> Box<dyn FnMut()> {
    let (src, mut dst) = (vec![9_u8; size], vec![0_u8; size]);
    match (name, group) {
        ("atrest", "seal") => {
            let key = GcmKey::from_parts(&KEY, &NONCE);
            Box::new(move || {
                black_box(key.seal(0, b"", black_box(&src), black_box(&mut dst)));
            })
        }
        ("atrest", "open") => {
            let key = GcmKey::from_parts(&KEY, &NONCE);
            let mut sealed = vec![0; size];
            let tag = key.seal(0, b"", &src, &mut sealed);
            Box::new(move || assert!(key.open(0, b"", black_box(&sealed), &tag, 0, &mut dst)))
        }
        ("aws-lc-rs", "seal") => {
            let key = aws::UnboundKey::new(&aws::AES_256_GCM, &KEY).unwrap();
            let key = aws::LessSafeKey::new(key);
            Box::new(move || {
                let nonce = aws::Nonce::assume_unique_for_key(NONCE);
                let aad = aws::Aad::empty();
                let tag = key.seal_in_place_separate_tag(nonce, aad, black_box(&mut dst));
                black_box(tag.unwrap().as_ref());
            })
        }
        ("aws-lc-rs", "open") => {
            let key = aws::UnboundKey::new(&aws::AES_256_GCM, &KEY).unwrap();
            let key = aws::LessSafeKey::new(key);
            let mut sealed = src;
            let nonce = || aws::Nonce::assume_unique_for_key(NONCE);
            let tag =
                key.seal_in_place_separate_tag(nonce(), aws::Aad::empty(), &mut sealed).unwrap();
            let mut tag_bytes = [0; TAG_LEN];
            tag_bytes.copy_from_slice(tag.as_ref());
            Box::new(move || {
                let (aad, sealed) = (aws::Aad::empty(), black_box(&sealed));
                key.open_separate_gather(nonce(), aad, sealed, &tag_bytes, &mut dst).unwrap();
            })
        }
        ("ring", "seal") => {
            let key = ring::UnboundKey::new(&ring::AES_256_GCM, &KEY).unwrap();
            let key = ring::LessSafeKey::new(key);
            Box::new(move || {
                let nonce = ring::Nonce::assume_unique_for_key(NONCE);
                let aad = ring::Aad::empty();
                let tag = key.seal_in_place_separate_tag(nonce, aad, black_box(&mut dst));
                black_box(tag.unwrap().as_ref());
            })
        }
        ("ring", "open") => {
            let key = ring::UnboundKey::new(&ring::AES_256_GCM, &KEY).unwrap();
            let key = ring::LessSafeKey::new(key);
            let (nonce, aad) =
                (|| ring::Nonce::assume_unique_for_key(NONCE), || ring::Aad::from([]));
            let mut sealed = src;
            let tag = key.seal_in_place_separate_tag(nonce(), aad(), &mut sealed).unwrap();
            sealed.extend_from_slice(tag.as_ref());
            // It decrypts in place only, so that it needs the ciphertext anew.
            let mut buf = sealed.clone();
            Box::new(move || {
                buf.copy_from_slice(black_box(&sealed));
                black_box(key.open_in_place(nonce(), aad(), &mut buf).unwrap());
            })
        }
        ("aes-gcm", "seal") => {
            let key = Aes256Gcm::new(&KEY.into());
            Box::new(move || {
                let tag = key.encrypt_inout_detached(&NONCE.into(), b"", (&mut *dst).into());
                black_box(tag.unwrap());
            })
        }
        ("aes-gcm", "open") => {
            let key = Aes256Gcm::new(&KEY.into());
            let mut sealed = src;
            let tag = key.encrypt_inout_detached(&NONCE.into(), b"", (&mut *sealed).into());
            let tag = tag.unwrap();
            Box::new(move || {
                dst.copy_from_slice(black_box(&sealed));
                let buf = (&mut *dst).into();
                key.decrypt_inout_detached(&NONCE.into(), b"", buf, &tag).unwrap();
            })
        }
        ("limit", _) => {
            let blocks = (size as u64).div_ceil(16);
            Box::new(move || {
                black_box(gcm_limit(Width::chosen(), black_box(blocks)));
            })
        }
        _ => unreachable!("no {group} by {name}"),
    }
}

/// Every size against every peer.
pub fn rows(effort: Effort, mut progress: impl FnMut(&str)) -> Vec<Row> {
    let mut rows = Vec::new();
    for group in GROUPS {
        for size in SIZES {
            for peer in PEERS {
                if peer == "limit" && gcm_limit(Width::chosen(), 1).is_none() {
                    continue;
                }
                let name = format!("gcm-{group}/{size}/{peer}");
                progress(&name);
                let mut ours = operation(group, "atrest", size);
                let mut theirs = operation(group, peer, size);
                rows.push(rate_row(name, effort, size, &mut *ours, &mut *theirs));
            }
        }
    }
    rows
}
