//! `kill -9` in the middle of commits.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use atrest::Integrity;
use atrest_tantivy::EncryptedDirectory;
use tantivy::Index;

use crate::support::{Place, Texts, open};

const KILLS: u64 = 50;
const CHILD: &str = "ATREST_TANTIVY_CRASH";

/// What the killed process does: commits without end, and says which document is committed.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let dir = Path::new(&dir);
    let store = open(dir, Integrity::Authenticated).unwrap();
    let directory = EncryptedDirectory::new(&store, dir.join("data"));
    let index = Texts::of(Index::open(directory).unwrap());
    let mut writer = index.writer();
    let first = index.search("whale").unwrap().0 as u64;
    for number in first.. {
        index.add(&writer, number, "a whale").unwrap();
        writer.commit().unwrap();
        eprintln!("committed {number}");
    }
}

#[test]
fn kill_9_loses_no_commit() {
    let place = Place::new(Integrity::Authenticated);
    let store = place.store();
    Texts::create(place.directory(&store));
    drop(store);
    let mut committed = 0;
    for round in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(CHILD, place.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut next = || {
            let line = lines.next()?;
            let number = line.strip_prefix("committed ").unwrap_or_else(|| panic!("{line}"));
            Some(number.parse::<u64>().unwrap() + 1)
        };
        for _ in 0..=round % 3 {
            committed = next().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was said and not yet read.
        while let Some(more) = next() {
            committed = more;
        }
        let store = place.store();
        let index = Texts::of(Index::open(place.directory(&store)).unwrap());
        let found = index.search("whale").unwrap().0 as u64;
        assert!(found >= committed, "round {round}: {committed} committed, {found} found");
    }
    assert!(committed >= KILLS);
}
