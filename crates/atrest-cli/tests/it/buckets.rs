//! Backups in an object store, from the command line, against a server of S3.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;

use atrest::kms::{KeyFile, Kms};
use atrest::{Integrity, Keyring, Options};
use atrest_object_store::{EncryptedStore, ObjectStoreKeyringStorage};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use serde_json::Value;

use crate::moto::{self, SECRET_KEY, Server};
use crate::s3::{self, Bucket};
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
        let cloud = Self::new(s3::variables(server.port));
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

/// A store whose objects are in a bucket, as an engine on an object store has it.
fn store_in(bucket: &Bucket, prefix: &str, key: Arc<dyn Kms>) -> Keyring {
    let storage = ObjectStoreKeyringStorage::new(bucket.store(), &Path::from(prefix)).unwrap();
    Keyring::open_or_create(storage, key, Options::default()).unwrap()
}

/// The copied files of a chain.
fn copies(bucket: &Bucket) -> Vec<String> {
    bucket.keys("db/files")
}

#[test]
fn a_store_goes_to_a_bucket_and_back() {
    let Some(server) = moto::server("backups in a bucket") else { return };
    let bucket = Bucket::new(&server, "back-and-forth");
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
fn a_chain_in_a_bucket_moves_to_another_key() {
    let Some(server) = moto::server("keys of a chain in a bucket") else { return };
    Bucket::new(&server, "moved");
    let mut cloud = Cloud::filled(&server);
    let uri = "s3://moved/db";
    cloud.json(&["backup", "create", "data", uri]);
    cloud.bench.keygen("new.key");
    cloud.bench.keygen("us.key");
    let (old, new) = (cloud.bench.uri("cmek.key"), cloud.bench.uri("new.key"));
    let us = cloud.bench.uri("us.key");
    // What the chain is, with a key and without one.
    let status = cloud.json(&["status", uri]);
    assert_eq!((&status["directory"], &status["authenticated"]), (&uri.into(), &true.into()));
    assert_eq!(status["files"]["encrypted"]["files"], 4, "three copies and a manifest");
    assert_eq!(status["data_keys"][0]["files"], 4);
    let id = status["store_id"].as_str().unwrap();
    let anchor = status["anchor"].as_str().unwrap();
    let bare = cloud.json(&["cmek", "list", uri]);
    assert_eq!(bare["slots"][0]["key_uri"], old.as_str());
    let answers = cloud.json(&["cmek", "status", uri, "--cmek", &old, "--cmek", &new]);
    assert_eq!(
        (&answers["state"], &answers["keys"][0]["answer"]),
        (&"active".into(), &"good".into())
    );
    // The store's key is replaced; what the chain still needs is named.
    let rotate = ["rotate", "cmek", "data", "--cmek", &old, "--new-cmek", &new, "--backups", uri];
    let rotated = cloud.json(&rotate);
    assert_eq!(rotated["backups"][0]["needs_old_key"], true);
    let warned = rotated["warnings"][0].as_str().unwrap();
    assert!(warned.contains(uri) && warned.contains("cmek.key"), "{warned}");
    // A slot is added, wrapped anew, and taken away; then the chain moves, too.
    let added = cloud.json(&["cmek", "add", uri, "us", "--cmek", &old, "--new-cmek", &us]);
    assert_eq!(added["slots"][1]["name"], "us");
    let rewrapped = cloud.json(&["cmek", "rewrap", uri, "us", "--cmek", &us]);
    assert_eq!(rewrapped["done"], "rewrapped");
    cloud.json(&["backup", "verify", uri, "--cmek", &us]);
    cloud.json(&["cmek", "remove", uri, "us", "--cmek", &old]);
    cloud.bad(5, "kms-integrity", "", &["backup", "verify", uri, "--cmek", &us]);
    let moved = cloud.json(&["rotate", "cmek", uri, "--cmek", &old, "--new-cmek", &new]);
    assert_eq!(moved.get("warnings"), None, "{moved}");
    cloud.json(&["rotate", "store-key", uri, "--cmek", &new]);
    cloud.bad(5, "kms-integrity", "", &["verify", uri, "--cmek", &old]);
    // Pins hold for a chain as for a store, before any key is asked.
    let pinned = ["verify", uri, "--cmek", &new, "--store-id", id, "--anchor", anchor];
    let verified = cloud.json(&pinned);
    assert_eq!((&verified["good"], &verified["files"]), (&true.into(), &3.into()));
    let another = "00112233445566778899aabbccddeeff";
    for args in [&["verify", uri][..], &["status", uri], &["cmek", "rewrap", uri]] {
        let args = [args, &["--cmek", "file:///nowhere", "--store-id", another]].concat();
        cloud.bad(5, "identity-mismatch", "", &args);
    }
    cloud.json(&["backup", "restore", uri, "back", "--cmek", &new]);
    cloud.bench.good(&["decrypt", "back", "b", "-o", "out", "--cmek", &new]);
    assert!(cloud.bench.read("out") == vec![100_000_usize as u8; 100_000]);
    // There is no store where there is none.
    for args in [&["status"][..], &["verify"], &["cmek", "list"], &["rotate", "data-key"]] {
        let args = [args, &["s3://moved/nothing"]].concat();
        cloud.bad(7, "keyring-missing", "give the prefix", &args);
    }
}

#[test]
fn a_store_in_a_bucket_is_shown_verified_and_rotated() {
    let Some(server) = moto::server("a store in a bucket") else { return };
    let bucket = Bucket::new(&server, "stores");
    let mut cloud = Cloud::new(s3::variables(server.port));
    let uri = "s3://stores/app";
    let key: Arc<dyn Kms> = Arc::new(KeyFile::new(cloud.bench.path("cmek.key")).unwrap());
    let keyring = store_in(&bucket, "app", key);
    let below = Arc::new(PrefixStore::new(bucket.store(), "app"));
    let store = EncryptedStore::new(below, keyring.clone());
    for (name, len) in [("sst/1", 100), ("sst/2", 70_000), ("manifest", 3)] {
        bucket.block_on(store.put(&Path::from(name), vec![7; len].into())).unwrap();
    }
    let found = cloud.json(&["status", uri]);
    let encrypted = &found["files"]["encrypted"];
    assert_eq!(
        (&encrypted["files"], &encrypted["bytes"]),
        // A tag for each of 18, 1 and 1 chunks, and one for each end.
        (&3.into(), &(3 * 4096 + 70_103 + (20 + 3) * 16).into())
    );
    assert_eq!(found["data_keys"][0]["files"], 3);
    let verified = cloud.json(&["verify", uri]);
    assert_eq!((&verified["good"], &verified["authenticated_files"]), (&true.into(), &3.into()));
    let below = Arc::new(PrefixStore::new(bucket.store(), "app"));
    let other = EncryptedStore::new(below, keyring).with_integrity(Integrity::Confidential);
    bucket.block_on(other.put(&Path::from("plainer"), vec![7; 10].into())).unwrap();
    // The engine goes on reading and writing beside rotations of all levels.
    cloud.json(&["rotate", "data-key", uri]);
    cloud.bench.keygen("new.key");
    let new = cloud.bench.uri("new.key");
    let rotated = cloud.json(&["rotate", "cmek", uri, "--new-cmek", &new]);
    assert!(rotated["warnings"][0].as_str().unwrap().contains("backups made under"), "{rotated}");
    cloud.json(&["rotate", "store-key", uri, "--cmek", &new]);
    let bytes = bucket
        .block_on(async { store.get(&Path::from("sst/2")).await.unwrap().bytes().await.unwrap() });
    assert_eq!(bytes.len(), 70_000);
    // A header and a body that somebody changed, and plaintext, are told; an object whose body
    // nothing authenticates is counted apart.
    bucket.put("app/note", b"somebody's");
    let mut changed = bucket.get("app/sst/2");
    changed[50_000] ^= 1;
    bucket.put("app/sst/2", &changed);
    let mut changed = bucket.get("app/sst/1");
    changed[100] ^= 1;
    bucket.put("app/sst/1", &changed);
    let run = cloud.bad(10, "not-encrypted", "", &["verify", uri, "--cmek", &new]);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    let paths: Vec<_> =
        report["problems"].as_array().unwrap().iter().map(|it| &it["path"]).collect();
    assert_eq!(paths, ["note", "sst/1", "sst/2"]);
    assert_eq!(report["good"], false);
    let counted = (&report["unauthenticated_files"], &report["authenticated_files"]);
    assert_eq!(counted, (&1.into(), &1.into()));
    let found = cloud.json(&["status", uri, "--cmek", &new]);
    assert_eq!(
        (&found["files"]["problem"]["files"], &found["files"]["plaintext"]["files"]),
        (&1.into(), &1.into())
    );
    // Commands about files in a directory do not take an empty one for it.
    for args in [&["reencrypt", uri, "--all"][..], &["keys", "retire", uri], &["doctor", uri]] {
        let run = cloud.run(&[args, &["--cmek", &new]].concat());
        assert_ne!(run.code, 0, "{args:?}");
    }
}

#[test]
fn a_chain_is_copied_to_other_places_and_its_name_may_be_odd() {
    let Some(server) = moto::server("odd and copied prefixes") else { return };
    let bucket = Bucket::new(&server, "odd");
    let cloud = Cloud::new(s3::variables(server.port));
    cloud.add("a", 10);
    cloud.add("b", 200_000);
    let restored = |from: &str, to: &str| {
        cloud.json(&["backup", "verify", from]);
        cloud.json(&["backup", "restore", from, to]);
        cloud.bench.good(&["decrypt", to, "b", "-o", "out", "--force"]);
        assert!(cloud.bench.read("out") == vec![200_000_usize as u8; 200_000], "{from}");
    };
    // Blanks, a percent sign, a plus, what is not ASCII, and all of them.
    let prefixes = ["my%20backups/db", "100%25", "a+b", "%C3%BC/%E6%97%A5", "x%20%25+%C3%BC"];
    for (number, prefix) in prefixes.iter().enumerate() {
        let uri = format!("s3://odd/{prefix}");
        assert_eq!(cloud.json(&["backup", "create", "data", &uri])["files"], 2);
        assert_eq!(cloud.json(&["backup", "incremental", "data", &uri])["copied_files"], 0);
        assert_eq!(cloud.json(&["status", &uri])["authenticated"], true);
        restored(&uri, &format!("odd-{number}"));
    }
    assert!(bucket.keys("").iter().any(|key| key.starts_with("my backups/db/")), "not %20");
    for dir in ["my backups", "100%", "a+b", "ü 日"] {
        cloud.bench.good(&["backup", "create", "data", dir]);
        restored(dir, &format!("{dir} restored"));
    }
    // To another prefix, to a directory, and from a directory to a prefix; each goes on.
    for key in bucket.keys("a+b") {
        let below = key.strip_prefix("a+b/").unwrap();
        let bytes = bucket.get(&key);
        bucket.put(&format!("moved/{below}"), &bytes);
        let path = cloud.bench.path("synced").join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    for name in walk(&cloud.bench.path("a+b")) {
        bucket.put(&format!("up/{name}"), &fs::read(cloud.bench.path("a+b").join(&name)).unwrap());
    }
    cloud.add("c", 5);
    for (number, place) in ["s3://odd/moved", "synced", "s3://odd/up"].iter().enumerate() {
        restored(place, &format!("moved-{number}"));
        assert_eq!(cloud.json(&["backup", "incremental", "data", place])["copied_files"], 1);
        restored(place, &format!("again-{number}"));
        assert_eq!(cloud.json(&["backup", "list", place])["backups"][0]["full"], true);
    }
    // The store was restored elsewhere: it is another one now, and is told what to do.
    for place in ["s3://odd/moved", "synced"] {
        let args = ["backup", "incremental", "again-0", place];
        cloud.bad(5, "identity-mismatch", "a restored store is a new one", &args);
    }
    cloud.json(&["backup", "create", "again-0", "s3://odd/new"]);
    restored("s3://odd/new", "newer");
}

/// Files below a directory, by their paths below it.
fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        match entry.path().is_dir() {
            true => found.extend(walk(&entry.path()).iter().map(|below| format!("{name}/{below}"))),
            false => found.push(name),
        }
    }
    found
}

#[test]
fn missing_swapped_and_changed_objects_are_refused() {
    let Some(server) = moto::server("damage in a bucket") else { return };
    let bucket = Bucket::new(&server, "damage");
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
    let Some(server) = moto::server("a prefix of somebody else") else { return };
    let bucket = Bucket::new(&server, "shared");
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
    let Some(server) = moto::server("an interrupted upload") else { return };
    let bucket = Bucket::new(&server, "interrupted");
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
    let Some(server) = moto::server("unusable buckets") else { return };
    Bucket::new(&server, "there");
    let mut cloud = Cloud::new(s3::variables(server.port));
    let list = |uri| ["backup", "list", uri];
    cloud.bad(7, "io-not-found", "make the bucket", &list("s3://not-there/db"));
    cloud.bad(7, "io-not-found", "make the bucket", &["backup", "create", "data", "s3://no/db"]);
    cloud.bad(6, "broken-backup", "backup create", &list("s3://there/db"));
    // Nobody listens; somebody listens and never answers.
    cloud.variables = s3::variables(moto::free_port());
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
    let metadata = format!("http://127.0.0.1:{}", moto::free_port());
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
