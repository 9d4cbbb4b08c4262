//! What a damaged, foreign or incomplete backup is refused for.

use super::*;
use crate::support::store_of;

/// A chain of two backups with a few files.
fn two() -> Bench {
    let bench = Bench::new();
    bench.write("a.sst", FileKind::Table, &[&pattern(3000, 1)]);
    bench.write("b.sst", FileKind::Table, &[&pattern(3000, 2)]);
    bench.back_up();
    bench.write("c.sst", FileKind::Table, &[&pattern(3000, 3)]);
    bench.back_up();
    bench
}

fn objects(bench: &Bench) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(bench.path("backup/files")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// Opening, or else verifying and restoring, must fail with one of these kinds; and what is
/// restored is never a store.
fn refused(bench: &Bench, what: &str, kinds: &[ErrorKind]) {
    let to = bench.path("refused");
    drop(std::fs::remove_dir_all(&to));
    match bench.read_chain() {
        Err(error) => assert!(kinds.contains(&error.kind()), "{what}: {error:?}"),
        Ok(chain) => {
            match chain.verify(&go_on) {
                Err(error) => assert!(kinds.contains(&error.kind()), "{what}: {error:?}"),
                Ok(report) => {
                    let problem = report.problems.first().unwrap_or_else(|| panic!("{what}"));
                    assert!(kinds.contains(&problem.kind), "{what}: {problem:?}");
                }
            }
            let error = bench.restore(2, "refused").unwrap_err();
            assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
        }
    }
    assert!(!to.join("KEYRING").exists(), "{what}: a store came out");
}

use ErrorKind::{
    Authentication, BrokenBackup, CorruptHeader, IdentityMismatch, KeyringCorrupt, NotEncrypted,
    UnsupportedVersion,
};

#[test]
fn every_flipped_part_is_refused() {
    let bench = two();
    let paths = [bench.path("backup/backup.000001"), bench.path("backup/backup.000002")];
    for path in paths.iter().chain(&objects(&bench)) {
        let good = std::fs::read(path).unwrap();
        let steps = [0, 9, 20, 70, 100, 140, 165, 300, 4095, 4096, 5000, good.len() - 1];
        for at in steps.into_iter().filter(|at| *at < good.len()) {
            flip(path, at);
            let kinds = [Authentication, CorruptHeader, NotEncrypted, UnsupportedVersion];
            refused(&bench, &format!("{path:?} at {at}"), &kinds);
            std::fs::write(path, &good).unwrap();
        }
        for len in [0, 1, 4096, good.len() - 1] {
            std::fs::write(path, &good[..len]).unwrap();
            let kinds = [Authentication, ErrorKind::EmptyFile, ErrorKind::TruncatedHeader];
            refused(&bench, &format!("{path:?} cut to {len}"), &kinds);
        }
        std::fs::write(path, &good).unwrap();
    }
    let keyring = bench.path("backup/KEYRING");
    let good = std::fs::read(&keyring).unwrap();
    for at in (0..good.len()).step_by(37) {
        flip(&keyring, at);
        refused(&bench, &format!("keyring at {at}"), &[KeyringCorrupt, UnsupportedVersion]);
        std::fs::write(&keyring, &good).unwrap();
    }
    bench.restore(2, "good").unwrap();
}

#[test]
fn missing_and_swapped_files_are_refused() {
    let bench = two();
    let paths = objects(&bench);
    for path in &paths {
        let good = std::fs::read(path).unwrap();
        std::fs::remove_file(path).unwrap();
        refused(&bench, "missing", &[BrokenBackup]);
        std::fs::write(path, good).unwrap();
    }
    let (one, other) = (std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
    std::fs::write(&paths[0], &other).unwrap();
    std::fs::write(&paths[1], &one).unwrap();
    refused(&bench, "swapped", &[IdentityMismatch]);
    std::fs::write(&paths[0], &one).unwrap();
    std::fs::write(&paths[1], &other).unwrap();
    // Manifests.
    let names = ["backup/backup.000001", "backup/backup.000002"].map(|name| bench.path(name));
    let [one, other] = names.clone().map(|path| std::fs::read(path).unwrap());
    std::fs::remove_file(&names[0]).unwrap();
    refused(&bench, "the full backup is missing", &[BrokenBackup]);
    assert_eq!(kind(bench.try_back_up()), BrokenBackup);
    std::fs::write(&names[0], &other).unwrap();
    refused(&bench, "the second as the first", &[IdentityMismatch]);
    std::fs::write(&names[0], &one).unwrap();
    std::fs::write(&names[1], &one).unwrap();
    refused(&bench, "the first as the second", &[IdentityMismatch]);
    std::fs::write(&names[1], &other).unwrap();
    bench.restore(2, "good").unwrap();
    // The last one taken away: only who noted its hash can tell.
    let noted = bench.read_chain().unwrap().list().unwrap()[1].manifest_sha256.clone();
    std::fs::remove_file(&names[1]).unwrap();
    let mut spec = RestoreSpec::new(bench.path("cut"), bench.store.kms());
    spec.manifest_sha256 = Some(noted);
    assert_eq!(kind(bench.read_chain().unwrap().restore(&spec, &go_on)), BrokenBackup);
}

#[test]
fn another_chains_files_are_refused() {
    let (bench, other) = (two(), two());
    let path = &objects(&bench)[0];
    let good = std::fs::read(path).unwrap();
    std::fs::copy(&objects(&other)[0], path).unwrap();
    refused(&bench, "a foreign copy", &[IdentityMismatch]);
    std::fs::write(path, good).unwrap();
    let manifest = bench.path("backup/backup.000002");
    let good = std::fs::read(&manifest).unwrap();
    std::fs::copy(other.path("backup/backup.000002"), &manifest).unwrap();
    refused(&bench, "a foreign manifest", &[IdentityMismatch]);
    std::fs::write(&manifest, good).unwrap();
    // A chain of one store takes no backup of another.
    let snapshot = Snapshot::take(&store_of(&other.fs), other.store.data()).unwrap();
    let result = bench.chain().back_up(&store_of(&other.fs), &snapshot, &go_on);
    assert_eq!(kind(result), IdentityMismatch);
    // The second manifest of a chain that forked: written after the same first one was
    // put back.
    std::fs::remove_file(&manifest).unwrap();
    bench.write("fork.sst", FileKind::Table, &[b"x"]);
    bench.back_up();
    bench.back_up();
    let third = std::fs::read(bench.path("backup/backup.000003")).unwrap();
    std::fs::remove_file(bench.path("backup/backup.000003")).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    bench.back_up();
    std::fs::write(bench.path("backup/backup.000003"), third).unwrap();
    assert_eq!(kind(bench.read_chain().unwrap().list()), BrokenBackup);
}

#[test]
fn wrong_places_and_keys_are_refused() {
    let bench = two();
    generate_key_file(bench.path("other.key")).unwrap();
    let other = key_file(&bench.path("other.key"));
    let target = DirectoryTarget::new(bench.path("backup"));
    let opened = Chain::open_read_only(target.clone(), vec![other.clone()]);
    assert!(matches!(kind(opened), ErrorKind::Kms(_)));
    assert!(matches!(kind(Chain::open_or_create(target, other)), ErrorKind::Kms(_)));
    // A store is no place for backups, nor is anything else that is not empty.
    let store = DirectoryTarget::new(bench.store.data());
    let not_empty = ErrorKind::Io(std::io::ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(Chain::open_or_create(store.clone(), bench.store.kms())), not_empty);
    assert_eq!(kind(Chain::open(store, vec![bench.store.kms()])), BrokenBackup);
    // Backups inside of the store would back themselves up.
    std::fs::create_dir(bench.store.data().join("inside")).unwrap();
    let inside = DirectoryTarget::new(bench.store.data().join("inside"));
    let chain = Chain::open_or_create(inside, bench.store.kms()).unwrap();
    let taken = Snapshot::take(&store_of(&bench.fs), bench.store.data());
    assert_eq!(kind(taken), ErrorKind::InvalidArgument);
    drop(chain);
    // Restores go to nothing that is there.
    assert_eq!(kind(bench.restore(2, "data")), ErrorKind::KeyringExists);
    assert_eq!(kind(bench.restore(2, "backup")), ErrorKind::KeyringExists);
    std::fs::create_dir(bench.path("full")).unwrap();
    std::fs::write(bench.path("full/a.sst"), b"mine").unwrap();
    assert_eq!(kind(bench.restore(2, "full")), not_empty);
    assert_eq!(std::fs::read(bench.path("full/a.sst")).unwrap(), b"mine");
    for number in [0, 3] {
        assert_eq!(kind(bench.restore(number, "new")), ErrorKind::InvalidArgument);
    }
    // One writer at a time.
    let writer = bench.chain();
    let target = DirectoryTarget::new(bench.path("backup"));
    let second = Chain::open(target, vec![bench.store.kms()]);
    assert_eq!(kind(second), ErrorKind::KeyringBusy);
    drop(writer);
    let snapshot = Snapshot::take(&store_of(&bench.fs), bench.path("data/inside"));
    assert!(snapshot.is_ok());
    let read_only = bench.read_chain().unwrap();
    let result = read_only.back_up(&store_of(&bench.fs), &snapshot.unwrap(), &go_on);
    assert_eq!(kind(result), ErrorKind::ReadOnly);
}

#[test]
fn what_tells_a_chain_is_exact() {
    let bench = two();
    let label = bench.path("backup/BACKUP");
    let good = std::fs::read(&label).unwrap();
    let first = b"atrest backup 1\n";
    assert!(good.starts_with(first));
    // What follows the first line is for people.
    for tail in [&b""[..], b"anything \xff"] {
        std::fs::write(&label, [first, tail].concat()).unwrap();
        assert_eq!(bench.read_chain().unwrap().list().unwrap().len(), 2);
    }
    for begin in
        [&b""[..], b"atrest backup 1", b"atrest backup 1\r\n", b"atrest backup 2\n", b" atrest"]
    {
        std::fs::write(&label, begin).unwrap();
        assert_eq!(kind(bench.read_chain()), UnsupportedVersion, "{begin:?}");
    }
    std::fs::remove_file(&label).unwrap();
    assert_eq!(kind(bench.read_chain()), BrokenBackup);
}

#[test]
fn a_damaged_store_is_not_backed_up_in_silence() {
    let bench = Bench::new();
    let sealed = FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks);
    bench.write("a.sst", sealed, &[&pattern(50_000, 1)]);
    let path = bench.store.data().join("a.sst");
    let good = std::fs::read(&path).unwrap();
    for (at, expected) in [(200, CorruptHeader), (130, CorruptHeader), (9000, Authentication)] {
        flip(&path, at);
        assert_eq!(kind(bench.try_back_up()), expected, "{at}");
        std::fs::write(&path, &good).unwrap();
    }
    // A file of another store.
    let other = Bench::new();
    other.write("a.sst", sealed, &[&pattern(50_000, 1)]);
    std::fs::copy(other.store.data().join("a.sst"), &path).unwrap();
    assert_eq!(kind(bench.try_back_up()), IdentityMismatch);
    assert_eq!(bench.read_chain().unwrap().list().unwrap(), []);
}

/// The appends of a log in a store, by its own handle.
fn appends(bench: &Bench, dir: &str, name: &str) -> Vec<Vec<u8>> {
    let store = Store::open_read_only(bench.path(dir), bench.store.kms(), manual()).unwrap();
    let reader = store.files().open(bench.path(dir).join(name)).unwrap();
    let mut frame = Vec::new();
    let mut read = |number| reader.read_frame(number, &mut frame).unwrap().then(|| frame.clone());
    (0..).map_while(&mut read).collect()
}

#[test]
fn a_torn_log_is_backed_up_as_far_as_it_goes_and_told() {
    use atrest::fs::TornReason;
    let bench = Bench::new();
    let log = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
    let lens = [1, 200_000, 3, 131_072, 131_073, 9, 9, 9, 70_000, 2];
    let all: Vec<Vec<u8>> = lens.iter().map(|len| pattern(*len, 7)).collect();
    let slices: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    for name in ["cut.log", "first.log", "whole.log"] {
        bench.write(name, log, &slices);
    }
    let third = 4096 + 21 + 200_020;
    flip(&bench.store.data().join("cut.log"), third + 10);
    let first = bench.store.data().join("first.log");
    let good = std::fs::read(&first).unwrap();
    let mut bytes = good.clone();
    bytes[4096] = 0xff;
    std::fs::write(&first, &bytes).unwrap();

    let report = bench.back_up();
    let told: Vec<_> = report
        .torn
        .iter()
        .map(|torn| (torn.path.to_str().unwrap(), torn.reason, torn.kept_bytes, torn.lost_bytes))
        .collect();
    let len = bytes.len() as u64;
    let expected = [
        ("cut.log", Some(TornReason::Authentication), 200_001, len - third as u64),
        ("first.log", Some(TornReason::Length), 0, len - 4096),
    ];
    assert_eq!(told, expected);
    // The next backup looks again, does not forget it, and keeps no second copy of the same.
    let again = bench.back_up();
    assert_eq!((again.info.copied_files, again.torn), (0, report.torn));

    bench.restore(2, "restored").unwrap();
    assert_eq!(appends(&bench, "restored", "whole.log"), all);
    assert_eq!(appends(&bench, "restored", "cut.log"), all[..2]);
    assert!(appends(&bench, "restored", "first.log").is_empty());
    // Bytes that are good again, or were never bad and read wrongly, are missing no longer.
    std::fs::write(&first, &good).unwrap();
    flip(&bench.store.data().join("cut.log"), third + 10);
    let mended = bench.back_up();
    assert_eq!((mended.info.copied_files, mended.torn, mended.info.lacks), (2, vec![], vec![]));
    bench.restore(3, "mended").unwrap();
    for name in ["cut.log", "first.log", "whole.log"] {
        assert_eq!(appends(&bench, "mended", name), all, "{name}");
    }
    assert_eq!(bench.back_up().info.copied_files, 0);
}

#[test]
fn an_append_under_way_makes_no_torn_log() {
    let bench = Bench::new();
    let log = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
    let path = bench.store.data().join("wal");
    let mut writer = bench.fs.create_new(&path, log).unwrap();
    writer.append(b"synced").unwrap();
    writer.sync().unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &[0, 0, 1, 0, 7, 7, 7]).unwrap();
    assert_eq!(bench.back_up().torn, []);
    drop(writer);
    std::io::Write::write_all(&mut file, &[7]).unwrap();
    let report = bench.back_up();
    assert_eq!((report.torn.len(), report.torn[0].lost_bytes), (1, 8));
}

/// What no append under way looks like.
#[test]
fn damage_in_a_log_that_is_being_written_is_told() {
    use atrest::fs::TornReason;
    let bench = Bench::new();
    let log = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
    let path = bench.store.data().join("wal");
    let mut writer = bench.fs.create_new(&path, log).unwrap();
    writer.append(b"synced").unwrap();
    writer.append(b"damaged").unwrap();
    writer.sync().unwrap();
    let second = 4096 + 20 + 6;
    for (at, reason) in [(second + 20, TornReason::Authentication), (second, TornReason::Length)] {
        flip(&path, at);
        let torn = bench.back_up().torn;
        let told: Vec<_> = torn.iter().map(|torn| (torn.reason, torn.kept_bytes)).collect();
        assert_eq!(told, [(Some(reason), 6)]);
        flip(&path, at);
    }
    writer.append(b"more").unwrap();
    assert_eq!(bench.back_up().torn, []);
}
