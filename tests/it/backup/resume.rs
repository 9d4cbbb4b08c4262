//! Backups and restores that were cancelled or killed.

use atrest::keyring::DirectoryStorage;
use atrest::names::partial_name;
use atrest::store::StorePlace;
use atrest_testkit::MemFs;
use atrest_testkit::mem_fs::{Fault, How, Op, OpKind};

use super::*;
use crate::support::{DIR, ScriptedKms, in_dir, mem_create, write_file};

/// Stops after so many calls.
fn stop_after(calls: u64) -> impl Fn(WorkProgress) -> ControlFlow<()> + Sync {
    let left = AtomicU64::new(calls);
    move |_| match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)) {
        Ok(_) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

const CANCELLED: ErrorKind = ErrorKind::Io(std::io::ErrorKind::Interrupted);

#[test]
fn a_cancelled_backup_is_none_and_is_continued() {
    let bench = Bench::new();
    for number in 0..30 {
        bench.write(&format!("{number}.sst"), FileKind::Table, &[&pattern(9000, number)]);
    }
    let log = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
    bench.write("wal", log, &[b"a", b"bcd", b"ef"]);
    for calls in [0, 1, 7, 20] {
        let snapshot = Snapshot::take(&store_of(&bench.fs), bench.store.data()).unwrap();
        let stopped = bench.chain().back_up(&store_of(&bench.fs), &snapshot, &stop_after(calls));
        assert_eq!(kind(stopped), CANCELLED);
        let chain = bench.read_chain().unwrap();
        assert_eq!(chain.list().unwrap(), []);
        let spec = RestoreSpec::new(bench.path("none"), bench.store.kms());
        assert_eq!(kind(chain.restore(&spec, &go_on)), ErrorKind::InvalidArgument);
    }
    let made = std::fs::read_dir(bench.path("backup/files")).unwrap().count() as u64;
    assert!(made > 0);
    // A file that is gone by now, and one that a killed process was writing.
    bench.fs.remove(bench.store.data().join("0.sst")).unwrap();
    std::fs::write(bench.path("backup/tmp/abc"), b"torn").unwrap();
    std::fs::write(bench.path("backup/files").join("0".repeat(32)), b"junk").unwrap();
    let report = bench.back_up();
    assert!(report.resumed_files >= made - 1, "{} of {made}", report.resumed_files);
    let check = bench.read_chain().unwrap().verify(&go_on).unwrap();
    assert_eq!((check.files, check.leftovers, check.problems.len()), (30, 0, 0));
    assert_eq!(std::fs::read_dir(bench.path("backup/tmp")).unwrap().count(), 0);
    bench.restore(1, "restored").unwrap();
    bench.assert_restored("restored", &bench.contents("data", bench.store.kms()));
}

#[test]
fn a_cancelled_restore_is_no_store_and_is_continued() {
    let bench = Bench::new();
    fill(&bench);
    bench.back_up();
    bench.write("later.sst", FileKind::Table, &[b"later"]);
    bench.back_up();
    let chain = bench.read_chain().unwrap();
    let mut spec = RestoreSpec::new(bench.path("new"), bench.store.kms());
    for calls in [0, 1, 5, 9] {
        assert_eq!(kind(chain.restore(&spec, &stop_after(calls))), CANCELLED);
        let storage = DirectoryStorage::new(bench.path("new"));
        let opened = Keyring::open(storage, bench.store.kms(), manual());
        assert_eq!(kind(opened), ErrorKind::KeyringMissing);
    }
    // Not by another restore, nor with what somebody else put there.
    spec.number = Some(1);
    assert_eq!(kind(chain.restore(&spec, &go_on)), ErrorKind::IdentityMismatch);
    spec.number = None;
    std::fs::write(bench.path("new/stranger"), b"mine").unwrap();
    let not_empty = ErrorKind::Io(std::io::ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(chain.restore(&spec, &go_on)), not_empty);
    std::fs::remove_file(bench.path("new/stranger")).unwrap();
    // A file of the right length that is wrong is not taken for good, even in suite 1.
    let wrong = bench.path("new/000001.sst");
    if let Ok(mut bytes) = std::fs::read(&wrong) {
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&wrong, bytes).unwrap();
    }
    let report = chain.restore(&spec, &go_on).unwrap();
    assert!(report.resumed_files > 0);
    bench.assert_restored("new", &bench.contents("data", bench.store.kms()));
    assert_eq!(kind(chain.restore(&spec, &go_on)), ErrorKind::KeyringExists);
}

