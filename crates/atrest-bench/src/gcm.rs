//! AES-256-GCM in memory: this library sealing and opening, what others link, and the rate at
//! which the processor issues the rounds and products of it at all.

use std::hint::black_box;

use atrest::internals::{GcmKey, Width, gcm_limit};
use aws_lc_rs::aead as aws;
use ring::aead as ring;

use crate::Row;
use crate::measure::{Effort, interleaved};

/// Sizes of the report, in bytes.
pub const SIZES: [usize; 5] = [256, 4 << 10, 16 << 10, 64 << 10, 1 << 20];
/// What this library does, and the peer that does the same.
pub const PAIRS: [(&str, &str); 5] = [
    ("seal", "aws-lc-rs-seal"),
    ("open", "aws-lc-rs-open"),
    ("seal", "ring-seal"),
    ("seal", "limit"),
    ("open", "limit"),
];

const KEY: [u8; 32] = [7; 32];
const NONCE: [u8; 12] = [1; 12];
const TAG_LEN: usize = 16;

/// One call of the named operation over `size` bytes; from one buffer into another where the
/// interface has that.
///
/// # Panics
/// For a name that is not in [`PAIRS`].
pub fn operation(name: &str, size: usize) -> Box<dyn FnMut()> {
    let (src, mut dst) = (vec![9_u8; size], vec![0_u8; size]);
    match name {
        "seal" => {
            let key = GcmKey::from_parts(&KEY, &NONCE);
            Box::new(move || {
                black_box(key.seal(0, b"", black_box(&src), black_box(&mut dst)));
            })
        }
        "open" => {
            let key = GcmKey::from_parts(&KEY, &NONCE);
            let mut sealed = vec![0; size];
            let tag = key.seal(0, b"", &src, &mut sealed);
            Box::new(move || assert!(key.open(0, b"", black_box(&sealed), &tag, 0, &mut dst)))
        }
        "aws-lc-rs-seal" => {
            let key = aws::UnboundKey::new(&aws::AES_256_GCM, &KEY).unwrap();
            let key = aws::LessSafeKey::new(key);
            Box::new(move || {
                let nonce = aws::Nonce::assume_unique_for_key(NONCE);
                let aad = aws::Aad::empty();
                let tag = key.seal_in_place_separate_tag(nonce, aad, black_box(&mut dst));
                black_box(tag.unwrap().as_ref());
            })
        }
        "aws-lc-rs-open" => {
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
        "ring-seal" => {
            let key = ring::UnboundKey::new(&ring::AES_256_GCM, &KEY).unwrap();
            let key = ring::LessSafeKey::new(key);
            Box::new(move || {
                let nonce = ring::Nonce::assume_unique_for_key(NONCE);
                let aad = ring::Aad::empty();
                let tag = key.seal_in_place_separate_tag(nonce, aad, black_box(&mut dst));
                black_box(tag.unwrap().as_ref());
            })
        }
        "limit" => {
            let blocks = (size as u64).div_ceil(16);
            Box::new(move || {
                black_box(gcm_limit(Width::chosen(), black_box(blocks)));
            })
        }
        _ => unreachable!("no operation named {name}"),
    }
}

/// Every size against every peer.
pub fn rows(effort: Effort, mut progress: impl FnMut(&str)) -> Vec<Row> {
    let mut rows = Vec::new();
    for size in SIZES {
        for (ours, peer) in PAIRS {
            if peer == "limit" && gcm_limit(Width::chosen(), 1).is_none() {
                continue;
            }
            let name = format!("gcm/{size} {ours}/{peer}");
            progress(&name);
            let mut ours = operation(ours, size);
            let mut theirs = operation(peer, size);
            let pair = interleaved(effort, &mut *ours, &mut *theirs);
            let rate = |seconds: f64| size as f64 / seconds / 1e9;
            rows.push(Row {
                name,
                unit: "GB/s",
                atrest: rate(pair.a),
                peer: rate(pair.b),
                ratio: pair.b_over_a,
            });
        }
    }
    rows
}
