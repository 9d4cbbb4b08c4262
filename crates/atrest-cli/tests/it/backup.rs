//! Backups, restores, verification and recovery from the command line.

use std::fs;

use serde_json::Value;

use crate::support::Bench;

fn filled() -> Bench {
    let bench = Bench::new();
    for (name, len) in [("a", 10), ("b", 100_000), ("sub/c", 5)] {
        bench.write("src", &vec![len as u8; len]);
        fs::create_dir_all(bench.path("data/sub")).unwrap();
        bench.good(&["encrypt", "data", "src", name]);
    }
    bench
}

#[test]
fn a_store_goes_to_a_backup_and_back() {
    let mut bench = filled();
    let made = bench.json(&["backup", "create", "data", "dest"]);
    assert_eq!((&made["number"], &made["full"]), (&1.into(), &true.into()));
    assert_eq!((&made["files"], &made["bytes"]), (&3.into(), &100_015.into()));
    bench.good(&["rotate", "data-key", "data"]);
    bench.good(&["encrypt", "data", "src", "d"]);
    let added = bench.json(&["backup", "incremental", "data", "dest"]);
    assert_eq!((&added["number"], &added["copied_files"]), (&2.into(), &1.into()));
    let listed = bench.json(&["backup", "list", "dest"]);
    assert_eq!(listed["backups"].as_array().unwrap().len(), 2);
    assert_eq!(listed["backups"][1]["manifest_sha256"], added["manifest_sha256"]);
    let verified = bench.json(&["backup", "verify", "dest"]);
    assert_eq!((&verified["good"], &verified["files"]), (&true.into(), &4.into()));
    // People see them too.
    for (args, expected) in [
        (vec!["backup", "list", "dest"], "incremental"),
        (vec!["backup", "verify", "dest"], "2 backups, 4 copied files"),
        (vec!["verify", "data"], "header proven"),
        (vec!["recover", "data"], "Nothing was changed"),
    ] {
        let text = String::from_utf8(bench.good(&args)).unwrap();
        assert!(text.contains(expected), "{text}");
    }
    // Under another key, without the store.
    fs::remove_dir_all(bench.path("data")).unwrap();
    bench.keygen("new.key");
    let new = bench.uri("new.key");
    let restored = bench.json(&["backup", "restore", "dest", "again", "--new-cmek", &new]);
    assert_eq!((&restored["number"], &restored["files"]), (&2.into(), &4.into()));
    for name in ["a", "b", "sub/c", "d"] {
        bench.good(&["decrypt", "again", name, "-o", "out", "--force", "--cmek", &new]);
    }
    bench.bad(5, "kms-integrity", &["decrypt", "again", "a"]);
    let first = bench.json(&["backup", "restore", "dest", "first", "--number", "1"]);
    assert_eq!(first["files"], 3);
    bench.good(&["decrypt", "first", "b", "-o", "out", "--force"]);
    assert_eq!(bench.read("out"), vec![160; 100_000]);
    // A directory of backups is an ordinary keyring: another customer's key takes over.
    bench.good(&["rotate", "cmek", "dest", "--new-cmek", &new]);
    bench.bad(5, "kms-integrity", &["backup", "list", "dest"]);
    bench.good(&["backup", "list", "dest", "--cmek", &new]);
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let bench = filled();
    let store = image_of(&bench, "data");
    bench.bad(7, "io-not-found", &["backup", "create", "nowhere", "dest"]);
    assert!(!bench.path("dest").exists());
    bench.bad(7, "io-not-found", &["backup", "incremental", "data", "dest"]);
    bench.bad(7, "io-not-found", &["backup", "list", "dest"]);
    bench.bad(2, "invalid-argument", &["backup", "create", "data", "data/sub/dest"]);
    assert!(!bench.path("data/sub/dest").exists());
    bench.good(&["init", "other"]);
    bench.bad(11, "io", &["backup", "create", "data", "other"]);
    bench.bad(6, "broken-backup", &["backup", "list", "other"]);
    bench.good(&["backup", "create", "data", "dest"]);
    bench.bad(8, "io-already-exists", &["backup", "create", "data", "dest"]);
    bench.bad(5, "identity-mismatch", &["backup", "incremental", "other", "dest"]);
    bench.bad(8, "keyring-exists", &["backup", "restore", "dest", "other"]);
    bench.bad(2, "invalid-argument", &["backup", "restore", "dest", "new", "--number", "7"]);
    assert_eq!(image_of(&bench, "data"), store);
}

