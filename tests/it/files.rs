//! Files through `EncryptedFs`.

use std::io;
use std::sync::Arc;

use atrest::fs::FileEntry;
use atrest::{
    BODY_LEN_MAX, EncryptedFs, ErrorKind, Expect, FileKind, FileSpec, PlaintextPolicy, Settings,
    Suite,
};
use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};

use crate::support::{
    DIR, ScriptedKms, TestStore, check_file, in_dir, kind, manual, mem_create, mem_open, write_file,
};
use atrest_testkit::MemFs;
use atrest_testkit::mem_fs::Op;

/// A store in memory, with a log that begins now.
fn mem_store() -> (MemFs, EncryptedFs) {
    let mem = MemFs::new(DIR);
    let fs = mem_create(&mem, &ScriptedKms::new(1)).unwrap();
    mem.clear_log();
    (mem, fs)
}

fn syncs(mem: &MemFs) -> usize {
    mem.log().iter().filter(|op| matches!(op, Op::Sync(..) | Op::SyncDir)).count()
}

#[test]
fn a_file_reads_back_after_rotations_and_reopening() {
    let store = TestStore::new();
    let data: Vec<u8> = (0..1_000_003_u32).map(|i| (i * 131 + 7) as u8).collect();
    let path = store.data().join("000001.sst");
    let first_key;
    {
        let fs = store.fs();
        let mut writer = fs.create_new(&path, FileKind::Table).unwrap();
        for piece in data.chunks(70_001) {
            writer.append(piece).unwrap();
        }
        first_key = writer.finish().unwrap().data_key_id;
        let keyring = fs.keyring();
        assert_ne!(keyring.keys().rotate().unwrap(), first_key);
        keyring.keys().rotate_store_key().unwrap();
    }
    let fs = store.fs();
    assert_ne!(fs.keyring().keys().active_id().unwrap(), first_key);
    let reader = fs.open(&path).unwrap();
    assert_eq!(reader.len().unwrap(), data.len() as u64);
    let mut back = vec![0; data.len()];
    reader.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(back, data);
    let mut piece = [0; 100];
    reader.read_exact_at(&mut piece, 4097).unwrap();
    assert_eq!(piece[..], data[4097..4197]);
    let on_disk = std::fs::read(&path).unwrap();
    assert_eq!(on_disk.len(), data.len() + 4096);
    assert!(!on_disk.windows(32).any(|window| window == &data[..32]));
}

#[test]
fn revoking_stops_open_files_and_restoring_resumes_them() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("a.log");
    let mut writer = fs.create_new(&path, FileKind::Log).unwrap();
    writer.append(b"before ").unwrap();
    writer.flush().unwrap();
    let reader = fs.open(&path).unwrap();
    fs.keyring().access().revoke().unwrap();
    let mut buf = [0; 7];
    assert_eq!(reader.read_exact_at(&mut buf, 0).unwrap_err().kind(), ErrorKind::CmekRevoked);
    assert_eq!(buf, [0; 7]);
    assert_eq!(writer.append(b"x").unwrap_err().kind(), ErrorKind::CmekRevoked);
    assert_eq!(fs.open(&path).unwrap_err().kind(), ErrorKind::CmekRevoked);
    fs.keyring().access().restore().unwrap();
    writer.append(b"after").unwrap();
    writer.finish().unwrap();
    let mut buf = [0; 12];
    reader.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"before after");
}

#[test]
fn creating_costs_one_file_and_no_sync_until_asked() {
    let (mem, fs) = mem_store();
    let mut writer = fs.create_new(in_dir("a"), FileKind::Table).unwrap();
    writer.append(&[1; 1000]).unwrap();
    // Which directory it is now is asked each time: it costs one call.
    assert_eq!(mem.log(), [Op::Stat("store".into()), Op::Create("a".into())]);
    writer.sync().unwrap();
    writer.sync().unwrap();
    // Header and body go out together.
    let append = Op::Append("a".into(), 5096);
    assert_eq!(mem.log()[2], append);
    assert_eq!((mem.log().len(), syncs(&mem)), (4, 1));
    writer.finish().unwrap();
    assert_eq!(syncs(&mem), 1, "nothing was appended since the sync");
    mem.clear_log();
    let mut writer = fs.create_new(in_dir("b"), FileKind::Table).unwrap();
    writer.append(&[1; 1000]).unwrap();
    writer.finish().unwrap();
    assert_eq!(mem.log().len(), 4);
    assert_eq!(syncs(&mem), 1, "finish makes the file durable");
    mem.clear_log();
    let mut writer = fs.create_new(in_dir("c"), FileKind::Table).unwrap();
    writer.append(&[1; 1000]).unwrap();
    let sealed = writer.finish_unsynced().unwrap();
    assert_eq!((sealed.len, sealed.physical_len), (1000, 5096));
    assert_eq!(syncs(&mem), 0);
    // Even a file without a byte gets its header.
    mem.clear_log();
    fs.create_new(in_dir("d"), FileKind::Table).unwrap().finish().unwrap();
    assert_eq!(syncs(&mem), 1);
    assert!(fs.open(in_dir("d")).unwrap().is_empty().unwrap());
    assert!(mem.log().iter().all(|op| !format!("{op:?}").contains("KEYRING")));
}

