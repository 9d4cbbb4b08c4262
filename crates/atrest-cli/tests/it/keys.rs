//! `atrest keys` and `atrest reencrypt`.

use serde_json::Value;

use crate::support::Bench;

fn fields(value: &Value) -> Vec<&str> {
    let mut fields: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    fields
}

#[test]
fn an_old_key_is_rewritten_retired_and_proven_gone() {
    let bench = Bench::new();
    bench.write("src", &[7; 100_000]);
    bench.good(&["encrypt", "data", "src", "f"]);
    bench.good(&["rotate", "data-key", "data"]);
    let keys = bench.json(&["keys", "list", "data"]);
    assert_eq!(
        fields(&keys),
        [
            "foreign",
            "keys",
            "lost_found",
            "nested_stores",
            "plaintext",
            "temporary",
            "torn",
            "unknown_keys",
            "unreadable"
        ]
    );
    let old = keys["keys"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&keys["keys"][0]["files"], &keys["keys"][0]["state"]),
        (&1.into(), &"decrypt-only".into())
    );
    let retired = bench.json(&["keys", "retire", "data"]);
    assert_eq!(retired["keys"][0]["outcome"], "in-use");
    assert_eq!(bench.json(&["reencrypt", "data", "--older-than", "90d"])["files"], 0);
    let done = bench.json(&["reencrypt", "data", "--all", "--rate", "200MiB/s"]);
    let expected = "bytes cancelled failed files leftovers_removed lost_found merged nested_stores \
         skipped torn";
    assert_eq!(fields(&done), expected.split(' ').collect::<Vec<_>>());
    assert_eq!((&done["files"], &done["bytes"]), (&1.into(), &100_000.into()));
    assert_eq!(bench.json(&["keys", "proof", "data"])["proofs"], Value::Array(Vec::new()));
    assert_eq!(fields(&bench.retire()), ["keys", "lost_found", "nested_stores"]);
    let proofs = bench.json(&["keys", "proof", "data", "--key", &old]);
    let proof = &proofs["proofs"][0];
    assert_eq!((&proof["id"], &proof["files_read"]), (&old.as_str().into(), &1.into()));
    // The command's clean end counts all it encrypted, the re-encryption's too.
    assert_eq!(proof["encrypted_bytes"], 100_000);
    assert!(proof["destroyed_ns"].is_u64());
    let text = String::from_utf8(bench.good(&["keys", "proof", "data"])).unwrap();
    assert!(text.contains(&old) && text.contains("the headers of 1 file"), "{text}");
    assert_eq!(bench.good(&["decrypt", "data", "f", "-o", "-"]), [7; 100_000]);
    let text = String::from_utf8(bench.good(&["status", "data"])).unwrap();
    assert!(text.contains("rewritten in") && text.contains("destroyed"), "{text}");
}

#[test]
fn a_key_that_an_older_image_still_has_is_not_proven_to_be_gone() {
    let bench = Bench::new();
    bench.good(&["rotate", "data-key", "data"]);
    let image = bench.read("data/KEYRING");
    let kept = format!("KEYRING.{}", bench.json(&["status", "data"])["generation"]);
    bench.retire();
    bench.good(&["keys", "proof", "data"]);
    // As if it could not be removed.
    bench.write(&format!("data/{kept}"), &image);
    let refused = bench.bad(6, "corrupt-header", &["keys", "proof", "data"]);
    assert!(refused.stderr.contains(&kept), "{}", refused.stderr);
    let doctor = bench.run(&["doctor", "data"]);
    let told = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.code == 1 && told.contains(&format!("{kept} may hold keys")), "{told}");
    bench.good(&["keys", "retire", "data"]);
    bench.good(&["keys", "proof", "data"]);
    bench.good(&["doctor", "data"]);
}

