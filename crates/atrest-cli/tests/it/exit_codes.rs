//! The table of exit codes: one in the README, one in the help, and what commands do.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use atrest::keyring::{DirectoryStorage, Keyring, Options};

use crate::support::Bench;

/// Numbers in front of each row of the table below `## Exit codes`.
fn in_readme() -> BTreeSet<i32> {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("\n## Exit codes\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(' ')?.0.parse().ok())
        .collect()
}

/// Numbers in the two columns of the help.
fn in_help(bench: &Bench) -> BTreeSet<i32> {
    let help = String::from_utf8(bench.good(&["--help"])).unwrap();
    let (_, section) = help.split_once("Exit codes:\n").unwrap();
    section.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn signalled(bench: &Bench, signal: &str) -> i32 {
    let mut command = bench.command(&["encrypt", "data", "-", "new", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![1; 2 << 20]).unwrap();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let code = output.status.code().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (&told["error"]["kind"], &told["error"]["exit_code"]),
        (&"interrupted".into(), &code.into())
    );
    code
}

fn without_reader(bench: &Bench) -> i32 {
    let mut command = bench.command(&["decrypt", "data", "f"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.wait().unwrap().code().unwrap()
}

#[test]
fn every_code_of_the_table_is_met_and_no_other() {
    let mut bench = Bench::new();
    bench.keygen("other.key");
    bench.write("src", &vec![5; 4 << 20]);
    bench.good(&["encrypt", "data", "src", "f"]);
    bench.write("data/plain", b"plain");
    let mut newer = bench.read("data/f");
    newer[8] = 0xff;
    bench.write("data/newer", &newer);
    fs::create_dir(bench.path("damaged")).unwrap();
    bench.write("damaged/KEYRING", b"ATRK");
    let other = bench.uri("other.key");
    let missing = bench.uri("missing.key");
    let silent = "hcvault://127.0.0.1:1/transit/keys/k?tls=false";
    let mut met = BTreeSet::new();
    let mut meet = |code: i32, args: &[&str]| {
        let run = bench.run_with(args, &[("VAULT_TOKEN", "t")], b"");
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        met.insert(code);
    };
    meet(0, &["status", "data"]);
    meet(1, &["doctor", "data"]);
    meet(2, &["status"]);
    meet(3, &["verify", "data", "--cmek", &missing]);
    meet(4, &["init", "new", "--kms-timeout", "2s", "--cmek", silent]);
    meet(5, &["verify", "data", "--cmek", &other]);
    meet(6, &["status", "damaged"]);
    meet(7, &["decrypt", "data", "nothing"]);
    meet(8, &["init", "data"]);
    meet(10, &["decrypt", "data", "plain"]);
    meet(11, &["decrypt", "data", "f", "-o", "/dev/full"]);
    meet(12, &["decrypt", "data", "newer"]);
    bench.good(&["init", "linked"]);
    std::os::unix::fs::symlink(bench.path("cmek.key"), bench.path("linked/link")).unwrap();
    meet(13, &["backup", "create", "linked", "chain"]);
    let kms = atrest::kms::from_uri(&bench.uri("cmek.key")).unwrap();
    let mut options = Options::default();
    options.background = false;
    let keyring = Keyring::open(DirectoryStorage::new(bench.path("data")), kms, options).unwrap();
    meet(9, &["rotate", "data-key", "data"]);
    drop(keyring);
    bench.write("src", &[5; 300_000]);
    bench.good(&["encrypt", "data", "src", "log", "--suite", "aes256-gcm-log"]);
    let whole = bench.read("data/log");
    bench.write("data/log", &whole[..whole.len() - 1]);
    let mut meet = |code: i32, args: &[&str]| {
        let run = bench.run(args);
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        met.insert(code);
    };
    meet(13, &["decrypt", "data", "log"]);
    bench.good(&["init", "lacking"]);
    bench.good(&["encrypt", "lacking", "src", "table", "--suite", "aes256-gcm-chunks"]);
    let whole = bench.read("lacking/table");
    bench.write("lacking/table", &whole[..4096 + (64 << 10)]);
    meet(13, &["backup", "create", "lacking", "dest"]);
    for signal in ["HUP", "INT", "TERM"] {
        met.insert(signalled(&bench, signal));
    }
    met.insert(without_reader(&bench));
    assert_eq!(in_readme(), met);
    assert_eq!(in_help(&bench), met);
}
