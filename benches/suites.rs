//! The authenticated suites against suite 1 and against the `aes-gcm` crate:
//! `body/SIZE/*`, `read/*/*`, `open/*`, `list/*`; with `-- --short` one table of 4 KiB calls.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use atrest::kms::{KeyFile, generate_key_file};
use atrest::{
    Decryptor, EncryptedFs, Encryptor, Expect, FileKind, FileSpec, Header, Options, Store, Suite,
};
use criterion::{Criterion, Throughput, criterion_group};

const FILE_LEN: usize = 32 << 20;

fn store() -> (tempfile::TempDir, EncryptedFs) {
    let dir = tempfile::tempdir().unwrap();
    generate_key_file(dir.path().join("cmek.key")).unwrap();
    let kms = Arc::new(KeyFile::new(dir.path().join("cmek.key")).unwrap());
    let store = Store::create(dir.path(), kms, Options::default()).unwrap();
    (dir, store.files().clone())
}

fn spec(suite: Suite, chunk_len: u32) -> FileSpec {
    FileSpec::new(FileKind::Other).suite(suite).chunk_len(chunk_len)
}

fn pair(fs: &EncryptedFs, spec: FileSpec) -> (Encryptor, Decryptor) {
    let encryptor = fs.keyring().encryptor(spec).unwrap();
    let header = Header::parse(encryptor.header()).unwrap();
    let decryptor = fs.keyring().decryptor(&header, &Expect::default()).unwrap();
    (encryptor, decryptor)
}

/// Without files: one chunk or frame after the other.
fn bodies(criterion: &mut Criterion) {
    let (_dir, fs) = store();
    for chunk_len in [4 << 10, 16 << 10, 64 << 10_u32] {
        let len = chunk_len as usize;
        let plain = vec![0x5a; len];
        let mut group = criterion.benchmark_group(format!("body/{chunk_len}"));
        group.throughput(Throughput::Bytes(len as u64));

        let (mut ctr, _) = pair(&fs, spec(Suite::Aes256Ctr, 0));
        let mut out = vec![0; len];
        group.bench_function("suite-1", |b| b.iter(|| ctr.encrypt(&plain, &mut out).unwrap()));

        let (mut chunks, decryptor) = pair(&fs, spec(Suite::Aes256GcmChunks, chunk_len));
        let (mut out, mut sealed) = (Vec::with_capacity(len), Vec::new());
        chunks.append(&plain, &mut sealed).unwrap();
        chunks.finish(&mut sealed).unwrap();
        let (mut chunks, _) = pair(&fs, spec(Suite::Aes256GcmChunks, chunk_len));
        group.bench_function("suite-2-encrypt", |b| {
            b.iter(|| {
                out.clear();
                chunks.append(&plain, &mut out).unwrap();
            });
        });
        let mut back = vec![0; len];
        group.bench_function("suite-2-decrypt", |b| {
            b.iter(|| {
                let (chunk, rest) = black_box(&sealed).split_at(len);
                decryptor.decrypt_chunks(0, chunk, &rest[..16], 0, &mut back).unwrap();
            });
        });

        let (mut log, _) = pair(&fs, spec(Suite::Aes256GcmLog, 0));
        group.bench_function("suite-3-encrypt", |b| {
            b.iter(|| {
                out.clear();
                log.append(&plain, &mut out).unwrap();
            });
        });

        let gcm = Aes256Gcm::new(&[7; 32].into());
        let mut buf = plain.clone();
        group.bench_function("aes-gcm-crate", |b| {
            b.iter(|| {
                gcm.encrypt_inout_detached(&[1; 12].into(), &[], buf.as_mut_slice().into()).unwrap()
            });
        });
        group.finish();
    }
    let (mut log, _) = pair(&fs, spec(Suite::Aes256GcmLog, 0));
    let mut out = Vec::with_capacity(200);
    criterion.bench_function("body/100/suite-3-encrypt", |b| {
        b.iter(|| {
            out.clear();
            log.append(&[1; 100], &mut out).unwrap();
        });
    });
}

