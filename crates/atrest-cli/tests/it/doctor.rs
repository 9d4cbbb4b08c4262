//! What the doctor sees beside the keyring and the files.

use std::os::unix::fs::{MetadataExt, chown};
use std::process::Stdio;
use std::sync::Arc;

use atrest::kms::KeyFile;
use atrest::{FileKind, Options, Store};
use serde_json::{Value, json};

use crate::support::{Bench, Named, left_out};

/// What it found in one check, as level and text.
fn findings(bench: &Bench, check: &str) -> Vec<(String, String)> {
    let run = bench.run(&["doctor", "data", "--json"]);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    let all = report["findings"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.filter(|finding| finding["check"] == check)
        .map(|finding| (text(&finding["level"]), text(&finding["what"])))
        .collect()
}

#[test]
fn owners_are_compared_with_the_directorys() {
    const OTHER: u32 = 65534;
    let bench = Bench::new();
    bench.write("src", b"words");
    bench.good(&["encrypt", "data", "src", "f"]);
    assert_eq!(findings(&bench, "owners")[0].0, "good");
    if chown(bench.path("data/KEYRING"), Some(OTHER), None).is_err() {
        return left_out("not the superuser: no files of another user's");
    }
    let [(level, what)] = &findings(&bench, "owners")[..] else { panic!("one finding") };
    assert!(level == "problem" && what.contains("KEYRING belongs to user 65534"), "{what}");
    chown(bench.path("data/KEYRING"), Some(0), None).unwrap();
    chown(bench.path("data/f"), Some(OTHER), None).unwrap();
    let [(level, what)] = &findings(&bench, "owners")[..] else { panic!("one finding") };
    assert!(level == "problem" && what.contains("1 file of others"), "{what}");
    // What is written into the directory of another belongs to that user.
    std::fs::create_dir(bench.path("data/sub")).unwrap();
    chown(bench.path("data/sub"), Some(OTHER), Some(OTHER)).unwrap();
    bench.good(&["encrypt", "data", "src", "sub/g"]);
    let written = bench.path("data/sub/g").metadata().unwrap();
    assert_eq!((written.uid(), written.gid()), (OTHER, OTHER));
}

#[test]
fn nested_stores_are_named_and_not_looked_into() {
    let bench = Bench::new();
    bench.write("src", b"words");
    bench.good(&["init", "data/old"]);
    bench.good(&["encrypt", "data/old", "src", "f"]);
    let status = bench.json(&["status", "data"]);
    assert_eq!(status["files"]["nested_stores"], serde_json::json!(["data/old"]));
    assert_eq!(status["files"]["encrypted"]["files"], 0);
    let verify = bench.json(&["verify", "data"]);
    assert_eq!(verify["nested_stores"], serde_json::json!(["data/old"]));
    for args in [&["status", "data"][..], &["verify", "data"]] {
        let text = String::from_utf8(bench.good(args)).unwrap();
        assert!(text.contains("data/old: another store"), "{text}");
    }
    let told = findings(&bench, "files");
    assert!(told.iter().any(|(_, what)| what.contains("data/old is another store")), "{told:?}");
    // Nor is one put there, of which nobody would know.
    bench.bad(2, "invalid-argument", &["encrypt", "data", "src", "old/g"]);
    assert!(!bench.path("data/old/g").exists());
}

#[test]
fn what_a_killed_command_was_writing_is_named_and_cleared() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("data/sub")).unwrap();
    let mut command = bench.command(&["encrypt", "data", "-", "sub/f"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // More than the pipe, so that the command has begun to read when this returns.
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), &vec![1; 2 << 20]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let left = bench.names("data/sub");
    assert!(left.len() == 1 && left[0].starts_with(".atrest-partial-"), "{left:?}");
    let told = findings(&bench, "leftover");
    assert!(told[0].1.contains(&left[0]), "{told:?}");
    // It is no file of the store.
    assert_eq!(bench.json(&["backup", "create", "data", "dest"])["files"], 0);
    assert_eq!(bench.json(&["reencrypt", "data"])["leftovers_removed"], 1);
    assert_eq!(bench.names("data/sub").len(), 0);
    assert_eq!(findings(&bench, "leftover")[0].0, "good");
}

