//! The committed header is what the sources say, and the library exports that and no more.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{libraries, run};

fn committed() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/include/atrest.h"))
        .unwrap_or_default()
}

/// `ATREST_BLESS=1` writes it anew.
#[test]
fn is_what_the_sources_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in ["code", "border", "store", "access", "context", "file", "names"]
        .map(|name| root.join(format!("src/{name}.rs")))
    {
        builder = builder.with_src(source);
    }
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();
    if std::env::var_os("ATREST_BLESS").is_some() {
        std::fs::write(root.join("include/atrest.h"), &made).unwrap();
    }
    assert!(made == committed(), "include/atrest.h is behind: run this test with ATREST_BLESS=1");
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
