//! Keys over the life of a database.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use atrest::FileKind;
use atrest::kms::generate_key_file;

use crate::support::{Form, Place, assert_encrypted, in_both_forms, run};

in_both_forms! { every_file_is_encrypted_under_a_key_of_its_own a_rotation_shows_in_new_files_and_compaction_moves_data_to_it a_wrong_customer_s_key_and_a_plain_database_are_refused checkpoints_backups_and_ingested_tables a_follower_reads_a_log_that_was_empty_at_first a_log_is_made_durable_on_request }

fn every_file_is_encrypted_under_a_key_of_its_own(form: Form) {
    let Some(mut place) = Place::new(form) else { return };
    place.options += ";enable_blob_files=true;min_blob_size=50";
    let mut engine = place.engine();
    engine.run(&["put 0 2000 a", "flush", "put 1000 2000 b", "flush", "compact", "put 0 10 c"]);
    engine.quit();
    assert_encrypted(&place);
    let (mut kinds, mut salts) = (BTreeSet::new(), BTreeSet::new());
    for (name, contents) in place.files() {
        let kind = contents.header().unwrap().kind;
        let expected = match name.as_str() {
            name if name.ends_with(".sst") => FileKind::Table,
            name if name.ends_with(".log") => FileKind::Log,
            name if name.ends_with(".blob") => FileKind::Blob,
            name if name.starts_with("MANIFEST-") => FileKind::Manifest,
            _ => FileKind::Other,
        };
        assert_eq!(kind, expected, "{name}");
        kinds.insert(kind.number());
        let bytes = std::fs::read(place.db().join(&name)).unwrap();
        assert!(salts.insert(bytes[96..128].to_vec()), "{name}");
    }
    assert_eq!(kinds.len(), 5, "{:?}", place.files());
}

fn a_rotation_shows_in_new_files_and_compaction_moves_data_to_it(form: Form) {
    let Some(mut place) = Place::new(form) else { return };
    place.options += ";disable_auto_compactions=true";
    let mut engine = place.engine();
    engine.run(&["put 0 1000 old", "flush"]);
    engine.quit();
    let old = place.table_keys();
    assert_eq!(old.len(), 1);

    let new = place.rotate();
    let mut engine = place.engine();
    engine.run(&["put 1000 1000 new", "flush", "get 0 1000 old", "get 1000 1000 new"]);
    let mut both = place.table_keys();
    both.retain(|key| *key != old[0]);
    assert_eq!(both, [new]);

    engine.run(&["compact", "get 0 1000 old"]);
    engine.quit();
    assert_eq!(place.table_keys(), [new]);
    // Nothing is under the old key but what says which database it is, and its options.
    for (name, contents) in place.files() {
        let stays = ["IDENTITY", "OPTIONS", "LOG"].iter().any(|start| name.starts_with(start));
        assert!(stays || contents.header().unwrap().data_key_id == new, "{name}");
    }
}

fn a_follower_reads_a_log_that_was_empty_at_first(form: Form) {
    let Some(place) = Place::new(form) else { return };
    let mut engine = place.engine();
    let follower = place.db().with_file_name("follower");
    engine.run(&[&format!("follow {} 0 10 a", follower.display())]);
    engine.quit();
}

fn a_wrong_customer_s_key_and_a_plain_database_are_refused(form: Form) {
    let Some(place) = Place::new(form) else { return };
    let mut engine = place.engine();
    engine.run(&["put 0 10 a"]);
    // One process at a time.
    let told = place.try_engine().unwrap_err();
    assert!(told.contains("keyring-busy"), "{told}");
    engine.quit();

    let key = place.path("cmek.key");
    std::fs::rename(&key, place.path("right.key")).unwrap();
    generate_key_file(&key).unwrap();
    let told = place.try_engine().unwrap_err();
    assert!(told.contains("kms-") || told.contains("wrong-store-key"), "{told}");
    std::fs::rename(place.path("right.key"), key).unwrap();
    let mut engine = place.engine();
    engine.run(&["get 0 10 a"]);
    engine.quit();

    // Another store's database, and one that is not encrypted.
    let Some(other) = Place::new(form) else { return };
    other.engine().quit();
    std::fs::remove_dir_all(other.db()).unwrap();
    std::fs::rename(place.db(), other.db()).unwrap();
    let told = other.try_engine().unwrap_err();
    assert!(told.contains("identity-mismatch"), "{told}");
    std::fs::remove_dir_all(other.db()).unwrap();
    let mut ldb = std::process::Command::new("ldb");
    ldb.arg(format!("--db={}", other.db().display()));
    run(ldb.args(["--create_if_missing", "put", "k", "v"]));
    let told = other.try_engine().unwrap_err();
    // RocksDB's encrypted file system, with assertions, does not live through a file that is
    // shorter than a prefix.
    let ended = form == Form::Provider && told == "it ended";
    assert!(ended || told.contains("not-encrypted"), "{told}");
}

