//! AES-256-CTR by size, offset and width, against the `ctr` crate and the issue limit.
//!
//! `cargo bench --bench ctr --features danger-internals` runs Criterion; with `-- --ratios` it
//! prints one table instead, from medians of measurements that take turns, so that a change of
//! clock speed hits all of them alike.

#![allow(missing_docs)] // OK because Criterion's macro makes an undocumented function.

use std::hint::black_box;
use std::time::Instant;

use aes::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use atrest::internals::{CtrKey, Width, limit};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};

const SIZES: [usize; 9] = [16, 64, 100, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20];
const OFFSETS: [u64; 5] = [0, 1, 15, 16, 4095];
const KEY: [u8; 32] = [1; 32];
const NONCE: [u8; 8] = [2; 8];

type Peer = ctr::Ctr64BE<aes::Aes256>;

fn peer() -> Peer {
    let mut iv = [0; 16];
    iv[..8].copy_from_slice(&NONCE);
    Peer::new(&KEY.into(), &iv.into())
}

fn widths() -> Vec<(Width, CtrKey)> {
    Width::available()
        .filter_map(|width| Some((width, CtrKey::with_width(&KEY, NONCE, width)?)))
        .collect()
}

fn criterion(criterion: &mut Criterion) {
    for offset in OFFSETS {
        let mut group = criterion.benchmark_group(format!("ctr/offset-{offset}"));
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            let mut buf = vec![0; size];
            for (width, key) in widths() {
                group.bench_function(BenchmarkId::new(width.name(), size), |bencher| {
                    bencher.iter(|| key.apply_in_place(black_box(offset), black_box(&mut buf)));
                });
                let blocks = size as u64 / 16;
                if offset == 0 && limit(width, 0).is_some() {
                    let name = format!("limit-{}", width.name());
                    group.bench_function(BenchmarkId::new(name, size), |bencher| {
                        bencher.iter(|| limit(width, black_box(blocks)));
                    });
                }
            }
            let mut peer = peer();
            group.bench_function(BenchmarkId::new("rustcrypto", size), |bencher| {
                bencher.iter(|| {
                    peer.seek(black_box(offset));
                    peer.apply_keystream(black_box(&mut buf));
                });
            });
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("ctr/key");
    for width in Width::available() {
        group.bench_function(width.name(), |bencher| {
            bencher.iter(|| CtrKey::with_width(black_box(&KEY), NONCE, width));
        });
    }
    group.finish();
}

/// Nanoseconds for one call, as the median of 41 rounds in which all `tasks` take turns.
fn medians(tasks: &mut [Box<dyn FnMut() + '_>], size: usize) -> Vec<f64> {
    let calls = (200_000 / (size + 200)).max(1);
    let mut samples = vec![Vec::new(); tasks.len()];
    for _ in 0..41 {
        for (task, samples) in tasks.iter_mut().zip(&mut samples) {
            let start = Instant::now();
            for _ in 0..calls {
                task();
            }
            samples.push(start.elapsed().as_nanos() as f64 / calls as f64);
        }
    }
    samples
        .iter_mut()
        .map(|samples| {
            samples.sort_by(f64::total_cmp);
            samples[samples.len() / 2]
        })
        .collect()
}

fn ratios() {
    println!("size and offset in bytes, then GB/s (times `ctr`, part of the issue limit)");
    let widths = widths();
    for offset in OFFSETS {
        for size in SIZES {
            let mut peer = peer();
            let mut peer_buf = vec![0; size];
            let mut bufs = vec![vec![0; size]; widths.len()];
            let mut tasks: Vec<Box<dyn FnMut() + '_>> = Vec::new();
            tasks.push(Box::new(|| {
                peer.seek(black_box(offset));
                peer.apply_keystream(black_box(&mut peer_buf));
            }));
            for ((width, key), buf) in widths.iter().zip(&mut bufs) {
                tasks.push(Box::new(|| key.apply_in_place(black_box(offset), black_box(buf))));
                tasks.push(Box::new(|| {
                    black_box(limit(*width, black_box(size as u64 / 16)));
                }));
            }
            let ns = medians(&mut tasks, size);
            print!("{size:8} {offset:5}  ctr {:6.2}", size as f64 / ns[0]);
            for ((width, _), pair) in widths.iter().zip(ns[1..].chunks(2)) {
                let times = ns[0] / pair[0];
                print!("  {} {:6.2} (x{times:4.2}", width.name(), size as f64 / pair[0]);
                if limit(*width, 0).is_some() {
                    print!(", {:4.2}", pair[1] / pair[0]);
                }
                print!(")");
            }
            println!();
        }
    }
}

criterion_group!(benches, criterion);

fn main() {
    if std::env::args().any(|arg| arg == "--ratios") {
        return ratios();
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
