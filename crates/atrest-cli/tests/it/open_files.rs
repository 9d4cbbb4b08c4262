//! Few open files are a reason for patience, never one to call a file damaged or gone.

use std::sync::Arc;

use atrest::kms::KeyFile;
use atrest::{FileKind, Options, Store};

use crate::support::Bench;

const FILES: u64 = 60;

/// A store whose files, each in a directory of its own, are under a replaced key.
fn with_cold_files() -> Bench {
    let bench = Bench::new();
    let kms = Arc::new(KeyFile::new(bench.path("cmek.key")).unwrap());
    let store = Store::open(bench.path("data"), kms, Options::default()).unwrap();
    for number in 0..FILES {
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
    let mut bench = with_cold_files();
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
