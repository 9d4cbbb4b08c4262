//! Few open files are a reason for patience, never one to call a file damaged or gone.

use std::sync::Arc;

use atrest::kms::KeyFile;
use atrest::{FileKind, Options, Store};

use serde_json::Value;

use crate::support::Bench;

const FILES: u64 = 60;

/// A store whose files, each in a directory of its own, are under a replaced key.
pub fn with_cold_files(count: u64) -> Bench {
    let bench = Bench::new();
    let kms = Arc::new(KeyFile::new(bench.path("cmek.key")).unwrap());
    let store = Store::open(bench.path("data"), kms, Options::default()).unwrap();
    for number in 0..count {
        let dir = bench.path("data").join(format!("d{number}"));
        std::fs::create_dir(&dir).unwrap();
        let mut writer = store.files().create_new(dir.join("f"), FileKind::Table).unwrap();
        writer.append(&number.to_le_bytes()).unwrap();
        writer.finish().unwrap();
    }
    store.keys().rotate().unwrap();
    store.close().unwrap();
    bench
}

#[test]
fn all_that_walks_works_with_few_open_files() {
    let mut bench = with_cold_files(FILES);
    bench.limit_open_files(24);
    let done = bench.json(&["reencrypt", "data", "--all", "--threads", "64"]);
    assert_eq!((&done["files"], &done["failed"]), (&FILES.into(), &serde_json::json!([])));
    let verified = bench.json(&["verify", "data"]);
    assert_eq!(verified["unauthenticated_files"], FILES);
    let status = bench.json(&["status", "data"]);
    assert_eq!(status["files"]["encrypted"]["files"], FILES);
    assert_eq!(bench.json(&["keys", "list", "data"])["keys"][1]["files"], FILES);
    bench.retire();
    assert_eq!(bench.json(&["backup", "create", "data", "dest"])["files"], FILES);
    assert_eq!(bench.json(&["backup", "incremental", "data", "dest"])["copied_files"], 0);
    bench.good(&["backup", "verify", "dest"]);
    assert_eq!(bench.json(&["backup", "restore", "dest", "data2"])["files"], FILES);
    assert_eq!(bench.json(&["verify", "data2"])["unauthenticated_files"], FILES);
}

/// Where waiting does not help, the error is of the process, and nothing is called damaged or
/// gone. How many files a command has open anyway is the system's to say: it may go well.
#[test]
fn without_any_left_the_error_says_so_and_nothing_is_lost() {
    let runs: [(u32, &[&str]); 4] = [
        (5, &["status", "data"]),
        (7, &["keys", "retire", "data"]),
        (7, &["reencrypt", "data", "--all"]),
        (8, &["reencrypt", "data", "--all"]),
    ];
    let failed = std::thread::scope(|scope| {
        let runs = runs.map(|(limit, args)| {
            scope.spawn(move || {
                let mut bench = with_cold_files(3);
                bench.limit_open_files(limit);
                let run = bench.run(&[args, &["--json"]].concat());
                let text = if run.code == 0 { run.stdout } else { run.stderr.into_bytes() };
                let report: Value = serde_json::from_slice(&text).unwrap();
                if run.code != 0 {
                    let error = &report["error"];
                    assert_eq!((run.code, &error["kind"]), (11, &"io-too-many-open-files".into()));
                    assert!(error["advice"].as_str().unwrap().contains("raise the limit"));
                }
                bench.limit_open_files(1024);
                let verified = bench.json(&["verify", "data"]);
                assert_eq!(verified["unauthenticated_files"], 3, "{args:?}");
                run.code != 0
            })
        });
        runs.map(|run| run.join().unwrap())
    });
    assert!(failed[0], "a keyring cannot be read with five");
}