#[test]
fn opening_costs_one_page_and_a_read_is_one_read() {
    let (mem, fs) = mem_store();
    write_file(&fs, "file").unwrap();
    mem.clear_log();
    let reader = fs.open(in_dir("file")).unwrap();
    assert_eq!(mem.log(), [Op::Open("file".into()), Op::Read("file".into(), 4096)]);
    mem.clear_log();
    let mut buf = [0; 3];
    reader.read_exact_at(&mut buf, 1).unwrap();
    assert_eq!(&buf, b"ile");
    assert_eq!(mem.log(), [Op::Read("file".into(), 3)]);
}

#[test]
fn appends_of_any_size_read_back() {
    let (mem, fs) = mem_store();
    for buffer in [0, 4096, 5000, 1 << 18] {
        let fs = fs.clone().write_buffer_len(buffer);
        let mut plain = Vec::new();
        let name = in_dir(&format!("f{buffer}"));
        let mut writer = fs.create_new(&name, FileKind::Blob).unwrap();
        for len in [0, 1, 15, 16, 17, 4095, 4096, 4097, 8192, 10_000, 300_000, 1] {
            let piece: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
            writer.append(&piece).unwrap();
            plain.extend_from_slice(&piece);
            assert_eq!(writer.position(), plain.len() as u64);
        }
        let sealed = writer.finish().unwrap();
        assert_eq!(sealed.len, plain.len() as u64);
        let on_disk = &mem.files()[&format!("f{buffer}")];
        assert_eq!(sealed.physical_len, on_disk.len() as u64);
        assert_eq!(sealed.commitment, on_disk[128..160]);
        assert_eq!(*sealed.data_key_id.as_bytes(), on_disk[48..64]);
        let mut back = vec![0; plain.len()];
        fs.open(&name).unwrap().read_exact_at(&mut back, 0).unwrap();
        assert_eq!(back, plain);
    }
}

#[test]
fn a_dropped_writer_loses_its_buffer_alone() {
    let (mem, fs) = mem_store();
    let mut writer = fs.create_new(in_dir("file"), FileKind::Log).unwrap();
    writer.append(b"kept").unwrap();
    writer.flush().unwrap();
    writer.append(b"lost").unwrap();
    drop(writer);
    assert_eq!(syncs(&mem), 0);
    let mut buf = [0; 8];
    let reader = fs.open(in_dir("file")).unwrap();
    assert_eq!(reader.read_at(&mut buf, 0).unwrap(), 4);
    assert_eq!(&buf[..4], b"kept");
    // Without a flush there is no header either: an empty file of its own kind.
    let mut writer = fs.create_new(in_dir("empty"), FileKind::Log).unwrap();
    writer.append(b"lost").unwrap();
    drop(writer);
    assert_eq!(kind(fs.open(in_dir("empty"))), ErrorKind::EmptyFile);
}

#[test]
fn bytes_that_a_failed_append_took_are_made_durable() {
    let (mem, fs) = mem_store();
    let fs = fs.write_buffer_len(8192);
    let mut writer = fs.create_new(in_dir("file"), FileKind::Log).unwrap();
    writer.append(b"first").unwrap();
    writer.sync().unwrap();
    writer.append(b"second").unwrap();
    fs.keyring().access().revoke().unwrap();
    assert_eq!(kind(writer.append(b"refused")), ErrorKind::CmekRevoked);
    assert_eq!(kind(writer.sync()), ErrorKind::CmekRevoked);
    fs.keyring().access().restore().unwrap();
    mem.clear_log();
    writer.sync().unwrap();
    assert_eq!(syncs(&mem), 1);
    assert_eq!(writer.position(), 11);
    writer.finish().unwrap();
    let mut buf = [0; 11];
    fs.open(in_dir("file")).unwrap().read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"firstsecond");
}

