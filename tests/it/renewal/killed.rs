//! `kill -9` at random moments of rotation, re-encryption and retirement.
//!
//! The test starts its own binary as a child, which plays an engine: it says on its
//! standard output what it is about to do and what is durable. The parent kills it, opens
//! the store as the next process would, and holds it to what was said. The rounds go on
//! with one store; `ATREST_KILL_ROUNDS` sets their number.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atrest::keyring::{KeyState, Options};
use atrest::kms::generate_key_file;
use atrest::store::{Reencrypt, StalePolicy};
use atrest::{EncryptedFs, FileKind, FileSpec, Header, Store, Suite};

use crate::support::{key_file, store_of};

const CHILD: &str = "ATREST_KILL_CHILD";

fn open(dir: &Path) -> EncryptedFs {
    let mut options = Options::default();
    options.background = false;
    let kms = key_file(&dir.join("cmek.key"));
    Store::open_or_create(dir.join("data"), kms, options).unwrap().files().clone()
}

/// What a file holds follows from its number.
fn content(number: u64) -> Vec<u8> {
    let len = (number * 7919 % 60_000) as usize;
    (0..len).map(|i| (number * 31 + i as u64 * 7 + (i as u64 >> 8)) as u8).collect()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may be gone already.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The child: an engine, a rotation, a re-encryption and a retirement, all the time.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let (dir, first) = (Path::new(&dir), std::env::var("ATREST_KILL_FIRST").unwrap());
    // The other threads never end, so nobody would wait for the one that panics.
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("failed {:?}", panic.to_string()));
        std::process::abort();
    }));
    let fs = open(dir);
    let next = AtomicU64::new(first.parse().unwrap());
    say("open");
    std::thread::scope(|scope| {
        scope.spawn(|| engine(&fs, &dir.join("data"), &next));
        scope.spawn(|| {
            loop {
                fs.keyring().keys().rotate().unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        scope.spawn(|| {
            loop {
                let mut how = Reencrypt::default();
                how.policy = StalePolicy::older_than(Duration::ZERO);
                how.threads = 2;
                let report = store_of(&fs).renewal().reencrypt(&how).unwrap();
                if let Some((path, error)) = report.failed.first() {
                    say(&format!("failed {} {error:?}", path.display()));
                }
            }
        });
        scope.spawn(|| {
            loop {
                // A grace of nothing, so that as much as can be is destroyed.
                match store_of(&fs).renewal().retire(None, Duration::ZERO, &|_| {}) {
                    Ok(done) => done.destroyed().for_each(|id| say(&format!("destroyed {id}"))),
                    Err(error) => say(&format!("failed retire {error:?}")),
                }
            }
        });
    });
}

fn engine(fs: &EncryptedFs, data: &Path, next: &AtomicU64) {
    let mut live = std::collections::VecDeque::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let suite = [Suite::Aes256Ctr, Suite::Aes256GcmChunks, Suite::Aes256GcmLog];
        let spec = FileSpec::new(FileKind::Table).suite(suite[number as usize % 3]);
        let path = data.join(format!("f{number}"));
        let mut writer = fs.create_new(&path, spec.file_id(number)).unwrap();
        content(number).chunks(10_000).for_each(|piece| writer.append(piece).unwrap());
        writer.finish().unwrap();
        fs.sync_dir(data).unwrap();
        say(&format!("written {number}"));
        live.push_back(number);
        if live.len() > 12 {
            let old = live.remove(number as usize * 5 % 10).unwrap();
            say(&format!("removing {old}"));
            fs.remove(data.join(format!("f{old}"))).unwrap();
            say(&format!("removed {old}"));
        }
    }
}

/// What the parent knows of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Written,
    /// Removed or not: the child was killed over it.
    Unclear,
    Removed,
}

#[test]
fn a_killed_process_loses_nothing() {
    let rounds = std::env::var("ATREST_KILL_ROUNDS").map_or(6, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    generate_key_file(dir.path().join("cmek.key")).unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let mut files = BTreeMap::new();
    let (mut next, mut random, mut destroyed, mut seen) = (0_u64, 88_172_645_463_325_252_u64, 0, 0);
    let mut round = 0;
    // A few rounds on a slow machine may all end before a key is destroyed.
    while round < rounds || (destroyed == 0 && round < rounds + 100) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let patience = Duration::from_micros(random % 120_000);
        // Every other time the first commits too are in the time of the kill.
        destroyed += one_round(dir.path(), round % 2 == 0, patience, &mut next, &mut files);
        seen += check(dir.path(), &mut files, round);
        round += 1;
    }
    eprintln!("{round} rounds, {seen} read back, {destroyed} keys destroyed");
    assert!(seen > 0, "no file was read back: this shows nothing");
    assert!(destroyed > 0, "no key was destroyed: this shows nothing");
}

