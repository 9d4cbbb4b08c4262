//! The list against the format's text, and against the checks.
#![allow(clippy::unwrap_used)]

use super::*;

const FORMAT: &str = include_str!("../../docs/FORMAT.md");

/// Rows of the table of section 8, as name and content.
fn rows() -> Vec<(&'static str, &'static str)> {
    let section = FORMAT.split("\n## ").find(|section| section.starts_with("8. Files")).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.filter_map(|row| row.split_once("` | ")).collect()
}

#[test]
fn the_list_is_the_formats() {
    let listed: Vec<_> = RESERVED_NAMES.iter().map(|row| (row.pattern, row.content)).collect();
    assert_eq!(rows(), listed);
}

/// What each row's pattern stands for.
fn sample(pattern: &str) -> (String, NameKind) {
    let name = pattern.trim_end_matches('/').replace("<generation>", "17");
    let name = name.replace(['<', '>'], "");
    let kind = match pattern {
        "KEYRING" => NameKind::Keyring,
        "KEYRING.<generation>" => NameKind::Older(17),
        "KEYRING.new" | "KEYRING.*.new" => NameKind::Unfinished,
        "KEYRING.lock" => NameKind::Lock,
        "KEYRING.audit.<hash>" => NameKind::Audit,
        "KEYRING.revoke" => NameKind::Revoke,
        "KEYRING.staging.<random>/" => NameKind::Staging,
        "KEYRING.restore/" => NameKind::Restore,
        "KEYRING.from" => NameKind::RestoreNote,
        "KEYRING.bad-*" => NameKind::Bad,
        "KEYRING.directory.<store id>" => NameKind::Marker,
        "KEYRING.mirror.<id>" => NameKind::Mirror,
        ".atrest-reencrypt-<hash>" | ".atrest-reencrypt-<hash>-<hash>-<hash>" => {
            NameKind::Reencrypt
        }
        ".atrest-partial-<hash>" => NameKind::Partial,
        other => panic!("what is {other}?"),
    };
    (name.replace('*', "17"), kind)
}

#[test]
fn every_row_is_recognised_in_any_part_of_a_path() {
    for row in RESERVED_NAMES.iter().filter(|row| row.pattern != "_atrest/") {
        let (name, kind) = sample(row.pattern);
        assert_eq!(kind_of(name.as_bytes()), Some(kind), "{name}");
        for path in [name.clone(), format!("a/{name}"), format!("/x/{name}/f"), format!("{name}/f")]
        {
            assert!(is_reserved_path(&path), "{path}");
        }
        let is_keyrings = !matches!(kind, NameKind::Reencrypt | NameKind::Partial);
        assert_eq!(is_keyring_name(name.as_bytes()), is_keyrings, "{name}");
    }
}

#[test]
fn what_no_version_makes_is_reserved_too_and_an_engines_names_are_not() {
    for name in ["KEYRING.dir", "KEYRING.sst", "KEYRING.", "KEYRING.+1", "KEYRING.007"] {
        assert_eq!(kind_of(name.as_bytes()), Some(NameKind::Unknown), "{name}");
    }
    for path in ["", "a/b", "KEYRINGS", "KEYRING-1", "keyring", "MANIFEST", ".atrest", OBJECT_DIR] {
        assert!(!is_reserved_path(path), "{path}");
    }
    assert_eq!(kind_of(b"KEYRING.18446744073709551615"), Some(NameKind::Older(u64::MAX)));
    assert_eq!(kind_of(b"KEYRING.18446744073709551616"), Some(NameKind::Unknown));
    assert_eq!(kind_of(b"KEYRING.\xff"), Some(NameKind::Unknown));
}

#[test]
fn a_successors_name_is_short_and_recognised() {
    let name = temporary_name(&[b'x'; 255]);
    assert!(name.len() < 64 && is_temporary(name.as_bytes()));
    assert_ne!(name, temporary_name(&[b'x'; 254]));
}

#[test]
fn what_is_being_written_has_a_short_name_that_only_its_writer_may_give() {
    let name = partial_name(&[b'x'; 255], 17);
    assert!(name.len() < 64 && is_temporary(name.as_bytes()) && is_reserved_path(&name));
    assert_ne!(name, partial_name(&[b'x'; 255], 18));
    assert_ne!(name, partial_name(&[b'x'; 254], 17));
    assert!(is_partial_path(&Path::new("a").join(&name)));
    assert!(!is_partial_path(&Path::new("KEYRING.restore").join(&name)));
    assert!(!is_partial_path(Path::new("a/b")));
}

fn sources(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        if path.is_dir() && !path.ends_with("tests") {
            sources(&path, found);
        } else if is_rust && !path.ends_with("tests.rs") && !path.ends_with("src/names.rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_other_source_writes_these_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let crates =
        ["atrest-cli", "atrest-admin", "atrest-kms", "atrest-object-store", "atrest-lifecycle"];
    for dir in crates.map(|name| root.join("crates").join(name).join("src")) {
        // A published package has no other crates.
        if dir.exists() {
            sources(&dir, &mut files);
        }
    }
    assert!(files.len() > 50, "{} sources", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in (1..).zip(code.lines()) {
            let line = line.trim_start();
            // The reason of an error in the admin service, not a file.
            let is_other = line.starts_with("//") || line.contains("(Code::");
            let named = ["\"KEYRING\"", "\"KEYRING.", ".atrest-", " KEYRING.{"];
            let named = named.iter().find(|name| !is_other && line.contains(*name));
            assert_eq!(named, None, "{}:{number}: {line}", path.display());
        }
    }
}
