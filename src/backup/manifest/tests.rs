#![allow(clippy::unwrap_used)]

use super::*;
use crate::keyring::Settings;
use crate::tags::Unknown;

fn manifest() -> Manifest {
    let settings =
        Settings { rotation_bytes: Some(7), require_authenticated: true, ..Settings::default() };
    Manifest {
        chain_id: [1; 16],
        number: 1,
        previous: [0; 32],
        created_ns: 5,
        source_store_id: [2; 16],
        source_generation: 3,
        settings: ManifestSettings::from(&settings),
        keyspaces: vec!["default".into()],
        directories: Vec::new(),
        files: Vec::new(),
        unfinished: Vec::new(),
    }
}

fn refusal(bytes: &[u8]) -> ErrorKind {
    Manifest::decode(bytes).unwrap_err().kind()
}

#[test]
fn another_version_is_told_before_anything_else_is_looked_at() {
    for version in [0, 1, MANIFEST_VERSION + 1, 255] {
        let bytes = [&MAGIC[..], &[version], b"whatever"].concat();
        assert_eq!(refusal(&bytes), ErrorKind::UnsupportedVersion, "{version}");
    }
    assert_eq!(refusal(&MAGIC), ErrorKind::BrokenBackup);
    assert_eq!(refusal(b"ATRBACJ\x02"), ErrorKind::BrokenBackup);
    let bytes = manifest().encode().unwrap();
    assert_eq!(bytes[..8], *b"ATRBACK\x02");
    assert_eq!(refusal(&bytes[..bytes.len() - 1]), ErrorKind::BrokenBackup);
}

#[test]
fn settings_come_back_and_unknown_ones_are_passed_over_unless_critical() {
    let mut manifest = manifest();
    let decoded = Manifest::decode(&manifest.encode().unwrap()).unwrap();
    let settings = Settings::try_from(&decoded.settings).unwrap();
    assert_eq!((settings.rotation_bytes, settings.require_authenticated), (Some(7), true));
    manifest.settings.0.set_flag(50, Unknown::Keep, true);
    assert_eq!(Manifest::decode(&manifest.encode().unwrap()).unwrap(), manifest);
    assert_eq!(Settings::try_from(&manifest.settings).unwrap(), settings);

    // As a newer version would write it.
    manifest.settings.0.set_flag(50, Unknown::Refuse, true);
    assert_eq!(manifest.encode().unwrap_err().kind(), ErrorKind::UnsupportedFeature);
    let config = Configuration::default().with_preallocation_size_limit::<MANIFEST_LEN_MAX>();
    let body = wincode::config::serialize(&manifest, config).unwrap();
    let bytes = [&MAGIC[..], &[MANIFEST_VERSION], &body].concat();
    assert_eq!(refusal(&bytes), ErrorKind::UnsupportedFeature);
}
