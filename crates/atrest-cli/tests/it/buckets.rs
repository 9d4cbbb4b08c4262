//! Backups in an object store, from the command line, against a server of S3.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::s3::{self, Bucket, SECRET_KEY, Server};
use crate::support::{Bench, Run};

/// A store, and the server that its backups go to.
struct Cloud {
    bench: Bench,
    variables: Vec<(String, String)>,
}

impl Cloud {
    fn new(variables: Vec<(String, String)>) -> Self {
        let mut bench = Bench::new();
        bench.keep_secret(SECRET_KEY.as_bytes());
        Self { bench, variables }
    }

    fn filled(server: &Server) -> Self {
        let cloud = Self::new(server.variables());
        fs::create_dir(cloud.bench.path("data/sub")).unwrap();
        // The last is uploaded in parts.
        for (name, len) in [("a", 10), ("b", 100_000), ("sub/c", 20_000_000)] {
            cloud.add(name, len);
        }
        cloud
    }

    fn add(&self, name: &str, len: usize) {
        self.bench.write("src", &vec![len as u8; len]);
        self.bench.good(&["encrypt", "data", "src", name]);
    }

    fn run(&self, args: &[&str]) -> Run {
        let variables: Vec<(&str, &str)> =
            self.variables.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.bench.run_with(args, &variables, b"")
    }

    fn json(&self, args: &[&str]) -> Value {
        let run = self.run(&[args, &["--json"]].concat());
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        serde_json::from_slice(&run.stdout).unwrap()
    }

    fn bad(&self, code: i32, kind: &str, advice: &str, args: &[&str]) -> Run {
        let run = self.run(&[args, &["--json"]].concat());
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        let error = &serde_json::from_str::<Value>(&run.stderr).unwrap()["error"];
        assert_eq!(error["kind"], kind, "{args:?}: {}", run.stderr);
        let found = error["advice"].as_str().unwrap();
        assert!(found.contains(advice) && !found.contains('\n'), "{args:?}: {found}");
        run
    }

