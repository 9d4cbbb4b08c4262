//! Stores with several slots: what needs the key of each.

use std::thread::sleep;
use std::time::Duration;

use crate::support::Bench;

/// A store with the slots `default` and `us`.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.keygen("us.key");
    bench.good(&["cmek", "add", "data", "us", "--new-cmek", &bench.uri("us.key")]);
    bench
}

#[test]
fn a_store_key_is_rotated_with_the_keys_of_all_slots() {
    let bench = bench();
    let (eu, us) = (bench.uri("cmek.key"), bench.uri("us.key"));
    // One key opens the store and does not do for this; the missing slot is named.
    for given in [&eu, &us] {
        let run =
            bench.bad(2, "kms-misconfigured", &["rotate", "store-key", "data", "--cmek", given]);
        let (missing, slot) = if *given == eu { (&us, "us") } else { (&eu, "default") };
        let advice = format!("for the slot {slot}: --cmek {missing}");
        assert!(run.stderr.contains(&advice), "{}", run.stderr);
        assert!(!run.stderr.contains(&format!("--cmek {given}")), "{}", run.stderr);
    }
    bench.json(&["rotate", "store-key", "data", "--cmek", &us, "--cmek", &eu]);
    for key in [&eu, &us] {
        bench.good(&["status", "data", "--cmek", key]);
    }
    // A new key that does not fit is another mistake than a missing one.
    bench.write("open.key", &[7; 64]);
    let run = bench.run(&["rotate", "cmek", "data", "--new-cmek", &bench.uri("open.key")]);
    assert!(run.code == 2 && !run.stderr.contains("for the slot us"), "{}", run.stderr);
}

#[test]
fn keys_are_retired_and_shredded_with_the_key_of_one_slot() {
    let bench = bench();
    let us = bench.uri("us.key");
    bench.good(&["rotate", "data-key", "data"]);
    let retired = bench.json(&["keys", "retire", "data", "--grace", "1s"]);
    assert_eq!(retired["keys"][0]["outcome"], "retiring");
    sleep(Duration::from_millis(1100));
    let retired = bench.json(&["keys", "retire", "data"]);
    assert_eq!(retired["keys"][0]["outcome"], "destroyed");

    bench.good(&["keys", "add-keyspace", "data", "red"]);
    bench.write("src", b"red");
    bench.good(&["encrypt", "data", "src", "f", "--keyspace", "red"]);
    let shred = ["keys", "shred", "data", "--keyspace", "red", "--confirm", "red"];
    bench.good(&shred);
    // The other slot's key opens what its service was not asked about.
    bench.good(&["status", "data", "--cmek", &us]);
    assert_eq!(bench.run(&["decrypt", "data", "f"]).code, 7);
    // What was shredded on purpose has files, and is proven gone; the other has none.
    let proofs = bench.json(&["keys", "proof", "data"])["proofs"].clone();
    let seen: Vec<_> = proofs
        .as_array()
        .unwrap()
        .iter()
        .map(|proof| (proof["shredded"].as_bool().unwrap(), proof["files"].as_u64().unwrap()))
        .collect();
    assert_eq!(seen, [(false, 0), (true, 1)]);
    let id = proofs[1]["id"].as_str().unwrap();
    assert_eq!(bench.json(&["keys", "proof", "data", "--key", id])["proofs"][0], proofs[1]);
}

/// What the README says is needed, and for nothing else.
#[test]
fn one_key_does_for_all_that_wraps_nothing_anew() {
    let readme = include_str!("../../README.md");
    let (_, said) = readme.split_once("**Stores with several slots.**").unwrap();
    let (said, _) = said.split_once("They name the slots").unwrap();
    let said = said.replace('\n', " ");
    let mut bench = bench();
    bench.keygen("new.key");
    bench.write("src", b"text");
    bench.good(&["keys", "add-keyspace", "data", "red"]);
    let (eu, new) = (bench.uri("cmek.key"), bench.uri("new.key"));
    let key = bench.json(&["keys", "list", "data"])["keys"][0]["id"].as_str().unwrap().to_owned();
    for (needs_all, args) in [
        (false, &["encrypt", "data", "src", "f"][..]),
        (false, &["rotate", "data-key", "data"]),
        (true, &["rotate", "store-key", "data"]),
        (true, &["cmek", "rewrap", "data"]),
        (false, &["cmek", "rewrap", "data", "default"]),
        (true, &["cmek", "rotate", "data"]),
        (false, &["keys", "hold", "data", &key, "--name", "backup"]),
        (false, &["keys", "release", "data", "backup"]),
        (false, &["reencrypt", "data", "--all"]),
        (false, &["keys", "retire", "data", "--grace", "1s"]),
        (false, &["keys", "shred", "data", "--keyspace", "red", "--confirm", "red"]),
        (false, &["backup", "create", "data", "backups"]),
        (false, &["verify", "data"]),
        (false, &["cmek", "rotate", "data", "--new-cmek", &new]),
    ] {
        let run = bench.run(&[args, &["--cmek", &eu]].concat());
        assert_eq!(run.code, if needs_all { 2 } else { 0 }, "{args:?}: {}", run.stderr);
        assert_eq!(run.stderr.contains("for the slot us"), needs_all, "{args:?}: {}", run.stderr);
        let command = format!("`{} {}`", args[0], args[1]);
        assert!(!needs_all || said.contains(&command), "{command}: {said}");
        assert!(!said.contains("keys retire") && !said.contains("keys shred"), "{said}");
    }
}

#[test]
fn the_variable_holds_several_keys() {
    let bench = bench();
    let (eu, us) = (bench.uri("cmek.key"), bench.uri("us.key"));
    let variable = format!("{eu}\n  {us}");
    let with = |value: &str, args: &[&str]| bench.run_with(args, &[("ATREST_CMEK", value)], b"");
    let run = with(&variable, &["rotate", "store-key", "data"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    // The command line stands alone.
    let run = with(&variable, &["rotate", "store-key", "data", "--cmek", &eu]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    // A new store begins with one.
    let run = with(&variable, &["init", "other"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("one customer's key") && !bench.path("other").exists());
    // Without any: which are wanted.
    for nothing in ["", "  "] {
        let run = with(nothing, &["verify", "data"]);
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(run.stderr.contains(&format!("for the slot us: --cmek {us}")), "{}", run.stderr);
    }
}

#[test]
fn backups_open_with_any_of_the_keys() {
    let bench = bench();
    let (eu, us) = (bench.uri("cmek.key"), bench.uri("us.key"));
    let both = ["--cmek", &us, "--cmek", &eu];
    bench.good(&[&["backup", "create", "data", "backups"][..], &both].concat());
    bench.good(&[&["backup", "incremental", "data", "backups"][..], &both].concat());
    // The first of them is the backups' own.
    bench.good(&["backup", "list", "backups", "--cmek", &us]);
    bench.bad(5, "kms-integrity", &["backup", "list", "backups", "--cmek", &eu]);
    bench.good(&[&["backup", "verify", "backups"][..], &["--cmek", &eu, "--cmek", &us]].concat());
    let restored = bench.json(&[&["backup", "restore", "backups", "new"][..], &both].concat());
    assert_eq!(restored["key_uri"], us);
}
