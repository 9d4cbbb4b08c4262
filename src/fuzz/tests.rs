//! The seeds of every fuzz target, replayed.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::{ctr, file, header, keyring_image, keyring_slots, ranges};

#[test]
fn every_seed_passes() {
    type Target = fn(&[u8]);
    let targets: [(&str, Target); 6] = [
        ("header", header),
        ("keyring_slots", keyring_slots),
        ("keyring_image", keyring_image),
        ("file", file),
        ("ranges", ranges),
        ("ctr", ctr),
    ];
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    if !seeds.exists() {
        return; // A published package has no seeds.
    }
    for (name, target) in targets {
        let mut seen = 0;
        for entry in std::fs::read_dir(seeds.join(name)).unwrap() {
            target(&std::fs::read(entry.unwrap().path()).unwrap());
            seen += 1;
        }
        assert!(seen > 0, "no seeds for {name}");
    }
}