#[test]
fn a_restore_killed_after_its_last_step_is_finished() {
    let bench = Bench::new();
    fill(&bench);
    bench.back_up();
    let chain = bench.read_chain().unwrap();
    let spec = RestoreSpec::new(bench.path("new"), bench.store.kms());
    let cancelled = chain.restore(&spec, &stop_after(3));
    assert_eq!(kind(cancelled), CANCELLED);
    let note = std::fs::read(bench.path("new/KEYRING.restore/KEYRING.from")).unwrap();
    let done = chain.restore(&spec, &go_on).unwrap();
    // As it is between the move of the keyring and the end.
    std::fs::create_dir(bench.path("new/KEYRING.restore")).unwrap();
    std::fs::write(bench.path("new/KEYRING.restore/KEYRING.from"), note).unwrap();
    let again = chain.restore(&spec, &go_on).unwrap();
    assert_eq!((again.store_id, again.files), (done.store_id, done.files));
    assert!(!bench.path("new/KEYRING.restore").exists());
    bench.assert_restored("new", &bench.contents("data", bench.store.kms()));
}

#[test]
fn links_of_a_killed_backup_are_swept_and_those_of_a_living_one_stay() {
    let bench = Bench::new();
    fill(&bench);
    let staging = || {
        let entries = std::fs::read_dir(bench.store.data()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("KEYRING.staging.")).count()
    };
    let dead = bench.store.data().join("KEYRING.staging.dead");
    std::fs::create_dir(&dead).unwrap();
    std::fs::write(dead.join("KEYRING.lock"), b"").unwrap();
    std::fs::hard_link(bench.store.data().join("000001.sst"), dead.join("0")).unwrap();
    let living = Snapshot::take(&store_of(&bench.fs), bench.store.data()).unwrap();
    assert_eq!(staging(), 1);
    let second = Snapshot::take(&store_of(&bench.fs), bench.store.data()).unwrap();
    assert_eq!(staging(), 2);
    drop((living, second));
    assert_eq!(staging(), 0);
    assert!(bench.store.data().join("000001.sst").exists());
}

/// Plaintext that only its owner may read, of 2001.
const SECRET: &[u8] = b"in plain sight";
const SECRET_MODE: u32 = 0o600;
const SECRET_NS: i64 = 1_000_000_000_000_000_000;

/// A store in memory with one backup.
fn backed_up(keyspaces: u32) -> (MemFs, Arc<ScriptedKms>) {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(1));
    mem.put_dir(Path::new("/backup"));
    let fs = mem_create(&mem, &kms).unwrap();
    let mut settings = Settings::default();
    settings.plaintext = PlaintextPolicy::Allow;
    fs.keyring().keys().configure(&settings).unwrap();
    for number in 0..keyspaces {
        fs.keyring().keyspaces().create(&format!("tenant {number}")).unwrap();
    }
    write_file(&fs, "a.sst").unwrap();
    mem.put(&in_dir("b.conf"), SECRET);
    let (mode, modified_ns) = (Some(SECRET_MODE), Some(SECRET_NS));
    let attributes = Attributes { owner: None, mode, modified_ns };
    mem.set_attributes(&in_dir("b.conf"), &attributes).unwrap();
    let store = store_of(&fs);
    let snapshot = Snapshot::take(&store, DIR).unwrap();
    let target = DirectoryTarget::with_vfs("/backup", Arc::new(mem.clone()));
    let chain = Chain::open_or_create(target, kms.clone()).unwrap();
    chain.back_up(&store, &snapshot, &go_on).unwrap();
    drop((chain, snapshot, store, fs));
    (mem.fork(), kms)
}

fn restore_in(mem: &MemFs, kms: &Arc<ScriptedKms>) -> Result<RestoreReport, Error> {
    let vfs = Arc::new(mem.clone());
    let target = DirectoryTarget::with_vfs("/backup", vfs.clone());
    let kms: Arc<dyn Kms> = kms.clone();
    let chain = Chain::open_read_only(target, vec![kms.clone()])?;
    let mut spec = RestoreSpec::new("/new", kms);
    (spec.vfs, spec.options) = (vfs, manual());
    chain.restore(&spec, &go_on)
}

fn open_restored(mem: &MemFs, kms: &Arc<ScriptedKms>) -> Store {
    let vfs = Arc::new(mem.clone());
    let storage = DirectoryStorage::with_vfs("/new", vfs.clone());
    Store::open(StorePlace::new(storage, vfs), kms.clone(), manual()).unwrap()
}