    fn spawn(&self, args: &[&str]) -> std::process::Child {
        let mut command = self.bench.command(args);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// The copied files of a chain.
fn copies(bucket: &Bucket) -> Vec<String> {
    bucket.keys("db/files")
}

#[test]
fn a_store_goes_to_a_bucket_and_back() {
    let Some(server) = s3::server("backups in a bucket") else { return };
    let bucket = server.bucket("back-and-forth");
    let mut cloud = Cloud::filled(&server);
    let uri = "s3://back-and-forth/db";
    let made = cloud.json(&["backup", "create", "data", uri]);
    assert_eq!((&made["number"], &made["destination"]), (&1.into(), &uri.into()));
    assert_eq!((&made["files"], &made["bytes"]), (&3.into(), &20_100_010.into()));
    cloud.bad(8, "io-already-exists", "incremental", &["backup", "create", "data", uri]);
    cloud.bench.good(&["rotate", "data-key", "data"]);
    cloud.add("d", 7);
    let added = cloud.json(&["backup", "incremental", "data", uri]);
    assert_eq!((&added["number"], &added["copied_files"]), (&2.into(), &1.into()));
    assert_eq!(copies(&bucket).len(), 4);
    let listed = cloud.json(&["backup", "list", uri]);
    assert_eq!(listed["backups"].as_array().unwrap().len(), 2);
    assert_eq!(listed["backups"][1]["manifest_sha256"], added["manifest_sha256"]);
    let verified = cloud.json(&["backup", "verify", uri]);
    assert_eq!((&verified["good"], &verified["files"]), (&true.into(), &4.into()));
    let text = cloud.run(&["backup", "list", uri]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("s3://back-and-forth/db: chain"));
    // Without the store; under the same key, and under another.
    fs::remove_dir_all(cloud.bench.path("data")).unwrap();
    cloud.json(&["backup", "restore", uri, "same"]);
    cloud.bench.keygen("new.key");
    let new = cloud.bench.uri("new.key");
    let restored = cloud.json(&["backup", "restore", uri, "other", "--new-cmek", &new]);
    assert_eq!((&restored["number"], &restored["files"]), (&2.into(), &4.into()));
    let own = cloud.bench.uri("cmek.key");
    for (dir, key) in [("same", &own), ("other", &new)] {
        for (name, len) in [("a", 10), ("b", 100_000), ("sub/c", 20_000_000), ("d", 7)] {
            cloud.bench.good(&["decrypt", dir, name, "-o", "out", "--force", "--cmek", key]);
            assert!(cloud.bench.read("out") == vec![len as u8; len], "{name}");
        }
    }
    cloud.bench.bad(5, "kms-integrity", &["decrypt", "other", "a"]);
    let first = cloud.json(&["backup", "restore", uri, "first", "--number", "1"]);
    assert_eq!(first["files"], 3);
    // Nothing of the plaintext is in the bucket.
    for key in bucket.keys("") {
        let bytes = bucket.get(&key);
        assert!(!bytes.windows(32).any(|window| window == [100_000_usize as u8; 32]), "{key}");
    }
}

#[test]
fn missing_swapped_and_changed_objects_are_refused() {
    let Some(server) = s3::server("damage in a bucket") else { return };
    let bucket = server.bucket("damage");
    let cloud = Cloud::filled(&server);
    let uri = "s3://damage/db";
    cloud.json(&["backup", "create", "data", uri]);
    let names = copies(&bucket);
    let (one, two) = (&names[0], &names[1]);
    let (first, second) = (bucket.get(one), bucket.get(two));
    let verify = ["backup", "verify", uri];
    let refuse = |code, kind, to: &str| {
        cloud.bad(code, kind, "make a new full backup", &verify);
        let run = cloud.run(&["backup", "restore", uri, to]);
        assert_eq!(run.code, code, "{}", run.stderr);
        assert!(!cloud.bench.path(to).join("KEYRING").exists());
    };
    bucket.delete(one);
    refuse(6, "broken-backup", "missing");
    // Of two files, each in the other's place.
    bucket.put(one, &second);
    bucket.put(two, &first);
    refuse(5, "identity-mismatch", "swapped");
    bucket.put(two, &second);
    let mut changed = first.clone();
    *changed.last_mut().unwrap() ^= 1;
    bucket.put(one, &changed);
    refuse(5, "authentication", "changed");
    // A restore goes on when the object is back.
    bucket.put(one, &first);
    cloud.json(&["backup", "restore", uri, "changed"]);
    cloud.bench.good(&["verify", "changed"]);
    // Half of a chain is none.
    bucket.delete("db/_atrest/KEYRING");
    cloud.bad(7, "keyring-missing", "whole", &["backup", "list", uri]);
    for key in bucket.keys("db/_atrest") {
        bucket.delete(&key);
    }
    cloud.bad(7, "keyring-missing", "whole", &["backup", "create", "data", uri]);
    bucket.delete("db/BACKUP");
    cloud.bad(6, "broken-backup", "whole", &["backup", "incremental", "data", uri]);
    assert_eq!(copies(&bucket), names);
}

#[test]
fn a_prefix_that_holds_something_else_is_left_alone() {
    let Some(server) = s3::server("a prefix of somebody else") else { return };
    let bucket = server.bucket("shared");
    let cloud = Cloud::filled(&server);
    for (prefix, key) in [("top", "top/report.pdf"), ("deep", "deep/years/2025/report.pdf")] {
        bucket.put(key, b"somebody's");
        let uri = format!("s3://shared/{prefix}");
        cloud.bad(11, "io", "nothing is below", &["backup", "create", "data", &uri]);
        for args in [&["backup", "list"][..], &["backup", "incremental", "data"]] {
            cloud.bad(6, "broken-backup", "whole", &[args, &[&uri]].concat());
        }
        assert_eq!(bucket.keys(prefix), [key]);
    }
    // A neighbour whose name begins the same is no matter.
    cloud.json(&["backup", "create", "data", "s3://shared/to"]);
    cloud.bench.good(&["init", "else"]);
    let other = ["backup", "incremental", "else", "s3://shared/to"];
    cloud.bad(5, "identity-mismatch", "", &other);
}

#[test]
fn an_upload_goes_on_where_it_was_interrupted() {
    let Some(server) = s3::server("an interrupted upload") else { return };
    let bucket = server.bucket("interrupted");
    let cloud = Cloud::filled(&server);
    for number in 0..60 {
        cloud.add(&format!("f{number}"), 50_000 + number);
    }
    let uri = "s3://interrupted/db";
    let args = ["backup", "create", "data", uri];
    // As a process killed before the last object leaves it.
    cloud.json(&args);
    bucket.delete("db/backup.000001");
    let there = copies(&bucket);
    bucket.delete(&there[5]);
    let made = cloud.json(&args);
    assert_eq!((&made["resumed_files"], &made["files"]), (&62.into(), &63.into()));
    assert_eq!(copies(&bucket).len(), 63);
    // Ctrl-C, and `kill -9`, after the first whole copies.
    for signal in ["INT", "KILL"] {
        for key in bucket.keys("db") {
            bucket.delete(&key);
        }
        let mut child = cloud.spawn(&args);
        while copies(&bucket).len() < 3 && child.try_wait().unwrap().is_none() {}
        let pid = child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).stderr(Stdio::null()).status();
        drop(sent);
        let status = child.wait().unwrap();
        if status.success() {
            // It was quicker: the backup is whole.
            continue;
        }
        assert_eq!(status.code(), (signal == "INT").then_some(130));
        assert!(!bucket.keys("db").contains(&"db/backup.000001".to_owned()));
        let left = copies(&bucket).len();
        let listed = cloud.json(&["backup", "list", uri]);
        assert_eq!(listed["backups"].as_array().unwrap().len(), 0);
        let made = cloud.json(&args);
        assert_eq!((&made["resumed_files"], &made["files"]), (&left.into(), &63.into()));
        let verified = cloud.json(&["backup", "verify", uri]);
        assert_eq!((&verified["files"], &verified["leftovers"]), (&63.into(), &0.into()));
    }
}

#[test]
fn an_object_store_that_cannot_be_used_is_told_soon() {
    let Some(server) = s3::server("unusable buckets") else { return };
    server.bucket("there");
    let mut cloud = Cloud::new(server.variables());
    let list = |uri| ["backup", "list", uri];
    cloud.bad(7, "io-not-found", "make the bucket", &list("s3://not-there/db"));
    cloud.bad(7, "io-not-found", "make the bucket", &["backup", "create", "data", "s3://no/db"]);
    cloud.bad(6, "broken-backup", "backup create", &list("s3://there/db"));
    // Nobody listens; somebody listens and never answers.
    cloud.variables = s3::variables(s3::free_port());
    cloud.bad(11, "io", "check the network", &list("s3://there/db"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    cloud.variables = s3::variables(silent.local_addr().unwrap().port());
    cloud.bad(11, "io", "check the network", &list("s3://there/db"));
}

#[test]
fn bad_uris_and_missing_settings_are_refused_without_a_server() {
    let mut cloud = Cloud::new(Vec::new());
    for (uri, advice) in [
        ("s4://bucket/db", "give s3://BUCKET/PREFIX"),
        ("http://bucket/db", "give s3://BUCKET/PREFIX"),
        ("memory:///db", "give s3://BUCKET/PREFIX"),
        ("s3:///db", "give s3://BUCKET/PREFIX"),
        ("s3://bucket/a//b", "give s3://BUCKET/PREFIX"),
        ("s3://[bucket/db", "%XX"),
        ("file://host/db", "the path of the directory"),
        ("file:///db?x=y", "the path of the directory"),
    ] {
        for args in [&["backup", "list"][..], &["backup", "create", "data"]] {
            cloud.bad(2, "invalid-argument", advice, &[args, &[uri]].concat());
        }
    }
    // What looks like a secret is not repeated.
    cloud.bench.keep_secret(b"Tq7vNzLr0sWnKd3uYh6");
    for uri in [
        "s3://key:Tq7vNzLr0sWnKd3uYh6@bucket/db",
        "az://container/db?sig=Tq7vNzLr0sWnKd3uYh6",
        "gs://bucket/db#Tq7vNzLr0sWnKd3uYh6",
    ] {
        cloud.bad(2, "invalid-argument", "identity", &["backup", "list", uri]);
    }
    // An Azure account that nobody named, a key of Google's that is none.
    cloud.bad(2, "invalid-argument", "AZURE_STORAGE", &["backup", "list", "az://container/db"]);
    cloud.bench.keep_secret(b"Qm8vPzXr1tBnGd4wJh5");
    let key = "\"Qm8vPzXr1tBnGd4wJh5\"".to_owned();
    cloud.variables = vec![("GOOGLE_SERVICE_ACCOUNT_KEY".to_owned(), key)];
    cloud.bad(2, "invalid-argument", "GOOGLE_APPLICATION", &["backup", "list", "gs://bucket/db"]);
    // No credentials, and no cloud that gives any.
    let metadata = format!("http://127.0.0.1:{}", s3::free_port());
    cloud.variables = vec![("AWS_METADATA_ENDPOINT".to_owned(), metadata)];
    let advice = "set AWS_ACCESS_KEY_ID";
    cloud.bad(11, "io-permission-denied", advice, &["backup", "list", "s3://bucket/db"]);
}

#[test]
fn a_file_uri_is_a_directory() {
    let bench = Bench::new();
    bench.write("src", b"content");
    bench.good(&["encrypt", "data", "src", "f"]);
    let uri = format!("{}%20of%20mine", bench.uri("backups"));
    bench.good(&["backup", "create", "data", &uri]);
    assert!(bench.path("backups of mine/BACKUP").exists());
    let listed = bench.json(&["backup", "list", "backups of mine"]);
    assert_eq!(listed["backups"][0]["files"], 1);
    bench.good(&["backup", "restore", &uri, "new"]);
    // A directory that others use is not taken for an empty one.
    fs::create_dir_all(bench.path("used/deep")).unwrap();
    fs::File::create(bench.path("used/deep/x")).unwrap().write_all(b"x").unwrap();
    bench.bad(11, "io", &["backup", "create", "data", "used"]);
    assert_eq!(bench.names("used"), ["deep"]);
}
