//! A keyring of 1 and of 10,000 data keys: opening, rotating, and what a file costs.
//!
//! `cargo bench --bench keyring --features danger-internals`. The keyring is in memory.
//! Opening and rotating are measured in processor time of the thread, where the system
//! tells it, so that a busy machine does not count.

#![allow(missing_docs)] // OK because Criterion's macro makes an undocumented function.

use std::hint::black_box;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use atrest::internals::many_keys;
use atrest::keyring::{KeyringStorage, MemoryStorage, Options};
use atrest::kms::{KeyFile, Kms, generate_key_file};
use atrest::{Expect, FileKind, Header, Keyring};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const COUNTS: [usize; 2] = [1, 10_000];

struct Store {
    _dir: tempfile::TempDir,
    kms: Arc<dyn Kms>,
    image: Vec<u8>,
}

impl Store {
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("cmek.key");
        generate_key_file(&path).expect("a key file");
        let kms: Arc<dyn Kms> = Arc::new(KeyFile::new(&path).expect("a key file"));
        let image = many_keys(kms.clone(), count, 1).expect("a keyring");
        Self { _dir: dir, kms, image }
    }

    fn storage(&self) -> MemoryStorage {
        let storage = MemoryStorage::new();
        storage.commit(&self.image, 1, None).expect("an empty storage");
        storage
    }

    fn open(&self, storage: MemoryStorage) -> Keyring {
        let mut options = Options::default();
        options.background = false;
        Keyring::open(storage, self.kms.clone(), options).expect("a good keyring")
    }
}

/// Time this thread spent on a processor; elsewhere than on Linux, time since the start.
fn processor_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let used = text.and_then(|text| text.split(' ').next()?.parse().ok());
    used.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

fn keyring(criterion: &mut Criterion) {
    for count in COUNTS {
        let store = Store::new(count);
        let mut group = criterion.benchmark_group("keyring");
        group.sample_size(10);
        group.bench_function(BenchmarkId::new("open", count), |bencher| {
            bencher.iter_custom(|iterations| {
                let storages: Vec<_> = (0..iterations).map(|_| store.storage()).collect();
                let before = processor_time();
                let keyrings: Vec<_> = storages.into_iter().map(|s| store.open(s)).collect();
                let used = processor_time() - before;
                drop(keyrings);
                used
            });
        });
        group.bench_function(BenchmarkId::new("rotate-data-key", count), |bencher| {
            let keyring = store.open(store.storage());
            bencher.iter_custom(|iterations| {
                let before = processor_time();
                for _ in 0..iterations {
                    keyring.keys().rotate().expect("a writable keyring");
                }
                processor_time() - before
            });
        });
        group.finish();
        let mut group = criterion.benchmark_group("file");
        let keyring = store.open(store.storage());
        group.bench_function(BenchmarkId::new("create", count), |bencher| {
            bencher.iter(|| black_box(keyring.encryptor(FileKind::Table).expect("a key")));
        });
        let encryptor = keyring.encryptor(FileKind::Table).expect("a key");
        group.bench_function(BenchmarkId::new("open", count), |bencher| {
            bencher.iter(|| {
                let header = Header::parse(black_box(encryptor.header())).expect("a header");
                black_box(keyring.decryptor(&header, &Expect::default()).expect("its key"))
            });
        });
        group.finish();
    }
}

criterion_group!(benches, keyring);
criterion_main!(benches);
