//! The shapes of what machines read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use crate::support::Bench;

fn fields(value: &Value) -> Vec<&str> {
    let mut fields: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    fields
}

fn assert_fields(value: &Value, expected: &str) {
    let mut expected: Vec<_> = expected.split_whitespace().collect();
    expected.sort_unstable();
    assert_eq!(fields(value), expected, "{value}");
}

fn assert_id(value: &Value) {
    let id = value.as_str().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
}

#[test]
fn keygen_and_init() {
    let bench = Bench::empty();
    let keygen = bench.json(&["keygen", "cmek.key"]);
    assert_fields(&keygen, "path key_uri");
    assert_eq!(keygen["key_uri"], bench.uri("cmek.key"));
    let options = ["--rotation-period", "7d", "--rotation-bytes", "1MiB", "--allow-plaintext"];
    let init = bench.json(&[&["init", "a/b"][..], &options].concat());
    assert_fields(
        &init,
        "directory store_id store_key_id data_key_id key_uri rotation_period_s rotation_bytes
         plaintext integrity plaintext_files",
    );
    assert_eq!(init["rotation_period_s"], 7 * 86_400);
    assert_eq!(init["rotation_bytes"], 1 << 20);
    assert_eq!(init["plaintext"], "allow");
    for id in ["store_id", "store_key_id", "data_key_id"] {
        assert_id(&init[id]);
    }
}

#[test]
fn encrypt_decrypt_and_inspect() {
    let bench = Bench::new();
    bench.write("src", b"twelve bytes");
    let encrypt = bench.json(&["encrypt", "data", "src", "f", "--kind", "log"]);
    assert_fields(&encrypt, "name bytes physical_bytes kind suite data_key_id");
    assert_eq!((&encrypt["bytes"], &encrypt["kind"]), (&12.into(), &"log".into()));
    let decrypt = bench.json(&["decrypt", "data", "f", "-o", "out"]);
    assert_fields(&decrypt, "name bytes suite authenticated output torn");
    assert_eq!(decrypt["suite"], "aes256-ctr");
    assert_eq!(decrypt["authenticated"], false);
    // The data has standard output for itself.
    let run = bench.run(&["decrypt", "data", "f", "--json"]);
    assert_eq!(run.stdout, b"twelve bytes");
    assert_eq!(serde_json::from_str::<Value>(&run.stderr).unwrap()["bytes"], 12);

    const INSPECT: &str = "encrypted version suite kind store_id data_key_id created path bytes
        logical_bytes created_ns file_id suite_number chunk_bytes found";
    let inspect = bench.json(&["inspect", "data/f"]);
    assert_fields(&inspect, INSPECT);
    assert_eq!(inspect["encrypted"], true);
    assert_eq!(inspect["version"], 1);
    assert_eq!(inspect["suite"], "aes256-ctr");
    assert_eq!(inspect["kind"], "log");
    assert_eq!(inspect["data_key_id"], encrypt["data_key_id"]);
    assert_eq!((&inspect["bytes"], &inspect["logical_bytes"]), (&4108.into(), &12.into()));
    assert_id(&inspect["store_id"]);
    let plain = bench.json(&["inspect", "src"]);
    assert_fields(&plain, INSPECT);
    assert_eq!((&plain["encrypted"], &plain["found"]), (&false.into(), &"plaintext".into()));
    assert_eq!(plain["suite"], Value::Null);
    assert_eq!(bench.json(&["inspect", "data/KEYRING"])["found"], "a keyring");
}

#[test]
fn rotations() {
    let mut bench = Bench::new();
    let before = bench.json(&["status", "data"]);
    let data_key = bench.json(&["rotate", "data-key", "data"]);
    assert_fields(&data_key, "rotated old_data_key_id data_key_id generation");
    assert_eq!(data_key["old_data_key_id"], before["data_keys"][0]["id"]);
    assert_eq!(data_key["generation"], 2);
    let store_key = bench.json(&["rotate", "store-key", "data"]);
    assert_fields(
        &store_key,
        "rotated old_store_key_id store_key_id old_data_key_id data_key_id generation",
    );
    assert_eq!(store_key["old_data_key_id"], data_key["data_key_id"]);
    assert_ne!(store_key["old_store_key_id"], store_key["store_key_id"]);
    bench.keygen("new.key");
    let new = bench.uri("new.key");
    let cmek = bench.json(&["rotate", "cmek", "data", "--new-cmek", &new]);
    assert_fields(&cmek, "rotated old_key_uri key_uri generation backups warnings");
    assert_eq!((&cmek["rotated"], &cmek["key_uri"]), (&"cmek".into(), &new.into()));
}