#[test]
fn no_key_is_destroyed_while_a_mirror_keeps_it() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("mirror")).unwrap();
    bench.good(&["rotate", "data-key", "data", "--mirror", "mirror"]);
    let shred = ["keys", "shred", "data", "--keyspace", "red", "--confirm", "red"];
    bench.good(&["keys", "add-keyspace", "data", "red"]);
    let refused = bench.bad(2, "invalid-argument", &shred);
    assert!(refused.stderr.contains("mirror"), "{}", refused.stderr);
    bench.good(&[&shred[..], &["--mirror", "mirror"]].concat());
    assert_eq!(bench.read("mirror/KEYRING"), bench.read("data/KEYRING"));
    let refused = bench.bad(2, "invalid-argument", &["keys", "proof", "data"]);
    assert!(refused.stderr.contains("--mirror"), "{}", refused.stderr);
    bench.good(&["keys", "proof", "data", "--mirror", "mirror"]);
    let doctor = bench.run(&["doctor", "data"]);
    let told = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.code == 1 && told.contains("mirror"), "{told}");
    bench.good(&["doctor", "data", "--mirror", "mirror"]);
}

#[test]
fn a_new_store_is_mirrored_from_its_first_keyring_on() {
    let bench = Bench::new();
    let own = bench.uri("cmek.key");
    for dir in ["mirror of new", "mirror of old", "old"] {
        std::fs::create_dir(bench.path(dir)).unwrap();
    }
    bench.write("old/table.sst", b"from before");
    let enable = ["cmek", "enable", "old", "--new-cmek", &own];
    for (create, dir) in [(&["init", "new"][..], "new"), (&enable, "old")] {
        let with = |mirror| [create, &["--mirror", mirror]].concat();
        bench.bad(7, "io-not-found", &with("nowhere"));
        let refused = bench.bad(2, "invalid-argument", &with("s3://bucket/mirror"));
        assert!(refused.stderr.contains("found a URI"), "{}", refused.stderr);
        assert!(!bench.path(dir).join("KEYRING").exists());
        // What init made it took back.
        assert_eq!(bench.path(dir).exists(), dir == "old");
        let mirror = format!("mirror of {dir}");
        bench.good(&with(&mirror));
        let image = |dir: &str| bench.read(&format!("{dir}/KEYRING"));
        assert_eq!(image(&mirror), image(dir));
        // The store itself tells of it.
        let refused = bench.bad(2, "invalid-argument", &["rotate", "store-key", dir]);
        assert!(refused.stderr.contains("mirror"), "{}", refused.stderr);
        bench.good(&["rotate", "store-key", dir, "--mirror", &mirror]);
        assert_eq!(image(&mirror), image(dir));
    }
}

#[test]
fn suites_and_plaintext() {
    let bench = Bench::empty();
    bench.command(&["keygen", "cmek.key"]).status().unwrap();
    bench.good(&["init", "data", "--allow-plaintext"]);
    bench.write("data/MANIFEST-1", b"plain");
    assert_eq!(bench.json(&["reencrypt", "data", "--all"])["files"], 0);
    assert_eq!(bench.json(&["reencrypt", "data", "--plaintext"])["files"], 1);
    assert_eq!(bench.json(&["inspect", "data/MANIFEST-1"])["kind"], "manifest");
    assert_eq!(bench.json(&["reencrypt", "data", "--authenticated"])["files"], 1);
    assert_eq!(bench.json(&["inspect", "data/MANIFEST-1"])["suite_number"], 3);
    let back = bench.json(&["reencrypt", "data", "--danger-to-plaintext"]);
    assert_eq!((&back["files"], bench.read("data/MANIFEST-1")), (&1.into(), b"plain".to_vec()));
}

#[test]
fn shredding_has_to_be_meant() {
    let bench = Bench::new();
    assert_eq!(bench.json(&["keys", "add-keyspace", "data", "red"])["keyspace"], "red");
    let wrong = bench.run(&["keys", "shred", "data", "--keyspace", "red", "--confirm", "blue"]);
    assert_eq!(wrong.code, 2);
    let shred = bench.json(&["keys", "shred", "data", "--keyspace", "red", "--confirm", "red"]);
    assert_eq!(shred["shredded"], "red");
    assert_eq!(bench.run(&["keys", "shred", "data", "--confirm", "red"]).code, 2);
    let id = bench.json(&["status", "data"])["store_id"].as_str().unwrap().to_owned();
    let other = "0123456789abcdef0123456789abcdef";
    assert_eq!(bench.run(&["keys", "shred", "data", "--store", "--confirm", other]).code, 5);
    bench.good(&["keys", "shred", "data", "--store", "--confirm", &id]);
    let states = bench.json(&["keys", "list", "data"]);
    assert!(states["keys"].as_array().unwrap().iter().all(|key| key["state"] == "destroyed"));
}

