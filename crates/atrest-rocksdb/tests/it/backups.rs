//! What RocksDB's backup engine makes of its files.

use std::collections::BTreeSet;
use std::path::PathBuf;

use atrest::classify::Contents;
use atrest::{FileKind, Suite};

use crate::support::{Form, Place};

fn tables(place: &Place) -> BTreeSet<PathBuf> {
    let shared = place.path("data/backups/shared_checksum");
    std::fs::read_dir(shared).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_broken_file_breaks_its_own_backup_alone() {
    let Some(place) = Place::new(Form::FileSystem) else { return };
    let path = |name: &str| place.path("data").join(name).display().to_string();
    let (backups, restored) = (path("backups"), path("restored"));
    let mut engine = place.engine();
    engine.run(&["put 0 500 a", "flush", &format!("back-up {backups}")]);
    let of_first = tables(&place);
    // The new table is all there is: the backups share none.
    engine.run(&["put 0 500 b", "flush", "compact", &format!("back-up {backups}")]);
    assert_eq!((of_first.len(), tables(&place).len()), (1, 2));
    for broken in of_first {
        let mut bytes = std::fs::read(&broken).unwrap();
        bytes[100] ^= 1;
        std::fs::write(broken, bytes).unwrap();
    }
    let told = engine.ask(&format!("restore {backups} 1 {restored}")).unwrap_err();
    assert!(told.contains("Corruption"), "{told}");
    engine.run(&[&format!("restore {backups} 2 {restored}")]);
    engine.quit();
    std::fs::remove_dir_all(place.db()).unwrap();
    std::fs::rename(restored, place.db()).unwrap();
    let mut engine = place.engine();
    engine.run(&["get 0 500 b"]);
    engine.quit();
}

/// The names that they are written under are not their own.
#[test]
fn tables_of_a_backup_are_tables() {
    let Some(place) = Place::new(Form::FileSystem) else { return };
    let backup = format!("back-up {}", place.path("data/backups").display());
    let mut engine = place.engine();
    engine.run(&["put 0 500 a", "flush", &backup]);
    engine.quit();
    let tables = tables(&place);
    assert_eq!(tables.len(), 1);
    for table in tables {
        let contents = Contents::of(&std::fs::read(&table).unwrap());
        let header = contents.header().unwrap();
        assert_eq!((header.kind, header.suite), (FileKind::Table, Suite::Aes256GcmChunks));
    }
}
