//! `file/{pread_4k,pread_64k,seq_read,seq_write,create,open}/{plain,atrest,naive,same_len}`.

use atrest_bench::file::{Files, OPERATIONS};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn benches(criterion: &mut Criterion) {
    let files = Files::new();
    for operation in OPERATIONS {
        let mut group = criterion.benchmark_group(format!("file/{operation}"));
        let bytes = Files::bytes(operation) as u64;
        if bytes > 0 {
            group.throughput(Throughput::Bytes(bytes));
        }
        for name in ["plain", "atrest", "naive", "same_len"] {
            if let Some(mut run) = files.operation(operation, name) {
                group.bench_function(name, |bencher| bencher.iter(&mut *run));
            }
        }
        group.finish();
    }
}

criterion_group!(file, benches);
criterion_main!(file);
