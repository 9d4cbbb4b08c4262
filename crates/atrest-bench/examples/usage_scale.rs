//! Measures the accounting: `cargo run --release -p atrest-bench --example usage_scale -- DIR FILES`
//! creates FILES small encrypted files below DIR (kept for the next run), then prints
//! files a second and the peak memory of a scan from the page cache.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Instant;

use atrest::keyring::{DirectoryStorage, Options};
use atrest::kms::{self, generate_key_file};
use atrest::{FileKind, Store};

const FILES_IN_DIRECTORY: usize = 10_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(files)) = (args.next(), args.next()) else {
        eprintln!("usage: usage_scale DIR FILES");
        std::process::exit(2);
    };
    let (dir, files): (&Path, usize) = (Path::new(&dir), files.parse().unwrap());
    std::fs::create_dir_all(dir.join("data")).unwrap();
    let key = std::path::absolute(dir.join("cmek.key")).unwrap();
    if !key.exists() {
        generate_key_file(&key).unwrap();
    }
    let kms = kms::from_uri(&format!("file://{}", key.display())).unwrap();
    let storage = DirectoryStorage::new(dir.join("data"));
    let store = Store::open_or_create(storage, kms, Options::default()).unwrap();
    let (fs, renewal) = (store.files().clone().write_buffer_len(4096), store.renewal());

    let known = renewal.scan_usage(&|_| {}).unwrap();
    let known: usize = known.keys.iter().map(|key| key.count.files as usize).sum();
    for number in known..files {
        let sub = dir.join("data").join((number / FILES_IN_DIRECTORY).to_string());
        if number % FILES_IN_DIRECTORY == 0 {
            std::fs::create_dir(&sub).unwrap();
        }
        let writer = fs.create_new(sub.join(format!("{number:08}.sst")), FileKind::Table);
        writer.unwrap().finish_unsynced().unwrap();
    }
    for (name, scan) in [
        ("scan, a few bytes a key", true),
        ("scan, a few bytes a key", true),
        ("scan, every file in memory", false),
        ("the same again", false),
    ] {
        let start = Instant::now();
        let usage = if scan { renewal.scan_usage(&|_| {}) } else { renewal.rebuild_usage(&|_| {}) }
            .unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let files: u64 = usage.keys.iter().map(|key| key.count.files).sum();
        println!(
            "{name}: {files} files in {seconds:.2} s, {:.0} files/s, peak memory {} MiB",
            files as f64 / seconds,
            peak_memory_kib() / 1024,
        );
    }
}

/// `VmHWM` of `/proc/self/status`.
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
