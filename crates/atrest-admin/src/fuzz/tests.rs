//! The seeds, replayed.

use std::path::Path;

#[test]
fn every_seed_passes() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/admin");
    if !seeds.exists() {
        return; // A published package has no seeds.
    }
    let mut seen = 0;
    for entry in std::fs::read_dir(seeds).expect("seeds") {
        super::requests(&std::fs::read(entry.expect("a seed").path()).expect("readable"));
        seen += 1;
    }
    assert!(seen > 0);
}
