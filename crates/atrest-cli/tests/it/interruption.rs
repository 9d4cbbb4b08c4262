//! Ctrl-C, and a reader that goes away.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::Bench;

#[test]
fn an_interrupted_encryption_leaves_nothing() {
    let bench = Bench::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let before = bench.names("data");
        let mut command = bench.command(&["encrypt", "data", "-", "f"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // More than the pipe, so that the command has begun to read when this returns.
        stdin.write_all(&vec![1; 2 << 20]).unwrap();
        assert!(bench.names("data").iter().any(|name| name.starts_with(".atrest-partial-")));
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(bench.names("data"), before);
    }
}

/// The command in a shell that ignores signals, as `nohup` and jobs in the background do.
fn ignoring(signals: &str, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", &format!("trap '' {signals}; exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap())
        .env_clear()
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let bench = Bench::new();
    for (signals, code) in [("HUP", 130), ("HUP INT", 0)] {
        let mut command = ignoring(signals, &bench.command(&["encrypt", "data", "-", signals]));
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&vec![1; 2 << 20]).unwrap();
        let pid = child.id().to_string();
        for signal in ["HUP", "INT"] {
            assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        }
        if code == 0 {
            drop(stdin);
        }
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signals}");
        assert_eq!(bench.path("data").join(signals).exists(), code == 0);
    }
}

#[test]
fn a_server_goes_on_when_a_signal_that_is_ignored_comes() {
    let bench = Bench::new();
    bench.write("token", b"a-token-of-the-tests");
    std::fs::set_permissions(bench.path("token"), Permissions::from_mode(0o600)).unwrap();
    let args = ["serve", "data", "--listen", "127.0.0.1:0", "--token-file", "token"];
    let mut command = ignoring("HUP", &bench.command(&args));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    let pid = child.id().to_string();
    let kill = |signal: &str| {
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    };
    kill("HUP");
    std::thread::sleep(std::time::Duration::from_millis(1000));
    assert!(child.try_wait().unwrap().is_none());
    kill("TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let bench = Bench::new();
    bench.write("src", &vec![5; 4 << 20]);
    bench.good(&["encrypt", "data", "src", "f"]);
    let mut command = bench.command(&["decrypt", "data", "f"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut piece = [0; 10];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut piece).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(piece, [5; 10]);
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(output.stderr, b"");
}

/// Waits until `found` is, and fails after half a minute.
fn wait_until(mut found: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !found() {
        assert!(start.elapsed().as_secs() < 30, "it never came to that");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn an_interrupted_re_encryption_cleans_up_and_is_gone_on_with() {
    let bench = Bench::new();
    bench.write("src", &vec![5; 4 << 20]);
    bench.good(&["encrypt", "data", "src", "f"]);
    bench.good(&["rotate", "data-key", "data"]);
    let before = bench.read("data/f");
    let is_at_work =
        || bench.names("data").iter().any(|name| name.starts_with(".atrest-reencrypt-"));
    let args = ["reencrypt", "data", "--all", "--rate", "256KiB", "--json"];
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut command = bench.command(&args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until(is_at_work);
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["cancelled"], &report["files"]), (&true.into(), &0.into()));
        let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["error"]["kind"], "interrupted");
        assert!(!is_at_work());
        assert!(bench.read("data/f") == before);
    }
    let report = bench.json(&["reencrypt", "data", "--all"]);
    let done = (&report["files"], &report["leftovers_removed"], &report["cancelled"]);
    assert_eq!(done, (&1.into(), &0.into(), &false.into()));
}