#[test]
fn status_with_and_without_a_key() {
    const STATUS: &str = "directory authenticated store_id store_key_id generation written_ns slots
        newer_images anchor public_slots settings data_keys history files";
    let bench = Bench::new();
    bench.write("src", &[7; 1000]);
    bench.good(&["encrypt", "data", "src", "f"]);
    bench.good(&["rotate", "data-key", "data"]);
    bench.write("data/plain", b"hello");
    bench.write("data/empty", b"");
    bench.write("data/torn", b"\x89ATRF\r\n\x1a\x01");
    std::fs::create_dir(bench.path("data/sub")).unwrap();
    bench.good(&["encrypt", "data", "src", "sub/g"]);

    let status = bench.json(&["status", "data"]);
    assert_fields(&status, STATUS);
    assert_eq!(status["authenticated"], true);
    assert_fields(&status["settings"], "rotation_period_s rotation_bytes plaintext integrity");
    assert_fields(&status["slots"][0], "name key_uri key_version created_ns");
    let keys = status["data_keys"].as_array().unwrap();
    assert_fields(
        &keys[0],
        "id files bytes keyspace state exposed created_ns age_s retired_ns destroyed_ns
         encrypted_bytes rewritten_in_s",
    );
    let summary: Vec<_> =
        keys.iter().map(|k| (k["state"].as_str().unwrap(), &k["files"], &k["bytes"])).collect();
    let one = (&Value::from(1), &Value::from(5096));
    assert_eq!(summary, [("decrypt-only", one.0, one.1), ("active", one.0, one.1)]);
    let files = &status["files"];
    assert_fields(
        files,
        "encrypted plaintext temporary empty problem problems nested_stores lost_found",
    );
    assert_fields(&files["plaintext"], "files bytes");
    assert_eq!(
        (&files["plaintext"]["files"], &files["plaintext"]["bytes"]),
        (&1.into(), &5.into())
    );
    assert_eq!((&files["encrypted"]["files"], &files["empty"]["files"]), (&2.into(), &1.into()));
    assert_fields(&files["problems"][0], "path kind message");
    assert_eq!(files["problems"][0]["kind"], "truncated-header");

    let mut command = bench.command(&["status", "data", "--json"]);
    let output = command.env_remove("ATREST_CMEK").output().unwrap();
    let bare: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_fields(&bare, STATUS);
    assert_eq!(bare["authenticated"], false);
    assert_eq!((&bare["settings"], &bare["history"]), (&Value::Null, &Value::Null));
    assert_eq!(bare["store_id"], status["store_id"]);
    assert_fields(&bare["data_keys"][0], "id files bytes");
    assert_eq!(bare["data_keys"].as_array().unwrap().len(), 2);
}

#[test]
fn wrong_usage_is_told_as_json() {
    let bench = Bench::empty();
    for args in [
        &["--json"][..],
        &["--json", "no-such-command"],
        &["verfy", "data", "--json"],
        &["encrypt", "data", "--json"],
        &["init", "x", "--json", "--rotation-period", "soon"],
        &["keys", "--json"],
    ] {
        let run = bench.run(args);
        assert_eq!((run.code, run.stdout), (2, Vec::new()), "{args:?}");
        let error = &serde_json::from_str::<Value>(&run.stderr).unwrap()["error"];
        assert_fields(error, "kind message path causes advice exit_code");
        assert_eq!((&error["kind"], &error["exit_code"]), (&"usage".into(), &2.into()));
        assert!(!error["message"].as_str().unwrap().is_empty(), "{error}");
        assert!(error["advice"].as_str().unwrap().contains("help"), "{error}");
    }
    let advice = |args: &[&str]| bench.run(args).stderr;
    assert!(advice(&["verfy", "data", "--json"]).contains("'verify'"));
    // Behind `--` it is the name of a file.
    assert!(bench.run(&["inspect", "--", "--json"]).stderr.starts_with("error: "));
}

