//! Measures re-encryption against `cp`, interleaved on the same directory's disk:
//! `cargo run --release -p atrest-bench --example reencrypt_speed -- DIR FILES MIB ROUNDS [THREADS]`.
//!
//! `cp` copies all files and then `sync -f` makes them durable; the re-encryption makes
//! each file durable by itself, reads it back and puts it in its place.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use atrest::keyring::{DirectoryStorage, Options};
use atrest::kms::{self, generate_key_file};
use atrest::store::{Reencrypt, StalePolicy};
use atrest::{FileKind, Store};

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [dir, files, mib, rounds, threads @ ..] = args.as_slice() else {
        eprintln!("usage: reencrypt_speed DIR FILES MIB ROUNDS [THREADS]");
        std::process::exit(2);
    };
    let (dir, files, mib): (&Path, usize, usize) =
        (Path::new(dir), files.parse().unwrap(), mib.parse().unwrap());
    let (data, copy) = (dir.join("data"), dir.join("copy"));
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(&data).unwrap();
    let key = std::path::absolute(dir.join("cmek.key")).unwrap();
    generate_key_file(&key).unwrap();
    let kms = kms::from_uri(&format!("file://{}", key.display())).unwrap();
    let storage = DirectoryStorage::new(&data);
    let store = Store::open_or_create(storage, kms, Options::default()).unwrap();
    let fs = store.files();
    let block: Vec<u8> = (0..1 << 20_u32).map(|i| (i * 31 + (i >> 8)) as u8).collect();
    for number in 0..files {
        let mut writer =
            fs.create_new(data.join(format!("{number:06}.sst")), FileKind::Table).unwrap();
        (0..mib).for_each(|_| writer.append(&block).unwrap());
        writer.finish().unwrap();
    }
    let mib_all = (files * mib) as f64;
    let mut ratios = Vec::new();
    for round in 0..rounds.parse().unwrap() {
        let cp = timed(|| {
            let _ = std::fs::remove_dir_all(&copy);
            let mut cp = Command::new("cp");
            cp.args(["-r", "--reflink=never"]).arg(&data).arg(&copy);
            assert!(cp.status().unwrap().success());
            assert!(Command::new("sync").arg("-f").arg(&copy).status().unwrap().success());
        });
        std::fs::remove_dir_all(&copy).unwrap();
        store.keys().rotate().unwrap();
        let ours = timed(|| {
            let mut how = Reencrypt::default();
            how.policy = StalePolicy::older_than(Duration::ZERO);
            how.threads = threads.first().map_or(how.threads, |threads| threads.parse().unwrap());
            let report = store.renewal().reencrypt(&how).unwrap();
            assert_eq!(report.files as usize, files, "{:?}", report.failed);
        });
        ratios.push(cp / ours);
        println!(
            "round {round}: cp {:.0} MiB/s, re-encryption {:.0} MiB/s, ratio {:.2}",
            mib_all / cp,
            mib_all / ours,
            cp / ours
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
