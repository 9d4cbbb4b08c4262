//! `docs/DEPENDENCIES.md` has every direct dependency of what ships, and no other.

use std::collections::BTreeSet;
use std::path::Path;

const SHIPPED: [&str; 11] = [
    ".",
    "crates/atrest-admin",
    "crates/atrest-capi",
    "crates/atrest-cli",
    "crates/atrest-datafusion",
    "crates/atrest-kms",
    "crates/atrest-object-store",
    "crates/atrest-raft-engine",
    "crates/atrest-rocksdb-env",
    "crates/atrest-surrealkv",
    "crates/atrest-tantivy",
];

/// The names in a manifest's tables of dependencies, but those of the workspace.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            inside = ["dependencies]", "build-dependencies]"].contains(&table)
                || (table.starts_with("target.") && table.ends_with(".dependencies]"));
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| inside) {
            names.insert(name.to_owned());
        }
    }
    names.retain(|name| !name.starts_with('#') && !name.starts_with("atrest"));
    names
}

#[test]
fn every_direct_dependency_is_argued_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/DEPENDENCIES.md")).unwrap();
    let first_cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let listed: BTreeSet<String> = first_cells
        .flat_map(|cell| cell.split(", "))
        .map(|name| name.trim_matches('`').to_owned())
        .collect();
    let mut used = BTreeSet::new();
    for shipped in SHIPPED {
        let manifest = std::fs::read_to_string(root.join(shipped).join("Cargo.toml")).unwrap();
        let of_one = dependencies(&manifest);
        assert!(shipped != "." || of_one.len() == 16, "the text says 16: {of_one:?}");
        used.extend(of_one);
    }
    let missing: Vec<_> = used.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&used).collect();
    assert!(missing.is_empty() && gone.is_empty(), "not listed: {missing:?}; not used: {gone:?}");
}