#[test]
fn reads_past_the_end_say_so_and_give_zeros() {
    let (_mem, fs) = mem_store();
    write_file(&fs, "file").unwrap();
    let reader = fs.open(in_dir("file")).unwrap();
    let eof = ErrorKind::Io(io::ErrorKind::UnexpectedEof);
    let mut buf = [7; 5];
    assert_eq!(kind(reader.read_exact_at(&mut buf, 0)), eof);
    assert_eq!(buf, [0; 5]);
    let mut buf = [7; 5];
    assert_eq!(reader.read_at(&mut buf, 0).unwrap(), 4);
    assert_eq!(reader.read_at(&mut buf, 4).unwrap(), 0);
    assert_eq!(reader.read_at(&mut buf, 1 << 40).unwrap(), 0);
    assert_eq!(kind(reader.read_at(&mut buf, u64::MAX)), ErrorKind::InvalidArgument);
    assert_eq!(reader.read_at(&mut [], 2).unwrap(), 0);
    assert_eq!(kind(reader.read_exact_at(&mut buf, BODY_LEN_MAX)), eof);
}

#[test]
fn a_recycled_file_has_a_new_key() {
    let (mem, fs) = mem_store();
    write_file(&fs, "log").unwrap();
    let first = mem.files()["log"].clone();
    assert_eq!(
        kind(fs.create_new(in_dir("log"), FileKind::Log)),
        ErrorKind::Io(io::ErrorKind::AlreadyExists)
    );
    let mut writer = fs.reuse_for_write(in_dir("log"), FileKind::Table).unwrap();
    writer.append(b"log").unwrap();
    writer.finish().unwrap();
    let second = mem.files()["log"].clone();
    assert_ne!(first[96..128], second[96..128], "the salt");
    assert_ne!(first[4096..], second[4096..]);
    check_file(&fs, "log");
    drop(fs.reuse_for_write(in_dir("new"), FileKind::Table).unwrap());
}

#[test]
fn renames_links_and_lists_show_logical_sizes() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = |name: &str| store.data().join(name);
    let mut writer = fs.create_new(path("a"), FileKind::Table).unwrap();
    writer.append(&[1; 77]).unwrap();
    writer.finish().unwrap();
    fs.hard_link(path("a"), path("b")).unwrap();
    fs.rename(path("a"), path("c")).unwrap();
    fs.sync_dir(store.data()).unwrap();
    std::fs::write(path("plain"), [9; 5000]).unwrap();
    std::fs::write(path("torn"), &std::fs::read(path("b")).unwrap()[..100]).unwrap();
    std::fs::create_dir(path("dir")).unwrap();
    let list = |fs: &EncryptedFs| {
        let entries = fs.list(store.data()).unwrap();
        let mut sizes: Vec<_> = entries
            .into_iter()
            .map(|FileEntry { path, len, physical_len, .. }| {
                (path.file_name().unwrap().to_str().unwrap().to_owned(), len, physical_len)
            })
            .collect();
        sizes.sort();
        sizes
    };
    let sizes = list(&fs);
    let names: Vec<_> = sizes.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["b", "c", "plain", "torn"]);
    assert_eq!((sizes[0].1, sizes[0].2), (77, 4173));
    assert_eq!((sizes[1].1, sizes[1].2), (77, 4173));
    assert_eq!(sizes[3].1, 0);
    let mut settings = Settings::default();
    settings.plaintext = PlaintextPolicy::Allow;
    fs.keyring().keys().configure(&settings).unwrap();
    let sizes = list(&fs);
    assert_eq!((sizes[0].1, sizes[2].1, sizes[3].1), (77, 5000, 0));
    for name in ["b", "c"] {
        assert_eq!(fs.open(path(name)).unwrap().len().unwrap(), 77);
    }
    fs.remove(path("b")).unwrap();
    assert_eq!(kind(fs.open(path("b"))), ErrorKind::Io(io::ErrorKind::NotFound));
    assert_eq!(fs.report().files_created, 1);
}