#[test]
fn warnings_are_a_part_of_the_one_document() {
    let bench = Bench::empty();
    bench.good(&["keygen", "cmek.key"]);
    std::fs::create_dir(bench.path("data")).unwrap();
    bench.write("data/old", b"plain");
    let run = bench.run(&["init", "data", "--json"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let init: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(init["plaintext_files"], 1);
    assert!(init["warnings"][0].as_str().unwrap().contains("1 file is there not encrypted"));
    // With the data on standard output the document is on standard error.
    bench.write("src", &[9; 300_000]);
    bench.good(&["encrypt", "data", "src", "log", "--suite", "aes256-gcm-log"]);
    let whole = bench.read("data/log");
    bench.write("data/log", &whole[..whole.len() - 1]);
    let run = bench.run(&["decrypt", "data", "log", "--json"]);
    assert_eq!(run.code, 13, "{}", run.stderr);
    let decrypt: Value = serde_json::from_str(&run.stderr).unwrap();
    assert_fields(&decrypt, "name bytes suite authenticated output torn error");
    assert_fields(&decrypt["torn"], "path reason kept_bytes lost_bytes");
}

#[test]
fn a_store_is_not_made_where_another_ones_files_lie() {
    let bench = Bench::new();
    bench.write("src", b"words");
    bench.good(&["encrypt", "data", "src", "f"]);
    let remove = |name: &str| std::fs::remove_file(bench.path("data").join(name)).unwrap();
    remove("KEYRING");
    remove("KEYRING.lock");
    // Older images are a way back.
    for args in [&["init", "data"][..], &["status", "data"]] {
        let run = bench.run(args);
        assert!(run.stderr.contains("atrest recover data"), "{}", run.stderr);
    }
    remove("KEYRING.1");
    remove("KEYRING.lock");
    for args in [
        &["init", "data"][..],
        &["init", "data", "--allow-plaintext"],
        &["cmek", "enable", "data", "--new-cmek", &bench.uri("cmek.key")],
    ] {
        let run = bench.bad(8, "keyring-exists", args);
        assert!(run.stderr.contains("1 encrypted file and no keyring"), "{}", run.stderr);
        assert_eq!(bench.names("data"), ["f"]);
    }
}

/// A name need not be UTF-8: no report fails for it.
#[test]
fn names_that_are_not_utf8_stand_in_reports() {
    let bench = Bench::new();
    bench.write("src", b"words");
    bench.good(&["encrypt", "data", "src", "log", "--suite", "aes256-gcm-log"]);
    bench.good(&["encrypt", "data", "src", "f"]);
    let name = |name: &[u8]| bench.path("data").join(OsStr::from_bytes(name));
    let cut = std::fs::read(bench.path("data/log")).unwrap();
    std::fs::write(name(b"torn\xff"), &cut[..cut.len() - 1]).unwrap();
    std::fs::write(name(b"plain\xff"), b"words").unwrap();
    std::fs::write(name(b"empty\xff"), b"").unwrap();
    std::os::unix::fs::symlink("f", name(b"link\xff")).unwrap();
    std::fs::create_dir(name(b"other\xff")).unwrap();
    std::fs::copy(bench.path("data/KEYRING"), name(b"other\xff").join("KEYRING")).unwrap();
    let report = |args: &[&str]| -> Value {
        let run = bench.run(&[args, &["--json"]].concat());
        serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("{args:?}: {}", run.stderr))
    };
    let nested =
        |report: &Value| assert!(report.to_string().contains("/other\u{fffd}"), "{report}");
    let verify = report(&["verify", "data"]);
    for (list, name) in [("problems", "plain"), ("torn", "torn")] {
        let shown = verify[list][0]["path"].as_str().unwrap();
        assert!(shown.ends_with(&format!("/{name}\u{fffd}")), "{verify}");
    }
    assert!(verify["empty"][0].as_str().unwrap().ends_with("/empty\u{fffd}"), "{verify}");
    nested(&verify);
    std::fs::remove_file(name(b"plain\xff")).unwrap();
    nested(&report(&["status", "data"]));
    nested(&report(&["keys", "list", "data"]));
    nested(&report(&["reencrypt", "data", "--all"]));
    bench.good(&["rotate", "data-key", "data"]);
    nested(&report(&["keys", "retire", "data"]));
}
