//! The customer's keys: slots, switching on and off, revoking and restoring, the audit.

use std::sync::Arc;

use atrest::keyring::DirectoryStorage;
use atrest::kms::{KeyFile, Kms};
use atrest::{ErrorKind, Keyring, Options, Store};
use serde_json::Value;

use crate::support::{Bench, Named};

fn slots(report: &Value) -> Vec<&str> {
    report["slots"].as_array().unwrap().iter().map(|slot| slot["name"].as_str().unwrap()).collect()
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    for name in ["us.key", "new.key", "local.key"] {
        bench.keygen(name);
    }
    bench
}

#[test]
fn slots_are_added_listed_rewrapped_and_removed() {
    let bench = bench();
    let (eu, us, new) = (bench.uri("cmek.key"), bench.uri("us.key"), bench.uri("new.key"));
    let report = bench.json(&["cmek", "add", "data", "us", "--new-cmek", &us]);
    assert_eq!((report["done"].as_str(), slots(&report)), (Some("added"), vec!["default", "us"]));
    assert_eq!(slots(&bench.json(&["cmek", "list", "data"])), ["default", "us"]);
    // The new slot opens the store alone.
    bench.good(&["status", "data", "--cmek", &us]);
    // Rewrapping all needs all keys.
    bench.bad(2, "kms-misconfigured", &["cmek", "rewrap", "data"]);
    bench.good(&["cmek", "rewrap", "data", "--cmek", &eu, "--cmek", &us]);
    bench.good(&["cmek", "rewrap", "data", "us", "--cmek", &us]);
    bench.good(&["cmek", "rotate", "data", "--slot", "us", "--new-cmek", &new]);
    bench.bad(5, "kms-integrity", &["status", "data", "--cmek", &us]);
    bench.good(&["cmek", "rotate", "data", "--slot", "us", "--cmek", &new]);
    let status = bench.json(&["cmek", "status", "data", "--cmek", &eu, "--cmek", &us]);
    assert_eq!(status["state"], "active");
    let answers: Vec<_> = status["keys"].as_array().unwrap().iter().map(|k| &k["answer"]).collect();
    assert_eq!(answers, ["good", "kms-integrity"]);
    let report = bench.json(&["cmek", "remove", "data", "default", "--cmek", &new]);
    assert_eq!(slots(&report), ["us"]);
    bench.bad(2, "invalid-argument", &["cmek", "remove", "data", "us", "--cmek", &new]);
    bench.bad(2, "invalid-argument", &["cmek", "remove", "data", "mars", "--cmek", &new]);
    let events = bench.json(&["audit", "data", "--cmek", &new]);
    let what: Vec<_> =
        events["events"].as_array().unwrap().iter().map(|e| e["what"].as_str().unwrap()).collect();
    let expected = [
        "created",
        "slot-added",
        "slot-rewrapped",
        "slot-rewrapped",
        "slot-rewrapped",
        "cmek-replaced",
        "slot-rewrapped",
        "slot-removed",
    ];
    assert_eq!(what, expected);
}

#[test]
fn a_store_in_use_is_put_under_a_customers_key_and_taken_back() {
    let bench = bench();
    std::fs::create_dir(bench.path("old")).unwrap();
    bench.write("old/table.sst", b"from before");
    let (customer, local) = (bench.uri("new.key"), bench.uri("local.key"));
    let on = bench.json(&["cmek", "enable", "old", "--new-cmek", &customer]);
    assert_eq!(on["key_uri"], customer);
    bench.write("plain", b"new bytes");
    bench.good(&["encrypt", "old", "plain", "new.sst", "--cmek", &customer]);
    assert_eq!(bench.good(&["decrypt", "old", "table.sst", "--cmek", &customer]), b"from before");
    let off = bench.json(&["cmek", "disable", "old", "--cmek", &customer, "--new-cmek", &local]);
    assert_ne!(off["store_key_id"], on["store_key_id"]);
    bench.bad(5, "kms-integrity", &["status", "old", "--cmek", &customer]);
    assert_eq!(bench.good(&["decrypt", "old", "new.sst", "--cmek", &local]), b"new bytes");
    bench.good(&["cmek", "enable", "old", "--cmek", &local, "--new-cmek", &customer]);
    assert_eq!(bench.good(&["decrypt", "old", "new.sst", "--cmek", &customer]), b"new bytes");
    bench.bad(2, "invalid-argument", &["cmek", "enable", "nowhere", "--new-cmek", &customer]);
}