/// The store's own files; a lock file comes and goes.
fn image_of(bench: &Bench, dir: &str) -> Vec<(String, Vec<u8>)> {
    let dir = bench.path(dir);
    let names = crate::support::names(&dir).into_iter().filter(|name| dir.join(name).is_file());
    names.map(|name| (name.clone(), fs::read(dir.join(name)).unwrap())).collect()
}

#[test]
fn damage_is_found_and_has_its_exit_code() {
    let bench = filled();
    bench.good(&["backup", "create", "data", "dest"]);
    let name = &bench.names("dest/files")[0];
    let path = bench.path("dest/files").join(name);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&path, &bad).unwrap();
    let run = bench.run(&["backup", "verify", "dest", "--json"]);
    assert_eq!(run.code, 5, "{}", run.stderr);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report["good"], false);
    assert_eq!(report["problems"].as_array().unwrap().len(), 1);
    let error: Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "authentication");
    fs::remove_file(&path).unwrap();
    let run = bench.run(&["backup", "verify", "dest"]);
    assert_eq!(run.code, 6, "{}", run.stderr);
    assert!(run.stderr.contains("missing") && run.stderr.contains("advice: "));
    bench.bad(6, "broken-backup", &["backup", "restore", "dest", "new"]);
    assert!(!bench.path("new/KEYRING").exists());
    bench.bad(7, "keyring-missing", &["status", "new"]);
    // The restore goes on when the file is back.
    fs::write(&path, &good).unwrap();
    bench.good(&["backup", "restore", "dest", "new"]);
    bench.good(&["verify", "new"]);
    // A damaged file of the store.
    let mut bytes = fs::read(bench.path("new/a")).unwrap();
    bytes[130] ^= 1;
    fs::write(bench.path("new/a"), bytes).unwrap();
    let run = bench.run(&["verify", "new", "--json"]);
    assert_eq!(run.code, 6, "{}", run.stderr);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report["problems"].as_array().unwrap().len(), 1);
}

#[test]
fn a_place_inside_of_the_store_is_refused_and_left_as_it_was() {
    let bench = filled();
    fs::create_dir(bench.path("data/wal")).unwrap();
    bench.bad(2, "invalid-argument", &["backup", "create", "data", "data/wal"]);
    assert!(bench.path("data/wal").is_dir());
    bench.bad(2, "invalid-argument", &["backup", "create", "data", "data/wal/new/place"]);
    assert_eq!(bench.names("data/wal"), [""; 0]);
}

