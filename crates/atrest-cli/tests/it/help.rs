//! Help texts.

use crate::support::{Bench, left_out};

#[test]
fn every_command_shows_examples_and_its_json() {
    let bench = Bench::empty();
    let commands = [
        &["keygen"][..],
        &["init"],
        &["status"],
        &["encrypt"],
        &["decrypt"],
        &["inspect"],
        &["rotate", "data-key"],
        &["rotate", "store-key"],
        &["rotate", "cmek"],
        &["cmek", "list"],
        &["cmek", "add"],
        &["cmek", "remove"],
        &["cmek", "rewrap"],
        &["cmek", "rotate"],
        &["cmek", "enable"],
        &["cmek", "disable"],
        &["cmek", "revoke"],
        &["cmek", "restore"],
        &["cmek", "status"],
        &["audit"],
        &["serve"],
        &["backup", "create"],
        &["backup", "incremental"],
        &["backup", "list"],
        &["backup", "verify"],
        &["backup", "restore"],
        &["recover"],
        &["verify"],
        &["doctor"],
        &["reencrypt"],
        &["keys", "list"],
        &["keys", "retire"],
        &["keys", "proof"],
        &["keys", "holds"],
        &["keys", "hold"],
        &["keys", "release"],
        &["keys", "directories"],
        &["keys", "forget-directory"],
        &["keys", "take-directory"],
        &["keys", "keyspaces"],
        &["keys", "add-keyspace"],
        &["keys", "shred"],
        #[cfg(feature = "demo")]
        &["demo"],
    ];
    for command in commands {
        let help = bench.good(&[command, &["--help"]].concat());
        let help = String::from_utf8(help).unwrap();
        for needed in ["Examples:\n", "JSON fields:", &format!("atrest {}", command.join(" "))] {
            assert!(help.contains(needed), "{command:?} has no {needed:?}: {help}");
        }
    }
    for group in ["rotate", "cmek", "keys", "backup"] {
        let help = String::from_utf8(bench.good(&[group, "--help"])).unwrap();
        assert!(help.contains("Examples:\n"), "{group}: {help}");
    }
    let help = String::from_utf8(bench.good(&["--help"])).unwrap();
    assert!(help.contains("Examples:\n") && help.contains("Exit codes:\n"));
}

/// A key that is destroyed cannot be held.
#[test]
fn the_example_that_holds_all_keys_holds_those_there_are() {
    let bench = Bench::new();
    bench.good(&["rotate", "data-key", "data"]);
    bench.retire();
    let help = String::from_utf8(bench.good(&["keys", "hold", "--help"])).unwrap();
    let (_, example) = help.split_once("auditors'\n").unwrap();
    let (example, _) = example.split_once("\n\n").unwrap();
    let plain = bench.command(&[]);
    let there = std::path::Path::new(plain.get_program()).parent().unwrap().display();
    let mut shell = std::process::Command::new("/bin/sh");
    shell
        .args(["-c", example])
        .current_dir(bench.path("."))
        .env("PATH", format!("{there}:{}", std::env::var("PATH").unwrap()))
        .env("ATREST_CMEK", bench.uri("cmek.key"));
    let output = shell.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let required = std::env::var("ATREST_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
    if told.contains("jq: not found") && !required {
        return left_out("there is no jq");
    }
    assert!(output.status.success(), "{told}");
    let holds = bench.json(&["keys", "holds", "data"]);
    assert_eq!(holds["holds"][0]["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn nothing_is_coloured_outside_of_a_terminal() {
    let bench = Bench::new();
    for args in [&["status", "data"][..], &["status", "nowhere"], &["--help"]] {
        let run = bench.run(args);
        assert!(!run.stdout.contains(&0x1b) && !run.stderr.contains('\x1b'));
    }
}
