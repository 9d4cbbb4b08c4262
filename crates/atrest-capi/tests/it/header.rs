//! The committed header is what the sources say, and the library exports what it names, no more.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{libraries, run};

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");
const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include/atrest.h");

fn committed() -> String {
    std::fs::read_to_string(HEADER).unwrap_or_default()
}

#[test]
fn is_what_the_sources_say() {
    let config = cbindgen::Config::from_file(Path::new(PACKAGE).join("cbindgen.toml")).unwrap();
    let mut made = Vec::new();
    cbindgen::generate_with_config(PACKAGE, config).unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();
    if std::env::var_os("ATREST_WRITE_HEADER").is_some() {
        std::fs::write(HEADER, &made).unwrap();
    }
    let committed = committed();
    let differs = made.lines().zip(committed.lines()).find(|(made, committed)| made != committed);
    assert!(
        made == committed,
        "`ATREST_WRITE_HEADER=1 cargo test -p atrest-capi header` writes it anew: {differs:?}"
    );
}

#[test]
fn names_every_symbol_that_the_library_exports() {
    let library = libraries().join("libatrest_c.so");
    let symbols = run(std::process::Command::new("nm").args(["-D", "--defined-only"]).arg(library));
    let exported: BTreeSet<_> =
        symbols.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let header = committed();
    let words = header.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let declared: BTreeSet<_> =
        words.filter(|word| word.starts_with("atrest1_") && exported.contains(word)).collect();
    assert!(declared.len() > 30, "{declared:?}");
    assert_eq!(declared, exported);
}
