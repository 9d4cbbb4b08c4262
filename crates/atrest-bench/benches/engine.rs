//! `engine/{fill,read,scan}/{plain,atrest}`.

use atrest_bench::engine::{Engines, OPERATIONS};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn benches(criterion: &mut Criterion) {
    let engines = Engines::new();
    for operation in OPERATIONS {
        let mut group = criterion.benchmark_group(format!("engine/{operation}"));
        group.throughput(Throughput::Elements(Engines::records(operation))).sample_size(10);
        for (name, encrypted) in [("plain", false), ("atrest", true)] {
            let mut run = engines.operation(operation, encrypted);
            group.bench_function(name, |bencher| bencher.iter(&mut *run));
        }
        group.finish();
    }
}

criterion_group!(engine, benches);
criterion_main!(engine);
