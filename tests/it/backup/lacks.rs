//! What a backup lacks it says, in its report, its manifest, and wherever it is read; and
//! what it must not lack.

use std::os::unix::fs::symlink;

use super::counting::Counting;
use super::*;

fn told(lacks: &[atrest::backup::Lack]) -> Vec<(&Path, LackReason)> {
    lacks.iter().map(|lack| (lack.path.as_path(), lack.why)).collect()
}

#[test]
fn a_backup_says_which_directories_and_links_it_lacks() {
    let bench = Bench::new();
    fill(&bench);
    assert_eq!(bench.back_up().info.lacks, []);
    let fast = bench.path("fastdisk");
    std::fs::create_dir(&fast).unwrap();
    let mut writer = bench.fs.create_new(fast.join("wal"), FileKind::Log).unwrap();
    writer.append(b"only here").unwrap();
    writer.finish().unwrap();
    symlink(&fast, bench.store.data().join("wals")).unwrap();
    let fast = fast.canonicalize().unwrap();
    let expected =
        vec![(fast.as_path(), LackReason::Elsewhere), (Path::new("wals"), LackReason::Link)];

    let report = bench.back_up();
    assert_eq!(told(&report.info.lacks), expected);
    let chain = bench.read_chain().unwrap();
    assert_eq!(told(&chain.list().unwrap()[1].lacks), expected);
    assert_eq!(told(&chain.verify(&go_on).unwrap().lacks), expected);
    assert_eq!(told(&bench.restore(2, "restored").unwrap().lacks), expected);
    let json = serde_json::to_value(&report.info).unwrap();
    assert_eq!(json["lacks"][0]["why"], "elsewhere");
}

#[test]
fn a_torn_log_and_an_emptied_file_are_in_the_manifest_as_such() {
    let bench = Bench::new();
    let log = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
    bench.write("wal", log, &[b"first", b"second"]);
    bench.write("a.sst", FileKind::Table, &[&pattern(5000, 1)]);
    std::fs::write(bench.store.data().join("LOCK"), b"").unwrap();
    assert_eq!(bench.back_up().info.lacks, []);
    let (wal, table) = (bench.store.data().join("wal"), bench.store.data().join("a.sst"));
    let len = std::fs::metadata(&wal).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&wal).unwrap().set_len(len - 1).unwrap();
    std::fs::OpenOptions::new().write(true).open(&table).unwrap().set_len(0).unwrap();
    bench.back_up();
    let chain = bench.read_chain().unwrap();
    let lacks = &chain.list().unwrap()[1].lacks;
    let expected =
        [(Path::new("a.sst"), LackReason::Emptied), (Path::new("wal"), LackReason::Torn)];
    assert_eq!(told(lacks), expected);
    assert_eq!((lacks[0].lost_bytes, lacks[1].kept_bytes), (5000, 5));
    assert_eq!(lacks[1].lost_bytes, 20 + 6 - 1);
}

/// What a crash leaves of a file that had nothing yet is empty; what has something is not.
#[test]
fn a_file_that_lost_its_header_is_named() {
    let bench = Bench::new();
    let log = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
    bench.write("wal", log, &[&pattern(100_000, 1)]);
    let wal = bench.store.data().join("wal");
    let whole = std::fs::read(&wal).unwrap();
    let cases = [(4096, 0), (whole.len(), 0), (whole.len() - 1, whole.len()), (4096, whole.len())];
    for (zeros, lost) in cases {
        let mut damaged = whole.clone();
        damaged[..zeros].fill(0);
        if lost == 0 {
            damaged.truncate(zeros);
        }
        // Another file, of which no backup has bytes.
        std::fs::remove_file(&wal).unwrap();
        std::fs::write(&wal, damaged).unwrap();
        let lacks = bench.back_up().info.lacks;
        let named: Vec<_> = lacks.iter().map(|lack| (lack.why, lack.lost_bytes)).collect();
        let expected = (lost > 0).then_some((LackReason::Emptied, lost as u64));
        assert_eq!(named, Vec::from_iter(expected), "{zeros} zeros");
    }
}

