//! `engine/{fill,read,scan}/{plain,confidential,authenticated}`.

use atrest::Integrity;
use atrest_bench::engine::{Engines, KINDS, OPERATIONS};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn benches(criterion: &mut Criterion) {
    let engines = Engines::new();
    for operation in OPERATIONS {
        let mut group = criterion.benchmark_group(format!("engine/{operation}"));
        group.throughput(Throughput::Elements(Engines::records(operation))).sample_size(10);
        for kind in [None].into_iter().chain(KINDS.map(|(integrity, _)| Some(integrity))) {
            let name = kind.map_or("plain", Integrity::name);
            let mut run = engines.operation(operation, kind);
            group.bench_function(name, |bencher| bencher.iter(&mut *run));
        }
        group.finish();
    }
}

criterion_group!(engine, benches);
criterion_main!(engine);
