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
        ["foreign", "keys", "plaintext", "torn", "unknown_keys", "unreadable"]
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
    assert_eq!(fields(&done), ["bytes", "failed", "files", "leftovers_removed", "skipped"]);
    assert_eq!((&done["files"], &done["bytes"]), (&1.into(), &100_000.into()));
    let retired = bench.json(&["keys", "retire", "data", "--grace", "1s"]);
    assert_eq!(retired["keys"][0]["outcome"], "retiring");
    let until_ns = retired["keys"][0]["until_ns"].as_u64().unwrap();
    assert_eq!(bench.json(&["keys", "proof", "data"])["proofs"], Value::Array(Vec::new()));
    // The time of grace, by the clock that the command uses.
    let now_ns = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(now.as_nanos()).unwrap()
    };
    while now_ns() <= until_ns {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let retired = bench.json(&["keys", "retire", "data"]);
    assert_eq!(retired["keys"][0]["outcome"], "destroyed");
    let proofs = bench.json(&["keys", "proof", "data", "--key", &old]);
    let proof = &proofs["proofs"][0];
    assert_eq!((&proof["id"], &proof["files_read"]), (&old.as_str().into(), &1.into()));
    // The command's clean end counts all it encrypted, the re-encryption's too.
    assert_eq!(proof["encrypted_bytes"], 100_000);
    assert_eq!(proof["encrypted_bytes_bound"], "at-least");
    assert!(proof["destroyed_ns"].is_u64());
    let text = String::from_utf8(bench.good(&["keys", "proof", "data"])).unwrap();
    assert!(text.contains(&old) && text.contains("None of 1 file"), "{text}");
    assert_eq!(bench.good(&["decrypt", "data", "f", "-o", "-"]), [7; 100_000]);
    let text = String::from_utf8(bench.good(&["status", "data"])).unwrap();
    assert!(text.contains("rewritten in") && text.contains("destroyed"), "{text}");
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