#[test]
fn a_file_system_mounted_inside_of_the_store_is_backed_up_too() {
    let bench = Bench::new();
    fill(&bench);
    let mount = bench.store.data().join("disks/wals");
    bench.write("disks/wals/7/log", FileKind::Log, &[b"on another disk"]);
    bench.write("disks/wals/8.log", FileKind::Log, &[b"there too"]);
    let vfs = Counting { mount: Some(mount.clone()), ..Counting::default() };
    let fs = store_of(&bench.fs).files().through(Arc::new(vfs));
    let links = |dir: &Path| {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        entries.filter(|name| name.to_str().unwrap().starts_with("KEYRING.staging.")).count()
    };
    // What a killed backup left there goes as well.
    std::fs::create_dir(mount.join("KEYRING.staging.dead")).unwrap();
    let snapshot = Snapshot::take(&store_of(&fs), bench.store.data()).unwrap();
    assert_eq!((links(&bench.store.data()), links(&mount)), (1, 1));
    bench.chain().back_up(&store_of(&fs), &snapshot, &go_on).unwrap();
    drop(snapshot);
    assert_eq!((links(&bench.store.data()), links(&mount)), (0, 0));
    bench.restore(1, "restored").unwrap();
    bench.assert_restored("restored", &bench.contents("data", bench.store.kms()));
}

#[test]
fn files_that_keep_coming_do_not_hold_a_snapshot_up() {
    let bench = Bench::new();
    fill(&bench);
    let table = bench.store.data().join("000001.sst");
    let vfs = Counting { multiplies: Some(table), ..Counting::default() };
    let fs = store_of(&bench.fs).files().through(Arc::new(vfs));
    let snapshot = Snapshot::take(&store_of(&fs), bench.store.data()).unwrap();
    let report = bench.chain().back_up(&store_of(&fs), &snapshot, &go_on).unwrap();
    bench.restore(1, "restored").unwrap();
    assert_eq!(bench.contents("restored", bench.store.kms()).len() as u64, report.info.files);
}

#[test]
fn a_keyspace_without_files_is_restored() {
    let bench = Bench::new();
    fill(&bench);
    for name in ["tenant", "shredded"] {
        bench.fs.keyring().keyspaces().create(name).unwrap();
    }
    bench.fs.keyring().keyspaces().danger_shred("shredded").unwrap();
    bench.back_up();
    bench.restore(1, "restored").unwrap();
    let storage = atrest::keyring::DirectoryStorage::new(bench.path("restored"));
    let restored = Keyring::open_read_only(storage, bench.store.kms(), manual()).unwrap();
    let names: Vec<_> = restored.keyspaces().list().into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["default", "tenant"]);
}

#[test]
fn a_chain_without_a_backup_is_not_good() {
    let bench = Bench::new();
    drop(bench.chain());
    assert_eq!(kind(bench.read_chain().unwrap().verify(&go_on)), ErrorKind::BrokenBackup);
}

#[test]
fn names_like_a_manifests_are_strangers() {
    let bench = Bench::new();
    fill(&bench);
    bench.back_up();
    for name in ["backup.000000", "backup.00002", "backup.0000002", "backup.+00002", "backup.2"] {
        std::fs::write(bench.path("backup").join(name), b"a stranger's").unwrap();
    }
    assert_eq!(bench.read_chain().unwrap().verify(&go_on).unwrap().backups, 1);
    bench.restore(1, "restored").unwrap();
    assert_eq!(bench.back_up().info.number, 2);
}

#[test]
fn no_copy_gives_its_reader_other_rights() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let bench = Bench::new();
    bench.write("sub/a.sst", FileKind::Table, &[b"a"]);
    let set = |path: PathBuf, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(bench.store.data().join("sub/a.sst"), 0o6755);
    set(bench.store.data().join("sub"), 0o6750);
    bench.back_up();
    bench.restore(1, "restored").unwrap();
    let mode = |name: &str| std::fs::metadata(bench.path(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("restored/sub/a.sst"), 0o755);
    assert_eq!(mode("restored/sub") & 0o4777, 0o750);
}

