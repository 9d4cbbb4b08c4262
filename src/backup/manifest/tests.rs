#![allow(clippy::unwrap_used)]

use super::*;
use crate::backup::lack::LackReason;
use crate::keyring::Settings;
use crate::suite::Integrity;
use crate::tags::Unknown;

fn manifest() -> Manifest {
    let settings = Settings {
        rotation_bytes: Some(7),
        integrity: Integrity::Authenticated.into(),
        ..Settings::default()
    };
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
        lacks: Vec::new(),
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
    assert_eq!(
        (settings.rotation_bytes, settings.integrity),
        (Some(7), Integrity::Authenticated.into())
    );
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

/// A file of suite 3 with two frames of 5 and 6 bytes.
fn log() -> Entry {
    let what = What::Encrypted { suite: Suite::Aes256GcmLog, chunk_log2: 0, kind: FileKind::Log };
    let mut file = Entry::new(b"wal".to_vec(), what, [7; 16]);
    file.mode = 0o640;
    file.object = Object {
        id: [8; 16],
        physical_len: crate::backup::objects::physical_len(19),
        len: 11,
        stream_len: 19,
        sha256: [9; 32],
        identity: [10; 32],
        held_by: 1,
    };
    file
}

fn with(files: Vec<Entry>) -> Manifest {
    Manifest { files, ..manifest() }
}

#[test]
fn what_no_backup_has_is_refused_when_it_is_written_and_when_it_is_read() {
    let changed = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = with(vec![log()]);
        manifest.directories = vec![DirectoryEntry { path: b"d".to_vec(), mode: 0o2750 }];
        change(&mut manifest);
        let written = manifest.encode().map(drop).map_err(|error| error.kind());
        let config = Configuration::default().with_preallocation_size_limit::<MANIFEST_LEN_MAX>();
        let body = wincode::config::serialize(&manifest, config).unwrap();
        let bytes = [&MAGIC[..], &[MANIFEST_VERSION], &body].concat();
        let read = Manifest::decode(&bytes).map(drop).map_err(|error| error.kind());
        (written, read)
    };
    assert_eq!(changed(&|_| {}), (Ok(()), Ok(())));
    let lack = |path: &[u8], why| LackEntry::new(&relative(path), why);
    let plain = |path: &[u8]| {
        let mut file = Entry::new(path.to_vec(), What::Plaintext, [0; 16]);
        let object = Object { identity: [0; 32], id: [3; 16], len: 19, ..log().object };
        file.object = object;
        file
    };
    type Change<'a> = &'a dyn Fn(&mut Manifest);
    let wrong: &[(&str, Change<'_>)] = &[
        ("number", &|it| it.number = 0),
        ("first with a predecessor", &|it| it.previous = [1; 32]),
        ("no keyspace", &|it| it.keyspaces.clear()),
        ("empty keyspace name", &|it| it.keyspaces.push(String::new())),
        ("long keyspace name", &|it| it.keyspaces.push("x".repeat(257))),
        ("keyspace name with a newline", &|it| it.keyspaces.push("a\nb".into())),
        ("keyspace twice", &|it| it.keyspaces.push("default".into())),
        ("path out of the store", &|it| it.files[0].path = b"../wal".to_vec()),
        ("absolute path", &|it| it.files[0].path = b"/wal".to_vec()),
        ("reserved path", &|it| it.files[0].path = b"KEYRING.restore/f".to_vec()),
        ("path without its directory", &|it| it.files[0].path = b"e/wal".to_vec()),
        ("file and directory", &|it| it.files[0].path = b"d".to_vec()),
        ("setuid file", &|it| it.files[0].mode = 0o4755),
        ("type in a mode", &|it| it.files[0].mode = 0o100_644),
        ("setuid directory", &|it| it.directories[0].mode = 0o4750),
        ("unknown what", &|it| it.files[0].what = 3),
        ("unknown suite", &|it| it.files[0].suite = 9),
        ("unknown kind", &|it| it.files[0].kind = 99),
        ("chunks in a log", &|it| it.files[0].chunk_log2 = 16),
        ("a stream labelled as a log", &|it| it.files[0].object.len = 19),
        ("a log labelled as a stream", &|it| it.files[0].suite = 1),
        ("a part of a frame's length", &|it| it.files[0].object.len = 12),
        ("more frames than bytes", &|it| it.files[0].object.len = 3),
        ("no such keyspace", &|it| it.files[0].keyspace = 1),
        ("a copy without a name", &|it| it.files[0].object.id = [0; 16]),
        ("a copy of a later backup", &|it| it.files[0].object.held_by = 2),
        ("a copy of no backup", &|it| it.files[0].object.held_by = 0),
        ("stray bytes behind a copy", &|it| it.files[0].object.physical_len += 1),
        ("no identity", &|it| it.files[0].object.identity = [0; 32]),
        ("plaintext that is not allowed", &|it| it.files.insert(0, plain(b"a"))),
        ("an empty file with a copy", &|it| it.files[0].what = 0),
        ("a copy described in two ways", &|it| {
            let mut other = log();
            other.path = b"wal2".to_vec();
            other.object.sha256 = [1; 32];
            it.files.push(other);
        }),
        ("a lack out of the store", &|it| it.lacks = vec![lack(b"../x", LackReason::Unfinished)]),
        ("a lack that is there", &|it| it.lacks = vec![lack(b"wal", LackReason::Unfinished)]),
        ("a link that is a file", &|it| it.lacks = vec![lack(b"wal", LackReason::Link)]),
        ("a torn file that is not there", &|it| it.lacks = vec![lack(b"x", LackReason::Torn)]),
        ("a torn file that has an end", &|it| {
            (it.files[0].suite, it.files[0].chunk_log2, it.files[0].object.len) = (2, 12, 19);
            it.lacks = vec![lack(b"wal", LackReason::Torn)];
        }),
        ("an emptied file that is not", &|it| it.lacks = vec![lack(b"wal", LackReason::Emptied)]),
        ("a key's file that is there", &|it| {
            it.lacks = vec![lack(b"wal", LackReason::KeyDestroyed)];
        }),
        ("a directory inside", &|it| it.lacks = vec![lack(b"x", LackReason::Elsewhere)]),
        ("a directory in two ways", &|it| it.lacks = vec![lack(b"/x/../y", LackReason::Elsewhere)]),
        ("lacks out of order", &|it| {
            it.lacks = vec![lack(b"y", LackReason::Link), lack(b"x", LackReason::Link)];
        }),
    ];
    for (what, change) in wrong {
        let expected = (Err(ErrorKind::InvalidArgument), Err(ErrorKind::BrokenBackup));
        assert_eq!(changed(*change), expected, "{what}");
    }
    let weak: Change<'_> = &|it| {
        it.files[0].suite = 1;
        it.files[0].object.len = 19;
    };
    assert_eq!(changed(weak).1, Err(ErrorKind::BrokenBackup), "weaker than required");
    let settings = Settings { integrity: Integrity::Confidential.into(), ..Settings::default() };
    let not_required: Change<'_> = &|it| {
        weak(it);
        it.settings = ManifestSettings::from(&settings);
    };
    assert_eq!(changed(not_required).1, Ok(()));
    let torn: Change<'_> = &|it| {
        not_required(it);
        it.lacks = vec![lack(b"wal", LackReason::Torn)];
    };
    assert_eq!(changed(torn), (Ok(()), Ok(())));
    let allowed = Settings { plaintext: crate::PlaintextPolicy::Allow, ..settings.clone() };
    let plaintext: Change<'_> = &|it| {
        it.settings = ManifestSettings::from(&allowed);
        it.files.insert(0, plain(b"a"));
        let elsewhere = |path| lack(path, LackReason::Elsewhere);
        // Names are ours below a store's directory alone.
        it.lacks = vec![elsewhere(b"/a/KEYRING.x/b"), elsewhere(b"/x/y")];
        it.lacks.push(lack(b"wal", LackReason::Torn));
    };
    assert_eq!(changed(plaintext), (Ok(()), Ok(())));
}
