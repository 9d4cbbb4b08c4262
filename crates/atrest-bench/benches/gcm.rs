//! `gcm-{seal,open}/SIZE/{atrest,aws-lc-rs,ring,aes-gcm,limit}`.

use atrest_bench::gcm::{GROUPS, PEERS, SIZES, operation};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn benches(criterion: &mut Criterion) {
    for (what, size) in GROUPS.into_iter().flat_map(|what| SIZES.map(|size| (what, size))) {
        let mut group = criterion.benchmark_group(format!("gcm-{what}/{size}"));
        group.throughput(Throughput::Bytes(size as u64));
        for name in ["atrest"].into_iter().chain(PEERS) {
            group.bench_function(name, |bencher| bencher.iter(operation(what, name, size)));
        }
        group.finish();
    }
}

criterion_group!(gcm, benches);
criterion_main!(gcm);
