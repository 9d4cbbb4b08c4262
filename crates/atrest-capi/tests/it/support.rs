//! Where the libraries are, and running programs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory of the libraries that cargo built for these tests.
pub(crate) fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// What it printed. It has to succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// The libraries, header and pkg-config file as they are installed below `prefix`.
pub(crate) fn install(prefix: &Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/install");
    run(Command::new(script).arg("--prefix").arg(prefix).arg("--built").arg(libraries()));
}

/// The compiler flags that pkg-config tells.
pub(crate) fn flags(prefix: &Path, options: &[&str]) -> Vec<String> {
    let mut pkg_config = Command::new("pkg-config");
    pkg_config.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let flags = run(pkg_config.args(options).arg("atrest"));
    flags.split_whitespace().map(str::to_owned).collect()
}