/// Kills a child so long after its first file, or after it began. Returns how many keys it
/// destroyed.
fn one_round(
    dir: &Path,
    is_after_a_file: bool,
    patience: Duration,
    next: &mut u64,
    files: &mut BTreeMap<u64, Known>,
) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "renewal::killed::child", "--nocapture", "--test-threads", "1"])
        .env(CHILD, dir)
        .env("ATREST_KILL_FIRST", (*next + 100_000).to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    *next += 100_000;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The test harness speaks first.
    let began = lines.by_ref().any(|line| line.unwrap().ends_with("open"));
    if !began {
        let output = child.wait_with_output().unwrap();
        panic!("the child did not begin: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut said = Vec::new();
    while is_after_a_file && !said.last().is_some_and(|it: &String| it.starts_with("written")) {
        said.push(lines.next().expect("the child ended").unwrap());
    }
    let mut destroyed = 0;
    std::thread::scope(|scope| {
        let rest = scope.spawn(|| {
            // A line without its end was not said.
            lines.map_while(Result::ok).collect::<Vec<_>>()
        });
        std::thread::sleep(patience);
        child.kill().unwrap();
        child.wait().unwrap();
        for line in said.into_iter().chain(rest.join().unwrap()) {
            let mut words = line.split(' ');
            let (what, number) = (words.next(), words.next());
            let number = || number.and_then(|n| n.parse::<u64>().ok()).unwrap();
            match what {
                Some("written") => drop(files.insert(number(), Known::Written)),
                Some("removing") => drop(files.insert(number(), Known::Unclear)),
                Some("removed") => drop(files.insert(number(), Known::Removed)),
                Some("destroyed") => destroyed += 1,
                _ => panic!("the child said {line:?}"),
            }
        }
    });
    destroyed
}

/// Holds the store to what was said. Returns the number of files read.
fn check(dir: &Path, files: &mut BTreeMap<u64, Known>, round: u64) -> u64 {
    let (fs, data) = (open(dir), dir.join("data"));
    let dead: Vec<_> = fs.keyring().status().data_keys;
    let mut found = std::collections::BTreeSet::new();
    for entry in fs.list(&data).unwrap() {
        let name = entry.path.file_name().unwrap().to_str().unwrap().to_owned();
        let number: u64 = name.strip_prefix('f').unwrap().parse().unwrap();
        let bytes = std::fs::read(&entry.path).unwrap();
        if files.get(&number).is_none() {
            // Its writing was cut short.
            fs.remove(&entry.path).unwrap();
            continue;
        }
        let header = Header::parse(&bytes).unwrap();
        let key = dead.iter().find(|key| key.id == header.data_key_id).unwrap();
        assert_ne!(key.state, KeyState::Destroyed, "round {round}: {name} names a dead key");
        let reader = fs.open(&entry.path).unwrap();
        let mut read = vec![0; reader.len().unwrap() as usize];
        reader.read_exact_at(&mut read, 0).unwrap();
        assert!(read == content(number), "round {round}: {name} has another content");
        assert_eq!(header.file_id, number.into());
        found.insert(number);
    }
    for (number, known) in &*files {
        match known {
            Known::Written => assert!(found.contains(number), "round {round}: f{number} is lost"),
            Known::Removed => assert!(!found.contains(number), "round {round}: f{number} is back"),
            Known::Unclear => {}
        }
    }
    // The next round's engine does not know these files.
    for number in found.iter().take(found.len().saturating_sub(8)) {
        fs.remove(data.join(format!("f{number}"))).unwrap();
    }
    files.retain(|number, _| found.contains(number));
    let gone: Vec<u64> = found.iter().take(found.len().saturating_sub(8)).copied().collect();
    gone.iter().for_each(|number| {
        files.remove(number);
    });
    files.values_mut().for_each(|known| *known = Known::Written);
    // A run that is not killed leaves nothing behind.
    let done = store_of(&fs).renewal().reencrypt(&Reencrypt::default()).unwrap();
    assert!(done.failed.is_empty(), "round {round}: {:?}", done.failed);
    let names = std::fs::read_dir(&data).unwrap().map(|e| e.unwrap().file_name());
    let leftovers: Vec<_> =
        names.filter(|name| name.to_str().unwrap().starts_with(".atrest")).collect();
    assert!(leftovers.is_empty(), "round {round}: {leftovers:?}");
    found.len() as u64
}