#[test]
fn many_threads_read_one_handle() {
    let (_mem, fs) = mem_store();
    let plain: Vec<u8> = (0..200_000_u32).map(|i| (i * 131 + 7) as u8).collect();
    let mut writer = fs.create_new(in_dir("file"), FileKind::Table).unwrap();
    writer.append(&plain).unwrap();
    writer.finish().unwrap();
    let reader = Arc::new(fs.open(in_dir("file")).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..16_usize {
            let (reader, plain) = (&reader, &plain);
            scope.spawn(move || {
                for round in 0..100 {
                    let at = (thread * 7919 + round * 1543) % 190_000;
                    let mut buf = vec![0; 1 + (round * 97) % 9000];
                    reader.read_exact_at(&mut buf, at as u64).unwrap();
                    assert_eq!(buf, plain[at..at + buf.len()]);
                }
            });
        }
    });
}

#[test]
fn a_file_of_the_greatest_length_is_not_exceeded() {
    let (_mem, fs) = mem_store();
    write_file(&fs, "file").unwrap();
    let header = atrest::Header::parse(&_mem.files()["file"]).unwrap();
    let decryptor = fs.keyring().decryptor(&header, &Expect::default()).unwrap();
    let mut buf = [0; 16];
    decryptor.decrypt_in_place(BODY_LEN_MAX - 16, &mut buf).unwrap();
    for offset in [BODY_LEN_MAX - 15, BODY_LEN_MAX, u64::MAX - 15, u64::MAX] {
        let mut buf = [3; 16];
        let refused = decryptor.decrypt_in_place(offset, &mut buf);
        assert_eq!((kind(refused), buf), (ErrorKind::FileTooLarge, [3; 16]));
    }
    let mut encryptor = fs.keyring().encryptor(FileKind::Table).unwrap();
    let refused = encryptor.encrypt(&[0; 2], &mut [0; 3]);
    assert_eq!((kind(refused), encryptor.position()), (ErrorKind::InvalidArgument, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Appends in any pieces, with flushes and syncs between, against a plain vector.
    #[test]
    fn appends_and_range_reads_equal_a_plain_copy(
        pieces in proptest::collection::vec((0_usize..9000, 0_u8..4), 1..12),
        reads in proptest::collection::vec((0_usize..60_000, 0_usize..9000), 1..20),
        buffer in 4096_usize..20_000,
    ) {
        let (mem, fs) = mem_store();
        let fs = fs.write_buffer_len(buffer);
        let mut writer = fs.create_new(in_dir("file"), FileKind::Blob).unwrap();
        let mut plain = Vec::new();
        for (len, then) in pieces {
            let piece: Vec<u8> = (0..len).map(|i| (plain.len() + i) as u8 ^ 0x5a).collect();
            writer.append(&piece).unwrap();
            plain.extend_from_slice(&piece);
            match then {
                0 => writer.flush().unwrap(),
                1 => writer.sync().unwrap(),
                _ => {}
            }
        }
        writer.finish().unwrap();
        let fs = { drop(fs); mem_open(&mem, &ScriptedKms::new(1)).unwrap() };
        let reader = fs.open(in_dir("file")).unwrap();
        prop_assert_eq!(reader.len().unwrap(), plain.len() as u64);
        for (offset, len) in reads {
            let start = offset.min(plain.len());
            let end = (start + len).min(plain.len());
            let mut buf = vec![0; len];
            let read = reader.read_at(&mut buf, offset as u64).unwrap();
            prop_assert_eq!(&buf[..read], &plain[start..end]);
        }
    }
}

#[test]
fn a_listing_survives_files_that_vanish() {
    let (mem, fs) = mem_store();
    let mut settings = Settings::default();
    settings.plaintext = PlaintextPolicy::Allow;
    fs.keyring().keys().configure(&settings).unwrap();
    write_file(&fs, "a").unwrap();
    write_file(&fs, "b").unwrap();
    assert_eq!(fs.list(DIR).unwrap().len(), 2);
    // Between the listing and the look into it.
    mem.vanish_after_list(&in_dir("a"));
    let left: Vec<_> = fs.list(DIR).unwrap().into_iter().map(|entry| entry.path).collect();
    assert_eq!(left, [in_dir("b")]);
}

#[test]
fn opening_can_bring_the_first_bytes_along() {
    let (mem, fs) = mem_store();
    let data: Vec<u8> = (0..300_000_u32).map(|i| (i * 7 + 3) as u8).collect();
    for (suite, name) in
        [(Suite::Aes256Ctr, "one"), (Suite::Aes256GcmChunks, "two"), (Suite::Aes256GcmLog, "three")]
    {
        let path = format!("{DIR}/{name}");
        let mut writer = fs.create_new(&path, FileSpec::new(FileKind::Table).suite(suite)).unwrap();
        writer.append(&data).unwrap();
        writer.finish().unwrap();
        // Nothing, less than is read ahead, more than that, more than there is.
        for len in [0, 1000, 270_000, 300_000, 300_001] {
            mem.clear_log();
            let mut buf = vec![0xff; len];
            let (reader, read) = fs.open_and_read(&path, &Expect::default(), &mut buf).unwrap();
            assert_eq!(read, len.min(data.len()), "{name}, {len} bytes");
            assert_eq!(buf[..read], data[..read], "{name}, {len} bytes");
            let reads = mem.log().iter().filter(|op| matches!(op, Op::Read(..))).count();
            assert!(name != "one" || reads == if len <= 256 << 10 { 1 } else { 2 }, "{len} bytes");
            assert_eq!(reader.len().unwrap(), data.len() as u64);
        }
        // A short file is read to its end at once.
        let short = format!("{DIR}/short-{name}");
        let mut writer =
            fs.create_new(&short, FileSpec::new(FileKind::Table).suite(suite)).unwrap();
        writer.append(b"short").unwrap();
        writer.finish().unwrap();
        let mut buf = [0xff; 9];
        assert_eq!(fs.open_and_read(&short, &Expect::default(), &mut buf).unwrap().1, 5);
        assert_eq!(&buf[..5], b"short");
        let other = Expect { kind: Some(FileKind::Log), file_id: None };
        let refused = fs.open_and_read(&path, &other, &mut buf).unwrap_err();
        assert_eq!((refused.kind(), buf), (ErrorKind::IdentityMismatch, [0; 9]));
    }
}

#[test]
fn no_store_is_begun_among_the_files_of_one_that_lost_its_keyring() {
    let store = TestStore::new();
    let fs = store.fs();
    std::fs::create_dir(store.data().join("below")).unwrap();
    let path = store.data().join("below/file");
    fs.create_new(&path, FileKind::Table).unwrap().finish().unwrap();
    drop(fs);
    for (name, _) in store.contents() {
        std::fs::remove_file(store.data().join(name)).unwrap();
    }
    let before = store.contents();
    for create in [true, false] {
        let (storage, kms) = (store.storage(), store.kms());
        let begun = match create {
            true => atrest::Store::create(storage, kms, manual()),
            false => atrest::Store::open_or_create(storage, kms, manual()),
        };
        assert_eq!(kind(begun), ErrorKind::KeyringMissing);
        assert_eq!(store.contents(), before);
    }
    std::fs::remove_file(path).unwrap();
    atrest::Store::open_or_create(store.storage(), store.kms(), manual()).unwrap();
}

#[test]
fn files_whose_key_is_gone_do_not_read_the_keyring_each_time() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(1));
    let fs = mem_create(&mem, &kms).unwrap();
    let lost = mem.fork();
    let other = mem_open(&lost, &kms).unwrap();
    other.keyring().keys().rotate().unwrap();
    write_file(&other, "absent").unwrap();
    let tenant = fs.keyring().keyspaces().create("tenant").unwrap();
    let spec = FileSpec::new(FileKind::Table).keyspace(tenant);
    fs.create_new(in_dir("destroyed"), spec).unwrap().finish().unwrap();
    fs.keyring().keyspaces().danger_shred("tenant").unwrap();
    mem.put(&in_dir("absent"), &lost.read(&in_dir("absent")).unwrap());
    let opened = |name: &str, refused: ErrorKind| {
        mem.clear_log();
        for _ in 0..20 {
            assert_eq!(kind(fs.open(in_dir(name))), refused);
        }
        let keyring = Op::Open(in_dir("KEYRING").to_str().unwrap().into());
        let short = Op::Open("KEYRING".into());
        mem.log().iter().filter(|op| **op == keyring || **op == short).count()
    };
    assert_eq!(opened("destroyed", ErrorKind::KeyDestroyed), 0);
    assert_eq!(opened("absent", ErrorKind::UnknownKey), 1);
}