#[test]
fn a_verification_covers_what_of_the_store_is_elsewhere() {
    let bench = Bench::new();
    fill(&bench);
    let fast = bench.path("fastdisk");
    std::fs::create_dir(&fast).unwrap();
    let spec = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmChunks);
    let mut writer = bench.fs.create_new(fast.join("wal"), spec).unwrap();
    writer.append(b"only here").unwrap();
    writer.finish().unwrap();
    let verify = |dir: &Path| atrest::verify::verify(&bench.fs, dir, &go_on).unwrap();
    let good = verify(&bench.store.data());
    assert_eq!((&good.elsewhere[..], &good.problems[..]), (&[][..], &[][..]));
    assert_eq!(verify(&fast).authenticated_files, 1);
    assert_eq!(verify(&fast).elsewhere, [bench.store.data().canonicalize().unwrap()]);
    // A file that is moved to another disk, with a link in its place, is opened through it.
    std::fs::create_dir(bench.path("slow")).unwrap();
    std::fs::rename(fast.join("wal"), bench.path("slow/wal")).unwrap();
    symlink(bench.path("slow/wal"), fast.join("wal")).unwrap();
    assert_eq!(verify(&bench.store.data()).authenticated_files, good.authenticated_files);
    let damaged = std::fs::OpenOptions::new().write(true).open(bench.path("slow/wal")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&damaged, b"?", 4100).unwrap();
    assert_eq!(
        verify(&bench.store.data()).problems[0].path,
        fast.canonicalize().unwrap().join("wal")
    );
    // A directory that is not mounted is not an empty one.
    std::fs::remove_dir_all(&fast).unwrap();
    std::fs::create_dir(&fast).unwrap();
    let problems = verify(&bench.store.data()).problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].path, fast.canonicalize().unwrap());
}

#[test]
fn what_was_shredded_hinders_no_backup_and_is_in_none() {
    let bench = Bench::new();
    let keyspaces = bench.fs.keyring().keyspaces();
    let [gone, kept] = ["gone", "kept"].map(|name| keyspaces.create(name).unwrap());
    let table = FileSpec::new(FileKind::Table);
    bench.write("old.sst", table.keyspace(gone), &[b"in the first backup"]);
    bench.write("kept.sst", table.keyspace(kept), &[b"kept"]);
    assert_eq!(bench.back_up().info.lacks, []);
    bench.write("new.sst", table.keyspace(gone), &[b"in none"]);
    keyspaces.danger_shred("gone").unwrap();

    let report = bench.back_up();
    let expected = vec![
        (Path::new("new.sst"), LackReason::KeyDestroyed),
        (Path::new("old.sst"), LackReason::KeyDestroyed),
    ];
    assert_eq!((report.info.files, told(&report.info.lacks)), (1, expected));
    assert_eq!(report.info.lacks[0].lost_bytes, 4096 + 7);
    assert_eq!(told(&bench.restore(2, "restored").unwrap().lacks).len(), 2);
    let files = bench.contents("restored", bench.store.kms());
    assert_eq!(files.into_keys().collect::<Vec<_>>(), [Path::new("kept.sst")]);
    assert!(bench.read_chain().unwrap().verify(&go_on).unwrap().problems.is_empty());
    let json = serde_json::to_value(&report.info).unwrap();
    assert_eq!(json["lacks"][0]["why"], "key-destroyed");
}

#[test]
fn what_is_shredded_while_a_backup_is_made_is_named_too() {
    let bench = Bench::new();
    let keyspaces = bench.fs.keyring().keyspaces();
    let table = FileSpec::new(FileKind::Table);
    let gone = keyspaces.create("gone").unwrap();
    bench.write("gone.sst", table.keyspace(gone), &[b"gone"]);
    bench.write("kept.sst", table, &[b"kept"]);
    let store = store_of(&bench.fs);
    let snapshot = Snapshot::take(&store, bench.store.data()).unwrap();
    let shredded = std::sync::Once::new();
    // Told first when all is planned, and before anything is copied.
    let on = |_: WorkProgress| {
        shredded.call_once(|| keyspaces.danger_shred("gone").unwrap());
        ControlFlow::Continue(())
    };
    let report = bench.chain().back_up(&store, &snapshot, &on).unwrap();
    let expected = vec![(Path::new("gone.sst"), LackReason::KeyDestroyed)];
    assert_eq!((report.info.files, told(&report.info.lacks)), (1, expected));
    bench.restore(1, "restored").unwrap();
    // Another store's file is still an error, and not something that is lacking.
    let foreign = Bench::new();
    foreign.write("foreign.sst", table, &[b"another store's"]);
    std::fs::copy(foreign.store.data().join("foreign.sst"), bench.store.data().join("foreign.sst"))
        .unwrap();
    assert_eq!(kind(bench.try_back_up()), ErrorKind::IdentityMismatch);
}