#[test]
fn a_name_of_the_greatest_length_can_be_written() {
    let bench = Bench::new();
    bench.write("src", b"words");
    let name = "x".repeat(255);
    bench.good(&["encrypt", "data", "src", &name]);
    bench.good(&["decrypt", "data", &name, "-o", &name]);
    assert_eq!(bench.read(&name), b"words");
}

#[test]
fn a_store_by_whose_key_anybody_can_wrap_is_to_be_pinned() {
    let bench = Bench::empty();
    let warned = |dir: &str, more: &[&str]| {
        let args = [&["doctor", dir, "--json", "--kms-timeout", "1s"], more].concat();
        let run = bench.run_with(&args, &[("ATREST_CMEK", ""), ("AZURE_ACCESS_TOKEN", "t")], b"");
        String::from_utf8(run.stdout).unwrap().contains("anybody can wrap")
    };
    let rsa = "azure-kms://127.0.0.1:1/keys/k";
    let cases = [
        (rsa.to_owned(), true),
        (format!("{rsa}?proof=PS256"), false),
        (format!("{rsa}?alg=A256GCM"), false),
    ];
    for (number, (uri, public)) in cases.iter().enumerate() {
        let dir = format!("data-{number}");
        std::fs::create_dir(bench.path(&dir)).unwrap();
        let kms = Named::new(uri);
        let store = Store::create(bench.path(&dir), kms, Options::default()).unwrap();
        let id = store.keyring().store_id().to_string();
        drop(store);
        let status = bench.run_with(&["status", &dir, "--json"], &[("ATREST_CMEK", "")], b"");
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        let expected: &[&str] = if *public { &["default"] } else { &[] };
        assert_eq!(status["public_slots"], json!(expected), "{uri}");
        assert_eq!(warned(&dir, &[]), *public, "{uri}");
        assert!(!warned(&dir, &["--store-id", &id]), "{uri}");
        // Whatever the slot says of itself: the key that is given asks for no proof.
        assert!(warned(&dir, &["--cmek", rsa]), "{uri}");
    }
}

#[test]
fn a_store_that_is_mounted_now_here_now_there_is_named() {
    let bench = Bench::new();
    bench.write("src", b"words");
    let told = || findings(&bench, "place");
    bench.good(&["rotate", "data-key", "data"]);
    assert_eq!(told(), [], "it never moved");
    for round in 0..2 {
        for (from, to) in [("data", "other"), ("other", "data")] {
            std::fs::rename(bench.path(from), bench.path(to)).unwrap();
            bench.good(&["encrypt", to, "src", &format!("f{round}{to}")]);
        }
    }
    let [(level, what)] = &told()[..] else { panic!("one finding") };
    assert!(level == "note" && what.contains("4 times"), "{what}");
    assert_eq!(bench.json(&["doctor", "data"])["healthy"], true);
}

#[test]
fn temporary_files_are_counted_apart_and_are_no_problem() {
    let bench = Bench::new();
    let kms = Arc::new(KeyFile::new(bench.path("cmek.key")).unwrap());
    let store = Store::open(bench.path("data"), kms, Options::default()).unwrap();
    let mut writer =
        store.files().create_new(bench.path("data/spill"), FileKind::Temporary).unwrap();
    writer.append(b"rows of a query").unwrap();
    writer.finish().unwrap();
    store.close().unwrap();
    let status = bench.json(&["status", "data"]);
    assert_eq!(status["files"]["temporary"]["files"], 1);
    assert_eq!(status["files"]["encrypted"]["files"], 0);
    assert_eq!(status["files"]["problem"]["files"], 0);
    let verify = bench.json(&["verify", "data"]);
    assert_eq!((&verify["good"], &verify["temporary_files"]), (&true.into(), &1.into()));
    assert_eq!(bench.json(&["keys", "list", "data"])["temporary"]["files"], 1);
    let found = findings(&bench, "files");
    assert!(found.iter().any(|(level, what)| level == "note" && what == "1 temporary file"));
    bench.bad(7, "temporary-ended", &["decrypt", "data", "spill"]);
}
