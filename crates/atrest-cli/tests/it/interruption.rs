//! Ctrl-C, and a reader that goes away.

use std::io::{Read, Write};
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
        assert!(bench.names("data").iter().any(|name| name.ends_with(".tmp")));
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(bench.names("data"), before);
    }
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
