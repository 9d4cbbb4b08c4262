//! Only the room of the suites names them.

use std::path::{Path, PathBuf};

use super::*;

/// Crates that measure each suite, try each, or keep records in frames.
const NAMING_CRATES: [&str; 3] = ["atrest-bench", "atrest-sim", "atrest-datafusion"];

/// Sources that may: the room, and files that are tests.
fn may_name(path: &Path) -> bool {
    let tests = ["tests.rs", "residue.rs"];
    path.ends_with("src/suite.rs")
        || path.components().any(|part| part.as_os_str() == "suite" || part.as_os_str() == "tests")
        || path.file_name().is_some_and(|name| tests.iter().any(|test| name == *test))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !may_name(&path) {
            found.push(path);
        }
    }
}

#[test]
fn nothing_outside_the_room_names_a_suite() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(crates) = std::fs::read_dir(root.join("crates")) else {
        return; // A published package has no other crates.
    };
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    for entry in crates {
        let dir = entry.unwrap().path();
        if !NAMING_CRATES.iter().any(|name| dir.ends_with(name)) && dir.join("src").exists() {
            sources(&dir.join("src"), &mut files);
        }
    }
    assert!(files.len() > 150, "{} sources", files.len());
    let names = Suite::ALL.map(|suite| format!("{suite:?}"));
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        // Tests stand at the end of a file, and docs may tell people what to choose.
        let code = text.split("\nmod tests {").next().unwrap();
        for (number, line) in (1..).zip(code.lines()) {
            let line = line.trim_start();
            let named = names.iter().find(|name| !line.starts_with("//") && line.contains(*name));
            assert_eq!(named, None, "{}:{number} names a suite: {line}", path.display());
        }
    }
}
