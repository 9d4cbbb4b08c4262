//! `ctr/SIZE/{atrest,rustcrypto,openssl,aws-lc-rs,ring-gcm,limit}`.

use atrest_bench::ctr::{OFFSETS, PEERS, SIZES, operation};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn benches(criterion: &mut Criterion) {
    for size in SIZES {
        let mut group = criterion.benchmark_group(format!("ctr/{size}"));
        group.throughput(Throughput::Bytes(size as u64));
        for offset in OFFSETS {
            group.bench_function(BenchmarkId::new("atrest", offset), |bencher| {
                bencher.iter(operation("atrest", size, offset));
            });
        }
        for peer in PEERS {
            group.bench_function(peer, |bencher| bencher.iter(operation(peer, size, 0)));
        }
        group.finish();
    }
}

criterion_group!(ctr, benches);
criterion_main!(ctr);
