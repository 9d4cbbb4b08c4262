//! No byte of keystream is used twice: every write to an encrypted file, as the system saw it.

use std::collections::HashMap;

use atrest::HEADER_LEN;

use crate::support::{Form, Place, in_both_forms};

in_both_forms! { no_keystream_is_used_twice random_writes_and_reopened_files_are_refused }

/// One file under one key: what was written where.
struct Written {
    salt: Vec<u8>,
    bytes: Vec<Option<u8>>,
}

/// Reads a spy's log. Returns how many files got a header, and what was written twice under
/// one key with another content: file, offset.
fn reused(log: &[u8]) -> (usize, Vec<(u64, usize)>) {
    let (mut files, mut headers, mut found) = (HashMap::<u64, Written>::new(), 0, Vec::new());
    let mut rest = log;
    while let Some((head, behind)) = rest.split_at_checked(24) {
        let number = |i: usize| u64::from_le_bytes(head[i * 8..][..8].try_into().unwrap());
        let (file, at, len) = (number(0), number(1) as usize, number(2) as usize);
        let data;
        (data, rest) = behind.split_at(len);
        if at == 0 && !data.starts_with(b"\x89ATRF") {
            // Another file, not encrypted, that got the number of one that was removed.
            files.remove(&file);
        } else if at == 0 && data.len() >= HEADER_LEN {
            let salt = data[96..128].to_vec();
            if files.get(&file).is_none_or(|known| known.salt != salt) {
                headers += 1;
                files.insert(file, Written { salt, bytes: Vec::new() });
            }
        }
        let Some(written) = files.get_mut(&file) else { continue };
        for (i, byte) in (at..).zip(data) {
            if written.bytes.len() <= i {
                written.bytes.resize(i + 1, None);
            }
            if written.bytes[i].replace(*byte).is_some_and(|old| old != *byte) {
                found.push((file, i));
            }
        }
    }
    (headers, found)
}

fn record(file: u64, at: u64, data: &[u8]) -> Vec<u8> {
    let head = [file, at, data.len() as u64].map(u64::to_le_bytes).concat();
    [&head, data].concat()
}

#[test]
fn the_search_finds_what_is_written_twice() {
    let mut header = vec![0; HEADER_LEN];
    header[..5].copy_from_slice(b"\x89ATRF");
    let start = record(1, 0, &header);
    let once = [start.clone(), record(1, 4096, b"abc"), record(1, 4099, b"def")].concat();
    assert_eq!(reused(&once), (1, vec![]));
    let again = [once.clone(), record(1, 4098, b"cd")].concat();
    assert_eq!(reused(&again), (1, vec![]));
    let twice = [once.clone(), record(1, 4098, b"cX")].concat();
    assert_eq!(reused(&twice), (1, vec![(1, 4099)]));
    // Not under another key, nor in another file.
    header[96] = 1;
    let renewed = [once.clone(), record(1, 0, &header), record(1, 4098, b"cX")].concat();
    assert_eq!(reused(&renewed), (2, vec![]));
    assert_eq!(reused(&[once, record(2, 4098, b"cX")].concat()), (1, vec![]));
}

/// The writes of an engine that does `commands`.
fn writes(place: &Place, commands: &[&str]) -> Vec<u8> {
    let log = place.path("writes");
    let libraries = [place.built.join("spy.so"), place.built.join("lib/libatrest_rocksdb.so")];
    let mut command = place.command(place.built.join("engine"));
    command.env("LD_PRELOAD", std::env::join_paths(libraries).unwrap()).env("ATREST_SPY", &log);
    let mut engine = place.engine_with(&mut command).unwrap();
    engine.run(commands);
    engine.quit();
    std::fs::read(log).unwrap()
}

fn no_keystream_is_used_twice(form: Form) {
    for more in [
        "",
        ";recycle_log_file_num=2",
        ";use_direct_io_for_flush_and_compaction=true;use_direct_reads=true",
        ";enable_blob_files=true;min_blob_size=50",
        ";manual_wal_flush=true;bytes_per_sync=4096;wal_bytes_per_sync=4096",
    ] {
        let Some(mut place) = Place::new(form) else { return };
        place.options += ";write_buffer_size=65536;level0_file_num_compaction_trigger=2";
        place.options += more;
        let commands = [
            "put 0 2000 a",
            "flush",
            "put 500 2000 b",
            "flush",
            "compact",
            "put 0 100 c",
            "reopen",
            "get 0 100 c",
            "put 0 1000 d",
            "flush",
            "put 0 1000 e",
            "reopen",
            "get 0 1000 e",
            "get 1000 1500 b",
        ];
        let (headers, found) = reused(&writes(&place, &commands));
        assert!(headers > 10, "{more}: {headers}");
        assert_eq!(found, [], "{more}");
    }
}

/// The files that a write into the middle or behind the end would go to stay as they were.
fn random_writes_and_reopened_files_are_refused(form: Form) {
    let Some(place) = Place::new(form) else { return };
    let mut engine = place.engine();
    engine.run(&["put 0 100 a", "flush", "put 0 100 b"]);
    let named = |end: &str| {
        let names = std::fs::read_dir(place.db()).unwrap().map(|entry| entry.unwrap().path());
        names.into_iter().find(|path| path.to_string_lossy().contains(end)).unwrap()
    };
    for end in [".sst", ".log", "MANIFEST", "CURRENT", "OPTIONS"] {
        let file = named(end);
        let copy = place.path("data/copy").join(file.file_name().unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(&file, &copy).unwrap();
        let before = std::fs::read(&copy).unwrap();
        for command in ["append", "random-write"] {
            let told = engine.ask(&format!("{command} {}", copy.display())).unwrap_err();
            assert!(told.contains("Not implemented"), "{command} {end}: {told}");
        }
        assert!(std::fs::read(&copy).unwrap() == before, "{}", file.display());
    }
    engine.run(&["get 0 100 b"]);
    engine.quit();
}

/// A recycled log keeps its place on the disk and gets another key.
#[test]
fn a_recycled_log_has_a_new_key() {
    let Some(mut place) = Place::new(Form::Provider) else { return };
    place.options += ";recycle_log_file_num=2;write_buffer_size=65536";
    let log = writes(&place, &["put 0 2000 a", "flush", "put 0 2000 b", "flush", "put 0 500 c"]);
    let mut headers = HashMap::<u64, usize>::new();
    let mut rest = &log[..];
    while let Some((head, behind)) = rest.split_at_checked(24) {
        let len = u64::from_le_bytes(head[16..].try_into().unwrap()) as usize;
        if behind.starts_with(b"\x89ATRF") {
            *headers.entry(u64::from_le_bytes(head[..8].try_into().unwrap())).or_default() += 1;
        }
        rest = &behind[len..];
    }
    assert!(headers.values().any(|count| *count > 1), "no log was recycled: {headers:?}");
    let mut engine = place.engine();
    engine.run(&["get 0 500 c", "get 500 1500 b"]);
    engine.quit();
}
