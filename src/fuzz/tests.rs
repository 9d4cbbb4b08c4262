//! The seeds of every fuzz target, replayed.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::{
    audit, ctr, file, header, keyring_changed, keyring_image, keyring_slots, manifest, ranges,
};

#[test]
fn every_seed_passes() {
    type Target = fn(&[u8]);
    let targets: [(&str, Target); 9] = [
        ("header", header),
        ("keyring_slots", keyring_slots),
        ("keyring_image", keyring_image),
        ("keyring_changed", keyring_changed),
        ("audit", audit),
        ("manifest", manifest),
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