fn checkpoints_backups_and_ingested_tables(form: Form) {
    let Some(place) = Place::new(form) else { return };
    let path = |name: &str| place.path("data").join(name).display().to_string();
    let mut engine = place.engine();
    engine.run(&["put 0 500 a", "flush", "put 500 500 a"]);
    engine.run(&[&format!("checkpoint {}", path("copy"))]);
    engine.run(&[&format!("backup {} {}", path("backup"), path("restored"))]);
    // RocksDB may write a number into a table that it takes in, if the file system lets it.
    let number = if form == Form::FileSystem { "number" } else { "" };
    engine.run(&[&format!("ingest {} 950 150 a {number}", path("outside.sst")), "get 0 1100 a"]);
    engine.quit();
    assert_encrypted(&place);
    for copy in ["copy", "restored"] {
        std::fs::remove_dir_all(place.db()).unwrap();
        std::fs::rename(path(copy), place.db()).unwrap();
        let mut engine = place.engine();
        engine.run(&["get 0 1000 a"]);
        assert!(engine.ask("get 1000 1 a").is_err());
        engine.quit();
        assert_encrypted(&place);
    }
}

fn a_log_is_made_durable_on_request(form: Form) {
    let Some(place) = Place::new(form) else { return };
    let mut engine = place.engine();
    engine.run(&["put 0 100 a", "sync-log", "put 100 100 a", "sync-log"]);
    engine.quit();
    place.engine().run(&["get 0 200 a"]);
}

#[test]
fn a_table_that_is_made_durable_has_its_end() {
    let Some(place) = Place::new(Form::FileSystem) else { return };
    let mut engine = place.engine();
    engine.run(&[&format!("table {}", place.path("data/copy.sst").display())]);
    engine.quit();
}

/// A copy elsewhere has its keys as long as it is there under its name, and one that was broken
/// off is in nobody's way.
#[test]
fn a_checkpoint_outside_of_the_store_is_known_by_its_name() {
    let Some(place) = Place::new(Form::FileSystem) else { return };
    std::fs::create_dir(place.path("outside")).unwrap();
    let copy = place.path("outside").canonicalize().unwrap().join("copy");
    let known = || {
        let store = place.store();
        // Fails where one is missing.
        store.renewal().retire(None, Duration::ZERO, &|_| {}).unwrap();
        let mut known = store.directories().list();
        known.retain(|dir| !dir.ends_with("data"));
        known
    };
    let mut engine = place.engine();
    engine.run(&["put 0 500 a", "flush", "put 500 500 a"]);
    engine.run(&[&format!("half-checkpoint {}", copy.display())]);
    engine.run(&[&format!("checkpoint {}", copy.display()), "compact"]);
    engine.quit();
    assert_eq!(known(), std::slice::from_ref(&copy));
    let store = place.store();
    let files = store.files().list(&copy).unwrap();
    assert!(files.iter().any(|file| file.path.extension().is_some_and(|it| it == "sst")));
    files.iter().for_each(|file| drop(store.files().open(&file.path).unwrap()));
    drop(store);
    let mut engine = place.engine();
    engine.run(&[&format!("destroy {}", copy.display()), "get 0 1000 a"]);
    engine.quit();
    assert!(!copy.exists() && known().is_empty());
}

/// What a kill leaves of a table, where files are removed at a rate.
#[test]
fn a_table_that_was_not_finished_is_removed() {
    let Some(place) = Place::new(Form::FileSystem) else { return };
    let mut engine = place.engine();
    engine.run(&["put 0 1000 a", "flush"]);
    engine.quit();
    let names = || {
        let entries = std::fs::read_dir(place.db()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    let table = names().find(|name| name.ends_with(".sst")).unwrap();
    let table = std::fs::read(place.db().join(table)).unwrap();
    std::fs::write(place.db().join("000001.sst"), &table[..table.len() / 2]).unwrap();
    let mut command = place.command(place.built.join("engine"));
    let mut engine = place.engine_with(command.env("TRASH", "")).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while let Some(left) = names().find(|name| name.contains("000001")) {
        assert!(Instant::now() < end, "{left}");
        std::thread::sleep(Duration::from_millis(20));
    }
    engine.run(&["get 0 1000 a"]);
    engine.quit();
}

/// What an attacker changes on the disk is refused, also where he makes RocksDB's checksums fit.
#[test]
fn changed_bytes_are_refused() {
    let Some(mut place) = Place::new(Form::FileSystem) else { return };
    place.options += ";wal_recovery_mode=kAbsoluteConsistency;avoid_flush_during_recovery=true";
    let mut engine = place.engine();
    engine.run(&["put 0 1000 a", "flush", "put 2000 100 b"]);
    engine.quit();
    let files = || place.files().into_iter().map(|(name, _)| name);
    for end in [".sst", ".log", "MANIFEST", "CURRENT"] {
        let name = files().find(|name| name.contains(end)).unwrap();
        let path = place.db().join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut changed = whole.clone();
        // In the first chunk or append, behind the header.
        changed[4096 + 10] ^= 1;
        std::fs::write(&path, changed).unwrap();
        let told = match place.try_engine() {
            Ok(mut engine) => engine.ask("get 0 1000 a").unwrap_err(),
            Err(told) => told,
        };
        assert!(told.contains("authentication") || told.contains("damaged"), "{end}: {told}");
        std::fs::write(path, whole).unwrap();
    }
    let mut engine = place.engine();
    engine.run(&["get 0 1000 a", "get 2000 100 b"]);
    engine.quit();
}
