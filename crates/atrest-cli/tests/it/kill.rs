//! `kill -9` at random moments of a backup, a restore and a rotation: never a lost file,
//! never a half-made backup or store that passes for a whole one.
//!
//! `ATREST_KILL_ROUNDS` sets the number of rounds.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::Bench;

const FILES: usize = 24;

fn rounds() -> u32 {
    std::env::var("ATREST_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

fn filled() -> Bench {
    let bench = Bench::new();
    for number in 0..FILES {
        bench.write("src", &vec![number as u8; 200_000 + number]);
        bench.good(&["encrypt", "data", "src", &format!("f{number}")]);
    }
    bench
}

fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below.max(1)
}

/// Runs the command and kills it after a random part of `whole`. True if it ended before.
fn killed(bench: &Bench, args: &[&str], whole: Duration) -> bool {
    let mut command = bench.command(args);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_micros(random(whole.as_micros() as u64)));
    // It may have ended: both are outcomes that must hold.
    drop(child.kill());
    child.wait().unwrap().success()
}

fn timed(run: impl FnOnce()) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed() + Duration::from_millis(1)
}

fn count(bench: &Bench) -> usize {
    let run = bench.run(&["backup", "list", "dest", "--json"]);
    if run.code != 0 {
        // Killed before the chain was made.
        assert!(matches!(run.code, 6 | 7), "{}", run.stderr);
        return 0;
    }
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    report["backups"].as_array().unwrap().len()
}

fn check_restored(bench: &Bench, dir: &str) {
    let report = bench.json(&["verify", dir]);
    assert_eq!(report["unauthenticated_files"], FILES, "{report}");
    let number = random(FILES as u64) as usize;
    bench.good(&["decrypt", dir, &format!("f{number}"), "-o", "out", "--force"]);
    assert_eq!(bench.read("out"), vec![number as u8; 200_000 + number]);
}

#[test]
fn a_killed_backup_is_none_or_whole() {
    let bench = filled();
    let whole = timed(|| drop(bench.good(&["backup", "create", "data", "dest"])));
    for _ in 0..rounds() {
        fs::remove_dir_all(bench.path("dest")).unwrap();
        let done = killed(&bench, &["backup", "create", "data", "dest"], whole);
        let made = count(&bench);
        assert!(made == 1 || !done, "reported, and not there");
        if made == 0 {
            bench.good(&["backup", "create", "data", "dest"]);
        }
        killed(&bench, &["rotate", "data-key", "data"], whole / 4);
        killed(&bench, &["backup", "incremental", "data", "dest"], whole / 2);
        bench.good(&["backup", "incremental", "data", "dest"]);
        let verified = bench.json(&["backup", "verify", "dest"]);
        assert_eq!((&verified["files"], &verified["leftovers"]), (&FILES.into(), &0.into()));
        drop(fs::remove_dir_all(bench.path("new")));
        bench.good(&["backup", "restore", "dest", "new"]);
        check_restored(&bench, "new");
        // Nothing stays of the links.
        assert!(!bench.names("data").iter().any(|name| name.starts_with("KEYRING.staging")));
    }
}

#[test]
fn a_killed_restore_is_no_store_or_a_whole_one() {
    let bench = filled();
    bench.good(&["backup", "create", "data", "dest"]);
    let args = ["backup", "restore", "dest", "new"];
    let whole = timed(|| drop(bench.good(&args)));
    for _ in 0..rounds() {
        fs::remove_dir_all(bench.path("new")).unwrap();
        let mut tries = 0;
        let done = loop {
            let done = killed(&bench, &args, whole);
            let is_store = bench.path("new/KEYRING").exists();
            assert!(is_store || !done, "reported, and not there");
            tries += 1;
            if is_store || tries == 3 {
                break is_store;
            }
            let run = bench.run(&["decrypt", "new", "f0"]);
            assert_eq!(run.code, 7, "{}", run.stderr);
        };
        // The note of what is restored goes last, and only its empty directory may stay:
        // the store is whole then, and no restore goes into a store.
        if !done || bench.path("new/KEYRING.restore/KEYRING.from").exists() {
            bench.good(&args);
        }
        check_restored(&bench, "new");
    }
}

#[test]
fn a_killed_rotation_loses_nothing() {
    let bench = filled();
    for round in 0..rounds() {
        let what = ["data-key", "store-key"][round as usize % 2];
        let whole = timed(|| drop(bench.good(&["rotate", what, "data"])));
        killed(&bench, &["rotate", what, "data"], whole);
        check_restored(&bench, "data");
    }
}
