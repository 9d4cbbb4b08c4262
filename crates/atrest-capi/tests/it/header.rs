//! The library exports what the committed header names, and no more. That the header is what
//! the sources say is checked by `header --check`, with cbindgen.

use std::collections::BTreeSet;

use crate::support::{libraries, run};

fn committed() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/include/atrest.h"))
        .unwrap_or_default()
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