#[test]
fn a_revoked_store_stays_revoked_until_it_is_restored() {
    let bench = bench();
    let done = |args: &[&str]| bench.json(args)["done"].as_str().unwrap().to_owned();
    assert_eq!(done(&["cmek", "revoke", "data"]), "marked");
    assert_eq!(done(&["cmek", "revoke", "data"]), "already");
    bench.bad(3, "cmek-revoked", &["rotate", "data-key", "data"]);
    bench.bad(3, "cmek-revoked", &["status", "data"]);
    assert_eq!(bench.json(&["cmek", "status", "data"])["state"], "revoked");
    let events = bench.json(&["audit", "data"]);
    assert_eq!(events["events"].as_array().unwrap().last().unwrap()["what"], "revoked");
    assert_eq!(done(&["cmek", "restore", "data"]), "restored");
    bench.good(&["status", "data"]);
    // Without a key a request is left, which holds as well.
    assert_eq!(done(&["cmek", "revoke", "data", "--cmek", ""]), "requested");
    let status = bench.json(&["cmek", "status", "data", "--cmek", ""]);
    assert_eq!(
        (&status["state"], &status["revocation_requested"]),
        (&"revoked".into(), &true.into())
    );
    bench.bad(3, "cmek-revoked", &["status", "data"]);
    assert_eq!(done(&["cmek", "restore", "data"]), "restored");
    assert_eq!(bench.json(&["cmek", "status", "data"])["state"], "active");
}

#[test]
fn a_process_that_has_the_store_open_heeds_a_revocation() {
    let bench = bench();
    let kms: Arc<dyn Kms> = Arc::new(KeyFile::new(bench.path("cmek.key")).unwrap());
    let mut options = Options::default();
    options.background = false;
    let storage = DirectoryStorage::new(bench.path("data"));
    let keyring = Keyring::open(storage, kms, options).unwrap();
    let revoked = bench.json(&["cmek", "revoke", "data"]);
    assert_eq!(revoked["done"], "requested");
    bench.bad(3, "cmek-revoked", &["status", "data"]);
    keyring.access().check_now();
    let error = keyring.encryptor(atrest::FileKind::Table).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CmekRevoked);
    bench.bad(9, "keyring-busy", &["cmek", "restore", "data"]);
    keyring.access().restore().unwrap();
    keyring.encryptor(atrest::FileKind::Table).unwrap();
    bench.good(&["status", "data"]);
}

#[test]
fn backups_that_need_the_old_key_are_named() {
    let bench = bench();
    let (old, new, third) = (bench.uri("cmek.key"), bench.uri("new.key"), bench.uri("us.key"));
    bench.write("src", b"words");
    bench.good(&["encrypt", "data", "src", "f"]);
    bench.good(&["backup", "create", "data", "dest"]);
    // A place that is none is found out before anything is changed.
    let wrong = ["rotate", "cmek", "data", "--new-cmek", &new, "--backups", "nowhere"];
    assert_eq!(bench.run(&wrong).code, 7);
    bench.good(&["verify", "data"]);
    let rotated = bench.json(&["rotate", "cmek", "data", "--new-cmek", &new, "--backups", "dest"]);
    assert_eq!(
        rotated["backups"],
        serde_json::json!([{ "destination": "dest", "needs_old_key": true }])
    );
    let told = rotated["warnings"][0].as_str().unwrap();
    assert!(told.contains("dest still need") && told.contains(&old), "{told}");
    // The backups themselves need no others.
    let rotated = bench.json(&["cmek", "rotate", "dest", "--new-cmek", &third]);
    assert_eq!(rotated.get("warnings"), None, "{rotated}");
    let rotated = bench.json(&[
        "cmek",
        "rotate",
        "data",
        "--cmek",
        &new,
        "--new-cmek",
        &third,
        "--backups",
        "dest",
    ]);
    assert_eq!(rotated["backups"][0]["needs_old_key"], false);
    assert_eq!(rotated.get("warnings"), None, "{rotated}");
    // Without their places they can only be thought of.
    let run = bench.run(&["rotate", "cmek", "data", "--cmek", &third, "--new-cmek", &new]);
    assert!(run.code == 0 && run.stderr.contains("backups made under"), "{}", run.stderr);
    bench.good(&["backup", "restore", "dest", "restored", "--cmek", &third]);
}

/// Whether the backups need the old key, and what was warned of.
fn needs(report: &Value) -> (bool, String) {
    let warned = report.get("warnings").map(|it| it[0].as_str().unwrap().to_owned());
    (report["backups"][0]["needs_old_key"].as_bool().unwrap(), warned.unwrap_or_default())
}

#[test]
fn backups_under_other_words_need_the_old_ones() {
    let bench = Bench::empty();
    let run = |args: &[&str], old: &str, new: &str| -> Value {
        let variables = [
            ("ATREST_CMEK", "passphrase:"),
            ("ATREST_PASSPHRASE", old),
            ("ATREST_NEW_PASSPHRASE", new),
        ];
        let run = bench.run_with(&[args, &["--json"]].concat(), &variables, b"");
        assert_eq!(run.code, 0, "{}", run.stderr);
        serde_json::from_slice(&run.stdout).unwrap()
    };
    run(&["init", "data"], "first words", "");
    run(&["backup", "create", "data", "dest"], "first words", "");
    let rotate = ["rotate", "cmek", "data", "--new-cmek", "passphrase:"];
    let rotate = [&rotate[..], &["--backups", "dest"]].concat();
    let (needs_old, warned) = needs(&run(&rotate, "first words", "second words"));
    assert!(needs_old && warned.contains("dest still need the old passphrase:"), "{warned}");
    let rotate_dest = ["rotate", "cmek", "dest", "--new-cmek", "passphrase:"];
    let rotated = run(&rotate_dest, "first words", "third words");
    assert_eq!(rotated.get("warnings"), None, "{rotated}");
    assert_eq!(needs(&run(&rotate, "second words", "third words")), (false, String::new()));
    let rotated = run(&rotate[..5], "third words", "fourth words");
    let warned = rotated["warnings"][0].as_str().unwrap();
    assert!(warned.contains("backups made under the old passphrase: still"), "{warned}");
}

