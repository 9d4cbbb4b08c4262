//! How fast a store is backed up, verified and restored, beside a plain copy of its files.
//!
//! `cargo run --release -p atrest-bench --example backup_speed [files] [MiB a file]`, in a directory of
//! the disk to measure. All files are in the page cache; every copy is made durable.

use std::ops::ControlFlow;
use std::time::Instant;

use atrest::backup::{Chain, DirectoryTarget, RestoreSpec};
use atrest::keyring::DirectoryStorage;
use atrest::kms::{self, generate_key_file};
use atrest::progress::WorkProgress;
use atrest::{FileKind, Options, Store};

fn go_on(_: WorkProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let files = numbers.next().transpose()?.unwrap_or(64);
    let len = numbers.next().transpose()?.unwrap_or(8) << 20;
    let dir = tempfile::tempdir_in(".")?;
    let at = |name: &str| dir.path().join(name);
    for name in ["data", "copy", "backup"] {
        std::fs::create_dir(at(name))?;
    }
    generate_key_file(at("cmek.key"))?;
    let kms = kms::from_uri(&format!("file://{}", at("cmek.key").canonicalize()?.display()))?;
    let storage = DirectoryStorage::new(at("data"));
    let store = Store::create(storage, kms.clone(), Options::default())?;
    let fs = store.files();
    let content = vec![7; len];
    for number in 0..files {
        let mut writer = fs.create_new(at("data").join(number.to_string()), FileKind::Table)?;
        writer.append(&content)?;
        writer.finish()?;
    }
    let total = (files * len) as f64;
    let report = |what: &str, started: Instant| {
        let seconds = started.elapsed().as_secs_f64();
        println!("{what:<24} {seconds:8.3} s {:8.1} MiB/s", total / seconds / 1048576.0);
    };

    let started = Instant::now();
    for number in 0..files {
        let to = at("copy").join(number.to_string());
        std::fs::copy(at("data").join(number.to_string()), &to)?;
        std::fs::File::open(&to)?.sync_all()?;
    }
    report("plain copy, one thread", started);

    let started = Instant::now();
    let chain = Chain::open_or_create(DirectoryTarget::new(at("backup")), kms.clone())?;
    store.backups().add(&chain, at("data"), &go_on)?;
    report("full backup", started);

    let started = Instant::now();
    store.backups().add(&chain, at("data"), &go_on)?;
    report("incremental, no news", started);

    let started = Instant::now();
    assert!(chain.verify(&go_on)?.problems.is_empty());
    report("verify", started);

    let started = Instant::now();
    chain.restore(&RestoreSpec::new(at("restored"), kms), &go_on)?;
    report("restore", started);
    Ok(())
}
