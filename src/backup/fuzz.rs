//! Manifests, for fuzzing.

use std::path::Component;

use super::manifest::Manifest;
use crate::error::Result;

/// Decodes a manifest: a good one is encoded to the same bytes again, and no path of it leads
/// out of the store.
pub(crate) fn manifest(bytes: &[u8]) -> Result<()> {
    let manifest = Manifest::decode(bytes)?;
    assert_eq!(manifest.encode()?, bytes);
    for file in &manifest.files {
        let path = file.relative();
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        assert!(file.what().is_some());
    }
    Ok(())
}
