//! Every bad input has its own error and exit code, and leaves the store as it was.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use atrest::keyring::{DirectoryStorage, Keyring, Options};

use crate::support::{Bench, image, left_out};

/// A store with one file `f`.
fn with_file() -> Bench {
    let bench = Bench::new();
    bench.write("src", b"some words that nobody else may read");
    bench.good(&["encrypt", "data", "src", "f"]);
    bench
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    let mut bench = with_file();
    bench.keygen("other.key");
    let before = image(&bench.path("data"));
    let with = |uri: &str, code, kind| {
        for command in [
            &["status", "data"][..],
            &["decrypt", "data", "f"],
            &["encrypt", "data", "src", "g"],
            &["rotate", "data-key", "data"],
            &["rotate", "store-key", "data"],
            &["rotate", "cmek", "data", "--new-cmek", "env:X"],
        ] {
            bench.bad(code, kind, &[command, &["--cmek", uri]].concat());
        }
    };
    with(&bench.uri("other.key"), 5, "kms-integrity");
    with(&bench.uri("missing.key"), 3, "kms-not-found");
    with("env:NOT_SET", 2, "kms-misconfigured");
    with("passphrase:", 2, "kms-misconfigured");
    with("cmek.key", 2, "kms-misconfigured");
    with("gopher://key", 2, "kms-misconfigured");
    fs::set_permissions(bench.path("other.key"), fs::Permissions::from_mode(0o604)).unwrap();
    with(&bench.uri("other.key"), 2, "kms-misconfigured");
    bench.write("short.key", b"short");
    fs::set_permissions(bench.path("short.key"), fs::Permissions::from_mode(0o600)).unwrap();
    with(&bench.uri("short.key"), 2, "kms-misconfigured");
    assert!(image(&bench.path("data")) == before);
    // A path instead of a URI gets the URI as advice.
    let run = bench.bad(2, "kms-misconfigured", &["status", "data", "--cmek", "cmek.key"]);
    assert!(run.stderr.contains(&format!("--cmek {}", bench.uri("cmek.key"))), "{}", run.stderr);
}

/// What somebody in trouble has in hands: each is told from the others, with a step to go on.
#[test]
fn each_way_to_hold_the_wrong_thing_has_its_next_step() {
    let mut bench = with_file();
    bench.keygen("other.key");
    bench.keygen("us.key");
    let (own, us, other) = (bench.uri("cmek.key"), bench.uri("us.key"), bench.uri("other.key"));
    bench.good(&["cmek", "add", "data", "us", "--new-cmek", &us]);
    bench.good(&["init", "theirs"]);
    bench.good(&["encrypt", "theirs", "src", "f"]);
    bench.good(&["init", "plain", "--cmek", &other]);
    let keyring = bench.read("data/KEYRING");
    let told = |what: &str, code: i32, kind: &str, advice: &str, args: &[&str]| {
        let run = bench.run(&[args, &["--json"]].concat());
        assert_eq!(run.code, code, "{what}: {}", run.stderr);
        let error = &serde_json::from_str::<serde_json::Value>(&run.stderr).unwrap()["error"];
        assert_eq!(error["kind"], kind, "{what}: {}", run.stderr);
        assert!(error["advice"].as_str().unwrap().contains(advice), "{what}: {}", run.stderr);
    };
    let open = ["decrypt", "data", "f"];
    let by = |uri: &'static str| [&open[..], &["--cmek", uri]].concat();
    let wrong = [&open[..], &["--cmek", &other]].concat();
    told("a wrong key file", 5, "kms-integrity", "`atrest status DIR` names it", &wrong);
    told("a lost key file", 3, "kms-not-found", "put the key back", &by("file:///lost.key"));
    told("a key of another kind", 2, "kms-misconfigured", "--cmek", &by("env:X"));
    // Two files of keys, each in the other's place.
    let (ours, theirs) = (bench.read("cmek.key"), bench.read("us.key"));
    bench.write("cmek.key", &theirs);
    bench.write("us.key", &ours);
    let both = [&open[..], &["--cmek", &own, "--cmek", &us]].concat();
    told("swapped keys", 5, "kms-integrity", "`atrest status DIR` names it", &both);
    bench.write("cmek.key", &ours);
    bench.write("us.key", &theirs);
    // Another store's keyring: it opens, and its files are not these.
    bench.write("data/KEYRING", &bench.read("theirs/KEYRING"));
    told("another store's keyring", 5, "identity-mismatch", "belongs elsewhere", &open);
    let mut rotten = keyring.clone();
    rotten[300] ^= 4;
    bench.write("data/KEYRING", &rotten);
    told("a rotten keyring", 6, "keyring-corrupt", "atrest recover", &open);
    bench.write("data/KEYRING", &keyring[..500]);
    told("a cut keyring", 6, "keyring-truncated", "atrest recover", &open);
    bench.write("data/KEYRING", &keyring);
    bench.good(&open);
    // A directory from before encryption, and one whose keyring is lost.
    fs::create_dir(bench.path("before")).unwrap();
    bench.write("before/f", b"plaintext");
    let before = ["decrypt", "before", "f"];
    told("a plaintext store", 7, "keyring-missing", "atrest init DIR", &before);
    fs::remove_file(bench.path("data/KEYRING")).unwrap();
    told("a lost keyring", 7, "keyring-missing", "atrest recover", &open);
}

