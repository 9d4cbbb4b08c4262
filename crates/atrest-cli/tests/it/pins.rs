//! The store that is meant, and no other.

use std::time::{Duration, Instant};

use atrest::keyring::DirectoryStorage;
use atrest::{Keyring, Options};
use serde_json::Value;

use crate::moto::free_port;
use crate::support::Bench;

fn pins(bench: &Bench, dir: &str) -> [[String; 2]; 2] {
    let status = bench.json(&["status", dir]);
    let of = |field: &str| status[field].as_str().unwrap().to_owned();
    [["--store-id".into(), of("store_id")], ["--anchor".into(), of("anchor")]]
}

fn with<'a>(args: &[&'a str], pin: &'a [String; 2]) -> Vec<&'a str> {
    args.iter().copied().chain(pin.iter().map(String::as_str)).collect()
}

#[test]
fn access_is_withdrawn_from_the_pinned_store_alone() {
    let bench = Bench::new();
    bench.good(&["init", "other"]);
    let (ours, theirs) = (pins(&bench, "data"), pins(&bench, "other"));
    let requested = || {
        let status = bench.json(&["cmek", "status", "data", "--cmek", ""]);
        status["revocation_requested"].as_bool().unwrap()
    };
    let keyless = ["cmek", "revoke", "data", "--cmek", ""];
    for pin in &theirs {
        bench.bad(5, "identity-mismatch", &with(&keyless, pin));
    }
    // Another process has it open: a request, too, is all that is left to do.
    let kms = atrest::kms::from_uri(&bench.uri("cmek.key")).unwrap();
    let storage = DirectoryStorage::new(bench.path("data"));
    let keyring = Keyring::open(storage, kms, Options::default()).unwrap();
    for pin in &theirs {
        bench.bad(5, "identity-mismatch", &with(&["cmek", "revoke", "data"], pin));
    }
    drop(keyring);
    assert!(!requested());
    // An older keyring than was seen is not the pinned one either.
    let [_, newer] = &ours;
    let (id, rest) = newer[1].split_once(':').unwrap();
    let (_, mac) = rest.split_once(':').unwrap();
    let newer = [newer[0].clone(), format!("{id}:99:{mac}")];
    bench.bad(5, "keyring-rolled-back", &with(&keyless, &newer));
    assert!(!requested());
    for pin in &ours {
        assert_eq!(bench.json(&with(&keyless, pin))["done"], "requested");
    }
    assert!(requested());
}

#[test]
fn without_a_key_no_other_store_is_shown_either() {
    let bench = Bench::new();
    bench.good(&["init", "other"]);
    for pin in &pins(&bench, "other") {
        for args in [&["status", "data"][..], &["cmek", "status", "data"]] {
            bench.bad(5, "identity-mismatch", &with(&[args, &["--cmek", ""]].concat(), pin));
        }
        let run = bench.run(&with(&["doctor", "data", "--json", "--cmek", ""], pin));
        let report: Value = serde_json::from_slice(&run.stdout).unwrap();
        let told = |finding: &Value| {
            finding["level"] == "problem" && finding["what"].as_str().unwrap().contains("store")
        };
        assert!(report["findings"].as_array().unwrap().iter().any(told), "{report}");
        assert_eq!((run.code, &report["healthy"]), (1, &false.into()));
    }
    for pin in &pins(&bench, "data") {
        bench.good(&with(&["status", "data", "--cmek", ""], pin));
        bench.good(&with(&["doctor", "data", "--cmek", ""], pin));
    }
}

#[test]
fn a_store_that_is_made_has_no_pin_yet() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("old")).unwrap();
    let new_key = bench.uri("cmek.key");
    for pin in &pins(&bench, "data") {
        bench.bad(2, "invalid-argument", &with(&["init", "new"], pin));
        let enable = ["cmek", "enable", "old", "--new-cmek", &new_key];
        bench.bad(2, "invalid-argument", &with(&enable, pin));
    }
    assert!(!bench.path("new").exists());
    assert_eq!(bench.names("old"), [""; 0]);
}

#[test]
fn making_a_store_waits_for_its_key_service() {
    let bench = Bench::empty();
    std::fs::create_dir(bench.path("old")).unwrap();
    let uri = format!("hcvault://127.0.0.1:{}/transit/keys/k?tls=false", free_port());
    for args in [&["init", "new", "--cmek"][..], &["cmek", "enable", "old", "--new-cmek"]] {
        let args = [args, &[&uri, "--wait-for-cmek", "4s"]].concat();
        let started = Instant::now();
        let run = bench.run_with(&args, &[("VAULT_TOKEN", "t")], b"");
        assert_eq!(run.code, 4, "{args:?}: {}", run.stderr);
        assert!(started.elapsed() >= Duration::from_secs(4), "{args:?}");
    }
    assert_eq!(bench.names("."), ["old"]);
}