#[test]
fn a_hold_keeps_a_key_until_it_is_released() {
    let bench = Bench::new();
    let old = bench.json(&["keys", "list", "data"])["keys"][0]["id"].as_str().unwrap().to_owned();
    bench.good(&["rotate", "data-key", "data"]);
    assert_eq!(bench.json(&["keys", "holds", "data"])["holds"], Value::Array(Vec::new()));
    let hold = bench.json(&["keys", "hold", "data", &old, "--name", "tape 7"]);
    assert_eq!(fields(&hold["hold"]), ["created_ns", "keys", "name"]);
    assert_eq!(hold["hold"]["keys"], serde_json::json!([old]));
    assert_eq!(bench.json(&["keys", "holds", "data"])["holds"][0], hold["hold"]);
    let retired = bench.json(&["keys", "retire", "data"]);
    assert_eq!(retired["keys"][0]["outcome"], "held");
    assert_eq!(retired["keys"][0]["by"], serde_json::json!(["tape 7"]));
    let text = String::from_utf8(bench.good(&["keys", "holds", "data"])).unwrap();
    assert!(text.contains("tape 7") && text.contains(&old), "{text}");
    let other = "0123456789abcdef0123456789abcdef";
    bench.bad(7, "unknown-key", &["keys", "hold", "data", other, "--name", "x"]);
    bench.bad(2, "invalid-argument", &["keys", "hold", "data", &old, "--name", ""]);
    bench.bad(2, "invalid-argument", &["keys", "release", "data", "tape 8"]);
    assert_eq!(bench.json(&["keys", "release", "data", "tape 7"])["released"], "tape 7");
    let retired = bench.json(&["keys", "retire", "data"]);
    assert_eq!(retired["keys"][0]["outcome"], "retiring");
}

#[test]
fn a_directory_that_is_gone_is_forgotten() {
    let bench = Bench::new();
    bench.good(&["rotate", "data-key", "data"]);
    let other = bench.path("other");
    std::fs::create_dir(&other).unwrap();
    let other = other.canonicalize().unwrap();
    let kms = atrest::kms::from_uri(&bench.uri("cmek.key")).unwrap();
    let storage = atrest::keyring::DirectoryStorage::new(bench.path("data"));
    let keyring = atrest::Keyring::open(storage, kms, atrest::Options::default()).unwrap();
    atrest::Store::over(keyring.clone()).unwrap().directories().register(&other).unwrap();
    drop(keyring);
    let other_name = other.to_str().unwrap();
    let listed = || bench.json(&["keys", "directories", "data"])["directories"].clone();
    let entry = |value: &Value, registered: bool| {
        let found = value.as_array().unwrap().iter().find(|d| d["registered"] == registered);
        found.cloned()
    };
    assert_eq!(fields(&listed()[0]), ["exists", "path", "registered"]);
    let there = entry(&listed(), true).unwrap();
    assert_eq!((&there["path"], &there["exists"]), (&other_name.into(), &true.into()));
    bench.bad(2, "invalid-argument", &["keys", "forget-directory", "data", other_name]);
    std::fs::remove_dir_all(&other).unwrap();
    assert_eq!(entry(&listed(), true).unwrap()["exists"], false);
    // Nobody knows what was in it: no key is retired.
    assert_ne!(bench.run(&["keys", "retire", "data"]).code, 0);
    bench.bad(2, "invalid-argument", &["keys", "forget-directory", "data", "/no/such/directory"]);
    let forgotten = bench.json(&["keys", "forget-directory", "data", other_name]);
    assert_eq!(forgotten["forgotten"], other_name);
    assert!(entry(&listed(), true).is_none() && entry(&listed(), false).is_some());
    bench.good(&["keys", "retire", "data"]);
}