#[test]
fn backups_under_a_key_file_that_moved_need_it() {
    let mut bench = Bench::new();
    let own = bench.uri("cmek.key");
    let replaced = |bench: &mut Bench, to: &str| {
        std::fs::rename(bench.path("cmek.key"), bench.path(to)).unwrap();
        bench.keygen("cmek.key");
        bench.uri(to)
    };
    bench.good(&["backup", "create", "data", "dest"]);
    let first = replaced(&mut bench, "first.key");
    let rotate = |dir, old| ["rotate", "cmek", dir, "--new-cmek", &own, "--cmek", old];
    let looking = |old| [&rotate("data", old)[..], &["--backups", "dest"]].concat();
    let (needs_old, warned) = needs(&bench.json(&looking(&first)));
    assert!(needs_old && warned.contains("dest still need the old file:"), "{warned}");
    let second = replaced(&mut bench, "second.key");
    bench.good(&rotate("dest", &first));
    let looking = ["cmek", "rotate", "data", "--slot", "default", "--cmek", &second]
        .into_iter()
        .chain(["--new-cmek", &own, "--backups", "dest"]);
    assert_eq!(needs(&bench.json(&looking.collect::<Vec<_>>())), (false, String::new()));
}

#[test]
fn switching_warns_of_backups() {
    let bench = bench();
    let (customer, local) = (bench.uri("cmek.key"), bench.uri("local.key"));
    bench.good(&["backup", "create", "data", "dest"]);
    let wrong = ["cmek", "disable", "data", "--new-cmek", &local, "--backups", "nowhere"];
    assert_eq!(bench.run(&wrong).code, 7);
    let off = bench.json(&["cmek", "disable", "data", "--new-cmek", &local, "--backups", "dest"]);
    let (needs_old, warned) = needs(&off);
    assert!(needs_old && warned.contains(&format!("dest still need {customer}")), "{warned}");
    let enable = ["cmek", "enable", "data", "--cmek", &local, "--new-cmek", &customer];
    let on = bench.json(&enable);
    assert!(on["warnings"][0].as_str().unwrap().contains("backups made under"), "{on}");
    bench.good(&["cmek", "disable", "data", "--new-cmek", &local]);
    let on = bench.json(&[&enable[..], &["--backups", "dest"]].concat());
    assert_eq!(needs(&on), (false, String::new()));
}

#[test]
fn a_credential_that_ends_soon_is_warned_of() {
    let bench = Bench::empty();
    let uri = "aws-kms://alias/k?region=eu-central-1&endpoint=http://127.0.0.1:1";
    std::fs::create_dir(bench.path("data")).unwrap();
    drop(Store::create(bench.path("data"), Named::new(uri), Options::default()).unwrap());
    let run = |args: &[&str], minutes: u64| {
        let mut date = std::process::Command::new("date");
        date.args(["-u", &format!("-d{minutes} minutes"), "+%Y-%m-%dT%H:%M:%SZ"]);
        let ends = String::from_utf8(date.output().unwrap().stdout).unwrap();
        let variables = [
            ("ATREST_CMEK", uri),
            ("AWS_ACCESS_KEY_ID", "A"),
            ("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-tests"),
            ("AWS_CREDENTIAL_EXPIRATION", ends.trim()),
        ];
        let run = bench.run_with(args, &variables, b"");
        assert_eq!(run.code, 0, "{}", run.stderr);
        run
    };
    let status = ["cmek", "status", "data", "--kms-timeout", "1s"];
    let json = [&status[..], &["--json"]].concat();
    for (minutes, warns) in [(30, false), (19, true), (0, true)] {
        let told = run(&status, minutes).stderr;
        assert_eq!(told.contains(&format!("the credential for {uri} ends in")), warns, "{told}");
        let report: Value = serde_json::from_slice(&run(&json, minutes).stdout).unwrap();
        let expires_s = report["keys"][0]["credential_expires_s"].as_u64().unwrap();
        assert!(expires_s <= 60 * minutes && expires_s + 60 >= 60 * minutes, "{report}");
        let warned = report.get("warnings").is_some_and(|it| it[0].as_str().unwrap().contains(uri));
        assert_eq!(warned, warns, "{report}");
    }
}