fn check_restored(mem: &MemFs, kms: &Arc<ScriptedKms>) {
    let store = open_restored(mem, kms);
    for (name, content) in [("a.sst", &b"a.sst"[..]), ("b.conf", SECRET)] {
        let reader = store.files().open(Path::new("/new").join(name)).unwrap();
        let mut found = vec![0; reader.len().unwrap() as usize];
        reader.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, content, "{name}");
    }
    let stat = mem.stat(Path::new("/new/b.conf")).unwrap();
    assert_eq!((stat.mode & 0o777, stat.modified_ns), (SECRET_MODE, SECRET_NS));
    let left = mem.list(Path::new("/new")).unwrap();
    let left = left.iter().map(|entry| entry.path.file_name().unwrap().to_str().unwrap());
    assert_eq!(left.filter(|name| name.starts_with(".atrest-")).count(), 0);
}

#[test]
fn a_file_that_could_not_be_made_durable_is_written_anew() {
    let (base, kms) = backed_up(0);
    for name in ["a.sst", "b.conf"] {
        let mem = base.fork();
        let names = [name.to_owned(), partial_name(name.as_bytes(), 0)];
        for name in names.clone() {
            let (on, how) = (OpKind::Sync, How::Error(5));
            mem.arm(Fault { on, name, after: 0, times: 1, how });
        }
        assert!(matches!(kind(restore_in(&mem, &kms)), ErrorKind::Io(_)));
        assert!(mem.disarm());
        mem.clear_log();
        restore_in(&mem, &kms).unwrap();
        let is_sync = |op: &Op| matches!(op, Op::Sync(synced, _) if names.contains(synced));
        assert!(mem.log().iter().any(is_sync), "{name}");
        for (_, left) in mem.crashes() {
            check_restored(&left, &kms);
        }
    }
}

#[test]
fn a_restore_killed_anywhere_is_continued_to_durable_files_as_they_were() {
    let (base, kms) = backed_up(0);
    let places = ["b.conf".into(), partial_name(b"b.conf", 0)];
    let places = places.map(|name| Path::new("/new").join(name));
    // Threads do not take the same steps twice: other runs look at those between.
    for step in (0..).step_by(3) {
        let mem = base.fork();
        mem.stop_at(step);
        let restored = restore_in(&mem, &kms);
        if !mem.revive() {
            restored.unwrap();
            return;
        }
        for path in places.iter().filter(|path| mem.read(path).is_some_and(|it| !it.is_empty())) {
            assert_eq!(mem.stat(path).unwrap().mode & 0o077, 0, "{path:?} at {step}");
        }
        match restore_in(&mem, &kms) {
            // It was done already.
            Err(error) if error.kind() == ErrorKind::KeyringExists => {}
            other => drop(other.unwrap()),
        }
        for (_, left) in mem.crashes() {
            check_restored(&left, &kms);
        }
    }
}

#[test]
fn an_audit_trail_is_restored_with_its_archives_wherever_it_is_killed() {
    let keyspaces = 200;
    let (base, kms) = backed_up(keyspaces);
    let check = |mem: &MemFs| {
        let store = open_restored(mem, &kms);
        assert_eq!(store.keyspaces().list().len(), keyspaces as usize + 1);
        // Each was created and got its first key.
        assert!(store.audit().events().unwrap().len() > 2 * keyspaces as usize);
    };
    let whole = base.fork();
    restore_in(&whole, &kms).unwrap();
    let archives = whole.files().into_keys().filter(|name| name.starts_with("KEYRING.audit."));
    assert!(archives.count() > 0);
    check(&whole);
    let is_move = |op: &Op| matches!(op, Op::Rename(from, to) if from == to);
    let steps: Vec<_> = (0..).zip(whole.log()).filter(|(_, op)| is_move(op)).collect();
    assert!(steps.len() > 1, "{steps:?}");
    for step in steps.into_iter().flat_map(|(step, _)| [step, step + 1]) {
        let mem = base.fork();
        mem.stop_at(step);
        assert!(restore_in(&mem, &kms).is_err());
        mem.revive();
        // Without a crash, and with any.
        for left in [mem.clone()].into_iter().chain(mem.crashes().into_iter().map(|it| it.1)) {
            restore_in(&left, &kms).unwrap();
            check(&left);
        }
    }
}