#[test]
fn a_lost_keyring_is_recovered_by_choice() {
    let bench = filled();
    bench.good(&["rotate", "data-key", "data"]);
    bench.good(&["rotate", "data-key", "data"]);
    let kept = bench.json(&["status", "data"])["generation"].as_u64().unwrap() - 1;
    let generation = &*kept.to_string();
    bench.bad(8, "keyring-exists", &["recover", "data", "--generation", generation]);
    fs::remove_file(bench.path("data/KEYRING")).unwrap();
    bench.bad(7, "keyring-missing", &["decrypt", "data", "a"]);
    let before = image_of(&bench, "data");
    let shown = bench.json(&["recover", "data"]);
    assert_eq!(shown["recovered"], Value::Null);
    let images = shown["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!((&images[0]["files"], &images[0]["files_lost"]), (&3.into(), &0.into()));
    assert_eq!(image_of(&bench, "data"), before);
    bench.bad(7, "keyring-missing", &["recover", "data", "--generation", "99"]);
    let done = bench.json(&["recover", "data", "--generation", generation]);
    assert_eq!(done["recovered"]["generation"], kept);
    bench.good(&["verify", "data"]);
    bench.good(&["encrypt", "data", "src", "e"]);
    fs::create_dir(bench.path("void")).unwrap();
    bench.bad(7, "keyring-missing", &["recover", "void"]);
}

#[test]
fn the_doctor_finds_what_is_wrong_and_changes_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let bench = filled();
    let healthy = bench.json(&["doctor", "data"]);
    assert_eq!(healthy["healthy"], true, "{healthy}");
    let findings = |args: &[&str]| -> (i32, Vec<(String, String)>) {
        let run = bench.run(&[args, &["--json"]].concat());
        let report: Value = serde_json::from_slice(&run.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap().iter().filter(|finding| {
            assert_eq!(finding["advice"].is_null(), finding["level"] == "good");
            finding["level"] != "good"
        });
        let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
        (run.code, findings.map(|it| (text(it, "check"), text(it, "what"))).collect())
    };
    let has = |found: &[(String, String)], check: &str, what: &str| {
        assert!(
            found.iter().any(|(c, w)| c == check && w.contains(what)),
            "{check} {what}: {found:?}"
        );
    };
    fs::write(bench.path("data/KEYRING.new"), b"").unwrap();
    fs::create_dir(bench.path("data/KEYRING.staging.dead")).unwrap();
    fs::write(bench.path("data/.atrest-partial-x"), b"").unwrap();
    fs::write(bench.path("data/note"), b"in plain sight").unwrap();
    bench.good(&["init", "other"]);
    bench.good(&["encrypt", "other", "src", "x"]);
    fs::copy(bench.path("other/x"), bench.path("data/x")).unwrap();
    let keyring = bench.path("data/KEYRING");
    fs::set_permissions(&keyring, fs::Permissions::from_mode(0o644)).unwrap();
    let before = image_of(&bench, "data");
    let (code, found) = findings(&["doctor", "data"]);
    assert_eq!(code, 1);
    has(&found, "leftover", "KEYRING.new");
    has(&found, "leftover", "KEYRING.staging.dead");
    has(&found, "leftover", ".atrest-partial-x");
    has(&found, "modes", "mode 644");
    has(&found, "files", "1 plaintext file, which every reader refuses");
    has(&found, "files", "expected a file of store");
    assert_eq!(image_of(&bench, "data"), before);
    // A damaged keyring; and one that nothing is left of.
    let mut bytes = fs::read(&keyring).unwrap();
    bytes[200] ^= 1;
    fs::write(&keyring, bytes).unwrap();
    has(&findings(&["doctor", "data"]).1, "keyring", "checksum");
    has(&findings(&["doctor", "data"]).1, "files", "plaintext");
    fs::create_dir(bench.path("void")).unwrap();
    has(&findings(&["doctor", "void"]).1, "keyring", "no keyring");
    assert_eq!(bench.names("void"), Vec::<String>::new());
    bench.bad(7, "io-not-found", &["doctor", "nowhere"]);
    // A wrong key.
    fs::write(bench.path("wrong.key"), [7; 64]).unwrap();
    let wrong = bench.uri("wrong.key");
    has(&findings(&["doctor", "other", "--cmek", &wrong]).1, "keys", "not usable");
    let text = bench.run(&["doctor", "other"]);
    assert_eq!(text.code, 0, "{}", text.stderr);
}

#[test]
fn a_backup_that_lacks_something_has_an_exit_code_of_its_own() {
    let bench = filled();
    fs::rename(bench.path("data/a"), bench.path("moved")).unwrap();
    std::os::unix::fs::symlink(bench.path("moved"), bench.path("data/a")).unwrap();
    let run = bench.run(&["backup", "create", "data", "dest", "--json"]);
    assert_eq!(run.code, 13, "{}", run.stderr);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(
        (&report["lacks"][0]["path"], &report["lacks"][0]["why"]),
        (&"a".into(), &"link".into())
    );
    let run = bench.run(&["backup", "list", "dest", "--json"]);
    let list: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(list["backups"][0]["lacks"][0]["why"], "link");
    let run = bench.run(&["backup", "restore", "dest", "new", "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report["lacks"][0]["why"], "link");
}