#[test]
fn files_in_other_directories_count_when_an_image_is_chosen() {
    let bench = Bench::new();
    let other = bench.path("other");
    std::fs::create_dir(&other).unwrap();
    let open = || {
        let kms = atrest::kms::from_uri(&bench.uri("cmek.key")).unwrap();
        atrest::Store::open(bench.path("data"), kms, atrest::Options::default()).unwrap()
    };
    let store = open();
    store.directories().register(&other).unwrap();
    store.close().unwrap();
    bench.good(&["rotate", "data-key", "data"]);
    let store = open();
    let mut file = store.files().create_new(other.join("f"), atrest::FileKind::Table).unwrap();
    file.append(&[7; 1000]).unwrap();
    file.finish().unwrap();
    store.close().unwrap();
    let newest = bench.json(&["keys", "list", "data"])["keys"][1]["id"].clone();

    let status = bench.json(&["status", "data"]);
    assert_eq!(status["files"]["encrypted"]["files"], 1);
    assert_eq!(status["data_keys"][1]["files"], 1);
    let images = |report: Value| report["images"].as_array().unwrap().clone();
    let shown = images(bench.json(&["recover", "data"]));
    let has_newest = |image: &Value| image["data_keys"].as_array().unwrap().contains(&newest);
    let counted = |image: &Value| (image["files"].as_u64(), image["files_lost"].as_u64());
    assert!(!has_newest(shown.last().unwrap()), "an image from before the rotation");
    for image in &shown {
        let has_it = u64::from(has_newest(image));
        assert_eq!(counted(image), (Some(has_it), Some(1 - has_it)), "{image}");
    }
    // What cannot be looked at is not said to open.
    let text = || String::from_utf8(bench.good(&["recover", "data"])).unwrap();
    assert!(text().contains("opens all\n"), "{}", text());
    std::fs::rename(&other, bench.path("away")).unwrap();
    assert!(!text().contains("opens all\n"), "{}", text());
    let run = bench.run(&["recover", "data"]);
    assert!(run.stderr.contains("other"), "{}", run.stderr);
    assert!(bench.run(&["status", "data"]).stderr.contains("other"));
}

#[test]
fn a_directory_is_taken_over_by_a_store_that_moved_and_forgotten_by_a_copy() {
    let bench = Bench::new();
    let other = bench.path("other");
    std::fs::create_dir(&other).unwrap();
    let other = other.canonicalize().unwrap();
    let kms = atrest::kms::from_uri(&bench.uri("cmek.key")).unwrap();
    let store = atrest::Store::open(bench.path("data"), kms, atrest::Options::default()).unwrap();
    store.directories().register(&other).unwrap();
    store.close().unwrap();
    let other_name = other.to_str().unwrap();
    std::fs::rename(bench.path("data"), bench.path("moved")).unwrap();
    std::fs::create_dir(bench.path("data")).unwrap();
    for entry in std::fs::read_dir(bench.path("moved")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), bench.path("data").join(entry.file_name())).unwrap();
    }
    for dir in ["moved", "data"] {
        for args in [&["keys", "retire", dir][..], &["reencrypt", dir, "--all"]] {
            let refused = bench.bad(5, "identity-mismatch", args);
            assert!(refused.stderr.contains("keys take-directory"), "{}", refused.stderr);
        }
        let doctor = String::from_utf8(bench.run(&["doctor", dir]).stdout).unwrap();
        assert!(doctor.contains("registered from where it is"), "{doctor}");
    }
    let taken = bench.json(&["keys", "take-directory", "moved", other_name]);
    assert_eq!((fields(&taken), &taken["taken"]), (vec!["taken"], &other_name.into()));
    bench.good(&["keys", "retire", "moved"]);
    // Of a directory that is not its own a store counts nothing.
    assert_eq!(bench.json(&["status", "moved"])["files"]["encrypted"]["files"], 0);
    bench.bad(2, "invalid-argument", &["keys", "forget-directory", "moved", other_name]);
    bench.good(&["keys", "forget-directory", "data", other_name]);
    bench.good(&["keys", "retire", "data"]);
    bench.good(&["keys", "retire", "moved"]);
}

