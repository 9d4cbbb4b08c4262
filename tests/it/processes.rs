//! Several processes over one store: the lock, keys that another process made, takeovers.
//!
//! The test starts its own binary as children, which do what they are told line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use atrest::{Error, FileKind, Store};

use crate::support::{TestStore, key_file, manual};

const CHILD: &str = "ATREST_PROCESSES_CHILD";

/// The child: answers each line of its standard input with `= ok` or `= ` and a kind of error.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let (dir, mut store) = (Path::new(&dir), None);
    println!("= ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let answer = match obey(dir, &mut store, &line) {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        println!("= {answer}");
    }
}

fn obey(dir: &Path, store: &mut Option<Store>, line: &str) -> Result<(), Error> {
    let data = dir.join("data");
    let kms = || key_file(&dir.join("cmek.key"));
    let (what, name) = line.split_once(' ').unwrap_or((line, ""));
    match what {
        "open" => *store = Some(Store::open(&data, kms(), manual())?),
        "open-read-only" => *store = Some(Store::open_read_only(&data, kms(), manual())?),
        "close" => store.take().unwrap().close()?,
        other => {
            let (store, path) = (store.as_ref().unwrap(), data.join(name));
            match other {
                "rotate" => drop(store.keys().rotate()?),
                "rotate-store-key" => drop(store.keys().rotate_store_key()?),
                "revoke" => store.access().revoke()?,
                "restore" => store.access().restore()?,
                "check" => drop(store.access().check_now()),
                "write" => {
                    let mut writer = store.files().create_new(path, FileKind::Table)?;
                    writer.append(name.as_bytes())?;
                    writer.finish()?;
                    store.files().sync_dir(&data)?;
                }
                "read" => {
                    let mut bytes = vec![0; name.len()];
                    store.files().open(path)?.read_exact_at(&mut bytes, 0)?;
                    assert_eq!(bytes, name.as_bytes());
                }
                _ => panic!("what is {other}?"),
            }
        }
    }
    Ok(())
}

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(store: &TestStore) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::child", "--nocapture"])
            .env(CHILD, store.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut process = Self { child, input, output: BufReader::new(output) };
        assert_eq!(process.answer(), "ready");
        process
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the child is gone");
            // The harness may have begun the line.
            if let Some((_, answer)) = line.split_once("= ") {
                return answer.trim().to_owned();
            }
        }
    }

    fn tell(&mut self, line: &str) -> String {
        self.say(line);
        self.answer()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn new_store() -> TestStore {
    let store = TestStore::new();
    store.create(manual()).close().unwrap();
    store
}

#[test]
fn one_process_writes_and_others_read_under_keys_that_they_have_not_seen() {
    let store = new_store();
    let [mut one, mut other] = [(); 2].map(|()| Process::start(&store));
    assert_eq!(one.tell("open"), "ok");
    assert_eq!(other.tell("open"), "KeyringBusy");
    assert_eq!(other.tell("open-read-only"), "ok");
    assert_eq!(other.tell("rotate"), "ReadOnly");
    for (change, file) in [("rotate", "a"), ("rotate-store-key", "b"), ("rotate", "c")] {
        assert_eq!(one.tell(change), "ok");
        assert_eq!(one.tell(&format!("write {file}")), "ok");
        assert_eq!(other.tell(&format!("read {file}")), "ok");
    }
    assert_eq!(one.tell("close"), "ok");
    assert_eq!(other.tell("open"), "ok");
    assert_eq!(one.tell("open"), "KeyringBusy");
}

#[test]
fn a_killed_writer_is_taken_over() {
    let store = new_store();
    for round in 0..3 {
        let [mut one, mut other] = [(); 2].map(|()| Process::start(&store));
        assert_eq!(one.tell("open"), "ok");
        assert_eq!(one.tell("rotate"), "ok");
        assert_eq!(one.tell(&format!("write {round}")), "ok");
        // Whatever it is doing now.
        one.say("rotate-store-key");
        drop(one);
        assert_eq!(other.tell("open"), "ok");
        for file in 0..=round {
            assert_eq!(other.tell(&format!("read {file}")), "ok");
        }
        assert_eq!(other.tell("rotate"), "ok");
    }
}

#[test]
fn of_many_that_open_at_once_one_writes() {
    let store = new_store();
    let mut processes: Vec<_> = (0..6).map(|_| Process::start(&store)).collect();
    for _ in 0..5 {
        processes.iter_mut().for_each(|process| process.say("open"));
        let mut answers: Vec<_> = processes.iter_mut().map(Process::answer).collect();
        let winner = answers.iter().position(|answer| answer == "ok").unwrap();
        answers.remove(winner);
        assert_eq!(answers, ["KeyringBusy"; 5]);
        assert_eq!(processes[winner].tell("rotate"), "ok");
        assert_eq!(processes[winner].tell("close"), "ok");
    }
}

#[test]
fn a_revocation_reaches_the_other_process_at_its_next_check() {
    let store = new_store();
    let [mut one, mut other] = [(); 2].map(|()| Process::start(&store));
    assert_eq!(one.tell("open"), "ok");
    assert_eq!(one.tell("write a"), "ok");
    assert_eq!(other.tell("open-read-only"), "ok");
    assert_eq!(other.tell("read a"), "ok");
    assert_eq!(one.tell("revoke"), "ok");
    assert_eq!(other.tell("check"), "ok");
    assert_eq!(other.tell("read a"), "CmekRevoked");
    assert_eq!(one.tell("restore"), "ok");
    assert_eq!(other.tell("restore"), "ok");
    assert_eq!(other.tell("read a"), "ok");
}
