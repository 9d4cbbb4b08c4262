//! `examples/files.py`.

use std::path::Path;
use std::process::Command;

use crate::support::{install, run};

#[test]
fn the_example() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let store = dir.path().join("data");
    std::fs::create_dir(&store).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/files.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(dir.path().join("lib/libatrest_c.so.1"));
    let printed = run(python.arg(store).arg(dir.path().join("cmek.key")));
    assert_eq!(printed, "block\nactive 1\n");
}