#[test]
fn a_new_cmek_that_is_not_usable_changes_nothing() {
    let bench = with_file();
    let before = image(&bench.path("data"));
    let missing = bench.uri("missing.key");
    bench.bad(3, "kms-not-found", &["rotate", "cmek", "data", "--new-cmek", &missing]);
    assert!(image(&bench.path("data")) == before);
}

#[test]
fn no_key_file_is_made_that_no_uri_can_name() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let bench = Bench::empty();
    fs::create_dir(bench.path("a b")).unwrap();
    for path in ["a b/k", "k\n"] {
        let run = bench.bad(2, "invalid-argument", &["keygen", path]);
        assert!(run.stderr.contains("without blanks"), "{}", run.stderr);
    }
    let mut command = bench.command(&["keygen"]);
    let output = command.arg(OsStr::from_bytes(b"k\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(bench.names("."), ["a b"]);
    assert_eq!(bench.names("a b"), [""; 0]);
}

#[test]
fn a_store_that_is_none_is_left_alone() {
    let bench = with_file();
    bench.bad(7, "io-not-found", &["status", "nowhere"]);
    bench.bad(2, "invalid-argument", &["status", "src"]);
    fs::create_dir(bench.path("other")).unwrap();
    for command in [
        &["status", "other"][..],
        &["decrypt", "other", "f"],
        &["encrypt", "other", "src", "g"],
        &["rotate", "data-key", "other"],
    ] {
        bench.bad(7, "keyring-missing", command);
    }
    // Not even a lock file.
    assert_eq!(bench.names("other"), [""; 0]);
    fs::remove_file(bench.path("data/KEYRING")).unwrap();
    bench.bad(7, "keyring-missing", &["decrypt", "data", "f"]);
}

#[test]
fn a_store_is_never_created_over_another() {
    let bench = with_file();
    bench.good(&["rotate", "data-key", "data"]);
    let before = image(&bench.path("data"));
    bench.bad(8, "keyring-exists", &["init", "data"]);
    assert!(image(&bench.path("data")) == before);
    // Older images of a lost keyring are a keyring too, and the message names them.
    fs::remove_file(bench.path("data/KEYRING")).unwrap();
    let run = bench.bad(8, "keyring-exists", &["init", "data"]);
    assert!(run.stderr.contains("older images exist: 1"), "{}", run.stderr);
}

#[test]
fn a_store_that_cannot_be_created_leaves_no_directory() {
    let bench = Bench::empty();
    bench.bad(3, "kms-not-found", &["init", "a/b/c"]);
    assert_eq!(bench.names("."), [""; 0]);
}

#[test]
fn files_that_are_no_encrypted_files_are_told_apart() {
    let mut bench = with_file();
    let good = bench.read("data/f");
    let mut corrupt = good.clone();
    corrupt[100] ^= 1;
    let cases: [(&str, &[u8], i32, &str); 6] = [
        ("plain", b"hello", 10, "not-encrypted"),
        ("empty", b"", 10, "empty-file"),
        ("age", b"age-encryption.org/v1\n-> X25519", 10, "foreign-file"),
        ("torn", &good[..4095], 6, "truncated-header"),
        ("flipped", &corrupt, 6, "corrupt-header"),
        ("newer", &newer(&good), 12, "unsupported-version"),
    ];
    for (name, bytes, code, kind) in cases {
        bench.write(&format!("data/{name}"), bytes);
        bench.bad(code, kind, &["decrypt", "data", name]);
        bench.bad(code, kind, &["decrypt", "data", name, "-o", "out"]);
        if code != 10 {
            bench.bad(code, kind, &["inspect", &format!("data/{name}")]);
        }
    }
    bench.bad(7, "io-not-found", &["decrypt", "data", "nothing"]);
    bench.bad(7, "io-not-found", &["inspect", "data/nothing"]);
    bench.bad(2, "invalid-argument", &["inspect", "data"]);
    // Another store's file.
    bench.keygen("other.key");
    bench.good(&["init", "other", "--cmek", &bench.uri("other.key")]);
    bench.write("other/f", &good);
    bench.bad(
        5,
        "identity-mismatch",
        &["decrypt", "other", "f", "--cmek", &bench.uri("other.key")],
    );
    assert!(!bench.path("out").exists());
    assert_eq!(bench.read("data/f"), good);
}

fn newer(good: &[u8]) -> Vec<u8> {
    let mut newer = good.to_vec();
    newer[8] = 2;
    newer
}

#[test]
fn a_changed_body_is_refused_where_it_is_authenticated() {
    let bench = Bench::new();
    bench.write("src", &[9; 300_000]);
    bench.good(&["init", "strict", "--integrity", "authenticated"]);
    for (suite, kind) in [("aes256-gcm-chunks", "table"), ("aes256-gcm-log", "log")] {
        // Asked for, and chosen by the store.
        let asked = bench.json(&["encrypt", "data", "src", suite, "--suite", suite]);
        let chosen = bench.json(&["encrypt", "strict", "src", suite, "--kind", kind]);
        assert_eq!((&asked["suite"], &chosen["suite"]), (&suite.into(), &suite.into()));
        assert!(bench.good(&["decrypt", "data", suite]) == bench.read("src"));
        let good = bench.read(&format!("data/{suite}"));
        let mut changed = good.clone();
        changed[good.len() / 2] ^= 1;
        bench.write(&format!("data/{suite}"), &changed);
        if suite == "aes256-gcm-log" {
            // What is in front of the change, and that it is not all.
            assert_eq!(bench.run(&["decrypt", "data", suite, "-o", "out"]).code, 13);
            assert!(bench.read("src").starts_with(&bench.read("out")));
        } else {
            bench.bad(5, "authentication", &["decrypt", "data", suite, "-o", "out"]);
            assert!(!bench.path("out").exists());
        }
        // A log that a crash cut short ends with the frame before, and says so.
        bench.write(&format!("data/{suite}"), &good[..good.len() - 1]);
        if suite == "aes256-gcm-log" {
            let run = bench.run(&["decrypt", "data", suite]);
            assert!(run.code == 13 && run.stderr.contains("error: "), "{}", run.stderr);
            assert!(!run.stdout.is_empty() && bench.read("src").starts_with(&run.stdout));
        } else {
            bench.bad(5, "authentication", &["decrypt", "data", suite]);
        }
    }
    let weak = ["encrypt", "strict", "src", "weak", "--suite", "aes256-ctr"];
    bench.bad(5, "suite-too-weak", &weak);
    assert!(!bench.path("strict/weak").exists());
}

#[test]
fn plaintext_is_read_only_where_the_store_allows_it() {
    let bench = with_file();
    bench.good(&["init", "open", "--allow-plaintext"]);
    bench.write("open/old", b"from before");
    assert_eq!(bench.good(&["decrypt", "open", "old"]), b"from before");
    bench.write("data/old", b"from before");
    bench.bad(10, "not-encrypted", &["decrypt", "data", "old"]);
}

#[test]
fn damaged_keyrings_are_told_apart() {
    let bench = with_file();
    let good = bench.read("data/KEYRING");
    let mut flipped = good.clone();
    flipped[200] ^= 1;
    let cases: [(&[u8], &str); 4] = [
        (&good[..100], "keyring-truncated"),
        (&good[..good.len() - 1], "keyring-truncated"),
        (&flipped, "keyring-corrupt"),
        (b"", "keyring-truncated"),
    ];
    for (bytes, kind) in cases {
        bench.write("data/KEYRING", bytes);
        bench.bad(6, kind, &["status", "data"]);
        bench.bad(6, kind, &["decrypt", "data", "f"]);
        bench.bad(6, kind, &["rotate", "data-key", "data"]);
        assert_eq!(bench.read("data/KEYRING"), bytes);
    }
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let bench = with_file();
    let mut options = Options::default();
    options.background = false;
    let kms = atrest::kms::from_uri(&bench.uri("cmek.key")).unwrap();
    let storage = DirectoryStorage::new(bench.path("data"));
    let keyring = Keyring::open(storage, kms, options).unwrap();
    bench.bad(9, "keyring-busy", &["encrypt", "data", "src", "g"]);
    bench.bad(9, "keyring-busy", &["rotate", "data-key", "data"]);
    assert_eq!(bench.good(&["decrypt", "data", "f"]), bench.read("src"));
    bench.good(&["status", "data"]);
    drop(keyring);
    bench.good(&["encrypt", "data", "src", "g"]);
    assert!(!bench.names("data").iter().any(|name| name.contains("tmp")));
}

#[test]
fn names_that_leave_the_store_or_are_the_keyrings_are_refused() {
    let bench = with_file();
    fs::create_dir(bench.path("outside")).unwrap();
    symlink(bench.path("outside"), bench.path("data/link")).unwrap();
    symlink(bench.path("src"), bench.path("data/file-link")).unwrap();
    let absolute = bench.path("x").display().to_string();
    let names = [
        "",
        ".",
        "..",
        "../x",
        "a/../../x",
        "./x/..",
        "KEYRING",
        "KEYRING.1",
        "KEYRING.lock",
        "sub/",
        "link/x",
        "file-link",
        "a\nb",
        &absolute,
    ];
    for name in names {
        bench.bad(2, "invalid-argument", &["encrypt", "data", "src", name]);
        bench.bad(2, "invalid-argument", &["decrypt", "data", name]);
    }
    bench.bad(7, "io-not-found", &["encrypt", "data", "src", "no/such/dir"]);
    bench.bad(2, "invalid-argument", &["encrypt", "data", "outside", "x"]);
    bench.bad(7, "io-not-found", &["encrypt", "data", "no-source", "x"]);
    assert_eq!(bench.names("outside"), [""; 0]);
    let names = ["KEYRING", "KEYRING.1", "KEYRING.lock", "f", "file-link", "link"];
    assert_eq!(bench.names("data"), names);
}

#[test]
fn a_uri_is_no_directory_where_files_are_looked_for() {
    let bench = with_file();
    bench.good(&["backup", "create", "data", "dest"]);
    let (before, own) = (bench.names("."), bench.uri("cmek.key"));
    for uri in ["s3://bucket/data", "file:///tmp/data", "gs://bucket"] {
        let mut commands = vec![
            vec!["init", uri],
            vec!["encrypt", uri, "src", "f"],
            vec!["decrypt", uri, "f"],
            vec!["audit", uri],
            vec!["keys", "list", uri],
            vec!["reencrypt", uri, "--all"],
            vec!["doctor", uri],
            vec!["recover", uri],
            vec!["recover", "data", "--mirror", uri],
            vec!["init", "new", "--mirror", uri],
            vec!["cmek", "revoke", uri],
            vec!["cmek", "enable", uri, "--new-cmek", &own],
            vec!["cmek", "disable", uri, "--new-cmek", &own],
            vec!["backup", "create", uri, "dest"],
            vec!["backup", "restore", "dest", uri],
        ];
        if cfg!(feature = "demo") {
            commands.push(vec!["demo", uri]);
        }
        for args in commands {
            let run = bench.bad(2, "invalid-argument", &args);
            assert!(run.stderr.contains("found a URI"), "{args:?}: {}", run.stderr);
        }
    }
    assert_eq!(bench.names("."), before);
    // A directory may have such a name.
    bench.good(&["init", "./s3://data"]);
    bench.good(&["verify", &bench.uri("data")]);
}

#[test]
fn wrong_usage_has_its_exit_code() {
    let bench = Bench::new();
    for args in [
        &["no-such-command"][..],
        &["encrypt", "data"],
        &["init", "x", "--rotation-period", "soon"],
        &["init", "x", "--rotation-bytes", "0"],
        &["decrypt", "data", "f", "--force"],
        &["encrypt", "data", "src", "f", "--kind", "novel"],
    ] {
        let run = bench.run(args);
        assert_eq!(run.code, 2, "{args:?}");
        assert_eq!(run.stdout, b"");
    }
    let mut command = bench.command(&["rotate", "data-key", "data"]);
    let output = command.env_remove("ATREST_CMEK").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

fn mkfifo(path: &std::path::Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn a_pipe_in_a_store_keeps_nobody_waiting() {
    let bench = with_file();
    mkfifo(&bench.path("data/pipe"));
    bench.bad(11, "io", &["decrypt", "data", "pipe"]);
    bench.bad(11, "io", &["inspect", "data/pipe"]);
    for name in ["KEYRING.lock", "KEYRING"] {
        fs::remove_file(bench.path("data").join(name)).unwrap();
        mkfifo(&bench.path("data").join(name));
        assert_ne!(bench.run(&["rotate", "data-key", "data"]).code, 0, "{name}");
        assert_ne!(bench.run(&["doctor", "data"]).code, 0, "{name}");
    }
}

#[test]
fn plaintext_goes_into_nobody_elses_pipe() {
    let bench = with_file();
    let pipe = bench.path("pipe");
    mkfifo(&pipe);
    let (told, heard) = std::sync::mpsc::channel();
    let path = pipe.clone();
    std::thread::spawn(move || told.send(fs::read(path).unwrap()));
    bench.good(&["decrypt", "data", "f", "-o", "pipe"]);
    assert_eq!(heard.recv().unwrap(), b"some words that nobody else may read");
    if std::os::unix::fs::chown(&pipe, Some(65534), None).is_err() {
        return left_out("not the superuser: no pipe of another user's");
    }
    bench.bad(2, "invalid-argument", &["decrypt", "data", "f", "-o", "pipe"]);
    bench.bad(2, "invalid-argument", &["decrypt", "data", "f", "-o", "pipe", "--force"]);
}
