//! `gcm/SIZE/{seal,open,aws-lc-rs-seal,aws-lc-rs-open,ring-seal,limit}`.

use atrest_bench::gcm::{SIZES, operation};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn benches(criterion: &mut Criterion) {
    for size in SIZES {
        let mut group = criterion.benchmark_group(format!("gcm/{size}"));
        group.throughput(Throughput::Bytes(size as u64));
        for name in ["seal", "open", "aws-lc-rs-seal", "aws-lc-rs-open", "ring-seal", "limit"] {
            group.bench_function(name, |bencher| bencher.iter(operation(name, size)));
        }
        group.finish();
    }
}

criterion_group!(gcm, benches);
criterion_main!(gcm);
