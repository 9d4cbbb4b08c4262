//! The demonstration, with a small data set.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Bench, names};

const STEPS: [&str; 9] =
    ["create", "load", "rotate", "usage", "churn", "verify", "search", "withdraw", "give back"];

#[test]
fn every_step_holds_and_the_store_that_stays_is_one() {
    let mut engines = vec!["slatedb"];
    if cfg!(feature = "demo-tantivy") {
        engines.push("tantivy");
    }
    engines.into_iter().for_each(every_step_holds_with);
}

fn every_step_holds_with(engine: &str) {
    let bench = Bench::empty();
    let report = bench.json(&["demo", "shop", "--records", "2000", "--engine", engine]);
    assert!(report["engine"].as_str().unwrap().eq_ignore_ascii_case(engine));
    let fields: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["directory", "engine", "error", "held", "records", "seconds", "steps"]);
    assert_eq!((&report["held"], &report["error"]), (&true.into(), &Value::Null));
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.iter().map(|step| step["name"].as_str().unwrap()).collect::<Vec<_>>(), STEPS);
    for step in steps {
        assert_eq!(step["held"], true, "{step}");
        assert!(!step["checks"].as_array().unwrap().is_empty());
        assert!(step["seconds"].is_number());
    }
    let number = |step: usize, name: &str| steps[step]["numbers"][name].as_u64().unwrap();
    assert_eq!(number(1, "records"), 2000);
    assert_eq!(number(2, "data_keys"), 4);
    // Each key followed the one before by thirty days.
    let keys = steps[3]["numbers"]["data_keys"].as_array().unwrap();
    let created: Vec<_> = keys.iter().map(|key| key["created_ns"].as_u64().unwrap()).collect();
    let month_ns = 30 * 86_400 * 1_000_000_000;
    assert!(created.windows(2).all(|pair| pair[1] - pair[0] == month_ns), "{created:?}");
    // 2000 and three times a twentieth.
    assert_eq!((number(5, "records_good"), number(8, "records_good")), (2300, 2300));
    assert!(number(4, "old_bytes_after") * 4 <= number(4, "old_bytes_before"));
    assert!(number(4, "tables_removed") > 0);
    assert_eq!(number(6, "hits"), 0);
    assert!(number(6, "control_hits") >= 1000);

    // The other commands read what the demonstration left.
    let uri = bench.uri("shop/key/cmek.key");
    let status = bench.json(&["status", "shop/store", "--cmek", &uri]);
    assert_eq!(status["data_keys"].as_array().unwrap().len(), 4);
    assert_eq!(status["files"]["plaintext"]["files"], 0);
    assert_eq!(status["files"]["problem"]["files"], 0);
    assert!(status["files"]["encrypted"]["files"].as_u64().unwrap() > 5);
    // A directory with files in it is nobody's to write to.
    bench.bad(2, "invalid-argument", &["demo", "shop"]);
}

#[test]
fn a_demonstration_that_is_interrupted_leaves_nothing() {
    let bench = Bench::empty();
    std::fs::create_dir(bench.path("tmp")).unwrap();
    let mut command = bench.command(&["demo"]);
    let mut child = command
        .env("TMPDIR", bench.path("tmp"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The second step's title: the engine is running.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().starts_with("2. Load 200,000")));
    assert_eq!(names(&bench.path("tmp")).len(), 1);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "interrupted\n");
    assert_eq!(names(&bench.path("tmp")), [""; 0]);
}
