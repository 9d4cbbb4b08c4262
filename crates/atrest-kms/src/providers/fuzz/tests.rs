//! The seeds of every fuzz target, replayed.

use std::path::Path;

use super::{aws, azure, gcp, key_uri, kmip, vault};

#[test]
fn every_seed_passes() {
    type Target = fn(&[u8]);
    let targets: [(&str, Target); 6] = [
        ("kms_aws", aws),
        ("kms_azure", azure),
        ("kms_gcp", gcp),
        ("kms_kmip", kmip),
        ("kms_vault", vault),
        ("key_uri", key_uri),
    ];
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    if !seeds.exists() {
        return; // A published package has no seeds.
    }
    for (name, target) in targets {
        let mut seen = 0;
        for entry in std::fs::read_dir(seeds.join(name)).expect("seeds") {
            target(&std::fs::read(entry.expect("a seed").path()).expect("readable"));
            seen += 1;
        }
        assert!(seen > 0, "no seeds for {name}");
    }
}
