//! Logs that end before their files do: every command that meets one says so, by its exit
//! code too.

use serde_json::Value;

use crate::support::Bench;

/// A store with a log of which the last byte is gone, and what was written to it.
fn with_torn_log() -> (Bench, Vec<u8>) {
    let bench = Bench::new();
    let whole: Vec<u8> = (0..300_000_u32).map(|at| (at / 3) as u8).collect();
    bench.write("src", &whole);
    bench.good(&["encrypt", "data", "src", "log", "--suite", "aes256-gcm-log", "--kind", "log"]);
    let bytes = bench.read("data/log");
    bench.write("data/log", &bytes[..bytes.len() - 1]);
    (bench, whole)
}

/// The result and the error of a command that did its work but for torn logs.
fn torn(bench: &Bench, code: i32, args: &[&str]) -> (Value, Value) {
    let run = bench.run(&[args, &["--json"]].concat());
    assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
    let error: Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["error"]["exit_code"], code);
    (serde_json::from_slice(&run.stdout).unwrap_or_default(), error)
}

#[test]
fn decrypt_gives_what_is_in_front_and_says_that_it_is_not_all() {
    let (bench, whole) = with_torn_log();
    let (report, error) = torn(&bench, 13, &["decrypt", "data", "log", "-o", "out"]);
    let out = bench.read("out");
    assert!(!out.is_empty() && out.len() < whole.len() && whole.starts_with(&out));
    assert_eq!(report["torn"]["kept_bytes"], out.len());
    assert_eq!(report["torn"]["reason"], "cut");
    assert_eq!(error["error"]["kind"], "torn-log");
    // With the data on standard output one document is on standard error.
    let run = bench.run(&["decrypt", "data", "log", "--json"]);
    assert_eq!((run.code, &run.stdout), (13, &out));
    let document: Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(document["bytes"], out.len());
    assert_eq!(
        (&document["torn"], &document["error"]["kind"]),
        (&report["torn"], &"torn-log".into())
    );
    let people = bench.run(&["decrypt", "data", "log"]);
    assert!(people.stderr.contains("cut off in an append"), "{}", people.stderr);
    // A whole log has none.
    bench.good(&["encrypt", "data", "src", "whole", "--suite", "aes256-gcm-log"]);
    assert_eq!(bench.json(&["decrypt", "data", "whole", "-o", "all"])["torn"], Value::Null);
}

#[test]
fn verify_and_re_encryption_do_not_pass_over_a_torn_log() {
    let (bench, whole) = with_torn_log();
    let (report, _) = torn(&bench, 13, &["verify", "data"]);
    assert_eq!((&report["good"], &report["torn_logs"]), (&false.into(), &1.into()));
    assert!(report["torn"][0]["path"].as_str().unwrap().ends_with("/log"));
    bench.good(&["encrypt", "data", "src", "table"]);
    bench.good(&["rotate", "data-key", "data"]);
    let before = bench.read("data/log");
    let (report, error) = torn(&bench, 13, &["reencrypt", "data", "--all"]);
    assert_eq!((&report["files"], &report["skipped"][0]["why"]), (&1.into(), &"torn".into()));
    assert!(report["torn"][0]["lost_bytes"].as_u64().unwrap() > 0);
    assert!(error["error"]["advice"].as_str().unwrap().contains("--danger-cut-torn"));
    assert_eq!(bench.read("data/log"), before);
    let kept = usize::try_from(report["torn"][0]["kept_bytes"].as_u64().unwrap()).unwrap();
    // Said by its word, the loss is taken, told, and over.
    let report = bench.json(&["reencrypt", "data", "--all", "--danger-cut-torn"]);
    assert_eq!((&report["files"], report["torn"].as_array().unwrap().len()), (&1.into(), 1));
    bench.good(&["decrypt", "data", "log", "-o", "out"]);
    assert_eq!(bench.read("out"), whole[..kept]);
    assert_eq!(bench.json(&["verify", "data"])["good"], true);
    bench.good(&["reencrypt", "data", "--all"]);
}

#[test]
fn a_damaged_file_is_worse_than_a_torn_log() {
    let (bench, _) = with_torn_log();
    bench.good(&["encrypt", "data", "src", "table", "--suite", "aes256-gcm-chunks"]);
    let mut bytes = bench.read("data/table");
    bytes[5000] ^= 1;
    bench.write("data/table", &bytes);
    assert_eq!(bench.run(&["verify", "data"]).code, 5);
}

#[test]
fn a_backup_that_lacks_something_is_made_and_has_its_own_exit_code() {
    let (bench, _) = with_torn_log();
    let (report, error) = torn(&bench, 13, &["backup", "create", "data", "dest"]);
    assert_eq!(
        (&report["number"], &error["error"]["kind"]),
        (&1.into(), &"incomplete-backup".into())
    );
    bench.good(&["encrypt", "data", "src", "table", "--suite", "aes256-gcm-chunks"]);
    let bytes = bench.read("data/table");
    bench.write("data/table", &bytes[..4096 + (64 << 10)]);
    let people = bench.run(&["backup", "incremental", "data", "dest"]);
    assert_eq!(people.code, 13, "{}", people.stderr);
    assert!(people.stderr.contains("table"), "{}", people.stderr);
    assert_eq!(bench.json(&["backup", "list", "dest"])["backups"].as_array().unwrap().len(), 2);
    for name in ["log", "table"] {
        std::fs::remove_file(bench.path("data").join(name)).unwrap();
    }
    bench.good(&["backup", "incremental", "data", "dest"]);
}

#[test]
fn appends_that_cannot_be_told_apart_any_more_are_named() {
    let bench = Bench::empty();
    bench.good(&["keygen", "cmek.key"]);
    bench.good(&["init", "data", "--allow-plaintext"]);
    bench.write("src", &[7; 100_000]);
    bench.good(&["encrypt", "data", "src", "log", "--suite", "aes256-gcm-log"]);
    let report = bench.json(&["reencrypt", "data", "--danger-to-plaintext"]);
    assert!(report["merged"][0].as_str().unwrap().ends_with("log"), "{report}");
    assert_eq!(bench.read("data/log"), [7; 100_000]);
}
