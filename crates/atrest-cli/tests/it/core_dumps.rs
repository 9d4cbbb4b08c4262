//! What is in the memory of a command that the system would write to the disk.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use rustix::process::{Resource, getrlimit};

use crate::support::{Bench, left_out};

/// Who may look into a command that reads plaintext, and the limit of its core dump.
fn at_work(bench: &Bench) -> (u32, String) {
    let mut command = bench.command(&["encrypt", "data", "-", "f", "--force"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // More than the pipe holds, so that the command has begun to read when this returns.
    child.stdin.as_mut().unwrap().write_all(&vec![1; 2 << 20]).unwrap();
    let process = format!("/proc/{}", child.id());
    let owner = fs::metadata(format!("{process}/mem")).unwrap().uid();
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let soft = core.split_whitespace().nth(4).unwrap().to_owned();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    (owner, soft)
}

/// A limit of none is not looked at where dumps go to a program; one of a byte is.
#[test]
fn a_command_is_never_dumped_whatever_the_limit_was() {
    const USER: u32 = 65534;
    let mut bench = Bench::new();
    if !bench.give_to(USER) {
        return;
    }
    match getrlimit(Resource::Core).maximum {
        Some(0) => left_out("the greatest limit of core files is 0: not one of a byte"),
        _ => assert_eq!(at_work(&bench), (USER, "1".into())),
    }
    // The system gives what must not be dumped to root.
    bench.limit("core=0");
    assert_eq!(at_work(&bench), (0, "0".into()));
}
