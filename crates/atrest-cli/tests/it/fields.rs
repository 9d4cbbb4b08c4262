//! What machines read has the fields of the README, and no other.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::Bench;

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Without what stands in parentheses, which is about a field.
fn bare(text: &str) -> String {
    let mut depth = 0;
    let mut outside = |letter: &char| {
        depth += i32::from(*letter == '(');
        let keeps = depth == 0;
        depth -= i32::from(*letter == ')');
        keeps
    };
    text.chars().filter(|letter| outside(letter)).collect()
}

/// The README's table: the fields of each command's object.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let readme = include_str!("../../README.md");
    let (_, table) = readme.split_once("| command | fields |\n|---|---|\n").expect("the table");
    let mut commands = BTreeMap::new();
    for row in table.lines().take_while(|line| line.starts_with('|')) {
        let (names, fields) = row[1..].split_once(" | ").expect("two cells");
        let (names, fields) = (bare(names), bare(fields));
        if names.contains("` `") {
            continue; // A part of an object.
        }
        // Behind `with` are the fields of a field.
        let parts = fields.split(';').map(|part| part.split(" with ").next().unwrap().trim());
        let of_others = |part: &&str| !part.starts_with("of ") && !part.starts_with("all but ");
        let fields: BTreeSet<_> = parts
            .filter(of_others)
            .flat_map(quoted)
            .map(|field| field.trim_end_matches("[]").to_owned())
            .collect();
        for name in quoted(&names) {
            assert!(commands.insert(name.to_owned(), fields.clone()).is_none(), "{name} twice");
        }
    }
    commands
}

#[test]
fn every_command_says_the_fields_of_the_readme() {
    let bench = Bench::empty();
    let mut left = documented();
    bench.write("src", b"words");
    let (first, second) = (bench.uri("cmek.key"), bench.uri("second.key"));
    for key in ["cmek.key", "second.key"] {
        bench.good(&["keygen", key]);
    }
    let made = bench.json(&["init", "first"]);
    let held = made["data_key_id"].as_str().unwrap();
    let script: &[(&str, &[&str])] = &[
        ("keygen", &["third.key"]),
        ("init", &["data"]),
        ("encrypt", &["data", "src", "f"]),
        ("decrypt", &["data", "f", "-o", "out"]),
        ("inspect", &["data/f"]),
        ("inspect", &["src"]),
        ("status", &["data"]),
        ("verify", &["data"]),
        ("doctor", &["data"]),
        ("audit", &["data"]),
        ("keys hold", &["first", held, "--name", "kept"]),
        ("keys holds", &["first"]),
        ("keys release", &["first", "kept"]),
        ("rotate data-key", &["data"]),
        ("rotate store-key", &["data"]),
        ("reencrypt", &["data", "--all"]),
        ("keys list", &["data"]),
        ("keys retire", &["data"]),
        ("keys proof", &["data"]),
        ("keys directories", &["data"]),
        ("keys add-keyspace", &["data", "tenant"]),
        ("keys keyspaces", &["data"]),
        ("keys shred", &["data", "--keyspace", "tenant", "--confirm", "tenant"]),
        ("cmek list", &["data"]),
        ("cmek status", &["data"]),
        ("cmek add", &["data", "other", "--new-cmek", &second]),
        ("cmek rewrap", &["data", "other", "--cmek", &second]),
        ("cmek remove", &["data", "other"]),
        ("cmek revoke", &["data"]),
        ("cmek restore", &["data"]),
        ("backup create", &["data", "dest"]),
        ("backup incremental", &["data", "dest"]),
        ("backup list", &["dest"]),
        ("backup verify", &["dest"]),
        ("backup restore", &["dest", "restored"]),
        ("recover", &["data"]),
        ("rotate cmek", &["data", "--new-cmek", &second]),
        ("cmek rotate", &["data", "--cmek", &second, "--new-cmek", &first]),
        ("cmek disable", &["data", "--new-cmek", &second]),
        ("cmek enable", &["data", "--cmek", &second, "--new-cmek", &first]),
    ];
    for (command, arguments) in script {
        let run: Vec<_> = command.split(' ').chain(arguments.iter().copied()).collect();
        let said = bench.json(&run);
        let said = said.as_object().unwrap().keys().map(String::as_str);
        // These may be in each.
        let said: BTreeSet<_> =
            said.filter(|field| !["warnings", "error"].contains(field)).collect();
        let expected = &left.get(*command).unwrap_or_else(|| panic!("{command} is in no row"));
        assert_eq!(said, expected.iter().map(String::as_str).collect(), "{run:?}");
    }
    left.retain(|name, _| !script.iter().any(|(command, _)| command == name));
    let rest: Vec<_> = left.keys().map(String::as_str).collect();
    // Theirs are in the tests of each.
    assert_eq!(rest, ["demo", "keys forget-directory", "keys take-directory", "serve"]);
}