#[test]
fn a_file_goes_under_the_keys_of_its_keyspace() {
    let bench = Bench::new();
    bench.write("src", b"red");
    bench.bad(7, "unknown-key", &["encrypt", "data", "src", "f", "--keyspace", "red"]);
    bench.good(&["keys", "add-keyspace", "data", "red"]);
    let spaces = bench.json(&["keys", "keyspaces", "data"]);
    assert_eq!(fields(&spaces["keyspaces"][1]), ["active", "id", "name"]);
    assert_eq!(spaces["keyspaces"][1]["name"], "red");
    let file = bench.json(&["encrypt", "data", "src", "f", "--keyspace", "red"]);
    assert_eq!(file["data_key_id"], spaces["keyspaces"][1]["active"]);
    bench.good(&["encrypt", "data", "src", "g"]);
    bench.good(&["keys", "shred", "data", "--keyspace", "red", "--confirm", "red"]);
    let gone = bench.bad(7, "key-destroyed", &["decrypt", "data", "f", "-o", "-"]);
    assert!(gone.stderr.contains("advice: delete the file"), "{}", gone.stderr);
    let doctor = bench.run(&["doctor", "data"]);
    let said = String::from_utf8(doctor.stdout).unwrap();
    assert!(said.contains("was destroyed") && said.contains("delete it: its data key"), "{said}");
    assert_eq!(bench.good(&["decrypt", "data", "g", "-o", "-"]), b"red");
    assert_eq!(bench.json(&["keys", "keyspaces", "data"])["keyspaces"][1]["active"], Value::Null);
    bench.bad(7, "key-destroyed", &["encrypt", "data", "src", "h", "--keyspace", "red"]);
}

#[test]
fn a_keyring_put_back_is_told_and_touched_by_no_command() {
    let bench = Bench::new();
    let current = bench.path("data/KEYRING");
    let first = std::fs::read(&current).unwrap();
    for _ in 0..3 {
        bench.good(&["rotate", "data-key", "data"]);
    }
    bench.write("src", b"words");
    bench.good(&["encrypt", "data", "src", "f"]);
    let newest = std::fs::read_dir(bench.path("data")).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_prefix("KEYRING.")?.parse::<u64>().ok()
    });
    let newest = newest.max().unwrap();
    std::fs::write(&current, &first).unwrap();
    for args in [
        &["rotate", "data-key", "data"][..],
        &["rotate", "store-key", "data"],
        &["encrypt", "data", "src", "g"],
        &["keys", "retire", "data"],
    ] {
        let refused = bench.run(args);
        assert_eq!(refused.code, 5, "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("atrest recover"), "{}", refused.stderr);
    }
    let doctor = bench.run(&["doctor", "data"]);
    let named = format!("KEYRING.{newest}");
    let told = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.code == 1 && told.contains(&named), "{told}");
    let status = bench.json(&["status", "data"]);
    let newer = status["newer_images"].as_array().unwrap();
    assert!(newer.contains(&newest.into()), "{newer:?}");
    bench.good(&["recover", "data", "--generation", &newest.to_string()]);
    bench.good(&["decrypt", "data", "f", "-o", "out"]);
    // What was put aside may hold what is destroyed later.
    bench.bad(6, "corrupt-header", &["keys", "proof", "data"]);
    let forget = ["recover", "data", "--forget-aside"];
    let text = String::from_utf8(bench.good(&forget)).unwrap();
    assert!(text.contains("Deleted what recoveries put aside: KEYRING.bad-"), "{text}");
    assert!(!text.contains("Nothing was changed"), "{text}");
    bench.good(&["keys", "proof", "data"]);
    bench.write("data/KEYRING.bad-1", b"");
    assert_eq!(bench.json(&forget)["forgotten"], serde_json::json!(["KEYRING.bad-1"]));
    assert_eq!(bench.json(&forget)["forgotten"], serde_json::json!([]));
    let text = String::from_utf8(bench.good(&forget)).unwrap();
    assert!(text.contains("Nothing was changed"), "{text}");
}

#[test]
fn a_pinned_store_is_the_only_one_that_opens() {
    let bench = Bench::new();
    bench.good(&["init", "other"]);
    let id = |dir: &str| bench.json(&["status", dir])["store_id"].as_str().unwrap().to_owned();
    let anchor = bench.json(&["status", "data"])["anchor"].clone();
    let (ours, theirs) = (id("data"), id("other"));
    bench.good(&["rotate", "data-key", "data", "--store-id", &ours]);
    bench.good(&["audit", "data", "--anchor", anchor.as_str().unwrap_or_default()]);
    for command in [&["rotate", "data-key", "data"][..], &["audit", "data"], &["verify", "data"]] {
        bench.bad(5, "identity-mismatch", &[command, &["--store-id", &theirs]].concat());
    }
}