#[test]
fn what_is_shredded_in_the_middle_of_its_copy_is_named_too() {
    let bench = Bench::new();
    let keyspaces = bench.fs.keyring().keyspaces();
    let table = FileSpec::new(FileKind::Table);
    let gone = keyspaces.create("gone").unwrap();
    bench.write("gone.sst", table.keyspace(gone), &[&pattern(3 << 20, 1)]);
    let store = store_of(&bench.fs);
    let snapshot = Snapshot::take(&store, bench.store.data()).unwrap();
    let shredded = std::sync::Once::new();
    let on = |progress: WorkProgress| {
        if progress.bytes_done > 0 {
            shredded.call_once(|| keyspaces.danger_shred("gone").unwrap());
        }
        ControlFlow::Continue(())
    };
    let report = bench.chain().back_up(&store, &snapshot, &on).unwrap();
    assert!(shredded.is_completed());
    let expected = vec![(Path::new("gone.sst"), LackReason::KeyDestroyed)];
    assert_eq!((report.info.files, told(&report.info.lacks)), (0, expected));
    let verified = bench.read_chain().unwrap().verify(&go_on).unwrap();
    assert_eq!(verified.problems.len(), 0, "the part that was copied is in nobody's way");
    // A request to stop is heard in the middle of such a copy too.
    let other = Bench::new();
    let keyspaces = other.fs.keyring().keyspaces();
    let gone = keyspaces.create("gone").unwrap();
    other.write("gone.sst", table.keyspace(gone), &[&pattern(3 << 20, 1)]);
    let store = store_of(&other.fs);
    let snapshot = Snapshot::take(&store, other.store.data()).unwrap();
    let stop = |progress: WorkProgress| {
        if progress.bytes_done == 0 {
            return ControlFlow::Continue(());
        }
        drop(keyspaces.danger_shred("gone"));
        ControlFlow::Break(())
    };
    let stopped = other.chain().back_up(&store, &snapshot, &stop);
    assert_eq!(kind(stopped), ErrorKind::Io(std::io::ErrorKind::Interrupted));
}

/// What only damage leaves behind fails a backup; what a stopped writer may have left is named.
#[test]
fn a_damaged_file_is_an_error_and_a_cut_one_is_named() {
    let bench = Bench::new();
    let table = FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks);
    bench.write("t.sst", table, &[&pattern(5000, 1)]);
    let path = bench.store.data().join("t.sst");
    let good = std::fs::read(&path).unwrap();
    // In the only chunk, in its tag, in the end.
    for at in [4096, 4096 + 5001, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert_eq!(kind(bench.try_back_up()), ErrorKind::Authentication, "byte {at}");
    }
    // No file ends or stops with less than an end behind its header.
    std::fs::write(&path, &good[..4096 + 10]).unwrap();
    let report = bench.back_up();
    assert_eq!(told(&report.info.lacks), [(Path::new("t.sst"), LackReason::Unfinished)]);
    std::fs::write(&path, &good).unwrap();
    assert_eq!(bench.back_up().info.lacks, []);
}

/// Writers past the page cache cut the padding of their last page off behind every flush.
#[test]
fn a_file_that_becomes_shorter_before_it_is_copied_is_copied_as_it_is() {
    let bench = Bench::new();
    let bytes = pattern(5000, 1);
    bench.write("t.sst", FileKind::Table, &[&bytes]);
    let path = bench.store.data().join("t.sst");
    let store = store_of(&bench.fs);
    let snapshot = Snapshot::take(&store, bench.store.data()).unwrap();
    let table = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    table.set_len(4096 + 4900).unwrap();
    let report = bench.chain().back_up(&store, &snapshot, &go_on).unwrap();
    assert_eq!((report.info.bytes, told(&report.info.lacks)), (4900, vec![]));
    drop(snapshot);
    bench.restore(1, "restored").unwrap();
    let restored = bench.contents("restored", bench.store.kms());
    assert_eq!(restored[Path::new("t.sst")].bytes, bytes[..4900]);
    // It is known by what was copied.
    assert_eq!(bench.back_up().info.copied_files, 0);
    table.set_len(4096 + 4800).unwrap();
    assert_eq!(bench.back_up().info.copied_files, 1);
}

#[test]
fn a_log_that_becomes_shorter_before_it_is_copied_is_named() {
    let bench = Bench::new();
    let log = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
    bench.write("wal", log, &[b"first", b"second"]);
    let store = store_of(&bench.fs);
    let snapshot = Snapshot::take(&store, bench.store.data()).unwrap();
    let path = bench.store.data().join("wal");
    let wal = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    wal.set_len(4096 + 20 + 5).unwrap();
    let report = bench.chain().back_up(&store, &snapshot, &go_on).unwrap();
    assert_eq!(told(&report.info.lacks), [(Path::new("wal"), LackReason::Torn)]);
    assert_eq!((report.torn[0].reason, report.torn[0].lost_bytes), (None, 26));
}