/// Files in the page cache.
fn files(criterion: &mut Criterion) {
    let (dir, fs) = store();
    let names = [
        ("suite-1", spec(Suite::Aes256Ctr, 0)),
        ("suite-2-4k", spec(Suite::Aes256GcmChunks, 4 << 10)),
        ("suite-2-16k", spec(Suite::Aes256GcmChunks, 16 << 10)),
        ("suite-2-64k", spec(Suite::Aes256GcmChunks, 64 << 10)),
        ("suite-3", spec(Suite::Aes256GcmLog, 0)),
    ];
    for (name, spec) in names {
        let mut writer = fs.create_new(dir.path().join(name), spec).unwrap();
        for piece in vec![0x5a; FILE_LEN].chunks(4096) {
            writer.append(piece).unwrap();
        }
        writer.finish().unwrap();
    }
    for (operation, len) in [("pread-4k", 4 << 10), ("pread-64k", 64 << 10), ("pread-1m", 1 << 20)]
    {
        let mut group = criterion.benchmark_group(format!("read/{operation}"));
        group.throughput(Throughput::Bytes(len as u64));
        for (name, _) in names {
            let reader = fs.open(dir.path().join(name)).unwrap();
            let (mut buf, mut at) = (vec![0; len], 1);
            group.bench_function(name, |b| {
                b.iter(|| {
                    at = (at * 7919 + 4096 * 3) % (FILE_LEN - len);
                    reader.read_exact_at(&mut buf, at as u64).unwrap();
                });
            });
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("open/32m");
    for (name, _) in names {
        let path = dir.path().join(name);
        group.bench_function(name, |b| b.iter(|| fs.open(&path).unwrap()));
    }
    group.finish();
    std::fs::create_dir(dir.path().join("many")).unwrap();
    for i in 0..1000 {
        let path = dir.path().join("many").join(i.to_string());
        fs.create_new(path, FileKind::Other).unwrap().finish_unsynced().unwrap();
    }
    criterion.bench_function("list/1000", |b| {
        b.iter(|| fs.list(dir.path().join("many")).unwrap());
    });
}

/// Nanoseconds for 4 KiB, as the medians of rounds in which all tasks take turns: what ends
/// every call that uses a key, the wipe, is a part of each.
///
/// `ATREST_CTR_WIDTH=... cargo bench --bench suites -- --short`; two builds compare when they
/// run in turns.
fn short() {
    let (dir, fs) = store();
    let mut tasks: Vec<(String, Box<dyn FnMut() + '_>)> = Vec::new();
    let (mut encryptor, decryptor) = pair(&fs, spec(Suite::Aes256Ctr, 0));
    let (mut buf, mut other) = (vec![0; 4096], vec![0; 4096]);
    let decrypt = move || decryptor.decrypt_in_place(black_box(1 << 20), &mut buf).unwrap();
    tasks.push(("decrypt suite-1".into(), Box::new(decrypt)));
    let encrypt = move || encryptor.encrypt_in_place(black_box(&mut other)).unwrap();
    tasks.push(("encrypt suite-1".into(), Box::new(encrypt)));
    for suite in [Suite::Aes256Ctr, Suite::Aes256GcmChunks, Suite::Aes256GcmLog] {
        let path = dir.path().join(format!("{suite:?}"));
        let mut writer = fs.create_new(&path, spec(suite, 4096)).unwrap();
        (0..256).for_each(|_| writer.append(&[0x5a; 4096]).unwrap());
        writer.finish().unwrap();
        let reader = fs.open(&path).unwrap();
        let (mut buf, mut at) = (vec![0; 4096], 0);
        let read = move || {
            at = (at * 7919 + 3 * 4096) % (1 << 19);
            reader.read_exact_at(&mut buf, at).unwrap();
        };
        tasks.push((format!("read {suite:?}"), Box::new(read)));
    }
    let mut samples = vec![Vec::new(); tasks.len()];
    for _ in 0..301 {
        for ((_, task), samples) in tasks.iter_mut().zip(&mut samples) {
            let start = Instant::now();
            (0..200).for_each(|_| task());
            samples.push(start.elapsed().as_nanos() as f64 / 200.0);
        }
    }
    for ((name, _), samples) in tasks.iter().zip(&mut samples) {
        samples.sort_by(f64::total_cmp);
        println!("{name}: {:.0} ns", samples[samples.len() / 2]);
    }
}

criterion_group!(suites, bodies, files);

fn main() {
    if std::env::args().any(|arg| arg == "--short") {
        return short();
    }
    suites();
    Criterion::default().configure_from_args().final_summary();
}
