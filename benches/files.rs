//! `Encryptor` and `Decryptor` in suite 1 against `ctr` + `aes` used directly, and files of
//! `EncryptedFs` against plain ones, by size. `cargo bench --bench files`.

#![allow(missing_docs)] // OK because Criterion's macro makes an undocumented function.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use aes::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use atrest::keyring::{MemoryStorage, Options};
use atrest::kms::{KeyFile, generate_key_file};
use atrest::store::StorePlace;
use atrest::vfs::OsVfs;
use atrest::{EncryptedFs, Expect, FileKind, Header, Store};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [usize; 5] = [256, 4 << 10, 16 << 10, 64 << 10, 1 << 20];

type Peer = ctr::Ctr64BE<aes::Aes256>;

fn encrypted_fs(dir: &Path) -> EncryptedFs {
    let path = dir.join("cmek.key");
    generate_key_file(&path).expect("a key file");
    let kms = Arc::new(KeyFile::new(&path).expect("a key file"));
    let place = StorePlace::new(MemoryStorage::new(), Arc::new(OsVfs));
    let store = Store::create(place, kms, Options::default()).expect("a store");
    store.files().clone()
}

fn ciphers(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let fs = encrypted_fs(dir.path());
    for size in SIZES {
        let mut buf = vec![0; size];
        let mut group = criterion.benchmark_group("encrypt");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("atrest", size), |bencher| {
            let mut encryptor = fs.keyring().encryptor(FileKind::Table).expect("a key");
            bencher.iter(|| encryptor.encrypt_in_place(black_box(&mut buf)).expect("room"));
        });
        group.bench_function(BenchmarkId::new("aes+ctr", size), |bencher| {
            let mut peer = Peer::new(&[1; 32].into(), &[2; 16].into());
            bencher.iter(|| peer.apply_keystream(black_box(&mut buf)));
        });
        group.finish();
        let mut group = criterion.benchmark_group("decrypt-at-offset");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("atrest", size), |bencher| {
            let encryptor = fs.keyring().encryptor(FileKind::Table).expect("a key");
            let header = Header::parse(encryptor.header()).expect("a header");
            let decryptor = fs.keyring().decryptor(&header, &Expect::default()).expect("its key");
            let mut offset = 0;
            bencher.iter(|| {
                offset = (offset + 7_919 * 4096) & 0xffff_ffff;
                decryptor.decrypt_in_place(offset, black_box(&mut buf)).expect("an offset");
            });
        });
        group.bench_function(BenchmarkId::new("aes+ctr", size), |bencher| {
            let mut peer = Peer::new(&[1; 32].into(), &[2; 16].into());
            let mut offset = 0_u64;
            bencher.iter(|| {
                offset = (offset + 7_919 * 4096) & 0xffff_ffff;
                peer.seek(offset);
                peer.apply_keystream(black_box(&mut buf));
            });
        });
        group.finish();
    }
}

fn files(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let fs = encrypted_fs(dir.path());
    let data = vec![7; 4 << 20];
    let (plain, secret) = (dir.path().join("plain"), dir.path().join("secret"));
    std::fs::write(&plain, &data).expect("a file");
    let mut writer = fs.create_new(&secret, FileKind::Table).expect("a file");
    writer.append(&data).expect("room");
    writer.finish().expect("room");
    let mut group = criterion.benchmark_group("open");
    group.bench_function("atrest", |bencher| {
        bencher.iter(|| black_box(fs.open(&secret).expect("a file")));
    });
    group.bench_function("plain", |bencher| {
        bencher.iter(|| black_box(File::open(&plain).expect("a file")));
    });
    group.finish();
    for size in SIZES {
        let mut buf = vec![0; size];
        let mut group = criterion.benchmark_group("read-cached");
        group.throughput(Throughput::Bytes(size as u64));
        let reader = fs.open(&secret).expect("a file");
        let file = File::open(&plain).expect("a file");
        let mut offset = 0;
        group.bench_function(BenchmarkId::new("atrest", size), |bencher| {
            bencher.iter(|| {
                offset = (offset + 7_919 * 512) % (3 << 20);
                reader.read_exact_at(black_box(&mut buf), offset).expect("a file");
            });
        });
        group.bench_function(BenchmarkId::new("plain", size), |bencher| {
            bencher.iter(|| {
                offset = (offset + 7_919 * 512) % (3 << 20);
                file.read_exact_at(black_box(&mut buf), offset).expect("a file");
            });
        });
        group.finish();
    }
    let mut group = criterion.benchmark_group("write-unsynced-4MiB");
    group.sample_size(20).throughput(Throughput::Bytes(data.len() as u64));
    let new = dir.path().join("new");
    group.bench_function("atrest", |bencher| {
        bencher.iter(|| {
            let mut writer = fs.reuse_for_write(&new, FileKind::Table).expect("a file");
            data.chunks(4096).for_each(|piece| writer.append(piece).expect("room"));
            writer.finish_unsynced().expect("room")
        });
    });
    group.bench_function("plain", |bencher| {
        bencher.iter(|| {
            drop(std::fs::remove_file(&new));
            let mut file = std::io::BufWriter::with_capacity(
                256 << 10,
                File::create_new(&new).expect("a file"),
            );
            data.chunks(4096).for_each(|piece| file.write_all(piece).expect("room"));
            file.flush().expect("room");
        });
    });
    group.finish();
}

criterion_group!(benches, ciphers, files);
criterion_main!(benches);
